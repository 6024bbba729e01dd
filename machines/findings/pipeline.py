"""From the first run that shows a new violation to a case on disk: shrink, gather evidence, save.

`FindingPipeline.find` does all of it in one call. `hold` does it in two: it confirms and saves a plan at once, and shrinks it later.
The known cases do not change during a shrink. So a violation that no case explains in the first run of a shrink is not explained in the
last run either. `rounds` chooses the drawn plans that are run, and answers Hypothesis.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from graphquake.harness.errors import InputError
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import Case, ShrinkCost
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.artifacts import file_finding
from graphquake.machines.findings.candidates import Candidates, needs_patience
from graphquake.machines.findings.excuses import Excuses, ShowsWanted, excuses_of
from graphquake.machines.findings.fault_localization import blame
from graphquake.machines.findings.finding import CostMeter, Finding, case_of, in_place_of, with_past
from graphquake.machines.findings.sightings import Sightings, last_step
from graphquake.machines.runners.budget import UNLIMITED, BudgetSpent, Limit
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import Begun, PendingRun, Runner, RunResult
from graphquake.machines.shrinking.repeats import repeats_of
from graphquake.machines.shrinking.result import Shrunk
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.speculation import shrink_ahead
from graphquake.machines.shrinking.trials import Count, OnTrial, RunPlan, Trial

# The most full runs of the minimal plan, for the evidence. One that breaks is enough. Other runs end as soon as they have shown the
# violation.
EVIDENCE_RUNS: Final = 2
# After its last step, a full run goes on for at least this many seconds, and for at least one lease. The reach of the case follows from the
# violations that are seen in that time.
EVIDENCE_STAY_S: Final = 8.0
# The number of times that an unshrunk plan is tried again before its case is left as it is.
AGAIN_RUNS: Final = 3
CONFIRMATIONS: Final = 10
CONTROLS: Final = 3
# The least time that a replica counts to take until it is ready again, in seconds. A used graph has no start of its own.
READY_MIN_S: Final = 1.0


@dataclass(slots=True)
class FindingPipeline:
    """Turns violations that no case explains into findings.

    Attributes:
        runner: runs plans.
        corpus: the cases of this graph. Findings are saved there.
        log: the log of the search.
        results_dir: the folder of the findings' run folders.
        strict: if true, an unconfirmed finding fails the session, too.
        shrink_any: if true, a shrink accepts a candidate that shows any unexplained violation. If false, the violation must have the
            signature that the first run of the shrink showed.
        shrink_limit: the budget of each shrink.
        plainest: plans of one step. A shrink tries them in place of a minimal plan of several steps.
        on_finding: called with each finding as soon as it is saved and shrunk.
        on_held: called with each finding that is saved before it is shrunk (see `hold`).
        findings: all findings so far.
        kept: for each plan of one disturbance, the number of its runs of the search, on fresh graphs and at busy replicas, that kept every
            promise. For each plan without a disturbance, the number of such runs of any purpose. Shrinks count them as their own.
    """

    runner: Runner
    corpus: Corpus
    log: RunLog
    results_dir: Path = Path(".graphquake")
    strict: bool = False
    shrink_any: bool = False
    shrink_limit: Limit = UNLIMITED
    plainest: Sequence[Plan] = ()
    on_finding: Callable[[Finding], None] = lambda _: None
    on_held: Callable[[Finding], None] = lambda _: None
    findings: list[Finding] = field(default_factory=list)
    kept: Counter[Plan] = field(default_factory=Counter)
    _reopened: set[str] = field(default_factory=set)
    # The latest broken run of each plan of the present shrink, on fresh graphs.
    _broke: dict[Plan, RunResult] = field(default_factory=dict)
    # The reason for the run that the present shrink asks for.
    _asked: str = ""

    @property
    def spec(self) -> GraphSpec:
        """The graph."""
        return self.runner.spec

    @property
    def found(self) -> int:
        """The number of findings that fail the session."""
        return sum(finding.counts for finding in self.findings)

    @property
    def excuses(self) -> Excuses:
        """The cases that excuse violations at this moment."""
        return excuses_of(self.corpus, self.spec, self._reopened)

    def start(
        self,
        plan: Plan,
        why: str,
        reason: str,
        *,
        score: float | None = None,
        price_s: float | None = None,
        enough: ShowsWanted | None = None,
        may_reuse: bool = False,
        patient: bool = True,
    ) -> PendingRun:
        """Begin a run (see `Runner.start`), and note why it was chosen (see `Begun`).

        Raises:
            BudgetSpent: if no run fits into the budget any more.
        """
        pending = self.runner.start(plan, why, enough=enough, may_reuse=may_reuse, patient=patient)
        until = "" if enough is None else str(enough.wanted or "any")
        number = self.log.begin()
        begun = Begun(number, reason, score, price_s, may_reuse, patient, until)
        return replace(pending, begun=begun)

    def take(self, pending: PendingRun, why: str, *, refresh: bool = False) -> RunResult:
        """Wait for a run, and write it into the log.

        Args:
            pending: the run.
            why: its purpose, in a word or two.
            refresh: if true and the run shows a violation, first read the cases that other processes have saved since.
        """
        result = self.runner.result(pending)
        plan, verdict, begun = pending.plan, result.verdict, pending.begun
        for spoiled, live_s in result.disturbed:
            self.log.run(plan, why, spoiled, live_s, spoiled.causes[0], begun=begun)
        self.log.made_good += len(result.disturbed) if verdict.kind != "invalid" else 0
        if refresh and verdict.violations:
            self.corpus.refresh()
        sort = self.excuses.sort(verdict.violations, result.history)
        shown = dict.fromkeys(str(violation.signature) for violation in sort.unexplained)
        what = verdict.causes[0] if verdict.causes else "; ".join(shown)
        folder = result.folder.name if result.folder else ""
        self.log.run(
            plan,
            why,
            verdict,
            result.live_s,
            what,
            sort.explained_by,
            folder,
            result.history.host.node,
            begun,
        )
        return result

    def go_on(self, case: Case) -> None:
        """Continue the shrink of a case that an earlier search left unshrunk.

        Raises:
            BudgetSpent: if no run fits into the budget any more. The case stays as it is.
        """
        with self.reopened(case):
            for _ in range(AGAIN_RUNS):
                result = self.take(self.start(case.plan, "go on", "unshrunk case"), "go on")
                unexplained = self.excuses.unexplained(result)
                own = [one for one in unexplained if one.signature == case.signature]
                if own:
                    finding = self.find(case.plan, result, own[0])
                    if finding is None or finding.case.id != case.id:
                        self.corpus.drop(case)
                    return
                self.runner.discard(result)

    @contextmanager
    def reopened(self, case: Case) -> Iterator[None]:
        """Let a case excuse nothing in this block: its own violations are looked for."""
        self._reopened.add(case.id)
        try:
            yield
        finally:
            self._reopened.discard(case.id)

    def find(
        self,
        plan: Plan,
        first: RunResult,
        violation: Violation,
        *,
        earlier: Count | None = None,
        held: Finding | None = None,
    ) -> Finding | None:
        """Shrink a plan, gather evidence and save the case.

        Args:
            plan: the plan that broke a promise.
            first: the run in which the plan broke it.
            violation: the violation in that run. The shrink follows its signature.
            earlier: the counts of other fresh runs of the plan, for the same signature.
            held: the finding of this plan that counts already. The result takes its place (see `hold`).

        Returns:
            The finding. It is `held` if the budget ended the shrink early. None if a case that another process saved in the meantime
            explains the violation.
        """
        sightings = Sightings(violation.signature)
        meter = CostMeter(self.log, self.runner.gpus)
        shrunk = self._shrink(plan, first, sightings, earlier)
        if held is not None and not (shrunk.complete and shrunk.confirmed):
            self._discard_broke()
            return held
        evidence = []
        if shrunk.confirmed:
            evidence = self._evidence(shrunk.plan, sightings) or self._run_of(shrunk.plan)
        self._discard_broke()
        self.corpus.refresh()
        excuses = self.excuses
        shown = excuses.unexplained(evidence[0] if evidence else first)
        if not shown:
            for result in (*evidence, first):
                self.runner.discard(result)
            return None
        if self.shrink_any and evidence:
            sightings.signature = shown[0].signature
        else:
            sightings.adopt_signature(shrunk.plan)
        cost = meter.cost(plan, shrunk.plan)
        return self.save(first, evidence, sightings, shrunk, cost, held=held, tell=self.on_finding)

    def _shrink(
        self, plan: Plan, first: RunResult, sightings: Sightings, known: Count | None
    ) -> Shrunk:
        trial = self.trial(first, sightings)
        ready_s = max(READY_MIN_S, first.start_s)
        repeats = repeats_of(self.spec, sightings.signature.promise, ready_s)
        # At most as many as a finding needs. The shrinker asks its questions again and again, so they must not change meanwhile.
        earlier = {one: Count(kept=min(runs, CONTROLS)) for one, runs in self.kept.items()}
        if known is not None:
            earlier[plan] = known

        def shrinker(run: RunPlan, on_trial: OnTrial | None, reuse: RunPlan | None) -> Shrunk:
            return shrink(
                self.spec, plan, trial, run, reuse=reuse, on_trial=on_trial,
                plainest=self.plainest, confirmations=CONFIRMATIONS, controls=CONTROLS,
                repeats=None if self.shrink_any else repeats, earlier=earlier,
            )  # fmt: skip

        wanted = None if self.shrink_any else sightings.signature
        candidates = Candidates(
            self.runner,
            partial(self.start, why="shrink", reason=""),
            self.log,
            self.shrink_limit.begin(),
            ShowsWanted(self.excuses, wanted),
            wanted is None or needs_patience(first, wanted),
            partial(self._take_candidate, sightings),
        )
        return shrink_ahead(shrinker, candidates, self._note_asked)

    def _note_asked(self, reason: str, _plan: Plan, _likely: float) -> None:
        self._asked = reason

    def _take_candidate(self, sightings: Sightings, pending: PendingRun) -> Trial:
        # A run that was begun early was begun for a guessed reason. This is the one for which its result is used.
        begun = replace(pending.begun, reason=self._asked)
        result = self.take(replace(pending, begun=begun), "shrink")
        trial = self.trial(result, sightings)
        if not pending.plan.disturbs and result.verdict.kind == "kept" and not result.used:
            self.kept[pending.plan] += 1
        if trial.kind != "broken" or trial.used:
            self.runner.discard(result)
            return trial
        if (earlier := self._broke.pop(pending.plan, None)) is not None:
            self.runner.discard(earlier)
        self._broke[pending.plan] = result
        return trial

    def _run_of(self, plan: Plan) -> list[RunResult]:
        """The latest broken run of a plan in this shrink, if there is one. A report without evidence of its own shows it."""
        return [self._broke.pop(plan)] if plan in self._broke else []

    def _discard_broke(self) -> None:
        while self._broke:
            self.runner.discard(self._broke.popitem()[1])

    def trial(self, result: RunResult, sightings: Sightings) -> Trial:
        """Tell whether a run showed the signature that the shrink follows, and note all its unexplained violations."""
        is_valid = result.verdict.kind != "invalid"
        unexplained = self.excuses.unexplained(result) if result.verdict.kind == "broken" else []
        sightings.note_signatures(result.history, unexplained)
        wanted = [one for one in unexplained if self.shrink_any or sightings.follows(one)]
        if is_valid:
            sightings.note_facts(result.history, broken=bool(wanted))
        if not wanted:
            return Trial("kept" if is_valid else "invalid", used=result.used)
        shown = wanted[0]
        blamed = blame(result.history, shown)
        return Trial("broken", last_step(result.history, shown.at_s), blamed, result.used)

    def _evidence(self, minimal_plan: Plan, sightings: Sightings) -> list[RunResult]:
        """Make a full run of the minimal plan for the report, and return it if it broke. If it did not, make another one."""
        stay_s = max(minimal_plan.stay_s, self.spec.lease_s, EVIDENCE_STAY_S)
        watched = replace(minimal_plan, stay_s=stay_s)
        with suppress(BudgetSpent):
            for _ in range(EVIDENCE_RUNS):
                result = self.take(self.start(watched, "evidence", "whole run"), "evidence")
                if self.trial(result, sightings).kind == "broken":
                    return [result]
                self.runner.discard(result)
        return []

    def save(
        self,
        first: RunResult,
        evidence: list[RunResult],
        sightings: Sightings,
        shrunk: Shrunk,
        cost: ShrinkCost,
        *,
        held: Finding | None = None,
        tell: Callable[[Finding], None],
    ) -> Finding:
        """Save the case, move the folders of its runs into the finding's folder, and add the finding.

        Args:
            first: the run in which the violation was first seen.
            evidence: runs of the minimal plan that show it.
            sightings: the signatures that the runs showed.
            shrunk: the minimal plan, and the counts behind it.
            cost: the cost of the shrink.
            held: the finding in whose place this one comes.
            tell: called with the new finding.

        Raises:
            InputError: if a folder can't be written. The finding is added first, so that it is never lost.
        """
        runs = [*evidence, first]
        case = case_of(self.spec, self.runner.host, sightings, shrunk, runs, cost)
        case = (
            in_place_of(self.corpus.get(held.case.id), case)
            if held
            else with_past(case, self.corpus)
        )
        shown = evidence[0] if evidence else first
        path, failed = None, None
        try:
            # Saved before the folders move, so that no other process reports the same bug. A plan without a second
            # run, for lack of time, is not worth a case. It is only reported.
            if case.status != "unconfirmed" or case.observed[-1].runs:
                path = self.corpus.save(case)
            shown, first = file_finding(shown, first, self.results_dir / case.id)
            if held is not None and held.case.id != case.id:
                self._remove(held.case)
        except OSError as error:
            failed = InputError(
                f"{error.filename or self.corpus.folder}: finding {case.id} could not be saved: {error.strerror or error}"
            )
        for result in evidence[1:]:
            self.runner.discard(result)
        counts = case.status in ("open", "unshrunk") or self.strict
        finding = Finding(case, shown, first, sightings.others(case), counts, path)
        self._add(finding, held)
        tell(finding)
        if failed is not None:
            raise failed
        return finding

    def drop(self, finding: Finding) -> None:
        """Forget a finding that another case explains: its case, and its runs."""
        self.findings.remove(finding)
        self._remove(finding.case)

    def _remove(self, case: Case) -> None:
        self.corpus.drop(case)
        shutil.rmtree(self.results_dir / case.id, ignore_errors=True)

    def _add(self, finding: Finding, held: Finding | None) -> None:
        if held is None:
            self.findings.append(finding)
        else:
            ids = [one.case.id for one in self.findings]
            self.findings[ids.index(held.case.id)] = finding
