"""Hypothesis as it comes: a state machine whose rules act on the graph as they are drawn, and Hypothesis's own shrinker.

This is what one writes first. Each example is a live run on a fresh graph; the violation raises inside it, as soon as the plan's clock has
passed it or, if it comes later, at the end. The graph is simulated, but nothing else is: drawing, shrinking and the final replay are
Hypothesis's own, with the cap on the time of its shrinking lifted, since its clock knows nothing of a simulated one. The machine draws the
same kinds of steps as `simulated.drawn`, from the same lists; so a number cannot be smaller than the least of its list that shows the bug.
What a draw means does not hang on the draws before it: a step that aims at what cannot take it does nothing. Of the two ways to write such
a machine it is the better one: where replicas are drawn among those that live, 3 of 20 plans became step-minimal; so, 10.

The same code draws the same runs. But Hypothesis draws now and then a constant that it finds in the source of loaded modules, so an edit
of one of them, even of a number in a test, may change a search: in one comparison, 1 of 10 did.

Other ways begin with a plan that was seen to fail. This one draws its own, so what it did until its first failing example is not counted.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Final

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from graphquake.harness.spec.plan import (
    Burst,
    Kill,
    Plan,
    Respawn,
    Step,
    Terminate,
    Wait,
    WaitReady,
)
from graphquake.harness.spec.replica import Replica
from graphquake.machines.plans.graph_model import Model
from graphquake.machines.sessions.search import round_seed
from graphquake.machines.shrinking.trials import Trial

from bench.costs import Costs
from bench.ways import FINDING, NOT_FOUND, UNBOUNDED, Ran, Result, one_by_one
from support.simulated import (
    LEASE_S,
    LEAVE,
    OVER_S,
    REQUESTS,
    SPEC,
    WAITS_S,
    Shape,
    Simulated,
    timeline,
)

EXAMPLES_MAX: Final = 2_000
# As the longest plans that the other ways begin with; Hypothesis's default is 50.
STEPS_MAX: Final = 20
FAULTS_MAX: Final = 6
AIMS: Final = st.sampled_from(SPEC.replicas())
STAYS_S: Final = (0.0, 0.0, 0.0, 0.0, LEASE_S + 2.0)

SETTINGS: Final = settings(
    max_examples=EXAMPLES_MAX,
    stateful_step_count=STEPS_MAX,
    deadline=None,
    derandomize=False,
    database=None,
    report_multiple_bugs=False,
    print_blob=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    verbosity=Verbosity.quiet,
)


class Violated(Exception):
    """A promise does not hold, in the run that goes on."""


@dataclass(slots=True)
class Sessions:
    """The live runs of one search: a fresh graph each, in a share of which the bug shows if it can.

    Attributes:
        ran: all runs after the first that broke the promise.
    """

    shape: Shape
    rate: float
    random: random.Random
    failed: bool = False
    ran: list[Ran] = field(default_factory=list)

    def begin(self) -> bool:
        """A fresh graph. Whether the bug would show."""
        return self.random.random() < self.rate

    def end(self, plan: Plan, trial: Trial) -> None:
        """A run is over; runs are counted from the first failure on."""
        if self.failed:
            self.ran.append(Ran(plan, trial))
        self.failed = self.failed or trial.kind == "broken"


class Interactive(RuleBasedStateMachine):
    """Acts on the graph with each rule, and looks at what it does."""

    sessions: ClassVar[Sessions]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(SPEC)
        self.steps: list[Step] = []
        self.stay_s = 0.0
        self.shows = self.sessions.begin()

    def act(self, step: Step) -> None:
        """Do a step, and look."""
        self.steps.append(step)
        self.model = self.model.after(step)
        plan = self.plan()
        self.look(plan, until_s=timeline(SPEC, plan)[-1].at_s)

    def look(self, plan: Plan, until_s: float) -> None:
        """Raise if the promise is broken by then. One line for all: to Hypothesis, another line is another bug."""
        at_s = self.sessions.shape.at_s(plan) if self.shows else None
        if at_s is not None and at_s <= until_s:
            raise Violated

    def plan(self) -> Plan:
        """What was done so far."""
        return Plan(tuple(self.steps), stay_s=self.stay_s)

    def teardown(self) -> None:
        """Let the run come to its end, unless it broke a promise before, or Hypothesis cut it."""
        ended_by = sys.exc_info()[0]
        plan = self.plan()
        if ended_by is not None:
            own = issubclass(ended_by, Violated)
            self.sessions.end(plan, Trial("broken" if own else "invalid"))
            return
        try:
            self.look(plan, until_s=float("inf"))
        except Violated:
            self.sessions.end(plan, Trial("broken"))
            raise
        self.sessions.end(plan, Trial("kept"))

    # ---- rules

    def can(self, make: Callable[[str, int], Step]) -> bool:
        """Whether a step of that kind may aim at any replica."""
        return any(
            self.model.possible(make(who.role, who.index)) is None for who in SPEC.replicas()
        )

    def may_fault(self) -> bool:
        """Whether one more fault may be drawn."""
        return sum(isinstance(step, Kill | Terminate) for step in self.steps) < FAULTS_MAX

    def aim(self, step: Step) -> None:
        """Do a step, if its replica can take it now."""
        if self.model.possible(step) is None:
            self.act(step)

    @initialize(stay_s=st.sampled_from(STAYS_S))
    def begin(self, stay_s: float) -> None:
        """One run in five outlasts the graph's leases."""
        self.stay_s = stay_s

    @precondition(lambda self: self.may_fault() and self.can(Kill))
    @rule(who=AIMS)
    def kill(self, who: Replica) -> None:
        """SIGKILL to a replica."""
        self.aim(Kill(who.role, who.index))

    @precondition(lambda self: self.may_fault() and self.can(Terminate))
    @rule(who=AIMS)
    def terminate(self, who: Replica) -> None:
        """SIGTERM to a replica."""
        self.aim(Terminate(who.role, who.index))

    @precondition(lambda self: self.can(Respawn))
    @rule(who=AIMS)
    def respawn(self, who: Replica) -> None:
        """Bring a dead replica back."""
        self.aim(Respawn(who.role, who.index))

    @rule(
        requests=st.sampled_from(REQUESTS),
        over_s=st.sampled_from(OVER_S),
        leave=st.sampled_from(LEAVE),
    )
    def burst(self, requests: int, over_s: float, leave: float) -> None:
        """Requests on top of the steady load."""
        self.act(Burst(requests, over_s, leave))

    @rule(for_s=st.sampled_from(WAITS_S))
    def wait(self, for_s: float) -> None:
        """Let time pass."""
        self.act(Wait(for_s))

    @rule()
    def wait_ready(self) -> None:
        """Wait until all is ready."""
        self.act(WaitReady())


