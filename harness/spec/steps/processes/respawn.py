"""The step `respawn`: start a dead replica again.

The step lands when the replica has a new pid. It does not wait until the replica is ready.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Actions, Landed, Scene
from graphquake.harness.spec.steps.kind import ROLE, Aimed, Draft, Effect, Pick, Rule, Step
from graphquake.harness.spec.steps.model import Graph, GraphModel
from graphquake.harness.spec.steps.scope import TREE


@dataclass(frozen=True, slots=True)
class Respawn(Aimed):
    """Start a new incarnation of a replica."""

    verb: ClassVar[str] = "respawn"
    form: ClassVar[str] = "respawn ROLE INDEX"
    pattern: ClassVar[str] = rf"respawn {ROLE}"
    repairs: ClassVar[bool] = True
    prior: ClassVar[float] = 0.25

    def __str__(self) -> str:
        return f"respawn {self.aim}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Respawn:
        """Return the step that a text form describes."""
        return cls(found["role"], int(found["index"]))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a respawn of any replica that is dead or shuts down."""
        return (Rule("respawn", _draw, at=cls.at),)

    def effect(self, graph: Graph) -> Effect:
        """Return `starts`: the replica gets a new incarnation."""
        del graph
        return "starts"

    def possible(self, model: GraphModel) -> str | None:
        """Return None if the replica is dead or shuts down, and the supervisor does not restart replicas. Otherwise return the reason."""
        if said := self.check(model):
            return said
        if model.spec.restart == "always":
            return f"{model.spec.name} brings back what died by itself (restart = always)"
        return f"{self.aim} lives" if model.lives(self.aim) else None

    async def run(self, scene: Scene) -> Landed:
        """Start the replica again. If it still shuts down, first wait for its end."""
        return await bring_back(scene.target, self.aim)


async def bring_back(target: Actions, replica: Replica) -> Landed:
    """Start a replica again. If it still shuts down, first wait for its end, and kill it after `stop_s` seconds."""
    stop_s = target.spec.role(replica.role).stop_s
    drained = ""
    if target.ending(replica):
        if await target.gone(replica, stop_s):
            drained = "after it had ended, "
        else:
            await target.kill(replica, TREE)
            drained = f"after SIGKILL, since it had not ended in {stop_s:g} s, "
    landed = await target.respawn(replica)
    return Landed(landed.ok, drained + landed.proof, landed.at_s)


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield Respawn.at(pick.replica)
