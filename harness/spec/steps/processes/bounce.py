"""The step `bounce`: kill a replica and start it again, faster than a lease or a heartbeat would notice.

A graph that learns of deaths only by missing heartbeats never learns of this one. It may go on to use connections, instances or caches of
the old incarnation. The step lands when the new incarnation has a pid, and proves the gap between the two. If the machine was too slow for
the gap that was asked for, the step has not landed: it would be another fault.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import (
    ROLE,
    Aimed,
    Draft,
    Effect,
    Pick,
    Rule,
    Step,
    number,
)
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.model import Graph, GraphModel
from graphquake.harness.spec.steps.scope import TREE

# The gaps that a draw chooses among, in milliseconds.
GAPS_MS: Final = (10, 300)
# The longest gap that a plan may ask for, in milliseconds: a longer one is a kill, a wait and a respawn.
GAP_MAX_MS: Final = 60_000
# The time by which the real gap may exceed the one that was asked for, in seconds.
LATE_MAX_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Bounce(Aimed):
    """Kill a replica and start it again at once.

    Attributes:
        after_ms: the time from the death to the start, in milliseconds.
    """

    after_ms: int = GAPS_MS[0]

    verb: ClassVar[str] = "bounce"
    form: ClassVar[str] = "bounce ROLE INDEX after T ms"
    pattern: ClassVar[str] = rf"bounce {ROLE} after (?P<after>\d{{1,9}}) ms"
    is_fault: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"bounce {self.aim} after {self.after_ms} ms"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Bounce:
        """Return the step that a text form describes."""
        after_ms = number(found["after"], 0, GAP_MAX_MS, "milliseconds")
        return cls(found["role"], int(found["index"]), int(after_ms))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a bounce of any replica that lives and is not stalled."""
        return (Rule("bounce", _draw, at=cls.at, timed=True, seldom=True),)

    def effect(self, graph: Graph) -> Effect:
        """Return `kills`: the replica dies, though it comes back at once."""
        del graph
        return "kills"

    def check(self, model: GraphModel) -> str | None:
        """Return None if the replica exists, and the supervisor would not restart it sooner than the step does."""
        if said := Aimed.check(self, model):
            return said
        delay_s = model.spec.restart_delay_s
        if model.spec.restart == "always" and self.after_ms >= delay_s * 1e3:
            return f"{model.spec.name} restarts a dead replica by itself after {delay_s:g} s; use kill, or a shorter time"
        return None

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model in which the replica has died, and its next incarnation starts."""
        return model.with_ended(self.aim).with_started(self.aim)

    async def run(self, scene: Scene) -> Landed:
        """Kill the replica, wait for the gap, and start the replica. The proof has both pids and the real gap."""
        died = await scene.target.kill(self.aim, TREE)
        if not died.ok:
            return died
        await asyncio.sleep(max(0.0, died.at_s + self.after_ms / 1e3 - time.monotonic()))
        started = await scene.target.respawn(self.aim)
        gap_ms = (started.at_s - died.at_s) * 1e3
        proof = f"{died.proof}; started again after {gap_ms:.0f} ms: {started.proof}"
        in_time = gap_ms <= self.after_ms + LATE_MAX_S * 1e3
        if started.ok and not in_time:
            proof += f"; {self.after_ms} ms were asked for"
        return Landed(started.ok and in_time, proof, started.at_s)

    def knobs(self) -> tuple[Knob, ...]:
        """Return one number: the gap."""
        return (Knob("after_ms", 10, 0),)


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    replica = pick.replica
    step = Bounce(replica.role, replica.index, pick.one_of(GAPS_MS))
    yield step if step.possible(draft.model) is None else Bounce.at(replica)