@contextlib.contextmanager
def no_cap() -> Iterator[None]:
    """Let Hypothesis shrink for as long as it finds anything to do."""
    before = engine.MAX_SHRINKING_SECONDS, engine.MAX_SHRINKS
    engine.MAX_SHRINKING_SECONDS, engine.MAX_SHRINKS = 1_000_000, 1_000_000
    try:
        yield
    finally:
        engine.MAX_SHRINKING_SECONDS, engine.MAX_SHRINKS = before


@dataclass(frozen=True, slots=True)
class AsItComes:
    """Hypothesis with an interactive machine. The plan and the graph that it is given only tell bug, rate and seed."""

    runs_max: ClassVar[int] = UNBOUNDED
    costs: Costs

    def __call__(self, shape: Shape, plan: Plan, graph: Simulated) -> Result:
        """Draw until a run fails, and let Hypothesis shrink."""
        rate = graph.rate
        assert isinstance(rate, float), "a rate for all plans"
        chance = random.Random(f"{shape.name}/{graph.seed}/interactive")
        sessions = Sessions(shape, rate, chance)
        machine = type("Interactive", (Interactive,), {"sessions": sessions})
        seed(round_seed(graph.seed, shape.name, 0))(machine)
        says = self._run(machine)
        if not sessions.failed:
            return Result(plan, NOT_FOUND, (), 0.0, 0.0)
        last = sessions.ran[-1].plan if sessions.ran else plan
        return one_by_one(shape, self.costs, last, says, sessions.ran)

    @staticmethod
    def _run(machine: type[Interactive]) -> str:
        try:
            with no_cap():
                run_state_machine_as_test(machine, settings=SETTINGS)
        except Violated:
            return FINDING
        except HypothesisException as error:
            return type(error).__name__
        return "nothing"
