"""The network of one pod, as the agent disturbs it: a thread in the pod's network namespace, with the same rules as a launched graph has.

Only packets that the pod sends are taken. So each direction of a link is disturbed at its sender. The packets go through a device `wire` in
the pod. The device goes away with the thread or the agent, however it ends. Then every packet takes its old way again.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

from graphquake.harness.observation.sock_diag import SockDiag
from graphquake.harness.processes.network.pump import Pings, Pump
from graphquake.harness.processes.network.rtnetlink import RtNetlink
from graphquake.harness.processes.network.wire_device import (
    OWN,
    WIRE,
    Diversions,
    new_socket,
    new_wire,
    set_namespace,
)

Order: TypeAlias = dict[str, Any]
# Sends an answer to the harness: the id of the order, whether it was carried out, the reason if not, and the result.
Tell: TypeAlias = Callable[..., None]
# The device of an agent that was killed is gone soon after it.
GONE_WITHIN_S: Final = 2.0
CLOSED_WITHIN_S: Final = 2.0
_REVERSE_PATH: Final = Path("/proc/sys/net/ipv4/conf/all/rp_filter")
_STRICT: Final = "1"
_NEEDS: Final = "it needs the capabilities SYS_ADMIN and NET_ADMIN"


def space_of(pid: object) -> int:
    """Return the number that identifies the network namespace of a process."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def _spaces_of_node() -> set[int]:
    """Return the network namespaces in which no fault may begin: those of the node's first process and of the agent itself."""
    found = set()
    for pid in (1, "self"):
        with suppress(PermissionError):
            found.add(space_of(pid))
    return found


