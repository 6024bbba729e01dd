"""The step `crash`: a crash loop. The replica is killed, started, and killed again, some times in a row.

Each new incarnation dies as soon as its process runs, or some milliseconds later, mostly before it is ready. After the last death the
replica is started once more, and nothing kills it. If the supervisor restarts dead replicas, it makes the starts. Otherwise the step does.

The step lands when the last incarnation has a pid. Its proof has each incarnation that died, and how soon.
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
from graphquake.harness.spec.steps.waits.wait import ready_bound_s

# A plan may ask for at most this many deaths.
DEATHS_MAX: Final = 100
# The lives that a plan may ask for, and those that a draw chooses among, in milliseconds.
LIFE_MAX_MS: Final = 60_000
LIVES_MS: Final = (0, 300)
# The number of deaths that is drawn.
DEATHS: Final = 3


@dataclass(frozen=True, slots=True)
class Crash(Aimed):
    """Kill a replica, and kill its next incarnations, too.

    Attributes:
        times: the number of deaths.
        after_ms: the time from the start of an incarnation to its death, in milliseconds. The first one has lived for longer.
    """

    times: int = DEATHS
    after_ms: int = 0

    verb: ClassVar[str] = "crash"
    form: ClassVar[str] = "crash ROLE INDEX N times[, T ms after each start]"
    pattern: ClassVar[str] = (
        rf"crash {ROLE} (?P<times>\d{{1,6}}) times(?:, (?P<after>\d{{1,9}}) ms after each start)?"
    )
    is_fault: ClassVar[bool] = True

    def __str__(self) -> str:
        after = f", {self.after_ms} ms after each start" if self.after_ms else ""
        return f"crash {self.aim} {self.times} times{after}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Crash:
        """Return the step that a text form describes."""
        times = number(found["times"], 2, DEATHS_MAX, "deaths")
        after_ms = number(found["after"] or "0", 0, LIFE_MAX_MS, "milliseconds")
        return cls(found["role"], int(found["index"]), int(times), int(after_ms))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a crash loop of any replica that lives and is not stalled."""
        return (Rule("crash", _draw, at=cls.at, seldom=True),)

    def effect(self, graph: Graph) -> Effect:
        """Return `kills`: the replica dies, though it comes back."""
        del graph
        return "kills"

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model in which the replica has died, and its last incarnation starts."""
        return model.with_ended(self.aim).with_started(self.aim)

    async def run(self, scene: Scene) -> Landed:
        """Kill the replica `times` times, and let it start after each death."""
        said = []
        for death in range(self.times):
            died = await scene.target.kill(self.aim, TREE)
            if not died.ok:
                return Landed(ok=False, proof=f"death {death + 1}: {died.proof}", at_s=died.at_s)
            said.append(died.proof)
            started = await self._start(scene)
            if not started.ok:
                return Landed(ok=False, proof=f"start {death + 1}: {started.proof}", at_s=died.at_s)
            if death + 1 < self.times:
                left_s = started.at_s + self.after_ms / 1e3 - time.monotonic()
                await asyncio.sleep(max(0.0, left_s))
        proof = f"{self.times} deaths: {', '.join(said)}; then started: {started.proof}"
        return Landed(ok=True, proof=proof, at_s=started.at_s)

    async def _start(self, scene: Scene) -> Landed:
        """Wait for the next incarnation, or make it."""
        if scene.target.spec.restart == "always":
            within_s = scene.target.spec.restart_delay_s + ready_bound_s(scene.target.spec)
            return await scene.target.moments.started(self.aim, within_s)
        return await scene.target.respawn(self.aim)

    def knobs(self) -> tuple[Knob, ...]:
        """Return two numbers: the deaths, and the life of each incarnation."""
        return (Knob("times", 1, 2), Knob("after_ms", 10, 0, seldom=True))


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    replica = pick.replica
    yield Crash(replica.role, replica.index, DEATHS, pick.one_of(LIVES_MS))
