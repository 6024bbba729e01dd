"""Move packets from the wire through its rules and back, and measure round trips. For a program that waits with `select`."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from graphquake.harness.processes.network.packets import PING_PORT, Edge
from graphquake.harness.processes.network.wire import Kind, Rule, Wire

_READ_AT_ONCE: Final = 64
_FRAME_MAX_BYTES: Final = 1 << 16
_HEAD_BYTES: Final = 14


class Pump:
    """The packets of one wire.

    Args:
        wire: the socket of the wire, see `new_wire`.
        met: is called with the key of a rule, and the time of the first packet that met it.
    """

    def __init__(self, wire: socket.socket, met: Callable[[int, float], None]) -> None:
        self.socket = wire
        self._met = met
        self._wire = Wire()
        self._head = b""
        self._unmet: set[int] = set()

    @property
    def next_s(self) -> float | None:
        """The time at which `send_due` has something to do, or None."""
        return self._wire.next_s

    def begin(self, key: int, kind: Kind, value: float, edges: Iterable[Iterable[str]]) -> None:
        """Add a rule. `Rule` describes its values."""
        packed = (Edge(*map(socket.inet_aton, edge)) for edge in edges)
        self._wire.rules[key] = Rule(kind, value, frozenset(packed))
        self._unmet.add(key)

    def end(self, key: int) -> dict[str, float]:
        """Remove a rule, and return its counters."""
        self._unmet.discard(key)
        return self._wire.rules.pop(key).counts()

    def read(self) -> None:
        """Take the packets that wait on the wire."""
        for _ in range(_READ_AT_ONCE):
            try:
                frame, place = self.socket.recvfrom(_FRAME_MAX_BYTES)
            except BlockingIOError:
                break
            if place[2] == socket.PACKET_OUTGOING:
                continue
            # Each frame on the wire begins with the same two addresses, also those that are sent on.
            self._head = frame[:_HEAD_BYTES]
            self._send(self._wire.take(frame[_HEAD_BYTES:], time.monotonic()))
        for key in [key for key in self._unmet if self._wire.rules[key].packets]:
            self._unmet.discard(key)
            self._met(key, self._wire.rules[key].first_s)

    def send_due(self) -> None:
        """Send the packets on whose time has come."""
        self._send(self._wire.due(time.monotonic()))

    def _send(self, packets: Iterable[bytes]) -> None:
        for packet in packets:
            with suppress(OSError):  # the queue of the receiver is full
                self.socket.send(self._head + packet)


@dataclass(slots=True)
class _Ping:
    """A connection to a closed port, whose refusal ends the measurement of a round trip."""

    told: Callable[[float], None]
    sent_s: float
    until_s: float


class Pings:
    """The round trips that are being measured."""

    def __init__(self) -> None:
        self._pings: dict[socket.socket, _Ping] = {}

    @property
    def sockets(self) -> list[socket.socket]:
        """The sockets to wait for, until one can be written to."""
        return [*self._pings]

    @property
    def next_s(self) -> float | None:
        """The time at which `forget_late` has something to do, or None."""
        return min((one.until_s for one in self._pings.values()), default=None)

    def begin(
        self, asks: socket.socket, to: str, within_s: float, told: Callable[[float], None]
    ) -> None:
        """Begin to measure.

        Args:
            asks: a new TCP socket. This object closes it.
            to: the address of the other side.
            within_s: the time limit.
            told: is called with the round trip in seconds, or with -1 if no answer has come.
        """
        asks.setblocking(False)
        now_s = time.monotonic()
        self._pings[asks] = _Ping(told, now_s, now_s + within_s)
        asks.connect_ex((to, PING_PORT))

    def answered(self, asks: socket.socket) -> None:
        """End a measurement whose socket can be written to."""
        ping = self._pings.pop(asks)
        number = asks.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        asks.close()
        came = number in (0, errno.ECONNREFUSED)
        ping.told(time.monotonic() - ping.sent_s if came else -1.0)

    def forget_late(self) -> None:
        """End the measurements whose time is over."""
        now_s = time.monotonic()
        for asks in [one for one, ping in self._pings.items() if ping.until_s <= now_s]:
            self._pings.pop(asks).told(-1.0)
            asks.close()
