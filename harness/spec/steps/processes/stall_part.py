"""The step `stall` of a part: send SIGSTOP to the main process of a replica alone, or to one of its children, and SIGCONT later.

The rest of the replica runs on. So a frozen engine may stand behind a parent that still says that it is well. The step lands when this
process is stopped and every other process of the replica is not.

For the model and the judge, the replica does not work meanwhile. The answers of the graph about the replica are not judged in that time:
both `ready` and `not ready` can be defended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import (
    ROLE,
    SECONDS,
    WAIT_MAX_S,
    Draft,
    Pick,
    Rule,
    Step,
    number,
)
from graphquake.harness.spec.steps.model import Graph, GraphModel, Role
from graphquake.harness.spec.steps.processes.stall import STALLS_S, Stall, lengths_s
from graphquake.harness.spec.steps.scope import PROCESS, TREE, Child, Scope, scope_of
from graphquake.harness.spec.table import did_you_mean


@dataclass(frozen=True, slots=True)
class StallPart(Stall):
    """Send SIGSTOP to one process of a replica, and SIGCONT later.

    Attributes:
        scope: the process that stops: the main process, or a child.
    """

    scope: Scope = PROCESS

    title: ClassVar[str] = "stall part"
    form: ClassVar[str] = "stall ROLE INDEX process | CHILD [INDEX] for T s"
    pattern: ClassVar[str] = (
        rf"stall {ROLE} (?P<scope>(?!for )[A-Za-z_][\w-]*)(?: (?P<child>\d{{1,6}}))? for (?P<for>{SECONDS}) s"
    )

    def __str__(self) -> str:
        return f"stall {self.aim} {self.scope} for {self.for_s:.2f} s"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Stall:
        """Return the step that a text form describes."""
        scope = scope_of(found["scope"], int(found["child"] or 0))
        for_s = number(found["for"], 0.01, WAIT_MAX_S, "seconds")
        role, index = found["role"], int(found["index"])
        return Stall(role, index, for_s) if scope == TREE else cls(role, index, for_s, scope)

    @classmethod
    def at(cls, replica: Replica) -> StallPart:
        """Return the shortest stall of a replica's main process that is drawn."""
        return cls(replica.role, replica.index, STALLS_S[0])

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a stall of the main process or of a named child of any replica that lives and is not stalled."""
        return (Rule("stall_part", _draw, at=cls.at, timed=True, seldom=True),)

    @classmethod
    def fits(cls, role: Role) -> bool:
        """True if the graph file gives names to the child processes of the role. Otherwise a replica is one process."""
        return bool(role.children)

    def feature(self, graph: Graph) -> str:
        """Return a text with the role, the process and the class of the length."""
        name = self.scope.name if isinstance(self.scope, Child) else str(self.scope)
        return f"{Stall.feature(self, graph)}, {name}"

    def check(self, model: GraphModel) -> str | None:
        """Return None if the role has named children, and the child in the scope is one of them. Otherwise return the reason."""
        if said := Stall.check(self, model):
            return said
        children = model.spec.role(self.role).children
        if not children:
            whole = Stall(self.role, self.index, self.for_s)
            return f'{self.role} has no children in the graph file, so use "{whole}"'
        if isinstance(self.scope, Child) and self.scope.name not in children:
            near = did_you_mean(self.scope.name, (str(PROCESS), *children))
            return f'{self.role} has no child "{self.scope.name}"{near}'
        return None

    async def run(self, scene: Scene) -> Landed:
        """Stop this process, and see that every other process of the replica runs on."""
        return await scene.target.stall(self.aim, self.scope)


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    replica = pick.replica
    children = draft.model.spec.role(replica.role).children
    scope = scope_of(pick.one_of([*children, str(PROCESS)]))
    for_s = pick.one_of(lengths_s(draft.model.spec))
    yield StallPart(replica.role, replica.index, for_s, scope)
