"""Plain Hypothesis: a state machine whose rules act on the graph while they are drawn, and Hypothesis's own shrinker.

This is the machine that one would write first. Each example is a live run on a fresh graph. The violation raises inside the example as
soon as the plan's clock has passed it, at the latest at the end. Only the graph is simulated. Drawing, shrinking and the final replay are
Hypothesis's own. The limit on its shrinking time is lifted, since it does not know the simulated clock.

The machine draws the same kinds of steps as `simulated.drawn`, from the same lists. So a number cannot become smaller than the least
value of its list that shows the bug. The meaning of a draw does not depend on earlier draws: a step aimed at a replica that cannot take it
has no effect. This is the better of the two ways to write it: 10 of 20 plans became step-minimal. It was 3 of 20 if replicas are drawn
among those that are alive.

The same code draws the same runs. But Hypothesis sometimes draws a constant that it finds in the source of loaded modules. So an edit of
one of them, even of a number in a test, may change a search: in one comparison, 1 of 10 changed.

Other ways begin with a plan that failed. This one draws its own plans. Its runs before the first failing example are not counted.
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
from graphquake.harness.spec.steps.model import GraphModel
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
# The length of the longest plans that the other ways begin with. Hypothesis's default is 50.
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
    """A promise does not hold in the present run."""


@dataclass(slots=True)
class Sessions:
    """The live runs of one search, each on a fresh graph. The bug shows in a share of the runs.

    Attributes:
        ran: all runs after the first that broke the promise.
    """

    shape: Shape
    rate: float
    random: random.Random
    failed: bool = False
    ran: list[Ran] = field(default_factory=list)

    def begin(self) -> bool:
        """Start a fresh graph. Returns whether the bug would show on it."""
        return self.random.random() < self.rate

    def end(self, plan: Plan, trial: Trial) -> None:
        """End a run. Runs are counted from the first failure on."""
        if self.failed:
            self.ran.append(Ran(plan, trial))
        self.failed = self.failed or trial.kind == "broken"


class Interactive(RuleBasedStateMachine):
    """A machine whose rules act on the graph and check it at once."""

    sessions: ClassVar[Sessions]

    def __init__(self) -> None:
        super().__init__()
        self.model = GraphModel(SPEC)
        self.steps: list[Step] = []
        self.stay_s = 0.0
        self.shows = self.sessions.begin()

    def act(self, step: Step) -> None:
        """Do a step and check the promise."""
        self.steps.append(step)
        self.model = step.after(self.model)
        plan = self.plan()
        self.look(plan, until_s=timeline(SPEC, plan)[-1].at_s)

    def look(self, plan: Plan, until_s: float) -> None:
        """Raise if the promise is broken by then. All failures raise in this line, since Hypothesis takes another line for another bug."""
        at_s = self.sessions.shape.at_s(plan) if self.shows else None
        if at_s is not None and at_s <= until_s:
            raise Violated

    def plan(self) -> Plan:
        """Return the steps done so far as a plan."""
        return Plan(tuple(self.steps), stay_s=self.stay_s)

    def teardown(self) -> None:
        """End the run, unless it broke a promise before or Hypothesis stopped it."""
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
        """Return whether a step of a kind may aim at any replica."""
        return any(
            make(who.role, who.index).possible(self.model) is None for who in SPEC.replicas()
        )

    def may_fault(self) -> bool:
        """Return whether one more fault may be drawn."""
        return sum(isinstance(step, Kill | Terminate) for step in self.steps) < FAULTS_MAX

    def aim(self, step: Step) -> None:
        """Do a step if its replica can take it now."""
        if step.possible(self.model) is None:
            self.act(step)

    @initialize(stay_s=st.sampled_from(STAYS_S))
    def begin(self, stay_s: float) -> None:
        """Let one run in five outlast the graph's leases."""
        self.stay_s = stay_s

    @precondition(lambda self: self.may_fault() and self.can(Kill))
    @rule(who=AIMS)
    def kill(self, who: Replica) -> None:
        """Send SIGKILL to a replica."""
        self.aim(Kill(who.role, who.index))

    @precondition(lambda self: self.may_fault() and self.can(Terminate))
    @rule(who=AIMS)
    def terminate(self, who: Replica) -> None:
        """Send SIGTERM to a replica."""
        self.aim(Terminate(who.role, who.index))

    @precondition(lambda self: self.can(Respawn))
    @rule(who=AIMS)
    def respawn(self, who: Replica) -> None:
        """Start a dead replica again."""
        self.aim(Respawn(who.role, who.index))

    @rule(
        requests=st.sampled_from(REQUESTS),
        over_s=st.sampled_from(OVER_S),
        leave=st.sampled_from(LEAVE),
    )
    def burst(self, requests: int, over_s: float, leave: float) -> None:
        """Send requests on top of the steady load."""
        self.act(Burst(requests, over_s, leave))

    @rule(for_s=st.sampled_from(WAITS_S))
    def wait(self, for_s: float) -> None:
        """Let time pass."""
        self.act(Wait(for_s))

    @rule()
    def wait_ready(self) -> None:
        """Wait until every replica is ready."""
        self.act(WaitReady())


@contextlib.contextmanager
def no_cap() -> Iterator[None]:
    """Let Hypothesis shrink for as long as it makes progress."""
    before = engine.MAX_SHRINKING_SECONDS, engine.MAX_SHRINKS
    engine.MAX_SHRINKING_SECONDS, engine.MAX_SHRINKS = 1_000_000, 1_000_000
    try:
        yield
    finally:
        engine.MAX_SHRINKING_SECONDS, engine.MAX_SHRINKS = before


@dataclass(frozen=True, slots=True)
class AsItComes:
    """Hypothesis with an interactive machine. Of its plan and graph it uses only the bug, the rate and the seed."""

    runs_max: ClassVar[int] = UNBOUNDED
    costs: Costs

    def __call__(self, shape: Shape, plan: Plan, graph: Simulated) -> Result:
        """Draw until a run fails and let Hypothesis shrink."""
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
