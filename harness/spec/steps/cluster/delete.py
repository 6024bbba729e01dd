"""The step `delete`: delete the pod of a replica, as a rollout, a drain of a node or a user does.

The kubelet sends SIGTERM to the containers, and SIGKILL when the grace is over. A grace of 0 is a forced delete: the pod is gone from the
API at once, but its processes get SIGTERM, and SIGKILL only 2 s later. So a forced delete is not a kill. A controller makes a new pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import (
    ROLE,
    WAIT_MAX_S,
    Aimed,
    Draft,
    Effect,
    Pick,
    Rule,
    Step,
    number,
)
from graphquake.harness.spec.steps.model import Graph, GraphModel, Role

# The grace that stands for the time in the pod's own spec.
OWN_GRACE: Final = -1


@dataclass(frozen=True, slots=True)
class Delete(Aimed):
    """Delete the pod of a replica.

    Attributes:
        grace_s: the time from SIGTERM to SIGKILL, in whole seconds. 0 for a forced delete, `OWN_GRACE` for the time in the pod's spec.
    """

    grace_s: int = OWN_GRACE
    verb: ClassVar[str] = "delete"
    form: ClassVar[str] = "delete ROLE INDEX [grace T s]"
    pattern: ClassVar[str] = rf"delete {ROLE}(?: grace (?P<grace>\d{{1,4}}) s)?"
    is_fault: ClassVar[bool] = True
    prior: ClassVar[float] = 0.40

    def __str__(self) -> str:
        grace = "" if self.grace_s == OWN_GRACE else f" grace {self.grace_s} s"
        return f"delete {self.aim}{grace}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Delete:
        """Return the step that a text form describes."""
        grace = found["grace"]
        grace_s = OWN_GRACE if grace is None else int(number(grace, 0, WAIT_MAX_S, "seconds"))
        return cls(found["role"], int(found["index"]), grace_s)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a delete of any pod, with its own grace or with none."""
        return (Rule("delete", _draw, at=cls.at, ahead={"grace_s": (OWN_GRACE, 0)}, timed=True),)

    @classmethod
    def fits(cls, role: Role) -> bool:
        """True if the replicas of the role are pods."""
        return role.in_pods

    def effect(self, graph: Graph) -> Effect:
        """Return `ends`: the replica takes no new work after SIGTERM, though its process may live for seconds."""
        del graph
        return "ends"

    def check(self, model: GraphModel) -> str | None:
        """Return the reason why the step is impossible: the target can't do it, there is no such replica, or it is not a pod."""
        if said := Aimed.check(self, model):
            return said
        if not model.spec.role(self.role).in_pods:
            return f"{self.aim} is not a pod: {model.spec.name} has no table [kubernetes]"
        return None

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model after the delete. While a node takes no new pods, a new pod may not come."""
        return model.with_lost(self.aim) if model.acts("cordon") else Aimed.after(self, model)

    def simpler(self, graph: Graph) -> Iterator[Step]:
        """Yield the same delete with the pod's own grace, which every rollout uses."""
        del graph
        if self.grace_s != OWN_GRACE:
            yield Delete(self.role, self.index)

    def covers(self, other: Step) -> bool:
        """True if the other step deletes the same pod, with the same grace or with its own."""
        return isinstance(other, Delete) and other in (self, Delete(self.role, self.index))

    async def run(self, scene: Scene) -> Landed:
        """Delete the pod, and wait until the API server has marked it. Do not wait for the end of its processes."""
        grace_s = None if self.grace_s == OWN_GRACE else self.grace_s
        return await scene.target.delete(self.aim, grace_s)


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield Delete(pick.replica.role, pick.replica.index, pick.ahead["grace_s"])
