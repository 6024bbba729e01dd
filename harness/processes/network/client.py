"""The harness's end of the hub: starts it, sends it orders, and takes sockets of the hub's network namespace from it.

See `hub` for the messages. Clients and probes need a socket at once, in the middle of opening a connection. So some sockets are kept ready.
When none is left, the harness waits for the hub, which takes about 0.3 ms for the next `AT_ONCE` sockets.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from graphquake.harness.errors import GraphError
from graphquake.harness.observation.sock_diag import SockDiag
from graphquake.harness.processes.guard_client import Guard
from graphquake.harness.processes.network.hub import CONNECTIONS, PACKET_MAX_BYTES, TRY
from graphquake.harness.processes.network.link_faults import LinkError

# The key under which the guard reports the exit of the hub. No replica has such a key.
KEY: Final = "network"
AT_ONCE: Final = 64
# The time limit for the start of the hub, and for one order, in seconds.
WITHIN_S: Final = 10.0
_MODULE: Final = "graphquake.harness.processes.network.hub"
_FDS_MAX: Final = 2 * AT_ONCE


@cache
def network_lacks() -> str:
    """Return the reason why this machine can't have network namespaces, or an empty text. Tries it once in each process."""
    argv = [sys.executable, "-P", "-m", _MODULE, TRY]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"network namespaces: {error}"
    said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    return said[0] if done.returncode else ""


class HubError(LinkError):
    """The hub could not carry out an order. The text gives the reason."""


class Hub:
    """The hub process of one graph. `open` starts it, and `close` closes the connections to it. The guard ends it.

    Attributes:
        namespaces: for each address, the paths of the namespaces in which the processes of its replica run.
        own: the paths of the namespaces of the hub itself.
    """

    def __init__(self) -> None:
        self.namespaces: Mapping[str, tuple[str, ...]] = {}
        self.own: tuple[str, ...] = ()
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[tuple[Any, list[int]]]] = {}
        self._met: dict[int, asyncio.Future[float]] = {}
        self._spare: list[socket.socket] = []
        # The first is for orders, the second for sockets.
        self._channels: list[socket.socket] = []

    async def open(
        self, guard: Guard, env: Mapping[str, str], folder: Path, addresses: Sequence[str]
    ) -> int:
        """Start the hub, and let it make a namespace for each address. Return its pid.

        Args:
            guard: becomes the parent of the hub.
            env: the environment of the hub.
            folder: the folder of the graph.
            addresses: the addresses of the replicas.

        Raises:
            GraphError: if the hub can't run on this machine.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listens:
            listens.bind("")  # the kernel chooses a free abstract name
            listens.listen(CONNECTIONS)
            listens.setblocking(False)
            name = listens.getsockname()[1:].decode()
            argv = [sys.executable, "-P", "-m", _MODULE, name]
            log = folder / "logs" / "network.log"
            child = await guard.spawn(KEY, argv, env, str(folder), str(log))
            child.close()
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(WITHIN_S):
                    while len(self._channels) < CONNECTIONS:
                        channel, _ = await loop.sock_accept(listens)
                        self._channels.append(channel)
            except TimeoutError:
                raise GraphError(f"the network process did not start; see {log}") from None
        self._channels[1].setblocking(True)
        self._channels[1].settimeout(WITHIN_S)
        loop.add_reader(self._channels[0].fileno(), self._hear)
        try:
            made = await self.ask("open", list(addresses))
        except HubError as error:
            raise GraphError(f'network = "namespaces": {error}') from None
        user = (made["user"],) if made["user"] else ()
        self.namespaces = {one: (*user, path) for one, path in made["namespaces"].items()}
        self.own = (*user, f"/proc/{child.pid}/ns/net")
        return child.pid

    def close(self) -> None:
        """Close the connections to the hub, and all sockets that are not used."""
        if self._channels:
            with suppress(RuntimeError):  # the event loop may be closed
                asyncio.get_running_loop().remove_reader(self._channels[0].fileno())
        for one in (*self._channels, *self._spare):
            one.close()
        self._channels, self._spare = [], []

    # ------------------------------------------------------------------------------------------------ orders

    async def ask(self, order: str, *arguments: object) -> Any:
        """Send an order, and return its result.

        Raises:
            HubError: if the hub could not carry it out, or is gone.
        """
        result, fds = await self._ask(order, *arguments)
        assert not fds
        return result

    async def diag(self, address: str) -> SockDiag:
        """Return the kernel's table of TCP sockets in the namespace of a replica."""
        _, fds = await self._ask("diag", address)
        return SockDiag((fds[0], fds[1]))

    async def _ask(self, order: str, *arguments: object) -> tuple[Any, list[int]]:
        if not self._channels:
            raise HubError("the network process is gone")
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._channels[0].send(json.dumps([number, order, *arguments]).encode())
            async with asyncio.timeout(WITHIN_S):
                result: tuple[Any, list[int]] = await answer
        except OSError as error:
            raise HubError(f"the network process does not answer: {error}") from None
        finally:
            del self._answers[number]
        return result

    def met(self, key: int) -> asyncio.Future[float]:
        """Return the moment of the first packet that meets a rule, as an event. Ask for it before the rule begins."""
        self._met[key] = asyncio.get_running_loop().create_future()
        return self._met[key]

    def forget(self, key: int) -> None:
        """Forget the event of a rule."""
        self._met.pop(key, None)

    def _hear(self) -> None:
        try:
            packet, fds, _, _ = socket.recv_fds(self._channels[0], PACKET_MAX_BYTES, _FDS_MAX)
        except BlockingIOError:
            return
        except OSError:
            packet, fds = b"", []
        if not packet:
            self._lost()
            return
        number, result, *more = json.loads(packet)
        if number == 0:
            event = self._met.get(more[0])
            if event is not None and not event.done():
                event.set_result(more[1])
            return
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return
        if result is None:
            answer.set_exception(HubError(more[0]))
        else:
            answer.set_result((result, fds))

    def _lost(self) -> None:
        """Note that the hub is gone. The guard reports its exit, and the graph fails."""
        asyncio.get_running_loop().remove_reader(self._channels[0].fileno())
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(HubError("the network process is gone"))

    # ----------------------------------------------------------------------------------------------- sockets

    @property
    def socket_factory(self) -> Callable[[Any], socket.socket]:
        """Makes the sockets of an `aiohttp.TCPConnector`: each belongs to the hub's namespace."""

        def make(_: Any) -> socket.socket:
            if not self._spare:
                self._fetch()
            made = self._spare.pop()
            made.setblocking(False)
            return made

        return make

    def _fetch(self) -> None:
        if not self._channels:
            raise OSError("the network process is gone")
        channel = self._channels[1]
        channel.send(json.dumps([0, "sockets", AT_ONCE]).encode())
        _, fds, _, _ = socket.recv_fds(channel, PACKET_MAX_BYTES, _FDS_MAX)
        if not fds:
            raise OSError("the network process is gone")
        self._spare = [socket.socket(fileno=fd) for fd in fds]
