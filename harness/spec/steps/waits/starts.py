"""The step `wait until ROLE INDEX starts`: wait until a new incarnation of a replica has been spawned.

It times faults that strike during a start. A start that goes on already counts: the replica runs and is not ready yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import ROLE, Begun, Step
from graphquake.harness.spec.steps.model import Graph, GraphModel
from graphquake.harness.spec.steps.waits.until import Until
from graphquake.harness.spec.steps.waits.wait import ready_bound_s


@dataclass(frozen=True, slots=True)
class UntilStarts(Until):
    """Wait until a replica starts.

    Attributes:
        role: the role of the replica.
        index: the number of the replica within its role, from 0.
    """

    role: str
    index: int

    form: ClassVar[str] = "wait until ROLE INDEX starts"
    pattern: ClassVar[str] = f"wait until {ROLE} starts"
    plain_s: ClassVar[float] = 1.0

    def __str__(self) -> str:
        return f"wait until {self.replica} starts"

    @classmethod
    def parse(cls, found: re.Match[str]) -> UntilStarts:
        """Return the step that a text form describes."""
        return cls(found["role"], int(found["index"]))

    @property
    def replica(self) -> Replica:
        """The replica that starts. The step does not act on it, so it is not one of `aims`."""
        return Replica(self.role, self.index)

    def feature(self, graph: Graph) -> str:
        """Return a text with the role."""
        del graph
        return f"wait until {self.role} starts"

    def check(self, model: GraphModel) -> str | None:
        """Return None if the graph has the replica. Otherwise return the reason."""
        return model.unknown(self.replica)

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why the replica can't start now, or None if it can.

        A step has started it, or the supervisor restarts replicas and one has died. A step of the user's own can start anything.
        """
        if said := self.check(model):
            return said
        if model.spec.own_steps or self.replica in model.starting:
            return None
        if model.spec.restart == "always" and model.coming | model.starting:
            return None
        return f"nothing starts {self.replica} here"

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model in which the replica runs, if the supervisor was to restart it."""
        return model.with_restarted(self.replica)

    async def awaited(self, scene: Scene) -> Landed:
        """Wait until the replica is being started. The time limit is that of `wait until ready`: the file says how long a start takes."""
        within_s = ready_bound_s(scene.target.spec)
        return await scene.target.moments.started(self.replica, within_s)

    def moved(self, to: Callable[[Replica], Replica]) -> Self:
        """Return the same wait for the replica that `to` gives for the present one."""
        new = to(self.replica)
        return type(self)(new.role, new.index)


def starts_timings(begun: Begun) -> list[Step]:
    """Return a wait for each dead replica that the supervisor will restart.

    After a respawn this wait is not needed: the respawn ends when the replica has been spawned.
    """
    return [UntilStarts(one.role, one.index) for one in sorted(begun.model.coming)]
