"""Run the plans of a search: first those of the sweep, then drawn ones. A round of drawing ends at its first finding.

A finding of the sweep is held after a few runs, and shrunk later, in turns with the drawn plans (see `hold`).
After it, drawn plans take turns with pairs of disturbances (`pairs`) and with the plans of the second sweep: longer faults, other replicas,
and rare kinds of faults. A bug that two steps show is then found by a plan of two, and long drawn plans find the bugs that need more.
`novelty` chooses among both.

`Rounds` is called once for each drawn plan, at the machine's teardown. Hypothesis never learns that a plan fails. It would ask for the plan
again, and a live graph may answer in another way, so the search would end in a `Flaky` error. `pipeline` shrinks, confirms and saves a
finding within one call of `Rounds`, and then `StopDrawing` ends the round.

With several slots, as many drawn plans run side by side, and as many more wait for a slot. So no slot is idle while the oldest run goes on.
The results are taken in the order in which the plans were drawn.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from graphquake.harness.promises.idle import idle_reason, unserved
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.kind import disturbs
from graphquake.machines.findings.fault_coverage import FaultCoverage
from graphquake.machines.findings.hold import Holds
from graphquake.machines.findings.more_runs import one_more_run
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.plans.futile import FutileSteps
from graphquake.machines.plans.novelty import Novelty, waited_s
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import SEARCH, PendingRun, Runner, RunResult
from graphquake.machines.runners.weakness import weakness

# While the second sweep goes on, each drawn plan is followed by one pair and by so many plans of the second sweep.
SINGLES: Final = 2
# After that, it is followed by so many pairs.
PAIRS: Final = 2
# The number of pairs among which each pair is chosen.
PAIRS_LOOK: Final = 30
# After this many runs of the search, a plan that broke once gets one more run (see `hold`), or else a finding (see `more_runs`).
RUNS_BETWEEN: Final = 4
# After the sweep, held findings are shrunk in at most this share of the live runs.
SHRINK_SHARE: Final = 1 / 3
# A shrink begins when this many of its runs fit into that share: the first one after twelve live runs.
SHRINK_RUNS: Final = 4
# A plan whose run was invalid is run again at most this many times.
LATER_MAX: Final = 2
# The reason for a run of a plan whose case explains only a part of its violations.
REST: Final = "rest of a finding"


class StopDrawing(BaseException):
    """Ends the drawing of plans. Hypothesis passes it on, and does not treat it as a failure of the plan that was just drawn.

    Args:
        error: the error that ends the drawing, or None if it ends without an error.
    """

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error


@dataclass(slots=True)
class Rounds:
    """Decides for each drawn plan whether it is run, and ends a round at its first finding.

    Attributes:
        pipeline: turns violations that no case explains into findings.
        coverage: counts the faults that landed.
        holds: the findings that are held and not shrunk yet.
        novelty: chooses the plans that are worth a run.
        pairs: yields plans of two disturbances.
        plainest: the pairs that come first.
        singles: the plans of the second sweep.
        futile: counts the steps that came to nothing.
    """

    pipeline: FindingPipeline
    coverage: FaultCoverage = field(init=False)
    holds: Holds = field(init=False)
    novelty: Novelty = field(init=False)
    pairs: Iterator[Plan] = field(default_factory=lambda: iter(()))
    plainest: deque[Plan] = field(default_factory=deque)
    singles: deque[Plan] = field(default_factory=deque)
    futile: FutileSteps = field(default_factory=FutileSteps)
    _ran: set[Plan] = field(default_factory=set)
    _twice: set[Plan] = field(default_factory=set)
    _begun: deque[PendingRun] = field(default_factory=deque)
    _has_finding: bool = False
    _sweeps: bool = False
    # The number of live runs at the end of the sweep.
    _swept: int = 0
    # The plans that are run next: those of the sweep, those with an invalid run, and those whose case did not explain all they showed.
    # Each has the reason for which it was chosen.
    _next: deque[tuple[Plan, str]] = field(default_factory=deque)
    _since: int = 0
    _spoiled: Counter[Plan] = field(default_factory=Counter)
    # For each run that was not cut short, its seconds beyond the waits of its plan.
    _beyond_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.coverage = FaultCoverage(self.spec)
        self.holds = Holds(self.pipeline)
        self.novelty = Novelty(self.spec)

    @property
    def runner(self) -> Runner:
        """Runs the plans."""
        return self.pipeline.runner

    @property
    def spec(self) -> GraphSpec:
        """The graph."""
        return self.runner.spec

    @property
    def log(self) -> RunLog:
        """The log of the search."""
        return self.pipeline.log

    def begin(self, number: int) -> None:
        """Begin the round with this number. Its machine draws plans from a new seed."""
        self.log.round = number
        self._has_finding = False

    def pass_over(self, plans: Iterable[Plan]) -> None:
        """Treat plans as if they had been run: a search that goes on does not run the plans again that were kept before."""
        for plan in plans:
            self._ran.add(plan)
            self.novelty.ran(plan)

    def sweep(self, plans: Iterable[Plan], findings_max: int) -> None:
        """Run the plans of the sweep in order, up to so many findings. Then shrink the postponed plans that break again soon.

        Raises:
            BudgetSpent: if no run fits into the budget any more.
        """
        self._next.extend((plan, "sweep") for plan in plans)
        self._sweeps = True
        while self._next and self.pipeline.found < findings_max:
            self._take_next()
        self._sweeps = False
        if self.pipeline.found < findings_max:
            self.holds.find_postponed()
        self._swept = self.log.live.total()

    def _take_next(self) -> None:
        plan, chosen = self._next.popleft()
        # A case explains its own plan only in part, if that plan has to run again.
        self._take(plan, None if chosen == REST else self._why_useless(plan), chosen)

    def __call__(self, plan: Plan) -> None:
        """Run a drawn plan if it is worth a run.

        Raises:
            StopDrawing: if the round has a finding.
            BudgetSpent: if no run fits into the budget any more.
        """
        self._shrink_in_turn()
        while self._next and not self._has_finding:
            self._take_next()
        if not self._has_finding:
            reason = self._why_not(plan)
            self._take(plan, reason, "drawn", self.novelty.score)
            if reason is None:
                self._take_pairs()
                self._take_singles()
        if self._has_finding:
            raise StopDrawing

    def cancel_runs(self) -> None:
        """End the runs whose results are not needed any more."""
        while self._begun:
            self.log.unneeded += 1
            self.runner.cancel(self._begun.popleft())

    def finish_runs(self) -> None:
        """Wait for the runs that still go on, one after the other, up to the first finding."""
        while self._begun and not self._has_finding:
            self._finish(self._begun.popleft())

    def read_runs(self) -> None:
        """Wait for all runs that still go on. The budget is spent, so their findings are not shrunk."""
        while self._begun:
            with suppress(BudgetSpent):
                self._finish(self._begun.popleft())

    def confirm_findings(self) -> None:
        """Shrink the held findings, and give the postponed plans and every finding all of their runs, as far as the budget allows."""
        with suppress(BudgetSpent):
            while not self.holds.is_empty:
                self.holds.shrink_next()
            while self.holds.has_postponed:
                self.holds.try_again()
            while one_more_run(self.pipeline):
                pass

    def _shrink_in_turn(self) -> None:
        """Shrink the next held finding, if the drawn plans have had their share of the runs."""
        since = self.log.live.total() - self._swept
        if self.holds.is_empty or self.holds.spent_runs + SHRINK_RUNS > since * SHRINK_SHARE:
            return
        held = self.holds.shrink_next()
        if held is not None:
            self._run_rest(held.case.plan, held.original)

    def _take(
        self, plan: Plan, reason: str | None, chosen: str, score: float | None = None
    ) -> None:
        """Begin to run a plan, unless there is a reason not to. If enough runs go on or wait for a slot then, wait for the oldest run.

        Args:
            plan: the plan.
            reason: the reason not to run it, or None.
            chosen: the reason for which it was chosen.
            score: the worth on which the choice rested, if it did (see `novelty`).
        """
        if reason is not None:
            self.log.draw(plan, reason)
            return
        try:
            price_s = self.novelty.price_of(plan)
            self._begun.append(
                self.pipeline.start(
                    plan, SEARCH, chosen, score=score, price_s=price_s, may_reuse=True
                )
            )
        except BudgetSpent:
            self.log.draw(plan, "after the budget")
            raise
        self.log.draw(plan, "run")
        self._ran.add(plan)
        self.novelty.ran(plan)
        while len(self._begun) >= self._begun_max:
            self._finish(self._begun.popleft())
        self._since += 1
        if self._since >= RUNS_BETWEEN and not self._sweeps:
            self._since = 0
            self._run_once_more()

    def _run_once_more(self) -> None:
        """Give a run to a plan that broke once and not again. If there is none, give it to the finding with the fewest runs."""
        if not self.holds.has_postponed:
            one_more_run(self.pipeline)
        elif (finding := self.holds.try_again()) is not None and finding.counts:
            self._has_finding = True

    @property
    def _begun_max(self) -> int:
        """The most runs that go on or wait for a slot. With one slot none waits: its plan follows from the result of the last run."""
        slots = self.runner.slots
        return slots if slots == 1 else 2 * slots

    def _finish(self, pending: PendingRun) -> None:
        """Wait for the run of a drawn plan, and pass the first unexplained violation on to the pipeline."""
        plan, result = pending.plan, self.pipeline.take(pending, SEARCH, refresh=True)
        self.futile.add(result.history)
        if result.verdict.kind == "invalid":
            self._try_later(plan)
            self.runner.discard(result)
            return
        self.log.made_good += self._spoiled.pop(plan, 0)
        self.coverage.add(result.history)
        if why := weakness(result.verdict, result.history):
            self.log.weak[why] += 1
        self.log.unserved.update(str(one.replica) for one in unserved(result.history))
        self._note_kept(plan, result)
        unexplained = self.holds.unexplained(result)
        self._learn_price(result)
        if not unexplained:
            self._sweep_again(plan, result)
            self.runner.discard(result)
            return
        if len(plan.steps) == 1 and not self.pipeline.shrink_any:
            finding = self.holds.hold(plan, result, unexplained[0])
            if not self._sweeps:
                finding = self.holds.find_postponed() or finding
        else:
            finding = self.pipeline.find(plan, result, unexplained[0])
            self.holds.drop_explained()
        if finding is not None and finding.counts:
            self._has_finding = True
            self._run_rest(plan, result)

    def _note_kept(self, plan: Plan, result: RunResult) -> None:
        """Note that a plan of one disturbance kept every promise, so that no shrink has to run it again."""
        tells = not result.used and idle_reason(result.history) is None
        if tells and result.verdict.kind == "kept" and sum(map(disturbs, plan.steps)) == 1:
            self.pipeline.kept[plan] += 1

    def _run_rest(self, plan: Plan, result: RunResult) -> None:
        """Run a plan once more, if the case of its finding explains only a part of its violations. The rest may be another bug."""
        if plan not in self._twice and self.pipeline.excuses.unexplained(result):
            self._twice.add(plan)
            self._ran.discard(plan)
            self._next.appendleft((plan, REST))

    def _try_later(self, plan: Plan) -> None:
        """Run a plan again whose run was invalid: first at once, then when the plans before it have had their turn."""
        self._ran.discard(plan)
        self._spoiled[plan] += 1
        again = plan, "invalid before"
        if self._spoiled[plan] == 1:
            self._next.appendleft(again)
        elif self._spoiled[plan] <= LATER_MAX:
            self._next.append(again)

    def _learn_price(self, result: RunResult) -> None:
        """Let `novelty` price a run as this graph's runs cost."""
        if result.verdict.kind == "kept":
            self._beyond_s.append(max(0.0, result.live_s - waited_s(result.plan)))
            self.novelty.price(statistics.median(self._beyond_s))

    @property
    def run_s(self) -> float | None:
        """The seconds of a run without the waits of its plan, or None if no run of this search tells."""
        return statistics.median(self._beyond_s) if self._beyond_s else None

    def _sweep_again(self, plan: Plan, result: RunResult) -> None:
        """If a plan of one fault hit an idle replica, let the sweep hit the next replica of its role, too."""
        if idle_reason(result.history) is None or sum(map(disturbs, plan.steps)) > 1:
            return

        def following(one: Replica) -> Replica:
            return Replica(one.role, min(one.index + 1, self.spec.role(one.role).replicas - 1))

        moved = replace(plan, steps=tuple(step.moved(following) for step in plan.steps))
        self._next.append((moved, "idle replica before"))

    def _why_not(self, plan: Plan) -> str | None:
        """The reason why a drawn plan is not worth a run, or None if it is worth one."""
        if (reason := self._why_useless(plan)) is not None:
            return reason
        return None if self.novelty.has_turn(plan) else "would show less than others"

    def _take_pairs(self) -> None:
        """Choose and run pairs, up to the first finding."""
        for _ in range(1 if self.singles else PAIRS):
            if not self._has_finding:
                self._take_pair()

    def _take_pair(self) -> None:
        while self.plainest:
            if self._why_useless(pair := self.plainest.popleft()) is None:
                self._take(pair, None, "plain pair")
                return
        useful = (plan for plan in islice(self.pairs, PAIRS_LOOK) if not self._why_useless(plan))
        if (best := self.novelty.best(useful)) is not None:
            self._take(best, None, "pair", self.novelty.score)

    def _take_singles(self) -> None:
        """Run the next plans of the second sweep, up to the first finding."""
        useful = (plan for plan in _drained(self.singles) if self._why_useless(plan) is None)
        for plan in islice(useful, SINGLES):
            self._take(plan, None, "second sweep")
            if self._has_finding:
                return

    def _why_useless(self, plan: Plan) -> str | None:
        """The reason why a run of a plan would show nothing new, or None."""
        if not plan.disturbs:
            return "only waits"
        if plan in self._ran:
            return "seen before"
        if self.futile.any_in(plan):
            return "a step never took effect"
        for case in self.pipeline.excuses.cases:
            if any(_acts(one) == _acts(plan) for one in case.plans(plan)):
                return f"only case {case.id} itself"
        return None


def _drained(plans: deque[Plan]) -> Iterator[Plan]:
    while plans:
        yield plans.popleft()


def _acts(plan: Plan) -> tuple[Step, ...]:
    """The steps that are not waits. A plan that only adds waits to a case's plan does not show anything new."""
    return tuple(step for step in plan.steps if not step.is_wait)
