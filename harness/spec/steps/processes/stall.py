"""The step `stall`: send SIGSTOP to all processes of a replica, and SIGCONT later.

The step lands when all these processes are stopped. The plan then goes on with its next step. The stall is over when none of these
processes is stopped. After a stall that is longer than a lease, a replica comes back that the graph has taken for dead.
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
    Pick,
    Rule,
    Step,
    number,
)
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.model import Graph
from graphquake.harness.spec.steps.scope import TREE

# The short lengths that a draw chooses among, in seconds.
STALLS_S: Final = (0.2, 0.6, 1.2)
# A drawn stall that exceeds the lease, or the time that a client waits for a byte, is longer by this time, in seconds.
BEYOND_S: Final = 1.0
# A stall of at least this length counts as long, in seconds: other processes may take the replica for dead.
LONG_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Stall(Aimed):
    """Send SIGSTOP to all processes of a replica, and SIGCONT later.

    Attributes:
        for_s: the time from SIGSTOP to SIGCONT, in seconds.
    """

    for_s: float

    verb: ClassVar[str] = "stall"
    form: ClassVar[str] = "stall ROLE INDEX for T s"
    pattern: ClassVar[str] = rf"stall {ROLE} for (?P<for>{SECONDS}) s"
    is_fault: ClassVar[bool] = True
    unready: ClassVar[bool] = True
    prior: ClassVar[float] = 0.40

    def __str__(self) -> str:
        return f"stall {self.aim} for {self.for_s:.2f} s"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Stall:
        """Return the step that a text form describes."""
        for_s = number(found["for"], 0.01, WAIT_MAX_S, "seconds")
        return cls(found["role"], int(found["index"]), for_s)

    @classmethod
    def at(cls, replica: Replica) -> Stall:
        """Return the shortest stall of a replica that is drawn."""
        return cls(replica.role, replica.index, STALLS_S[0])

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a stall of any replica that lives and is not stalled."""
        return (Rule("stall", _draw, at=cls.at, timed=True),)

    def feature(self, graph: Graph) -> str:
        """Return a text with the role and the class of the length: `short`, `long`, `beyond a client's patience`, or `beyond a lease`."""
        if graph.lease_s and self.for_s > graph.lease_s:
            return f"stall {self.role} beyond a lease"
        if self.for_s > graph.promises.stall_s:
            return f"stall {self.role} beyond a client's patience"
        return f"stall {self.role} {'long' if self.for_s >= LONG_S else 'short'}"

    @property
    def lasts_s(self) -> float:
        """The time from SIGSTOP to SIGCONT, in seconds."""
        return self.for_s

    def effect(self, graph: Graph) -> Effect:
        """Return `stops`: the replica does no work until SIGCONT."""
        del graph
        return "stops"

    async def run(self, scene: Scene) -> Landed:
        """Stop all processes of the replica, and wait until each is stopped."""
        return await scene.target.stall(self.aim, TREE)

    async def undo(self, scene: Scene) -> Landed:
        """Continue all processes of the replica, and wait until none is stopped."""
        return await scene.target.resume(self.aim)

    def knobs(self) -> tuple[Knob, ...]:
        """Return one number: the length of the stall."""
        return (Knob("for_s", 0.01, 0.05, is_time=True),)


def lengths_s(graph: Graph) -> list[float]:
    """The lengths that a draw chooses among, in seconds: `STALLS_S`, one longer than a client waits for a byte, one longer than a lease."""
    limits_s = [graph.promises.stall_s, *([graph.lease_s] if graph.lease_s else [])]
    return [*STALLS_S, *dict.fromkeys(round(limit_s + BEYOND_S, 2) for limit_s in limits_s)]


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    replica = pick.replica
    yield Stall(replica.role, replica.index, pick.one_of(lengths_s(draft.model.spec)))
