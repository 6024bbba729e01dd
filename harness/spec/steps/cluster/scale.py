"""The step `scale`: give a role fewer replicas until heal, as an autoscaler or a user does.

The controller of the role chooses which pods it deletes. So it is not known which replicas live until heal, and no other
step may aim at the role. The step lands when enough pods are marked as deleted, and tells when each was. Heal gives the former number back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.cluster.whole_role import NAME, OfRole
from graphquake.harness.spec.steps.kind import Draft, Pick, Rule, Step
from graphquake.harness.spec.steps.model import Graph, GraphModel, Ongoing


@dataclass(frozen=True, slots=True)
class Scale(OfRole):
    """Give a role fewer replicas until heal.

    Attributes:
        to: the number of replicas that are left, less than the graph file has.
    """

    to: int = 0

    verb: ClassVar[str] = "scale"
    form: ClassVar[str] = "scale ROLE to N"
    pattern: ClassVar[str] = rf"scale (?P<role>{NAME}) to (?P<to>\d{{1,6}})"

    def __str__(self) -> str:
        return f"scale {self.role} to {self.to}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Scale:
        """Return the step that a text form describes."""
        return cls(found["role"], int(found["to"]))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a scale of any role, to one replica less or to none."""
        return (Rule("scale", _draw, at=lambda one: cls(one.role), seldom=True),)

    @property
    def lasts_s(self) -> float:
        """Return infinity: only heal undoes it."""
        return math.inf

    def check(self, model: GraphModel) -> str | None:
        """Return the reason why the step is impossible: there is no such role of pods, or it has not more replicas than that."""
        if said := OfRole.check(self, model):
            return said
        count = model.spec.role(self.role).replicas
        if self.to >= count:
            return f"{self.role} has {count} replicas, expected a number below that"
        return None

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model after the step. The last replicas stand for those that are gone."""
        replicas = self.replicas(model.spec)
        gone = Ongoing(self.verb, replicas[self.to :], math.inf, stops=True)
        unknown = Ongoing(self.verb, replicas, math.inf, stops=False, blurs=True)
        return model.with_ongoing(gone).with_ongoing(unknown)

    async def run(self, scene: Scene) -> Landed:
        """Scale the role, and wait until its controller has deleted the other pods."""
        return await scene.target.cluster.scale(self.role, self.to)

    async def undo(self, scene: Scene) -> Landed:
        """Give the role its former number of replicas."""
        return await scene.target.cluster.unscale(self.role)

    def simpler(self, graph: Graph) -> Iterator[Step]:
        """Yield the scale that leaves one replica more, if that takes any away."""
        if self.to + 1 < graph.role(self.role).replicas:
            yield Scale(self.role, self.to + 1)

    def covers(self, other: Step) -> bool:
        """True if the other step scales the same role to at least as many replicas."""
        return isinstance(other, Scale) and other.role == self.role and other.to >= self.to


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    role = pick.replica.role
    count = draft.model.spec.role(role).replicas
    yield Scale(role, pick.one_of(sorted({0, count - 1})))
