"""Run the plans that a search draws, and end a round of drawing at its first finding.

`Rounds` is called once for each drawn plan, at the machine's teardown. Hypothesis never learns that a plan fails. It would ask for the plan
again, and a live graph may answer in another way, so the search would end in a `Flaky` error. `pipeline` shrinks, confirms and saves a
finding within one call of `Rounds`, and then `StopDrawing` ends the round.

With several slots, as many drawn plans run side by side. Their results are taken in the order in which the plans were drawn.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from graphquake.harness.promises.idle import idle_reason, unserved
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step, Wait, WaitReady
from graphquake.machines.findings.fault_coverage import FaultCoverage
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.stop_drawing import StopDrawing
from graphquake.machines.plans.novelty import Novelty
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import PendingRun, Runner


@dataclass(slots=True)
class Rounds:
    """Decides for each drawn plan whether it is run, and ends a round at its first finding.

    Attributes:
        pipeline: turns violations that no case explains into findings.
        coverage: counts the faults that landed.
        novelty: chooses the drawn plans that are worth a run.
    """

    pipeline: FindingPipeline
    coverage: FaultCoverage = field(init=False)
    novelty: Novelty = field(init=False)
    _ran: set[Plan] = field(default_factory=set)
    _begun: deque[PendingRun] = field(default_factory=deque)
    _has_finding: bool = False

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
        self._has_finding = False

    def __call__(self, plan: Plan) -> None:
        """Run a drawn plan if it is worth a run.

        Raises:
            StopDrawing: if the round has a finding.
            BudgetSpent: if no run fits into the budget any more.
        """
        self._take(plan)
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
        self._has_finding |= finding is not None and finding.counts

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
