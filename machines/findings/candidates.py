"""Live runs of the plans that a shrink asks for, within the budget of that shrink."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from graphquake.harness.history.events import PhaseBegan
from graphquake.harness.promises.signature import Signature
from graphquake.harness.run.early_verdict import Enough
from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import Budget, BudgetSpent
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import PendingRun, Runner, RunResult
from graphquake.machines.shrinking.trials import Trial


@dataclass(frozen=True, slots=True)
class Candidates:
    """Runs the candidate plans of one shrink (see `shrinking.speculation.CandidateRunner`).

    Attributes:
        runner: runs the plans.
        begin: begins a run, and notes how it was begun.
        log: counts the runs that were not needed.
        budget: the budget of this shrink.
        enough: ends a run as soon as it has shown the wanted violation.
        patient: true if a run has to go on until every wrong list is decided (see `needs_patience`).
        take: waits for a run, writes it into the log, and tells whether it showed the wanted violation.
    """

    runner: Runner
    begin: Callable[..., PendingRun]
    log: RunLog
    budget: Budget
    enough: Enough
    patient: bool
    take: Callable[[PendingRun], Trial]

    @property
    def slots(self) -> int:
        """The number of candidates that may run side by side."""
        return self.runner.slots

    @property
    def reuses(self) -> bool:
        """True if a candidate may run on a graph that an earlier run used."""
        return self.runner.reuses

    def start(self, plan: Plan, *, may_reuse: bool = False) -> PendingRun:
        """Begin to run a plan. A fresh graph runs it, unless `may_reuse` is true and there is a used graph.

        Raises:
            BudgetSpent: if the budget of the shrink or of the search has no room for it.
        """
        if not self.budget.has_room(0.0):
            raise BudgetSpent
        self.budget.begin_run()
        return self.begin(plan, enough=self.enough, may_reuse=may_reuse, patient=self.patient)

    def result(self, pending: PendingRun) -> Trial:
        """Wait for a run, and tell whether it showed the wanted violation."""
        return self.take(pending)

    def is_done(self, pending: PendingRun) -> bool:
        """True as soon as the slot of a run is free again."""
        return pending.done.done()

    def cancel(self, pending: PendingRun) -> None:
        """End a run that is not needed."""
        self.log.unneeded += 1
        self.runner.cancel(pending)


def needs_patience(first: RunResult, wanted: Signature) -> bool:
    """True if the candidates of a shrink have to run until every wrong list is decided, which may take a lease.

    They need not, if the violation is not about a list, and came before the first run began to wait for such decisions.

    Args:
        first: the run that showed the violation.
        wanted: the signature that the shrink follows.
    """
    if wanted.promise == "views_agree":
        return True
    seen_s = [one.at_s for one in first.verdict.violations if one.signature == wanted]
    began_s = (e.at_s for e in first.history.of(PhaseBegan) if e.phase == "steady")
    return not seen_s or min(seen_s) >= next(began_s, math.inf)
