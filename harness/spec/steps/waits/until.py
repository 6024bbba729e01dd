"""Waits for an event: the step after such a wait happens at that moment. Example: `wait until 8 in flight`, then `kill decode 0`.

Faults in seconds hit their moment by luck. A wait for an event hits it within milliseconds. Each wait is bounded. If the event does not
come in its time, the plan goes on, and the step is `missed`. The run is then weak, because it was not the plan that was asked for.

`Until` is the base class. Each event is one subclass in its own file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import Step
from graphquake.harness.spec.steps.model import Graph
from graphquake.harness.spec.steps.waits.wait import Wait


@dataclass(frozen=True, slots=True)
class Until(Step):
    """A wait for an event. The shrinker tries a plain wait of `plain_s` seconds in its place."""

    verb: ClassVar[str] = "wait"
    is_wait: ClassVar[bool] = True
    prior: ClassVar[float] = 0.04
    plain_s: ClassVar[float] = 0.1

    def feature(self, graph: Graph) -> str:
        """Return the text of the step."""
        del graph
        return str(self)

    @abstractmethod
    async def awaited(self, scene: Scene) -> Landed:
        """Wait for the event, for a limited time. The result is ok if the event came."""

    async def run(self, scene: Scene) -> Landed:
        """Wait for the event. The step lands in both cases. It is `missed` if the event did not come."""
        landed = await self.awaited(scene)
        return replace(landed, ok=True, missed=not landed.ok)

    def simpler(self, graph: Graph) -> Iterator[Step]:
        """Yield the plain wait that may stand in place of this step."""
        del graph
        yield Wait(self.plain_s)

    def covers(self, other: Step) -> bool:
        """True if the other step is the same wait, maybe for less, or a plain wait of at most `plain_s` seconds."""
        if isinstance(other, Wait):
            return other.for_s <= self.plain_s
        return Step.covers(self, other)
