"""The base class of steps that act on the controller of a role, and so on all its pods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.kind import Effect, Step
from graphquake.harness.spec.steps.model import Graph, GraphModel, Role

NAME: Final = r"[A-Za-z_][\w-]*"


@dataclass(frozen=True, slots=True)
class OfRole(Step):
    """A step that acts on the controller of a role.

    Attributes:
        role: the role.
    """

    role: str

    is_fault: ClassVar[bool] = True

    @property
    def roles(self) -> tuple[str, ...]:
        """The role, as the only item. Only the graph knows the number of its replicas."""
        return (self.role,)

    @classmethod
    def fits(cls, role: Role) -> bool:
        """True if the replicas of the role are pods."""
        return role.in_pods

    def feature(self, graph: Graph) -> str:
        """Return the text of the step."""
        del graph
        return str(self)

    def effect(self, graph: Graph) -> Effect:
        """Return `ends`: pods are told to end."""
        del graph
        return "ends"

    def replicas(self, graph: Graph) -> tuple[Replica, ...]:
        """Return all replicas of the role."""
        return tuple(Replica(self.role, index) for index in range(graph.role(self.role).replicas))

    def check(self, model: GraphModel) -> str | None:
        """Return the reason why the step is impossible: the target can't do it, there is no such role, or it has no pods."""
        if said := Step.check(self, model) or model.unknown(Replica(self.role, 0)):
            return said
        if not model.spec.role(self.role).in_pods:
            return f"{self.role} has no pods: {model.spec.name} has no table [kubernetes]"
        return None

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why the step is not possible now: each replica must live, and no scale or stall may act on one."""
        if said := self.check(model):
            return said
        every = self.replicas(model.spec)
        return next((said for said in map(model.out_of_reach, every) if said), None)
