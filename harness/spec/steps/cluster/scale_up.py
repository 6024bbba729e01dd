"""The step `scale … up`: give a role more replicas until heal, as an autoscaler or a user does.

It lands when the controller has created the pods. They are no replicas of the run: no step aims at them, and none is expected to be ready.
Heal takes as many pods away, and the controller chooses which. So until heal no other step may aim at the role. If a pod that was a replica
is taken away, one of the others is the replica from then on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.cluster.whole_role import NAME, OfRole
from graphquake.harness.spec.steps.kind import Draft, Effect, Pick, Rule, Step
from graphquake.harness.spec.steps.model import Graph, GraphModel, Ongoing, Role


@dataclass(frozen=True, slots=True)
class ScaleUp(OfRole):
    """Give a role more replicas until heal.

    Attributes:
        to: the number of replicas, more than `replicas` in the graph file, and at most `scale_to`.
    """

    to: int = 0

    verb: ClassVar[str] = "scale"
    title: ClassVar[str] = "scale up"
    form: ClassVar[str] = "scale ROLE up to N"
    pattern: ClassVar[str] = rf"scale (?P<role>{NAME}) up to (?P<to>\d{{1,6}})"

    def __str__(self) -> str:
        return f"scale {self.role} up to {self.to}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> ScaleUp:
        """Return the step that a text form describes."""
        return cls(found["role"], int(found["to"]))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a scale of any role that may have more replicas: to one more, or to the most."""
        return (Rule("scale_up", _draw, may=_may, picks=True, seldom=True),)

    @classmethod
    def fits(cls, role: Role) -> bool:
        """True if the file lets a scale give the role more replicas."""
        return role.in_pods and role.scales_to > role.replicas

    @property
    def lasts_s(self) -> float:
        """Return infinity: only heal undoes it."""
        return math.inf

    def effect(self, graph: Graph) -> Effect:
        """Return `nothing`: no replica ends at its start."""
        del graph
        return "nothing"

    def check(self, model: GraphModel) -> str | None:
        """Return the reason why the step is impossible: there is no such role of pods, or it may not have so many replicas."""
        if said := OfRole.check(self, model):
            return said
        role = model.spec.role(self.role)
        if role.scales_to <= role.replicas:
            return (
                f"{self.role} may have no more replicas: write scale_to = N into roles.{self.role}"
            )
        if not role.replicas < self.to <= role.scales_to:
            return f"found {self.to}, expected a number from {role.replicas + 1} to {role.scales_to} (roles.{self.role}.scale_to)"
        return None

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model after the step. Heal may take away any replica of the role."""
        replicas = self.replicas(model.spec)
        return model.with_ongoing(Ongoing(self.verb, replicas, math.inf, stops=False, blurs=True))

    async def run(self, scene: Scene) -> Landed:
        """Scale the role, and wait until its controller has created the pods."""
        return await scene.target.cluster.scale(self.role, self.to)

    async def undo(self, scene: Scene) -> Landed:
        """Give the role its former number of replicas, and wait until the controller has deleted as many pods."""
        return await scene.target.cluster.unscale(self.role)

    def simpler(self, graph: Graph) -> Iterator[Step]:
        """Yield the scale to one replica less, if that adds any."""
        if self.to - 1 > graph.role(self.role).replicas:
            yield ScaleUp(self.role, self.to - 1)

    def covers(self, other: Step) -> bool:
        """True if the other step scales the same role up, to at most as many replicas."""
        return isinstance(other, ScaleUp) and other.role == self.role and other.to <= self.to


def _roles(draft: Draft) -> list[Role]:
    return [role for role in draft.model.spec.roles if ScaleUp.fits(role)]


def _may(draft: Draft) -> bool:
    return bool(_roles(draft))


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    role = pick.one_of(_roles(draft))
    yield ScaleUp(role.name, pick.one_of(sorted({role.replicas + 1, role.scales_to})))
