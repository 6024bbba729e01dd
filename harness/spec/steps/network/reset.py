"""The step `reset`: connections end with RST, so both sides learn at once that the other one is not there.

Without a time, the connections that are open now end, once. With a time, each new connection is refused as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import FaultOfEdges
from graphquake.harness.spec.steps.kind import SECONDS, WAIT_MAX_S, Rule, number
from graphquake.harness.spec.steps.model import Graph
from graphquake.harness.spec.steps.network.fault import OneLink, link_rule
from graphquake.harness.spec.steps.network.link import END, Link


@dataclass(frozen=True, slots=True)
class Reset(OneLink):
    """End the connections of a link. `for_s` is 0 if that happens once."""

    verb: ClassVar[str] = "reset"
    form: ClassVar[str] = "reset END from END[ for T s]"
    pattern: ClassVar[str] = (
        rf"reset (?P<a>{END}) from (?P<b>{END})(?P<c>)(?: for (?P<for>{SECONDS}) s)?"
    )
    kind: ClassVar[FaultOfEdges] = "reset"

    def __str__(self) -> str:
        lasts = f" for {self.for_s:.2f} s" if self.for_s else ""
        return f"reset {self.link.apart()}{lasts}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Reset:
        """Return the step that a text form describes."""
        for_s = number(found["for"], 0.01, WAIT_MAX_S, "seconds") if found["for"] else 0.0
        return cls(for_s, Link.parse(found))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a reset between a replica and all others, or between a replica and another role."""
        return link_rule(cls, seldom=False)

    @property
    def settles_s(self) -> float:
        """Return 0: after RST no connection waits for a lost packet."""
        return 0.0

    def severs(self, graph: Graph) -> frozenset[frozenset[Replica]]:
        """Return the pairs of replicas that can't talk to each other. None if the connections end only once."""
        return frozenset(map(frozenset, self.edges(graph))) if self.for_s else frozenset()
