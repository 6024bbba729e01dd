"""The step `rollout`: restart a role by its controller, as `kubectl rollout restart` does.

The controller replaces one pod after the other, as the strategy of the workload says. The step lands when each replica has a new
incarnation that is ready. It ends earlier if a new pod does not become ready: a rolling update stops there, too. Failures are excused
around each delete of a pod, and not for the whole time. The mark of the restart stays on the workload, as after the command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.cluster.whole_role import NAME, OfRole
from graphquake.harness.spec.steps.kind import Draft, Pick, Rule, Step
from graphquake.harness.spec.steps.model import GraphModel


@dataclass(frozen=True, slots=True)
class Rollout(OfRole):
    """Restart all replicas of a role by its controller."""

    verb: ClassVar[str] = "rollout"
    form: ClassVar[str] = "rollout ROLE"
    pattern: ClassVar[str] = rf"rollout (?P<role>{NAME})"

    def __str__(self) -> str:
        return f"rollout {self.role}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Rollout:
        """Return the step that a text form describes."""
        return cls(found["role"])

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a rollout of any role whose replicas all live."""
        return (Rule("rollout", _draw, at=lambda one: cls(one.role), seldom=True),)

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model after the rollout: every replica lives, and may still be starting."""
        return replace(model, starting=model.starting | {*self.replicas(model.spec)})

    async def run(self, scene: Scene) -> Landed:
        """Restart the role, and wait until each replica has a new incarnation."""
        return await scene.target.cluster.rollout(self.role)


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield Rollout(pick.replica.role)
