"""What a graph should look like after the steps so far: pure, small, and all that drawing may look at.

It knows which replicas live, which were told to end, and so which steps are possible. It is a model: that a respawned replica lives is
what ought to be, and if it does not come up, that is a finding of the run and no matter of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from graphquake.harness.errors import InputError
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import (
    PROCESS,
    TREE,
    Aimed,
    Kill,
    Plan,
    Respawn,
    Stall,
    Step,
    Terminate,
    Wait,
    WaitReady,
)
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.table import did_you_mean

# Where the supervisor brings back what died, it is there after its delay and about this long.
RESPAWN_S = 0.1


@dataclass(frozen=True, slots=True)
class Model:
    """A graph as it should be.

    Attributes:
        dead: replicas whose process is gone.
        ending: replicas that were sent SIGTERM.
        stalled: replicas that are stopped, with the seconds until they go on, at most.
        coming: dead replicas that the supervisor brings back by itself (`restart = "always"`).
    """

    spec: GraphSpec
    dead: frozenset[Replica] = field(default=frozenset())
    ending: frozenset[Replica] = field(default=frozenset())
    coming: frozenset[Replica] = field(default=frozenset())
    stalled: frozenset[tuple[Replica, float]] = field(default=frozenset())

    def lives(self, replica: Replica) -> bool:
        """Whether a replica runs and was not told to end."""
        return replica not in self.dead | self.ending | self.coming

    def works(self, replica: Replica) -> bool:
        """Whether a replica lives and is not stalled."""
        return self.lives(replica) and replica not in dict(self.stalled)

    def serves(self) -> bool:
        """Whether a request could be served: an entry and one replica of each role that it needs live."""
        return self._role_lives(self.spec.entry_role.name) and self.spec.serves.holds_by(
            self._role_lives
        )

    def _role_lives(self, role: str) -> bool:
        return any(self.works(Replica(role, i)) for i in range(self.spec.role(role).replicas))

    def possible(self, step: Step) -> str | None:
        """Why a step is not possible now; None if it is."""
        if not isinstance(step, Aimed):
            return None
        if (unknown := self._unknown(step)) is not None:
            return unknown
        replica = Replica(step.role, step.index)
        if isinstance(step, Respawn):
            if self.spec.restart == "always":
                return f"{self.spec.name} brings back what died by itself (restart = always)"
            return f"{replica} lives" if self.lives(replica) else None
        if not self.lives(replica):
            return f"{replica} does not live any more"
        # Of what is stopped, only all of it can be killed: the rest would not see that a part is gone.
        ends_all = isinstance(step, Kill) and step.scope == TREE
        return None if ends_all or self.works(replica) else f"{replica} is stalled"

    def _unknown(self, step: Aimed) -> str | None:
        roles = {role.name: role for role in self.spec.roles}
        if step.role not in roles:
            return f'{self.spec.name} has no role "{step.role}"{did_you_mean(step.role, roles)}'
        role = roles[step.role]
        if step.index >= role.replicas:
            have = " and ".join(str(Replica(role.name, i)) for i in range(min(role.replicas, 4)))
            return f"{self.spec.name} has {have}{' and more' if role.replicas > 4 else ''}"  # noqa: PLR2004
        if isinstance(step, Kill) and step.scope not in (TREE, PROCESS, *role.children):
            known = (PROCESS, *role.children)
            return f'{role.name} has no child "{step.scope}"{did_you_mean(step.scope, known)}'
        return None

    def after(self, step: Step) -> Self:
        """The model after a step that is possible."""
        if isinstance(step, WaitReady):
            return replace(self, coming=frozenset(), stalled=frozenset())
        if isinstance(step, Wait):
            enough = step.for_s >= self.spec.restart_delay_s + RESPAWN_S
            left = {(who, round(left_s - step.for_s, 2)) for who, left_s in self.stalled}
            return replace(
                self,
                coming=frozenset() if enough else self.coming,
                stalled=frozenset(one for one in left if one[1] > 0),
            )
        if not isinstance(step, Aimed):
            return self
        name = Replica(step.role, step.index)
        replica = frozenset([name])
        if isinstance(step, Stall):
            return replace(self, stalled=self.stalled | {(name, step.for_s)})
        if isinstance(step, Respawn):
            return replace(self, dead=self.dead - replica, ending=self.ending - replica)
        if isinstance(step, Terminate) and self.spec.restart != "always":
            return replace(self, ending=self.ending | replica)
        if isinstance(step, Kill) and step.scope not in (
            TREE,
            PROCESS,
            *self.spec.role(step.role).dies_with,
        ):
            return self
        stalled = frozenset(one for one in self.stalled if one[0] != name)
        if self.spec.restart == "always":
            return replace(self, coming=self.coming | replica, stalled=stalled)
        return replace(self, dead=self.dead | replica, stalled=stalled)


def mend(spec: GraphSpec, plan: Plan) -> Plan:
    """The plan without the steps that are not possible where they stand."""
    model, kept = Model(spec), []
    for step in plan.steps:
        if model.possible(step) is None:
            kept.append(step)
            model = model.after(step)
    return replace(plan, steps=tuple(kept))


def feasible(spec: GraphSpec, plan: Plan) -> bool:
    """Whether every step of a plan is possible where it stands."""
    return mend(spec, plan) == plan


def check_plan(spec: GraphSpec, plan: Plan, source: str) -> None:
    """Check a plan that a user gave.

    Args:
        source: what the error names first.

    Raises:
        InputError: about the first step that is not possible, e.g. `plan step 3, "kill decode 2": my-disagg has decode 0`.
    """
    model = Model(spec)
    for number, step in enumerate(plan.steps, 1):
        if (reason := model.possible(step)) is not None:
            raise InputError(f'{source}: plan step {number}, "{step}": {reason}')
        model = model.after(step)
