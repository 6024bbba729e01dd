"""The wire: drops, delays, answers or passes on each packet of a disturbed edge. It is pure: the hub gives it packets and the time.

Only packets of disturbed edges come here, all others stay in the kernel. So a user-space program is fast enough. It works the same on each
kernel, and its counters are exact. An edge is one direction between two replicas. Several rules may act on one edge at the same time.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from graphquake.harness.processes.network.packets import Edge, edge_of, is_ping, resets_for

Kind: TypeAlias = Literal["cut", "reset", "lose", "slow", "delay"]
# A slowed edge holds at most so much, as the queue of a router does: a quarter of a second, but at least some packets.
QUEUE_MAX_S: Final = 0.25
QUEUE_MIN_BYTES: Final = 30_000
# The most packets that wait for their time. More are dropped, as a full queue does.
HELD_MAX: Final = 20_000


@dataclass(slots=True)
class Rule:
    """One fault of the network, with its counters.

    Attributes:
        kind: `cut` drops all packets, `reset` answers each with RST, `lose` drops a share, `slow` limits the rate, `delay` adds a time.
        value: the share (0 to 1) for `lose`, bytes per second for `slow`, seconds for `delay`.
        edges: the edges that it acts on.
        packets, octets: the number of packets that met the rule, and the bytes in them.
        dropped, dropped_octets: those of them that were not passed on.
        resets: the number of RST packets that were made.
        held_s: the sum of the times for which packets were held back.
        first_s: the time of the first packet, in seconds, or 0 if there was none.
    """

    kind: Kind
    value: float
    edges: frozenset[Edge]
    packets: int = 0
    octets: int = 0
    dropped: int = 0
    dropped_octets: int = 0
    resets: int = 0
    held_s: float = 0.0
    first_s: float = 0.0
    _free_s: dict[Edge, float] = field(default_factory=dict)

    def drops(self, draw: float) -> bool:
        """True if this rule takes a packet away. `draw` is a random number from 0 to 1."""
        return self.kind in ("cut", "reset") or (self.kind == "lose" and draw < self.value)

    def until_s(self, edge: Edge, octets: int, now_s: float) -> float | None:
        """Return the time until which this rule holds a packet back, or None if its queue is full."""
        if self.kind == "delay":
            return now_s + self.value
        if self.kind != "slow":
            return now_s
        free_s = max(now_s, self._free_s.get(edge, 0.0))
        queue_s = max(QUEUE_MAX_S, QUEUE_MIN_BYTES / self.value)
        if free_s - now_s > queue_s:
            return None
        self._free_s[edge] = free_s + octets / self.value
        return self._free_s[edge]

    def counts(self) -> dict[str, float]:
        """The counters by name, for a message."""
        names = ("packets", "octets", "dropped", "dropped_octets", "resets", "held_s", "first_s")
        return {name: getattr(self, name) for name in names}


class Wire:
    """The rules that act now, and the packets that are held back."""

    def __init__(self) -> None:
        self.rules: dict[int, Rule] = {}
        self._random = random.Random()
        self._held: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()

    def take(self, packet: bytes, now_s: float) -> Iterable[bytes]:
        """Take one packet. Return the packets to send now: none, the packet, or RST packets."""
        edge = edge_of(packet)
        if edge is None:
            return ()
        due_s, counts = now_s, not is_ping(packet)
        for rule in self.rules.values():
            if edge not in rule.edges:
                continue
            if counts:
                rule.first_s = rule.first_s or now_s
                rule.packets += 1
                rule.octets += len(packet)
            until_s = (
                None
                if rule.drops(self._random.random())
                else rule.until_s(edge, len(packet), due_s)
            )
            if until_s is None:
                resets = resets_for(packet) if rule.kind == "reset" else []
                if counts:
                    rule.dropped += 1
                    rule.dropped_octets += len(packet)
                    rule.resets += len(resets)
                return resets
            if counts:
                rule.held_s += until_s - due_s
            due_s = until_s
        if due_s <= now_s:
            return (packet,)
        if len(self._held) < HELD_MAX:
            heapq.heappush(self._held, (due_s, next(self._order), packet))
        return ()

    @property
    def next_s(self) -> float | None:
        """The time at which the next held packet is due, or None if none is held."""
        return self._held[0][0] if self._held else None

    def due(self, now_s: float) -> Iterator[bytes]:
        """Yield the held packets that are due."""
        while self._held and self._held[0][0] <= now_s:
            yield heapq.heappop(self._held)[2]
