"""The rule-based state machine that draws a plan.

**Rules append, teardown judges.** A rule adds one step to the plan, if a pure model of the graph says that it is possible; no rule
ever looks at the live graph. Judging happens once, at teardown. So drawing is deterministic whatever the graph does, and no noise of a
live system reaches Hypothesis: a machine whose rules act on a live graph dies of `Flaky` errors as soon as a bug shows in fewer
than all of its runs (measured on a simulated graph: at a rate of .9, 5 of 30 searches ended so; at .6, 25 of 30).

To draw steps of your own, subclass `PlanMachine` and add rules whose only effect is `self.add(step)`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import (
    FAULTS,
    Burst,
    Fault,
    Kill,
    Plan,
    Respawn,
    Stall,
    Step,
    Terminate,
    Wait,
    WaitReady,
    is_fault,
)
from graphquake.machines.plans.graph_model import Model
from graphquake.machines.plans.novelty import outlast_s

# Longer plans are mostly outage: with 24 steps, 59% of the plan's time had nothing to judge.
STEPS_MAX: Final = 10
FAULTS_MAX: Final = 6
BURSTS_MAX: Final = 3
WAITS_MAX_S: Final = 6.0
# Log-uniform from 20 ms to 2 s: a race needs a short wait as often as a slow clean-up needs a long one.
WAITS_S: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.5, 2.0)
BURSTS: Final = (5, 10, 20, 30, 40)
BURSTS_OVER_S: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
LEAVES: Final = (0.0, 0.0, 0.25, 0.5, 1.0)
# A stale lease shows itself when it ends: the run outlasts it by this.
BEYOND_LEASE_S: Final = 2.0

# An outage that lasts so much longer than what the graph says of itself may lag shows whether that is true.
BEYOND_NOTICE_S: Final = 0.2

STALLS_S: Final = (0.2, 0.6, 1.2)
STALL_BEYOND_LEASE_S: Final = 1.0
# Kill, wait.
OUTAGE_STEPS: Final = 2
# Kill, respawn, wait; and for how long, where it is not until all is ready.
RESTART_STEPS: Final = 3
SHORT_S: Final = (0.1, 0.35)

OnPlan = Callable[[Plan], None]


class PlanMachine(RuleBasedStateMachine):
    """Draws one plan for one graph, and hands it over.

    Class attributes are set by `machine_for`.
    """

    spec: ClassVar[GraphSpec]
    on_plan: ClassVar[OnPlan]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(self.spec)
        self.steps: list[Step] = []
        self.length = 0
        self.stay_s = 0.0
        self.keeps_path = False
        self.focus = ""

    # ---- what may be drawn now; all of it from the model

    @property
    def has_room(self) -> bool:
        """Whether the plan may still grow."""
        return len(self.steps) < self.length

    def may_fault(self) -> bool:
        """Whether one more fault may be drawn."""
        return self.has_room and sum(map(is_fault, self.steps)) < FAULTS_MAX

    @property
    def faults(self) -> set[type[Fault]]:
        """The kinds of fault that the graph file lets be drawn."""
        return {FAULTS[verb] for verb in self.spec.faults}

    def targets(self, make: Callable[[str, int], Step]) -> list[tuple[str, int]]:
        """The replicas at which a step of that kind may aim."""
        found = []
        for replica in self.spec.replicas():
            role, index = replica.role, replica.index
            step = make(role, index)
            if isinstance(step, Fault) and type(step) not in self.faults:
                return []
            aimed = self.focus in ("", role) and self.model.possible(step) is None
            if aimed and (not self.keeps_path or self.model.after(step).serves()):
                found.append((role, index))
        return found

    def add(self, step: Step) -> None:
        """Append a step to the plan."""
        self.steps.append(step)
        self.model = self.model.after(step)

    def pick(self, data: st.DataObject, targets: list[tuple[str, int]]) -> tuple[str, int]:
        """One of the targets: a role first, so that a role with one replica is hit as often as one with four."""
        role = data.draw(st.sampled_from(list(dict.fromkeys(role for role, _ in targets))))
        return role, data.draw(st.sampled_from([i for name, i in targets if name == role]))

    # ---- rules

    @initialize(
        length=st.integers(1, STEPS_MAX),
        keeps_path=st.sampled_from([True, True, False]),
        data=st.data(),
        stays=st.sampled_from([False, False, False, False, True]),
    )
    def begin(self, length: int, keeps_path: bool, data: st.DataObject, stays: bool) -> None:  # noqa: FBT001
        """Some plans keep a serving path; one in two aims at one role alone; one in five outlasts the graph's leases.

        Where each role can lose a replica, two plans in three keep a path; where few can, fewer do, or the others would hardly be hit.
        """
        self.length = length
        roles = [role.name for role in self.spec.roles]
        self.keeps_path = keeps_path and self.can_spare(data.draw(st.sampled_from(roles)))
        if data.draw(st.booleans()):
            self.focus = data.draw(st.sampled_from(self.spec.replicas())).role
        self.stay_s = self.spec.lease_s + BEYOND_LEASE_S if stays and self.spec.lease_s else 0.0

    def can_spare(self, role: str) -> bool:
        """Whether there is still a path without one replica of a role."""
        return self.model.after(Kill(role, 0)).serves()

    @precondition(lambda self: self.may_fault() and self.targets(Kill))
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """SIGKILL to a replica: all of its tree, its main process, or a child that the graph file names."""
        role, index = self.pick(data, self.targets(Kill))
        children = list(self.spec.role(role).children)
        # Where the file names no children, a replica is one process, and its tree is that.
        scopes = ["tree", "process", *children] if children else ["tree"]
        step = Kill(role, index, data.draw(st.sampled_from(scopes)))
        self.add(step if self.model.possible(step) is None else Kill(role, index))

    @precondition(
        lambda self: (
            self.may_fault()
            and self.spec.restart == "never"
            and len(self.steps) + RESTART_STEPS <= self.length
            and self.targets(Kill)
        )
    )
    @rule(
        data=st.data(),
        wait=st.sampled_from([WaitReady(), WaitReady(), *map(Wait, SHORT_S)]),
        again=st.booleans(),
    )
    def restart(self, data: st.DataObject, wait: Step, again: bool) -> None:  # noqa: FBT001
        """A replica goes and comes back: what follows meets its next incarnation, young or not yet there. Or that dies at once."""
        aim = self.pick(data, self.targets(Kill))
        for step in (Kill(*aim), Respawn(*aim), wait):
            self.add(step)
        if again and self.may_fault():
            self.add(Kill(*aim))

    @property
    def outage_s(self) -> float:
        """How long an outage has to be to show in all that the graph says of itself."""
        return outlast_s(self.spec) + BEYOND_NOTICE_S

    @precondition(
        lambda self: (
            self.may_fault()
            and self.spec.restart == "never"
            and self.spec.lease_s > 0
            and len(self.steps) + OUTAGE_STEPS <= self.length
            and self.waited_s() + self.outage_s <= WAITS_MAX_S
            and self.targets(Kill)
        )
    )
    @rule(data=st.data())
    def outage(self, data: st.DataObject) -> None:
        """A replica goes, and stays away for longer than leases hide it."""
        self.add(Kill(*self.pick(data, self.targets(Kill))))
        self.add(Wait(round(self.outage_s, 2)))

    @precondition(lambda self: self.may_fault() and self.targets(Terminate))
    @rule(data=st.data())
    def terminate(self, data: st.DataObject) -> None:
        """SIGTERM to a replica."""
        self.add(Terminate(*self.pick(data, self.targets(Terminate))))

    @precondition(lambda self: self.may_fault() and self.targets(_stall))
    @rule(data=st.data())
    def stall(self, data: st.DataObject) -> None:
        """SIGSTOP to a replica for a while; where there are leases, one time in four for longer than they last."""
        role, index = self.pick(data, self.targets(_stall))
        beyond = [self.spec.lease_s + STALL_BEYOND_LEASE_S] if self.spec.lease_s else []
        self.add(Stall(role, index, data.draw(st.sampled_from([*STALLS_S, *beyond]))))

    @precondition(lambda self: self.has_room and self.targets(Respawn))
    @rule(data=st.data())
    def respawn(self, data: st.DataObject) -> None:
        """Bring a dead replica back."""
        self.add(Respawn(*self.pick(data, self.targets(Respawn))))

    @precondition(lambda self: self.has_room and self.count(Burst) < BURSTS_MAX)
    @rule(
        requests=st.sampled_from(BURSTS),
        over_s=st.sampled_from(BURSTS_OVER_S),
        leave=st.sampled_from(LEAVES),
    )
    def burst(self, requests: int, over_s: float, leave: float) -> None:
        """Requests on top of the steady load."""
        self.add(Burst(requests, over_s, leave))

    @precondition(
        lambda self: (
            self.has_room
            and self.waited_s() < WAITS_MAX_S
            and not (self.steps and isinstance(self.steps[-1], Wait))
        )
    )
    @rule(for_s=st.sampled_from(WAITS_S))
    def wait(self, for_s: float) -> None:
        """Let time pass."""
        self.add(Wait(round(min(for_s, WAITS_MAX_S - self.waited_s()), 2)))

    @precondition(lambda self: self.has_room and self.somebody_comes())
    @rule()
    def wait_until_ready(self) -> None:
        """Let the graph recover before the next step."""
        self.add(WaitReady())

    @precondition(lambda self: not self.has_room or self.count(Burst) == BURSTS_MAX)
    @rule()
    def rest(self) -> None:
        """The plan has its length, or it may be that nothing else can be added."""

    def somebody_comes(self) -> bool:
        """Whether there is somebody to wait for: who was respawned, goes on after a stall, or comes back by himself."""
        comes = Fault if self.spec.restart == "always" else Respawn | Stall
        since = itertools.takewhile(lambda step: not isinstance(step, WaitReady), self.steps[::-1])
        return any(isinstance(step, comes) for step in since)

    def count(self, kind: type[Step]) -> int:
        """How many steps of a kind the plan has so far."""
        return sum(isinstance(step, kind) for step in self.steps)

    def waited_s(self) -> float:
        """How long the plan waits so far."""
        return sum(step.for_s for step in self.steps if isinstance(step, Wait))

    # ---- the plan

    def plainest(self) -> list[Plan]:
        """The plainest plans: each role loses one replica, or the most requests come at once, which wait or all leave."""
        first = dict(reversed(self.targets(Kill)))
        roles = [role.name for role in self.spec.roles if role.name in first]
        steps: list[Step] = [Kill(role, first[role]) for role in roles]
        steps += [Burst(max(BURSTS), min(BURSTS_OVER_S), leave) for leave in (0.0, max(LEAVES))]
        return [Plan((step,)) for step in steps]

    def plan(self) -> Plan:
        """What was drawn."""
        return Plan(tuple(self.steps), stay_s=self.stay_s)

    def teardown(self) -> None:
        """Hand over the plan, unless Hypothesis ended the drawing early."""
        if sys.exc_info()[0] is None:
            type(self).on_plan(self.plan())


def _stall(role: str, index: int) -> Stall:
    """The stall by which targets are looked for: how long it takes is no matter."""
    return Stall(role, index, STALLS_S[0])


def machine_for(
    spec: GraphSpec, on_plan: OnPlan, base: type[PlanMachine] = PlanMachine
) -> type[PlanMachine]:
    """The machine that draws plans for a graph.

    Args:
        spec: the graph.
        on_plan: called with each plan; raises if the plan breaks a promise.
        base: a subclass of `PlanMachine` with rules of its own.
    """
    members: dict[str, Any] = {"spec": spec, "on_plan": staticmethod(on_plan)}
    return type(base.__name__, (base,), members)
