"""SIGTERM to the main process of a replica.

It lands when the signal is sent: the replica may take its time to drain. Heal respawns it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import ROLE, Aimed, Draft, Effect, Pick, Rule, Step
from graphquake.harness.spec.steps.model import Graph


@dataclass(frozen=True, slots=True)
class Terminate(Aimed):
    """SIGTERM."""

    verb: ClassVar[str] = "terminate"
    form: ClassVar[str] = "terminate ROLE INDEX"
    pattern: ClassVar[str] = rf"terminate {ROLE}"
    is_fault: ClassVar[bool] = True
    prior: ClassVar[float] = 0.40

    def __str__(self) -> str:
        return f"terminate {self.aim}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Terminate:
        """The step from its text form."""
        return cls(found["role"], int(found["index"]))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """At any replica that works."""
        return (Rule("terminate", _draw, at=cls.at),)

    def effect(self, graph: Graph) -> Effect:
        """The replica takes no new work from then on, though its process may live for seconds."""
        del graph
        return "ends"

    async def run(self, scene: Scene) -> Landed:
        """Send the signal."""
        return await scene.target.terminate(self.aim)


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield Terminate.at(pick.replica)