class PodNetwork:
    """The network of one pod. Its orders are carried out by a thread, one after the other. `close` it.

    Args:
        pid: a process of the pod.
        address: the IPv4 address of the pod.
        tell: sends an answer.

    Attributes:
        space: identifies the pod's network namespace.
        works: false if the thread could not enter it.

    Raises:
        OSError: if the process is gone.
    """

    def __init__(self, pid: int, address: str, tell: Tell) -> None:
        self.space = space_of(pid)
        self._address = address
        self._tell = tell
        self.works = True
        self._home_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._wakes, self._woken = socket.socketpair()
        self._pings = Pings()
        self._met_s: dict[int, float] = {}
        # The orders that wait for a first packet: the key of the rule -> the id of the order, and its end.
        self._waits: dict[int, tuple[int, float]] = {}
        self._to: dict[int, list[str]] = {}
        self._was_strict = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, asked: Order) -> None:
        """Let the thread carry out an order."""
        self._orders.put(asked)
        self._wakes.send(b"\0")

    def close(self) -> None:
        """Let every packet take its old way again."""
        self._orders.put(None)
        self._wakes.send(b"\0")
        self._thread.join(CLOSED_WITHIN_S)

    # -------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            self._enter()
        except OSError as error:
            self._refuse(str(error.strerror or error))
            return
        try:
            while self._turn():
                pass
        finally:
            self._leave()

    def _refuse(self, why: str) -> None:
        self.works = False
        while (asked := self._orders.get()) is not None:
            self._tell(asked["id"], ok=False, proof=why)

    def _enter(self) -> None:
        if self.space in _spaces_of_node():
            raise OSError("the pod uses the network of its node, so a fault would hit the whole node")  # fmt: skip
        try:
            set_namespace(self._home_fd)
        except OSError as error:
            raise OSError(
                f"the agent can't enter the pod's network: {error.strerror}; {_NEEDS}"
            ) from None
        self._relax()
        self._routes = RtNetlink()
        self._diag = SockDiag()
        until_s = time.monotonic() + GONE_WITHIN_S
        while True:
            try:
                wire = new_wire(self._routes, self._home_fd, source=self._address)
                break
            except FileExistsError:
                if time.monotonic() > until_s:
                    raise OSError("another agent disturbs the network of this pod") from None
                time.sleep(0.02)
            except OSError as error:
                raise OSError(f"the pod's network does not take a device: {error.strerror}") from None  # fmt: skip
        self._pump = Pump(wire, self._met)
        self._diversions = Diversions(self._routes)
        self._diversions.clear()

    def _relax(self) -> None:
        """Switch off the strict check of senders, as long as the thread runs. The kernel would drop what the wire gives back."""
        self._was_strict = _REVERSE_PATH.read_text(encoding="ascii").strip() == _STRICT
        if self._was_strict:
            try:
                _REVERSE_PATH.write_text("0", encoding="ascii")
            except OSError:
                self._was_strict = False
                raise OSError("the pod's network checks senders strictly (net.ipv4.conf.all.rp_filter is 1)") from None  # fmt: skip

    def _leave(self) -> None:
        with suppress(OSError):
            self._diversions.clear()
        with suppress(OSError):
            self._routes.delete_link(WIRE)
        if self._was_strict:
            with suppress(OSError):
                _REVERSE_PATH.write_text(_STRICT, encoding="ascii")
        self._pump.socket.close()
        os.close(self._home_fd)

    def _turn(self) -> bool:
        """Wait for what comes next, and deal with it. False if the thread is to end."""
        reads = [self._woken, self._pump.socket]
        ready, answered, _ = select.select(reads, self._pings.sockets, [], self._pause_s())
        for one in answered:
            self._pings.answered(one)
        self._pings.forget_late()
        if self._pump.socket in ready:
            self._pump.read()
        self._pump.send_due()
        self._give_up()
        if self._woken in ready:
            self._woken.recv(1)
            asked = self._orders.get()
            if asked is None:
                return False
            self._obey(asked)
        return True

    def _pause_s(self) -> float | None:
        times = [self._pings.next_s, self._pump.next_s, *(end_s for _, end_s in self._waits.values())]  # fmt: skip
        known = [one for one in times if one is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    # ------------------------------------------------------------------------------------------------------ orders

    def _obey(self, asked: Order) -> None:
        orders: dict[str, Callable[[Order], Any]] = {
            "can": lambda _: 0,
            "begin": self._begin,
            "met": self._await,
            "end": self._end,
            "destroy": self._destroy,
            "ping": self._ping,
        }
        try:
            result = orders[asked["do"]](asked)
        except OSError as error:
            self._tell(asked["id"], ok=False, proof=f"{asked['do']}: {error}")
            return
        if result is not None:
            self._tell(asked["id"], ok=True, result=result)

    def _begin(self, asked: Order) -> float:
        key, to = asked["key"], asked["to"]
        self._pump.begin(key, asked["kind"], asked["value"], [(self._address, one) for one in to])
        self._to[key] = to
        for one in to:
            self._diversions.divert(OWN, one, on=True)
        return 0.0

    def _end(self, asked: Order) -> dict[str, float]:
        key = asked["key"]
        for one in self._to.pop(key, ()):
            self._diversions.divert(OWN, one, on=False)
        self._met_s.pop(key, None)
        if key in self._waits:
            self._tell(self._waits.pop(key)[0], ok=False, proof="it has ended")
        return self._pump.end(key)

    def _await(self, asked: Order) -> None:
        key = asked["key"]
        self._waits[key] = asked["id"], time.monotonic() + asked["within_s"]
        if key in self._met_s:
            self._met(key, self._met_s[key])

    def _met(self, key: int, at_s: float) -> None:
        """Tell how long ago the first packet has met a rule, if an order waits for that."""
        self._met_s[key] = at_s
        if key in self._waits:
            number, _ = self._waits.pop(key)
            self._tell(number, ok=True, result=time.monotonic() - at_s)

    def _give_up(self) -> None:
        now_s = time.monotonic()
        for key in [key for key, (_, end_s) in self._waits.items() if end_s <= now_s]:
            self._tell(self._waits.pop(key)[0], ok=True, result=-1.0)

    def _destroy(self, asked: Order) -> int:
        return sum(self._diag.destroy(socket.inet_aton(one)) for one in asked["to"])

    def _ping(self, asked: Order) -> None:
        number = asked["id"]
        self._pings.begin(
            new_socket(),
            asked["to"],
            asked["within_s"],
            lambda took_s: self._tell(number, ok=True, result=took_s),
        )
