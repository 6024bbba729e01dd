"""The step `kill`: send SIGKILL to a replica, or to some of its processes.

The step lands when every process in its scope was seen to be gone. If the replica is dead after the plan, heal can start it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import (
    FLAG,
    ROLE,
    Aimed,
    Draft,
    Effect,
    Pick,
    Rule,
    Step,
)
from graphquake.harness.spec.steps.model import Graph, GraphModel
from graphquake.harness.spec.steps.processes.respawn import Respawn
from graphquake.harness.spec.steps.scope import PROCESS, TREE, Child, Scope, Whole, scope_of
from graphquake.harness.spec.steps.waits.wait import (
    PLAN_WAITS_MAX_S,
    Wait,
    WaitReady,
    may_be_ready,
)
from graphquake.harness.spec.table import did_you_mean

# A drawn outage lasts longer than `outage_shows_s` by this time, in seconds. So the run also sees what the graph lists after that.
BEYOND_NOTICE_S: Final = 0.2
# The number of steps of the rule `outage`: kill, wait.
OUTAGE_STEPS: Final = 2
# The number of steps of the rule `restart`: kill, respawn, wait.
RESTART_STEPS: Final = 3
# The short waits that the rule `restart` may choose after its respawn, in seconds.
SHORT_S: Final = (0.1, 0.35)


@dataclass(frozen=True, slots=True)
class Kill(Aimed):
    """Send SIGKILL to a replica.

    Attributes:
        scope: the processes of the replica that are killed: all, the main process alone, or one child process.
    """

    scope: Scope = TREE

    verb: ClassVar[str] = "kill"
    form: ClassVar[str] = "kill ROLE INDEX [process | CHILD [INDEX]]"
    pattern: ClassVar[str] = (
        rf"kill {ROLE}(?: (?P<scope>[A-Za-z_][\w-]*)(?: (?P<child>\d{{1,6}}))?)?"
    )
    is_fault: ClassVar[bool] = True
    prior: ClassVar[float] = 0.40

    def __str__(self) -> str:
        aim = f"kill {self.aim}"
        return aim if self.scope == TREE else f"{aim} {self.scope}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Kill:
        """Return the step that a text form describes."""
        scope = scope_of(found["scope"] or TREE.value, int(found["child"] or 0))
        return cls(found["role"], int(found["index"]), scope)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Return the rules by which kills are drawn: a kill alone, a kill and a respawn, or a kill and a wait that lets the outage show."""
        return (
            Rule("kill", _kill, at=cls.at, timed=True),
            Rule(
                "restart",
                _restart,
                _may_restart,
                at=cls.at,
                ahead={
                    "wait": (WaitReady(), WaitReady(), *map(Wait, SHORT_S)),
                    "again": FLAG,
                },
            ),
            Rule("outage", _outage, _may_outage, at=cls.at),
        )

    def feature(self, graph: Graph) -> str:
        """Return a text with the role and the scope: kills with different scopes count as different."""
        del graph
        name = self.scope.name if isinstance(self.scope, Child) else self.scope.value
        return f"kill {self.role} {name}"

    def effect(self, graph: Graph) -> Effect:
        """Return `kills` for a whole replica. For a child, return `dooms` if the replica dies with this child, else `nothing`."""
        if isinstance(self.scope, Whole):
            return "kills"
        return "dooms" if self.scope.name in graph.role(self.role).dies_with else "nothing"

    def check(self, model: GraphModel) -> str | None:
        """Return None if the graph has the replica and the role has the child in the scope. Otherwise return the reason."""
        if said := Aimed.check(self, model):
            return said
        if isinstance(self.scope, Whole):
            return None
        children = model.spec.role(self.role).children
        if self.scope.name in children:
            return None
        near = did_you_mean(self.scope.name, (PROCESS.value, *children))
        return f'{self.role} has no child "{self.scope.name}"{near}'

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why this kill is not possible now, or None if it is possible.

        A stalled replica can only be killed with all its processes. Its stopped processes would not notice the death of one of them.
        """
        if said := self.check(model):
            return said
        if not model.lives(self.aim):
            return f"{self.aim} does not live any more"
        if self.scope != TREE and model.is_stopped(self.aim):
            return f"{self.aim} is stalled"
        return None

    async def run(self, scene: Scene) -> Landed:
        """Kill the processes in the scope, and wait until all of them are gone."""
        return await scene.target.kill(self.aim, self.scope)


def _kill(draft: Draft, pick: Pick) -> Iterator[Step]:
    replica = pick.replica
    children = list(draft.model.spec.role(replica.role).children)
    # If the file does not name children, a replica is one process, and its tree is that process.
    scopes = [TREE.value, PROCESS.value, *children] if children else [TREE.value]
    step = Kill(replica.role, replica.index, scope_of(pick.one_of(scopes)))
    yield step if step.possible(draft.model) is None else Kill.at(replica)


def _may_restart(draft: Draft) -> bool:
    return draft.model.spec.restart == "never" and draft.room >= RESTART_STEPS


def _restart(draft: Draft, pick: Pick) -> Iterator[Step]:
    """Yield a kill, a respawn of the same replica, and a wait. In half of the draws, then kill the new incarnation, too."""
    replica = pick.replica
    yield Kill.at(replica)
    yield Respawn.at(replica)
    wait = pick.ahead["wait"]
    yield wait if isinstance(wait, Wait) or may_be_ready(draft) else Wait(SHORT_S[-1])
    if pick.ahead["again"] and draft.may_fault():
        yield Kill.at(replica)


def _outage_s(graph: Graph) -> float:
    return graph.outage_shows_s + BEYOND_NOTICE_S


def _may_outage(draft: Draft) -> bool:
    graph = draft.model.spec
    return (
        graph.restart == "never"
        and graph.lease_s > 0
        and draft.room >= OUTAGE_STEPS
        and draft.waited_s() + _outage_s(graph) <= PLAN_WAITS_MAX_S
    )


def _outage(draft: Draft, pick: Pick) -> Iterator[Step]:
    """Yield a kill and a wait, in which the replica is dead for longer than the graph may still list it."""
    yield Kill.at(pick.replica)
    yield Wait(round(_outage_s(draft.model.spec), 2))
