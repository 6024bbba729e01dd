"""Hold a finding of one step after a few runs, and shrink it later.

The sweep finds bugs by plans of one step. Such a plan can't have fewer steps. So it counts as soon as it broke its promise in
`HOLD_RUNS` of as many fresh runs. One run without the step must not show the violation.

To lower its numbers and to try other replicas takes about ten more runs. These runs wait until the sweep is over (`shrink_next`). So a
short search holds more findings, and a long one shrinks them all.

A plan that does not break in each of these runs is not held, but postponed. If such a run shows another violation of the first run instead,
that one is followed: it shows more often.

After the sweep, a postponed plan is shrunk like a drawn plan, if it breaks again in one of `SOON_RUNS` runs (`find_postponed`). If it does
not, the failure may be rare. Then the plan gets one more run now and then, while the search goes on (`try_again`). So a rare failure does
not take the time of a short search. A wrong answer is shrunk at once, because one run proves it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import Case
from graphquake.machines.findings.excuses import ShowsWanted
from graphquake.machines.findings.finding import CostMeter, Finding
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.postponed import Postponed
from graphquake.machines.findings.sightings import PROVED_BY_ONE, Sightings
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.runner import PendingRun, RunResult
from graphquake.machines.shrinking.result import Needed, Shrunk
from graphquake.machines.shrinking.state import REPRODUCE_TRIALS
from graphquake.machines.shrinking.trials import Count

# A plan of the sweep is held if it breaks its promise in all of this many further runs.
HOLD_RUNS: Final = 3
WHY: Final = "confirm"
# So many kept runs of a postponed plan are enough after the sweep. Those that kept it from being held count. Five runs see a failure that
# shows in 45% of the runs with a probability of 95%.
SOON_RUNS: Final = 6
AGAIN: Final = "seen once"


@dataclass(slots=True)
class Holds:
    """The findings of one search that are held, and the plans that could not be held.

    Attributes:
        pipeline: runs plans and saves cases.
        spent_runs: the number of live runs that `shrink_next` has taken.
    """

    pipeline: FindingPipeline
    spent_runs: int = 0
    # The ids of the cases that were not shrunk yet.
    _waiting: deque[str] = field(default_factory=deque)
    _postponed: deque[Postponed] = field(default_factory=deque)

    @property
    def is_empty(self) -> bool:
        """True if every held finding was shrunk."""
        return not self._waiting

    def hold(
        self, plan: Plan, first: RunResult, violation: Violation, *, follows: bool = True
    ) -> Finding | None:
        """Hold a finding, or postpone its plan.

        Args:
            plan: a plan of one step, which broke a promise.
            first: the full run in which it did.
            violation: the violation in that run.
            follows: whether another violation of that run is followed, if it shows in a further run and this one does not.

        Returns:
            The finding, or None if the plan is postponed, or if a case that another process saved in the meantime explains the violation.

        Raises:
            BudgetSpent: if no run fits into the budget any more. The plan is postponed.
        """
        pipeline = self.pipeline
        meter = CostMeter(pipeline.log, pipeline.runner.gpus)
        sightings, count = Sightings(violation.signature), Count()
        pipeline.trial(first, sightings)
        postponed = Postponed(plan, first, violation, count)
        try:
            without = self._run_without(plan)
            if without is not None and self._same(without, violation.signature):
                return self._load_alone(without, postponed)
            is_control = without is None or without.verdict.kind != "invalid"
            if without is not None:
                pipeline.runner.discard(without)
            instead = self._breaks_again(plan, sightings, count) if is_control else set()
            if instead and follows:
                others = [v for v in pipeline.excuses.unexplained(first) if v.signature in instead]
                if others:
                    return self.hold(plan, first, others[0], follows=False)
        except BudgetSpent:
            self._postponed.append(postponed)
            raise
        if instead is not None:
            self._postponed.append(postponed)
            return None
        pipeline.corpus.refresh()
        if not pipeline.excuses.unexplained(first):
            pipeline.runner.discard(first)
            return None
        shrunk = self._as_shrunk(plan, count)
        finding = pipeline.save(
            first, [], sightings, shrunk, meter.cost(plan, plan), tell=pipeline.on_held
        )
        self._waiting.append(finding.case.id)
        self.drop_explained()
        return finding

    def drop_explained(self) -> None:
        """Drop the held findings that another case explains. A finding that came later may have a smaller plan."""
        pipeline = self.pipeline
        for id_ in tuple(self._waiting):
            held, case = self._finding_of(id_), self._case_of(id_)
            if case is None:
                continue
            with pipeline.reopened(case):
                if not self._same(held.original, case.signature):
                    self._waiting.remove(id_)
                    pipeline.drop(held)

    def _finding_of(self, id_: str) -> Finding:
        return next(one for one in self.pipeline.findings if one.case.id == id_)

    def _breaks_again(
        self, plan: Plan, sightings: Sightings, count: Count
    ) -> set[Signature] | None:
        """Run a plan `HOLD_RUNS` times, as many at once as there are slots, until a run does not break the promise.

        Returns:
            None if each run broke the promise. Otherwise the other signatures of the run that did not.
        """
        pipeline = self.pipeline
        with self._runs_of(plan, sightings, HOLD_RUNS, WHY) as results:
            for result in results:
                trial = pipeline.trial(result, sightings)
                instead = {one.signature for one in pipeline.excuses.unexplained(result)}
                pipeline.runner.discard(result)
                if trial.kind != "invalid":
                    count.add(trial)
                if trial.kind != "broken":
                    return instead
        return None

    @contextmanager
    def _runs_of(
        self, plan: Plan, sightings: Sightings, runs: int, reason: str
    ) -> Iterator[Iterator[RunResult]]:
        """Run a plan so often, as many runs at once as there are slots. The runs that still go on at the end of the block are cancelled."""
        pipeline = self.pipeline
        pending: deque[PendingRun] = deque()
        wanted = ShowsWanted(pipeline.excuses, sightings.signature)

        def results() -> Iterator[RunResult]:
            begun = 0
            while pending or begun < runs:
                while begun < runs and len(pending) < pipeline.runner.slots:
                    try:
                        pending.append(pipeline.start(plan, WHY, reason, enough=wanted))
                    except BudgetSpent:
                        if not pending:
                            raise
                        break
                    begun += 1
                yield pipeline.take(pending.popleft(), WHY)

        try:
            yield results()
        finally:
            for one in pending:
                pipeline.log.unneeded += 1
                pipeline.runner.cancel(one)

    def _run_without(self, plan: Plan) -> RunResult | None:
        """Run a plan without its step. None if a run for an earlier finding kept every promise: then no other run is needed."""
        pipeline, nothing = self.pipeline, replace(plan, steps=())
        if pipeline.kept[nothing]:
            return None
        result = pipeline.take(pipeline.start(nothing, WHY, "control"), WHY)
        pipeline.kept[nothing] += result.verdict.kind == "kept"
        return result

    def _load_alone(self, without: RunResult, postponed: Postponed) -> Finding | None:
        """Make the finding that the load alone breaks the promise. It explains the violations of the other plans of the sweep.

        If it does not show again, the plan with the step is postponed: it may break the promise for a reason of its own.
        """
        violation = self._same(without, postponed.violation.signature)[0]
        finding = self.pipeline.find(without.plan, without, violation)
        if finding is not None and finding.counts:
            self.pipeline.runner.discard(postponed.first)
            return finding
        self._postponed.append(postponed)
        return None

    def _same(self, result: RunResult, signature: Signature) -> list[Violation]:
        """The violations of a run that have a signature, and that no case explains."""
        unexplained = self.pipeline.excuses.unexplained(result)
        return [one for one in unexplained if one.signature == signature]

    def _as_shrunk(self, plan: Plan, count: Count) -> Shrunk:
        # A run without the step that showed other violations only is a control, too.
        kept = max(1, self.pipeline.kept[replace(plan, steps=())])
        return Shrunk(
            plan=plan,
            broke=count.broke,
            runs=count.runs,
            control_broke=0,
            control_runs=kept if plan.faults else 0,
            needed=tuple(Needed(step, 0, kept) for step in plan.steps),
            thresholds=(),
            any_replica=None,
            live_runs=count.runs,
            complete=True,
            confirmed=True,
            journal=(),
        )

    def unexplained(self, result: RunResult) -> list[Violation]:
        """The violations of a run that no case explains.

        If a held finding would explain one of them at another replica, this run shows that the replica does not matter.
        """
        unexplained = self.pipeline.excuses.unexplained(result)
        for case in map(self._case_of, self._waiting):
            if case is None or case.any_replica is not None:
                continue
            wider = replace(case, any_replica=True)
            if any(wider.explains(one, result.history) for one in unexplained):
                self._replace(case, wider)
                unexplained = self.pipeline.excuses.unexplained(result)
        return unexplained

    def _case_of(self, id_: str) -> Case | None:
        """The present case of a held finding, or None if a user has marked or removed it."""
        return next((c for c in self.pipeline.corpus if c.id == id_ and c.status == "open"), None)

    def _replace(self, case: Case, by: Case) -> None:
        self.pipeline.corpus.save(by)
        finding = self._finding_of(case.id)
        self.pipeline.findings[self.pipeline.findings.index(finding)] = replace(finding, case=by)

    def find_postponed(self) -> Finding | None:
        """Shrink the plans that were not held, in their order. A plan that does not break again soon stays postponed.

        Returns:
            The last finding, or None if there was none.

        Raises:
            BudgetSpent: if no run fits into the budget any more.
        """
        finding = None
        for _ in range(len(self._postponed)):
            if self._is_settled(SOON_RUNS - self._postponed[0].tried):
                finding = self._find_next() or finding
            else:
                self._postponed.rotate(-1)
        return finding

    @property
    def has_postponed(self) -> bool:
        """True if a plan is postponed."""
        return bool(self._postponed)

    def try_again(self) -> Finding | None:
        """Run the next postponed plan once more. If it breaks, shrink it. If it was run often enough, report it as unconfirmed.

        Returns:
            The finding, if there is one.

        Raises:
            BudgetSpent: if no run fits into the budget any more.
        """
        if self._is_settled(1) or self._postponed[0].tried >= REPRODUCE_TRIALS:
            return self._find_next()
        self._postponed.rotate(-1)
        return None

    def _is_settled(self, runs: int) -> bool:
        """Run the first postponed plan until it breaks, at most `runs` times. A run that shows something else instead is held or postponed.

        Returns:
            True if no more runs are needed: the plan has broken again, one run proves the violation, or a case explains it.
        """
        one, pipeline = self._postponed[0], self.pipeline
        signature = one.violation.signature
        is_proved = one.others.broke or signature.promise in PROVED_BY_ONE
        if is_proved or not self._same(one.first, signature):
            return True
        sightings, instead = Sightings(signature), None
        with self._runs_of(one.plan, sightings, runs, AGAIN) as results:
            for result in results:
                trial = pipeline.trial(result, sightings)
                one.note(trial)
                if trial.kind == "broken":
                    pipeline.runner.discard(result)
                    return True
                if others := self._not_postponed(one.plan, result):
                    instead = result, others[0]
                    break
                pipeline.runner.discard(result)
        if instead is not None:
            self.hold(one.plan, *instead, follows=False)
        return False

    def _not_postponed(self, plan: Plan, result: RunResult) -> list[Violation]:
        """The violations of a run that no case explains, and for which its plan was not postponed."""
        return [
            violation
            for violation in self.pipeline.excuses.unexplained(result)
            if not any(one.is_about(plan, violation.signature) for one in self._postponed)
        ]

    def _find_next(self) -> Finding | None:
        """Shrink the plan that was postponed first, unless a case explains its violation by now."""
        one = self._postponed.popleft()
        again = self._same(one.first, one.violation.signature)
        if not again:
            self.pipeline.runner.discard(one.first)
            return None
        finding = self.pipeline.find(one.plan, one.first, again[0], earlier=one.others)
        self.drop_explained()
        return finding

    def shrink_next(self) -> Finding | None:
        """Shrink the finding that was held first. The result takes its place, and is reported.

        Returns:
            The finding as it was held. None if there was none, if a user has marked or removed its case, or if another case explains it.
        """
        if not self._waiting:
            return None
        pipeline, id_ = self.pipeline, self._waiting.popleft()
        pipeline.corpus.refresh()
        held, case = self._finding_of(id_), self._case_of(id_)
        if case is None:
            pipeline.on_finding(held)
            return None
        before, last = pipeline.log.live.total(), case.observed[-1]
        earlier = Count(broke=last.broke, kept=last.runs - last.broke)
        with pipeline.reopened(case):
            violations = self._same(held.original, case.signature)
            if not violations:  # a case of another process explains it
                pipeline.drop(held)
                return None
            found = pipeline.find(
                case.plan, held.original, violations[0], earlier=earlier, held=held
            )
        self.spent_runs += pipeline.log.live.total() - before
        if found is None:
            pipeline.drop(held)
        elif found is held:
            pipeline.on_finding(held)
        self.drop_explained()
        return held

    def report(self) -> None:
        """Report the findings that were held and not shrunk, because the time was over.

        The postponed plans come first. They are shrunk, or unconfirmed if no time is left.
        """
        while self._postponed:
            self._find_next()
        while self._waiting:
            self.pipeline.on_finding(self._finding_of(self._waiting.popleft()))
