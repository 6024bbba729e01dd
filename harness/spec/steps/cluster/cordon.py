"""The step `cordon`: the node of a replica takes no new pods until heal, as before an upgrade of the node.

The pods that run there go on. But a pod that is deleted later can't come back to this node. In a cluster without room elsewhere it waits
until heal. So this step shows little alone, and more before a delete.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import ROLE, Aimed, Draft, Pick, Rule, Step
from graphquake.harness.spec.steps.model import GraphModel, Ongoing, Role


@dataclass(frozen=True, slots=True)
class Cordon(Aimed):
    """Make the node of a replica unschedulable until heal."""

    verb: ClassVar[str] = "cordon"
    form: ClassVar[str] = "cordon ROLE INDEX"
    pattern: ClassVar[str] = rf"cordon {ROLE}"
    is_fault: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"cordon {self.aim}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Cordon:
        """Return the step that a text form describes."""
        return cls(found["role"], int(found["index"]))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a cordon of the node of any replica that lives."""
        return (Rule("cordon", _draw, at=cls.at, seldom=True),)

    @classmethod
    def fits(cls, role: Role) -> bool:
        """True if the replicas of the role are pods."""
        return role.in_pods

    @property
    def lasts_s(self) -> float:
        """Return infinity: only heal undoes it."""
        return math.inf

    def check(self, model: GraphModel) -> str | None:
        """Return the reason why the step is impossible: the target can't do it, there is no such replica, or it is not a pod."""
        if said := Aimed.check(self, model):
            return said
        if not model.spec.role(self.role).in_pods:
            return f"{self.aim} is not a pod: {model.spec.name} has no table [kubernetes]"
        return None

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why the step is not possible now. Two replicas may share a node, so one cordon at a time is possible."""
        if said := Aimed.possible(self, model):
            return said
        return "another cordon still acts" if model.acts(self.verb) else None

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model after the step. It acts on a node, so that it outlasts the replica."""
        return model.with_ongoing(Ongoing(self.verb, (), math.inf, stops=False))

    async def run(self, scene: Scene) -> Landed:
        """Make the node unschedulable, and wait until the API server shows it."""
        return await scene.target.cluster.cordon(self.aim)

    async def undo(self, scene: Scene) -> Landed:
        """Let the node take pods again."""
        return await scene.target.cluster.uncordon(self.aim)


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield Cordon.at(pick.replica)
