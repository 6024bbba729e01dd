"""The hub: the process that holds the network namespaces of one graph, and carries out the faults of its network.

It is a child of the guard and ends with it. Then the kernel removes the namespaces and all that is in them.
The harness sends orders over Unix sockets, and gets sockets of the hub's namespace over them. Each message is one JSON list in one packet:

    to the hub     [number, "open", [address, ...]]                    [number, "sockets", count]
                   [number, "begin", id, kind, value, [[from, to]...]] [number, "end", id]
                   [number, "ping", from, to, within_s]                [number, "diag", address]
                   [number, "destroy", [[at, other]...]]
    from the hub   [number, result] + file descriptors                 [number, null, why]
                   [0, "met", id, at_s]

An edge is one direction between two replicas, by their addresses. All times are `time.monotonic()` seconds.
Run this file as a module. Its argument is the name of the abstract Unix socket on which the harness listens. With `--try` instead, it
tries the namespaces, and prints the reason if this machine can't have them.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

from graphquake.harness.processes.network.addresses import address_of
from graphquake.harness.processes.network.pump import Pings, Pump
from graphquake.harness.processes.network.topology import Missing, Topology
from graphquake.harness.processes.network.wire_device import new_socket

# The name of the process in the kernel, by which `process_tree` recognizes it.
NAME: Final = "gq-network"
TRY: Final = "--try"
PACKET_MAX_BYTES: Final = 1 << 17
# The number of connections of the harness: one for orders and reports, one for sockets.
CONNECTIONS: Final = 2
_PR_SET_NAME: Final = 15


class _Hub:
    def __init__(self, channels: list[socket.socket]) -> None:
        self._channels = channels
        self._topology: Topology | None = None
        self._pump: Pump | None = None
        self._pings = Pings()
        self._asked: tuple[socket.socket, int] = (channels[0], 0)
        self._orders: dict[str, Callable[..., Any]] = {
            "open": self._open,
            "sockets": self._sockets,
            "begin": self._begin,
            "end": self._end,
            "ping": self._ping,
            "diag": self._diag,
            "destroy": self._destroy,
        }

    @property
    def _net(self) -> Topology:
        assert self._topology is not None
        return self._topology

    def run(self) -> None:
        """Carry out orders until the harness closes a connection."""
        goes_on = True
        while goes_on:
            pump = self._pump
            reads: list[Any] = [*self._channels, *([pump.socket] if pump else [])]
            ready, refused, _ = select.select(reads, self._pings.sockets, [], self._pause_s())
            for one in refused:
                self._pings.answered(one)
            self._pings.forget_late()
            for one in ready:
                if pump is not None and one is pump.socket:
                    pump.read()
                else:
                    goes_on &= self._obey(one)
            if pump is not None:
                pump.send_due()

    def _pause_s(self) -> float | None:
        due = (self._pings.next_s, self._pump.next_s if self._pump else None)
        times = [one for one in due if one is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _met(self, key: int, at_s: float) -> None:
        self._tell(self._channels[0], [0, "met", key, at_s])

    # -------------------------------------------------------------------------------------------------- orders

    def _obey(self, channel: socket.socket) -> bool:
        """Carry out one order. False if the harness has closed the connection."""
        try:
            packet = channel.recv(PACKET_MAX_BYTES)
        except ConnectionError:
            return False
        if not packet:
            return False
        number, order, *arguments = json.loads(packet)
        self._asked = channel, number
        try:
            result, fds = self._orders[order](*arguments)
        except (OSError, Missing) as error:
            self._tell(channel, [number, None, str(error)])
            return True
        if result is not None:
            self._tell(channel, [number, result], fds)
        for fd in fds:
            os.close(fd)
        return True

    @staticmethod
    def _tell(channel: socket.socket, message: list[Any], fds: list[int] | None = None) -> None:
        with suppress(
            OSError
        ):  # the harness is gone, and the next read meets the end of the connection
            socket.send_fds(channel, [json.dumps(message).encode()], fds or [])

    def _open(self, addresses: list[str]) -> tuple[Any, list[int]]:
        if self._topology is None:
            self._topology = Topology()
            self._pump = Pump(self._topology.wire, self._met)
        spaces = {one: self._topology.add(one) for one in addresses}
        return {"user": self._topology.user, "namespaces": spaces}, []

    def _sockets(self, count: int) -> tuple[Any, list[int]]:
        return count, [new_socket().detach() for _ in range(count)]

    def _diag(self, address: str) -> tuple[Any, list[int]]:
        return 0, list(self._net.new_sockets_at(address).detach())

    def _begin(
        self, key: int, kind: Any, value: float, edges: list[list[str]]
    ) -> tuple[Any, list[int]]:
        assert self._pump is not None
        self._pump.begin(key, kind, value, edges)
        for source, to in edges:
            self._net.divert(source, to, on=True)
        return time.monotonic(), []

    def _end(self, key: int, edges: list[list[str]]) -> tuple[Any, list[int]]:
        for source, to in edges:
            self._net.divert(source, to, on=False)
        assert self._pump is not None
        return self._pump.end(key) | {"at_s": time.monotonic()}, []

    def _destroy(self, pairs: list[list[str]]) -> tuple[Any, list[int]]:
        return sum(
            self._net.sockets_at(at).destroy(socket.inet_aton(other)) for at, other in pairs
        ), []

    # --------------------------------------------------------------------------------------------- round trips

    def _ping(self, source: str, to: str, within_s: float) -> tuple[Any, list[int]]:
        with self._net.inside(source):
            asks = new_socket()
        channel, number = self._asked
        self._pings.begin(asks, to, within_s, lambda took_s: self._tell(channel, [number, took_s]))
        return None, []


def _try() -> NoReturn:
    try:
        Topology().add(address_of(0))
    except (Missing, OSError) as error:
        sys.exit(str(error))
    sys.exit()


def main() -> None:
    """Run the hub until the harness or the guard is gone."""
    if sys.argv[1] == TRY:
        _try()
    ctypes.CDLL(None).prctl(_PR_SET_NAME, NAME.encode(), 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channels = []
    for _ in range(CONNECTIONS):
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.connect(f"\0{sys.argv[1]}")
        channels.append(channel)
    _Hub(channels).run()


if __name__ == "__main__":
    main()
