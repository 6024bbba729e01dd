"""The rule-based state machine that draws a plan.

**Rules append, teardown judges.** A rule adds steps to the plan, if a pure model of the graph says that they are possible. No rule
ever looks at the live graph. The plan is judged once, at teardown. So drawing is deterministic, and the noise of a live system does not
reach Hypothesis. If rules acted on a live graph, a bug that does not show in all runs would end the search with a `Flaky` error. This
was measured on a simulated graph. If 9 in 10 runs showed the bug, 5 of 30 searches ended with that error. If 6 in 10 did, 25 of 30 ended.

The rules come from the kinds of steps, see `harness.spec.steps`. To draw steps in other ways, subclass `PlanMachine` and add rules whose
only effect is `self.add(step)`. `self.can(step)` is true if the model allows the step. A rule of the subclass replaces a built-in rule of
the same name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from graphquake.harness.errors import InputError
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.kind import Rule
from graphquake.harness.spec.steps.load.burst import may_burst
from graphquake.harness.spec.steps.model import GraphModel

# Longer plans are mostly outage: with 24 steps, no request could be judged in 59% of the plan's time.
STEPS_MAX: Final = 10
FAULTS_MAX: Final = 6
# A role that leaves a path without one of its replicas is drawn this many times as often as a role that does not.
PATH_LEFT: Final = 3
# A bug with a stale lease shows when the lease ends. So one plan in five lets its run go on for the lease and this time more.
BEYOND_LEASE_S: Final = 2.0

OnPlan = Callable[[Plan], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DrawnPick:
    """The choices of one draw, made by Hypothesis (see `Pick`).

    Attributes:
        data: the source of the choices, or None for a rule that does not choose.
        roles: the roles that the rule may hit. A role that is given twice is twice as likely.
        targets: the replicas that the rule may hit.
        ahead: the values that Hypothesis chose before the rule ran, by name.
    """

    data: st.DataObject | None
    roles: Sequence[str]
    targets: Sequence[Replica]
    ahead: Mapping[str, Any]
    _chosen: list[Replica] = field(default_factory=list)

    def one_of(self, values: Sequence[T]) -> T:
        """One of the given values."""
        assert self.data is not None, "a rule that chooses says so, see Rule.picks"
        return self.data.draw(st.sampled_from(values))

    def flag(self) -> bool:
        """True or False."""
        assert self.data is not None, "a rule that chooses says so, see Rule.picks"
        return self.data.draw(st.booleans())

    @property
    def replica(self) -> Replica:
        """One of the targets. The role is drawn first: the number of its replicas does not matter (see `PlanMachine.weighed`)."""
        if not self._chosen:
            role = self.one_of(self.roles)
            index = self.one_of([one.index for one in self.targets if one.role == role])
            self._chosen.append(Replica(role, index))
        return self._chosen[0]


class PlanMachine(RuleBasedStateMachine):
    """Draws one plan for one graph, and passes the plan to `on_plan`. It is the base class for rules of your own.

    A rule is a method under Hypothesis' decorator `rule`. Its only effect is `self.add(step)`, so that a seed always draws the same plans.
    `self.can(step)` says whether a step is possible after the steps so far, and `self.room` how many more steps the plan may get.
    Pass the class to `chaos`:

        class Rolling(PlanMachine):
            @precondition(lambda self: self.room >= 3 and self.can(Terminate("worker", 0)))
            @rule()
            def roll(self) -> None:
                for step in (Terminate("worker", 0), Respawn("worker", 0), WaitReady()):
                    self.add(step)

        TestRolling = chaos("my.toml", machine=Rolling)

    Attributes:
        spec: the graph. Set by `machine_for`.
        on_plan: the function that receives the finished plan. Set by `machine_for`.
        model: the state of the graph after the steps so far, as predicted.
        steps: the steps so far.
        length: the number of steps at which the plan is full.
        stay_s: the time for which the run goes on after the last step, in seconds.
        keeps_path: if true, no fault may take away the last path.
        focus: the only role that faults and respawns may hit, or empty for every role.
    """

    spec: ClassVar[GraphSpec]
    on_plan: ClassVar[OnPlan]

    def __init__(self) -> None:
        super().__init__()
        self.model = GraphModel(self.spec)
        self.steps: list[Step] = []
        self.length = 0
        self.stay_s = 0.0
        self.keeps_path = False
        self.focus = ""
        # What the rules have asked about the present state. Hypothesis asks each of them several times before each step.
        self._asked: dict[object, Any] = {}

    # ---- the steps that may be drawn now, by the model

    @property
    def room(self) -> int:
        """The number of steps that may still be added."""
        return max(0, self.length - len(self.steps))

    @property
    def has_room(self) -> bool:
        """True if the plan may still grow."""
        return self.room > 0

    def may_fault(self) -> bool:
        """True if one more fault may be drawn."""
        return self.has_room and sum(step.is_fault for step in self.steps) < FAULTS_MAX

    def waited_s(self) -> float:
        """The sum of the waits that the plan has so far, in seconds."""
        return sum(step.waits_s for step in self.steps)

    def asked(self, question: object, answer: Callable[[], T]) -> T:
        """Return the answer to a question about the present state, and remember it until the next step is added."""
        if question not in self._asked:
            self._asked[question] = answer()
        known: T = self._asked[question]
        return known

    def may(self, one: Rule, *, is_fault: bool) -> bool:
        """True if a rule may add steps now. That needs room, a possible target, and the rule's own condition."""
        if not (self.may_fault() if is_fault else self.has_room):
            return False
        return one.may(self) and (one.at is None or self.has_target(one.at))

    def targets(self, at: Callable[[Replica], Step]) -> list[Replica]:
        """The replicas that a step may hit now.

        The model must allow the step at the replica. If it is a fault, the graph file must allow it there. If the plan has a focus, the
        replica must be of that role. If the plan keeps a path, a path must be left after the step.

        Args:
            at: makes the step that hits a given replica.
        """
        return self.asked(at, lambda: list(self._targets(at)))

    def has_target(self, at: Callable[[Replica], Step]) -> bool:
        """True if a step may hit some replica now. Most rules are only asked this, so the search ends at the first such replica."""
        return next(self._targets(at), None) is not None

    def _targets(self, at: Callable[[Replica], Step]) -> Iterator[Replica]:
        for role in self.spec.roles:
            if self.focus not in ("", role.name):
                continue
            for index in range(role.replicas):
                # A step that acts on a whole role is the same step at each of its replicas.
                step = at(one := Replica(role.name, index))
                if self.asked(step, partial(self._may_hit, step)):
                    yield one

    def _may_hit(self, step: Step) -> bool:
        return self.can(step) and (not self.keeps_path or step.after(self.model).serves())

    def can(self, step: Step) -> bool:
        """True if a step may be added now: the model says that it is possible, and the graph file lets it be drawn (see `faults`)."""
        return self.spec.may_draw(step) and step.possible(self.model) is None

    def add(self, step: Step) -> None:
        """Append a step to the plan, and update the model.

        Raises:
            InputError: if the step is not a step, is one more than `STEPS_MAX`, is impossible now, or is a fault that the graph file
                does not let be drawn. Only a rule of the user can do that.
        """
        if not isinstance(step, Step):
            raise InputError(
                f"{type(self).__name__}: a rule added {step!r}, expected a step such as Kill"
            )
        if len(self.steps) >= STEPS_MAX:
            raise InputError(
                f'{type(self).__name__}: a rule added "{step}" as step {len(self.steps) + 1}, expected at most {STEPS_MAX} steps. '
                "Ask self.room first."
            )
        if why := step.possible(self.model):
            raise InputError(
                f'{type(self).__name__}: a rule added "{step}", which is impossible now: {why}. Ask self.can(step) first.'
            )
        if not self.spec.may_draw(step):
            raise InputError(
                f'{type(self).__name__}: a rule added "{step}", which the lists "faults" of {self.spec.path.name} leave out. '
                "Ask self.can(step) first."
            )
        self.steps.append(step)
        self.model = step.after(self.model)
        self._asked.clear()

    def follow(self, steps: Iterable[Step]) -> None:
        """Add the steps of a rule, up to the first one that may not be drawn now."""
        for step in steps:
            # A rule without `at` does not ask where its steps may be drawn. Without this step, the rest would be another sequence.
            if not self.can(step):
                return
            self.add(step)

    def pick(self, data: st.DataObject, targets: Sequence[Replica]) -> Replica:
        """Draw one of the targets. The role is drawn first: the number of its replicas does not matter (see `weighed`)."""
        return DrawnPick(data, self.weighed(targets), targets, {}).replica

    def weighed(self, targets: Iterable[Replica]) -> list[str]:
        """The roles of some replicas, to draw one of them. Those that leave a path without a replica occur `PATH_LEFT` times, others once.

        Without a path, every failure is excused, and the run can only judge the recovery. The roles that leave a path come first, because
        Hypothesis begins a search with the first choices.
        """
        leaves: dict[str, bool] = {}
        for one in targets:
            leaves[one.role] = leaves.get(one.role, False) or self.can_spare(one)
        first = [role for role in leaves if leaves[role]]
        return first * PATH_LEFT + [role for role in leaves if not leaves[role]]

    # ---- the rules that belong to no kind

    @initialize(
        length=st.integers(1, STEPS_MAX),
        keeps_path=st.sampled_from([True, True, False]),
        data=st.data(),
        stays=st.sampled_from([False, False, False, False, True]),
    )
    def begin(self, length: int, keeps_path: bool, data: st.DataObject, stays: bool) -> None:  # noqa: FBT001
        """Choose the properties of the whole plan.

        Some plans always keep a path. One plan in two has a focus: it acts on one role only. One plan in five outlasts the lease.
        If each role can lose a replica, two plans in three keep a path. If only few roles can, fewer plans keep one.
        Otherwise, the roles that cannot lose a replica would be hit too seldom.

        Args:
            length: the number of steps at which the plan is full.
            keeps_path: if true, the plan may keep a path. It does if a randomly chosen role can lose a replica.
            data: the source of further choices.
            stays: if true, the run outlasts the lease of the graph, if it has one.
        """
        self.length = length
        # No step was taken yet, so all replicas of a role are alike.
        hit = [Replica(one.name, 0) for one in self.spec.roles if self.spec.faults_at(one.name)]
        spared = [one for one in hit if self.can_spare(one)]
        if keeps_path and spared:
            role: str = data.draw(st.sampled_from(self.weighed(hit)))
            self.keeps_path = Replica(role, 0) in spared
        if data.draw(st.booleans()) and hit:
            among = spared if self.keeps_path else hit
            self.focus = data.draw(st.sampled_from(self.weighed(among)))
        self._asked.clear()
        self.stay_s = self.spec.lease_s + BEYOND_LEASE_S if stays and self.spec.lease_s else 0.0

    def can_spare(self, replica: Replica) -> bool:
        """True if a path is left after this replica has died."""
        return self.model.with_ended(replica).serves()

    @precondition(lambda self: not self.has_room or not may_burst(self))
    @rule()
    def rest(self) -> None:
        """Add no step. Hypothesis needs a rule that applies when the plan is full or when no other rule may apply."""

    # ---- the end

    def plan(self) -> Plan:
        """The plan with the steps so far."""
        return Plan(tuple(self.steps), stay_s=self.stay_s)

    def teardown(self) -> None:
        """Pass the plan to `on_plan`, unless an error ended the drawing early."""
        if sys.exc_info()[0] is None:
            type(self).on_plan(self.plan())
