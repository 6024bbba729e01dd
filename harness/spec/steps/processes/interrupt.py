"""The step `interrupt`: send SIGINT to the main process of a replica, as Ctrl-C in a terminal does.

The step lands when the signal is sent, because the replica may first finish its requests. After the plan, heal can start the replica again.
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
class Interrupt(Aimed):
    """Send SIGINT to the main process of a replica."""

    verb: ClassVar[str] = "interrupt"
    form: ClassVar[str] = "interrupt ROLE INDEX"
    pattern: ClassVar[str] = rf"interrupt {ROLE}"
    is_fault: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"interrupt {self.aim}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Interrupt:
        """Return the step that a text form describes."""
        return cls(found["role"], int(found["index"]))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a SIGINT to any replica that lives and is not stalled."""
        return (Rule("interrupt", _draw, at=cls.at, timed=True, seldom=True),)

    def effect(self, graph: Graph) -> Effect:
        """Return `ends`: the replica takes no new work after the signal, though its process may live for seconds."""
        del graph
        return "ends"

    async def run(self, scene: Scene) -> Landed:
        """Send SIGINT to the main process, and do not wait for its end."""
        return await scene.target.interrupt(self.aim)


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield Interrupt.at(pick.replica)
