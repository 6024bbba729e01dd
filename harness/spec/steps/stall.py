"""SIGSTOP to all processes of a replica, and SIGCONT later.

It lands when all of them are stopped, and the plan goes on meanwhile. It ends when none is stopped any more. If it lasts longer than a
lease, a replica returns that the graph has taken for dead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import (
    ROLE,
    SECONDS,
    WAIT_MAX_S,
    Aimed,
    Draft,
    Effect,
    Knob,
    Pick,
    Rule,
    Step,
    number,
)
from graphquake.harness.spec.steps.model import Graph

STALLS_S: Final = (0.2, 0.6, 1.2)
BEYOND_LEASE_S: Final = 1.0
# A patient observer takes a stall of this length for a death, in seconds.
LONG_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Stall(Aimed):
    """SIGSTOP.

    Attributes:
        for_s: the time until SIGCONT, in seconds.
    """

    for_s: float

    verb: ClassVar[str] = "stall"
    form: ClassVar[str] = "stall ROLE INDEX for T s"
    pattern: ClassVar[str] = rf"stall {ROLE} for (?P<for>{SECONDS}) s"
    is_fault: ClassVar[bool] = True
    prior: ClassVar[float] = 0.40

    def __str__(self) -> str:
        return f"stall {self.aim} for {self.for_s:.2f} s"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Stall:
        """The step from its text form."""
        for_s = number(found["for"], 0.01, WAIT_MAX_S, "seconds")
        return cls(found["role"], int(found["index"]), for_s)

    @classmethod
    def at(cls, replica: Replica) -> Stall:
        """A short stall of a replica."""
        return cls(replica.role, replica.index, STALLS_S[0])

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """At any replica that works."""
        return (Rule("stall", _draw, at=cls.at),)

    def feature(self, graph: Graph) -> str:
        """Its length matters against the lease and against patience."""
        beyond = graph.lease_s and self.for_s > graph.lease_s
        length = "beyond a lease" if beyond else "long" if self.for_s >= LONG_S else "short"
        return f"stall {self.role} {length}"

    @property
    def lasts_s(self) -> float:
        """The time until SIGCONT."""
        return self.for_s

    def effect(self, graph: Graph) -> Effect:
        """The replica does no work meanwhile."""
        del graph
        return "stops"

    async def run(self, scene: Scene) -> Landed:
        """Stop it, and see that it is stopped."""
        return await scene.target.stall(self.aim)

    async def undo(self, scene: Scene) -> Landed:
        """Let it go on, and see that it does."""
        return await scene.target.resume(self.aim)

    def knobs(self) -> tuple[Knob, ...]:
        """Its length."""
        return (Knob("for_s", 0.01, 0.05, is_time=True),)


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    """If the graph has leases, one stall in four lasts longer than they do."""
    replica, lease_s = pick.replica, draft.model.spec.lease_s
    beyond = [lease_s + BEYOND_LEASE_S] if lease_s else []
    yield Stall(replica.role, replica.index, pick.one_of([*STALLS_S, *beyond]))
