"""Begin and end the faults of links between addresses, and prove them, whoever carries out the rules.

A fault acts on edges. An edge is one direction between two replicas. A program takes the packets of these edges (see `wire`), and its
counters are the proof. A fault has landed when the first packet has met it. So a fault of an edge that the graph does not use never lands,
and its run is invalid.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from graphquake.harness.processes.network.proof import ended_text, landed_text, missed_text
from graphquake.harness.processes.signals import not_landed
from graphquake.harness.spec.steps.actions import Landed, NetworkFault

# The sender and the receiver of each direction, by their addresses.
Edges: TypeAlias = Sequence[Sequence[str]]
# The most edges whose round trip is measured for one fault, and the time limit of a measurement.
PINGS_MAX: Final = 2
PING_WITHIN_S: Final = 2.0
# The time limit for a connection that a single reset can end, and the interval at which it is looked for.
OPENS_WITHIN_S: Final = 1.0
LOOK_EVERY_S: Final = 0.02


class LinkError(Exception):
    """The rules of a fault could not be carried out. The text gives the reason."""


class Links(Protocol):
    """Carries out rules. Each method raises LinkError if it can't. All times are absolute `time.monotonic()` seconds."""

    async def begin(self, key: int, fault: NetworkFault, edges: Edges) -> float:
        """Begin a rule. Return the time of its begin."""
        ...

    async def met(self, key: int, within_s: float) -> float | None:
        """Wait for the first packet that meets a rule. Return its time, or None if none has come. Ask once, right after `begin`."""
        ...

    async def end(self, key: int, edges: Edges) -> Mapping[str, float]:
        """End a rule. Return its counters (see `Rule`), and the time of its end as `at_s`."""
        ...

    async def destroy(self, pairs: Edges) -> int:
        """End the open connections between two addresses. The first one gets an error, the other one RST. Return their number."""
        ...

    async def round_trips(self, edges: Edges) -> list[float]:
        """Measure round trips, in seconds. -1 for each edge without an answer. Edges that can't be measured are left out."""
        ...


class LinkFaults:
    """The faults that act on the links of one graph now. `NetworkActions` describes what they do.

    Args:
        links: carries out the rules.
    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self._edges: dict[int, Edges] = {}
        self._settled_s = 0.0

    @property
    def is_disturbed(self) -> bool:
        """True while a fault acts on the network, or connections may still suffer from one."""
        return bool(self._edges) or time.monotonic() < self._settled_s

    async def begin(self, key: int, fault: NetworkFault, edges: Edges, within_s: float) -> Landed:
        """See `NetworkActions.begin`."""
        try:
            return await self._begin(key, fault, edges, within_s)
        except LinkError as error:
            return not_landed(str(error))

    async def _begin(self, key: int, fault: NetworkFault, edges: Edges, within_s: float) -> Landed:
        ended = 0
        if fault.kind == "reset":
            ended = await self._destroy(edges)
            if not within_s:
                return await self._reset_once(edges, ended)
        before_s = await self._round_trips(edges) if fault.kind in ("slow", "delay") else []
        # The rule may act, too, if this is cancelled before the answer comes.
        self._edges[key] = edges
        try:
            begun_s = await self._links.begin(key, fault, edges)
        except LinkError:
            del self._edges[key]
            raise
        if ended:
            text = f"{ended} connections ended"
            return Landed(ok=True, proof=text, at_s=begun_s)
        met_s = await self._links.met(key, within_s)
        if met_s is None:
            await self._stop(key)
            return not_landed(missed_text(edges, within_s))
        after_s = await self._round_trips(edges) if before_s else []
        proof = landed_text(fault, met_s - begun_s, before_s, after_s)
        return Landed(ok=True, proof=proof, at_s=met_s)

    async def end(self, key: int, fault: NetworkFault, settles_s: float) -> Landed:
        """See `NetworkActions.end`."""
        if key not in self._edges:
            return Landed(ok=True, proof="nothing to undo", at_s=time.monotonic())
        edges = self._edges[key]
        try:
            counts = await self._stop(key)
            round_trips_s = await self._round_trips(edges)
        except LinkError as error:
            return not_landed(str(error))
        self._settled_s = max(self._settled_s, time.monotonic() + settles_s)
        ok, text = ended_text(fault, counts, round_trips_s)
        return Landed(ok=ok, proof=text, at_s=counts["at_s"])

    async def _stop(self, key: int) -> Mapping[str, float]:
        return await self._links.end(key, self._edges.pop(key))

    async def _reset_once(self, edges: Edges, ended: int) -> Landed:
        """Wait until there is a connection to end, if there was none."""
        until_s = time.monotonic() + OPENS_WITHIN_S
        while not ended and time.monotonic() < until_s:
            await asyncio.sleep(LOOK_EVERY_S)
            ended = await self._destroy(edges)
        if not ended:
            return not_landed(f"no connection between them was open within {OPENS_WITHIN_S:g} s")
        return Landed(ok=True, proof=f"{ended} connections ended", at_s=time.monotonic())

    async def _destroy(self, edges: Edges) -> int:
        """End the open connections between the ends of each edge."""
        pairs = [list(pair) for pair in dict.fromkeys((source, to) for source, to in edges)]
        once = [pair for place, pair in enumerate(pairs) if pair[::-1] not in pairs[:place]]
        return await self._links.destroy(once)

    async def _round_trips(self, edges: Edges) -> list[float]:
        return await self._links.round_trips(edges[:PINGS_MAX])
