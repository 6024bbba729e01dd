"""Run the plans that a search draws, and tell Hypothesis which of them fail.

`Rounds` is called once for each drawn plan, at the machine's teardown. For Hypothesis it is a pure function of the plan, however noisy
the graph is. A plan counts as kept until a round has a finding. From then on every answer follows from the minimal plan M alone. A plan
fails if M embeds in it, or if it is the drawn plan. So Hypothesis shrinks to M without a live run. A plan that counted as kept earlier in
the round stays kept: while Hypothesis shrinks, it may ask again.

With several slots, as many drawn plans run side by side. Their results are taken in the order in which the plans were drawn. So the run
of an earlier plan may become a finding while Hypothesis waits for the answer about a later plan. If the later plan does not fail, too,
Hypothesis cannot learn from the finding, and the round is over (`StopDrawing`).

`pipeline` shrinks, confirms and saves a finding within one call of `Rounds`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from graphquake.harness.promises.idle import idle_reason, unserved
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step, Wait, WaitReady
from graphquake.machines.findings.fault_coverage import FaultCoverage
from graphquake.machines.findings.hypothesis_errors import Found, StopDrawing, broken
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.plans.novelty import Novelty
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import PendingRun, Runner


@dataclass(slots=True)
class Rounds:
    """Decides for each drawn plan whether it is run, and what Hypothesis is told about it.

    Attributes:
        pipeline: turns violations that no case explains into findings.
        coverage: counts the faults that landed.
        novelty: chooses the drawn plans that are worth a run.
    """

    pipeline: FindingPipeline
    coverage: FaultCoverage = field(init=False)
    novelty: Novelty = field(init=False)
    _ran: set[Plan] = field(default_factory=set)
    # The plans of this round of which Hypothesis was told that they do not fail.
    _told_kept: set[Plan] = field(default_factory=set)
    _begun: deque[PendingRun] = field(default_factory=deque)
    _found: Found | None = None

    def __post_init__(self) -> None:
        self.coverage = FaultCoverage(self.spec)
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
        self._found = None
        self._told_kept.clear()

    def __call__(self, plan: Plan) -> None:
        """Run a drawn plan if it is worth a run, and tell Hypothesis by an exception if it fails.

        Raises:
            PromiseBroken: if the round has a finding and this plan fails by it (see `Found.breaks_with`).
            StopDrawing: if the run of an earlier plan has just become a finding, and this plan does not fail by it.
            BudgetSpent: if no run fits into the budget any more.
        """
        is_new = self._found is None
        if is_new:
            self._take(plan)
        # Every failure of a round is raised at this line, in the first call for a plan and in later calls. Hypothesis takes failures from
        # different lines for different failures.
        if (
            self._found is not None
            and plan not in self._told_kept
            and self._found.breaks_with(plan)
        ):
            raise self._found.error(self._found.title)
        if self._found is not None and is_new:
            raise StopDrawing
        self._told_kept.add(plan)

    def cancel_runs(self) -> None:
        """End the runs whose results are not needed any more."""
        while self._begun:
            self.log.unneeded += 1
            self.runner.cancel(self._begun.popleft())

    def finish_runs(self) -> None:
        """Wait for the runs that still go on, one after the other, up to the first finding."""
        while self._begun and self._found is None:
            self._finish(self._begun.popleft())

    def _take(self, plan: Plan) -> None:
        """Begin to run a plan, unless `_why_not` has a reason. If all slots are taken then, wait for the oldest run and take its result."""
        if (reason := self._why_not(plan)) is not None:
            self.log.draw(plan, reason)
            return
        try:
            self._begun.append(self.runner.start(plan, "search"))
        except BudgetSpent:
            self.log.draw(plan, "after the budget")
            self.finish_runs()
            raise
        self.log.draw(plan, "run")
        self._ran.add(plan)
        self.novelty.ran(plan)
        if len(self._begun) >= self.runner.slots:
            self._finish(self._begun.popleft())

    def _finish(self, pending: PendingRun) -> None:
        """Wait for the run of a drawn plan, and pass the first unexplained violation on to the pipeline."""
        plan, result = pending.plan, self.pipeline.take(pending, "search", refresh=True)
        if result.verdict.kind == "invalid":
            self._ran.discard(plan)
            self.runner.discard(result)
            return
        self.coverage.add(result.history)
        self.log.weak += result.verdict.weak
        self.log.idle += idle_reason(result.history) is not None
        self.log.unserved.update(str(one.replica) for one in unserved(result.history))
        unexplained = self.pipeline.excuses.unexplained(result)
        if not unexplained:
            self.runner.discard(result)
            return
        finding = self.pipeline.find(plan, result, unexplained[0])
        if finding is not None and finding.counts:
            case = finding.case
            self._found = Found(case.plan, plan, broken(case.promise), case.title)

    def _why_not(self, plan: Plan) -> str | None:
        """The reason why a drawn plan is not worth a run, or None if it is worth one."""
        if not plan.disturbs:
            return "only waits"
        if plan in self._ran:
            return "seen before"
        for case in self.pipeline.excuses.cases:
            if any(_acts(one) == _acts(plan) for one in case.plans(plan)):
                return f"only case {case.id} itself"
        return None if self.novelty.has_turn(plan) else "would show less than others"


def _acts(plan: Plan) -> tuple[Step, ...]:
    """The steps that are not waits. A plan that only adds waits to a case's plan does not show anything new."""
    return tuple(step for step in plan.steps if not isinstance(step, Wait | WaitReady))
