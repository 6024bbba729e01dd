"""Decides how many runs a plan needs, and what they say together.

`Judge` is called once for each drawn plan, at the machine's teardown. To Hypothesis it is a pure function of the plan, however noisy the
graph is: what was said about a plan is remembered, and once a minimal plan M was found in a round, every further answer follows from
M alone (broken if and only if M embeds in the plan, or it is the one that was drawn), so Hypothesis shrinks to M without a live run.

With several slots, up to that many drawn plans are run side by side, and their outcomes are taken in the order in which they were drawn: a
plan counts as kept until its outcome is there. If that is a finding and the plan at hand is another one, the round is over (`RoundOver`).

A violation that a known case explains is no news; everything else that a run shows is a finding, which is shrunk, confirmed and kept
as a case within that one call.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.promises.builtin import judge as judge_history
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step, Wait, WaitReady
from graphquake.machines.cases.case import EXCUSING, Case, ShrinkCost
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.artifacts import file_finding
from graphquake.machines.findings.fault_coverage import FaultCoverage
from graphquake.machines.findings.fault_localization import blame
from graphquake.machines.findings.finding import Finding, case_of, with_past
from graphquake.machines.findings.hypothesis_errors import Minimal, RoundOver, broken
from graphquake.machines.findings.sightings import Sightings, last_step
from graphquake.machines.plans.novelty import Novelty
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.runners.budget import UNLIMITED, Budget, BudgetSpent, Limit
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import PendingRun, Runner, RunResult
from graphquake.machines.shrinking.shrink import OutOfBudget, Shrunk, Trial, shrink
from graphquake.machines.shrinking.speculation import shrink_ahead
from graphquake.machines.shrinking.trials import OnTrial, RunPlan

# Full runs of the minimal plan, for the evidence: the others end as soon as they have shown what they were run for. They stay on
# at least so long, or as long as a lease: how far a bug reaches is what its case may excuse later.
EVIDENCE_RUNS: Final = 2
EVIDENCE_STAY_S: Final = 8.0
# How often a plan that was left unshrunk is tried again before it is left as it is.
AGAIN_RUNS: Final = 3
CONFIRMATIONS: Final = 10
CONTROLS: Final = 3


@dataclass(slots=True)
class Judge:
    """Judges the plans of one search.

    Attributes:
        runner: where plans are run.
        corpus: the cases of this graph; findings are kept there.
        journal: what was drawn and run.
        strict: an unconfirmed finding fails the session, too.
        shrink_limit: what each shrink may take.
        shrink_any: a candidate counts whatever it breaks, so long as no case explains it; else it has to break the same in the same way.
        plainest: plans of one step, against which a minimal plan of several is held.
        unneeded: runs that were begun beforehand, and that nobody asked for.
        on_finding: told about each finding as soon as it is made.
    """

    runner: Runner
    corpus: Corpus
    journal: RunLog
    strict: bool = False
    shrink_any: bool = False
    shrink_limit: Limit = UNLIMITED
    on_finding: Callable[[Finding], None] = lambda _: None
    plainest: Sequence[Plan] = ()
    findings: list[Finding] = field(default_factory=list)
    explained: Counter[str] = field(default_factory=Counter)
    coverage: FaultCoverage = field(init=False)
    novelty: Novelty = field(init=False)
    results_dir: Path = Path(".graphquake")
    live_s: float = 0.0
    weak: int = 0
    unneeded: int = 0
    round: int = 0
    _said: set[Plan] = field(default_factory=set)
    _begun: deque[PendingRun] = field(default_factory=deque)
    _again: set[str] = field(default_factory=set)
    _minimal: Minimal | None = None

    def __post_init__(self) -> None:
        self.coverage = FaultCoverage(self.spec)
        self.novelty = Novelty(self.spec)

    @property
    def spec(self) -> GraphSpec:
        """The graph."""
        return self.runner.spec

    @property
    def found(self) -> int:
        """How many findings count."""
        return sum(finding.counts for finding in self.findings)

    def new_round(self, number: int) -> None:
        """A machine begins to draw anew."""
        self.round = number
        self._minimal = None

    def __call__(self, plan: Plan) -> None:
        """Judge one drawn plan.

        Raises:
            PromiseBroken: if it breaks a promise in a way that no case explains.
            RoundOver: if a plan before it did, in a way that this one does not.
            BudgetSpent: if no run fits into the budget any more.
        """
        is_new = self._minimal is None
        if is_new:
            self._judge(plan)
        # One line for every failure of a round, new or asked for again: to Hypothesis, another line is another failure.
        if self._minimal is not None and self._minimal.breaks_with(plan):
            raise self._minimal.broken(self._minimal.title)
        if self._minimal is not None and is_new:
            raise RoundOver

    def drop(self) -> None:
        """End the runs whose outcome nobody waits for any more."""
        while self._begun:
            self._cancel(self._begun.popleft())

    def settle(self) -> None:
        """See to what those show that still run, as far as it comes to that before the first finding."""
        while self._begun and self._minimal is None:
            self._settle(self._begun.popleft())

    def _judge(self, plan: Plan) -> None:
        """Run a plan if that is worth it, and look at what the oldest of those that run shows."""
        if (reason := self._not_run(plan)) is not None:
            self.journal.draw(self.round, plan, reason)
            return
        try:
            self._begun.append(self.runner.start(plan, "search"))
        except BudgetSpent:
            self.journal.draw(self.round, plan, "after the budget")
            self.settle()
            raise
        self.journal.draw(self.round, plan, "run")
        self._said.add(plan)
        self.novelty.ran(plan)
        if len(self._begun) >= self.runner.slots:
            self._settle(self._begun.popleft())

    def _settle(self, pending: PendingRun) -> None:
        """Wait for a run of a drawn plan, and see to what it shows."""
        plan, outcome = pending.plan, self._outcome(pending, "search")
        if outcome.verdict.kind == "invalid":
            self._said.discard(plan)
            self.runner.discard(outcome)
            return
        self.coverage.add(outcome.history)
        self.weak += outcome.verdict.weak
        news = self._news(outcome)
        if not news:
            self.runner.discard(outcome)
            return
        finding = self._find(plan, outcome, news[0])
        if finding is not None and finding.counts:
            case = finding.case
            self._minimal = Minimal(case.plan, plan, broken(case.promise), case.title)

    def _not_run(self, plan: Plan) -> str | None:
        """Why a drawn plan is not worth a run; None if it is."""
        if not plan.disturbs:
            return "only waits"
        if plan in self._said:
            return "seen before"
        for case in self.corpus.of(self.spec):
            if case.status in EXCUSING and any(_acts(p) == _acts(plan) for p in case.plans(plan)):
                return f"only case {case.id} itself"
        return None if self.novelty.has_turn(plan) else "shows less than others"

    def go_on(self, case: Case) -> None:
        """Shrink further what an earlier search had to leave as it was.

        Raises:
            BudgetSpent: if no run fits into the budget any more; the case stays as it is.
        """
        self._again.add(case.id)
        try:
            for _ in range(AGAIN_RUNS):
                outcome = self._outcome(self.runner.start(case.plan, "go on"), "go on")
                own = [v for v in self._news(outcome) if v.signature == case.signature]
                if own:
                    finding = self._find(case.plan, outcome, own[0])
                    if finding is None or finding.case.id != case.id:
                        self.corpus.drop(case)
                    return
                self.runner.discard(outcome)
        finally:
            self._again.discard(case.id)

    # ---- runs

    def _outcome(self, pending: PendingRun, why: str) -> RunResult:
        """Wait for a run, and write it down."""
        outcome = self.runner.result(pending)
        if why == "search" and outcome.verdict.violations:
            # Not while a plan is shrunk: what counts as broken must stay the same from its first run to its last.
            self.corpus.refresh()
        plan, verdict = pending.plan, outcome.verdict
        news, explained = self._sorted(verdict.violations, outcome.history)
        what = (
            verdict.causes[0]
            if verdict.causes
            else "; ".join(map(str, dict.fromkeys(v.signature for v in news)))
        )
        self.explained.update(explained)
        folder = outcome.folder.name if outcome.folder else ""
        self.journal.run(plan, why, verdict.kind, outcome.live_s, what, explained, folder)
        self.live_s += outcome.live_s
        return outcome

    def _cancel(self, pending: PendingRun) -> None:
        self.unneeded += 1
        self.runner.cancel(pending)

    def _news(self, outcome: RunResult) -> list[Violation]:
        """The violations that no case explains."""
        return self._sorted(outcome.verdict.violations, outcome.history)[0]

    def _shows(self, chase: Sightings, history: History) -> bool:
        """Whether a history, perhaps of a run that still goes on, has such a violation that no case explains."""
        news, _ = self._sorted(judge_history(history).violations, history)
        return any(self.shrink_any or chase.wants(violation) for violation in news)

    def _sorted(
        self, violations: Iterable[Violation], history: History
    ) -> tuple[list[Violation], list[str]]:
        """The violations that no case explains, and the ids of the cases that explain others."""
        cases = [
            case
            for case in self.corpus.of(self.spec)
            if case.status in EXCUSING and case.id not in self._again
        ]
        news, explained = [], set()
        for violation in violations:
            by = [case.id for case in cases if case.explains(violation, history)]
            explained.update(by[:1])
            if not by:
                news.append(violation)
        return news, sorted(explained)

    # ---- findings

    def _find(self, plan: Plan, first: RunResult, violation: Violation) -> Finding | None:
        """Shrink, confirm and keep; None if another process has kept it meanwhile."""
        chase = Sightings(violation.signature)
        runs_before, live_before_s, unneeded = self.journal.live.total(), self.live_s, self.unneeded
        trial = self._trial(first, chase)

        def shrinker(
            run: RunPlan, on_trial: OnTrial | None, reuse: RunPlan | None = None
        ) -> Shrunk:
            return shrink(
                self.spec, plan, trial, run, reuse=reuse, on_trial=on_trial,
                plainest=self.plainest, confirmations=CONFIRMATIONS, controls=CONTROLS,
            )  # fmt: skip

        candidates = _Candidates(self, chase, self.shrink_limit.begin(), self.runner.slots)
        shrunk = (
            shrinker(candidates.on_fresh, None, candidates.on_used)
            if self.runner.reuses
            else shrink_ahead(shrinker, candidates)
        )
        evidence = self._evidence(shrunk.plan, chase)
        self.corpus.refresh()
        if not self._news(evidence[0] if evidence else first):
            for outcome in (*evidence, first):
                self.runner.discard(outcome)
            return None
        if self.shrink_any and evidence:
            chase.signature = self._news(evidence[0])[0].signature
        else:
            chase.adopt_signature(shrunk.plan)
        cost = ShrinkCost(
            steps=len(plan.steps),
            plainer=not embeds(shrunk.plan, plan),
            live_runs=self.journal.live.total() - runs_before,
            live_s=round(self.live_s - live_before_s),
            unneeded_runs=self.unneeded - unneeded,
            gpu_s=round((self.live_s - live_before_s) * self.runner.gpus),
            round=self.round,
            draw=len(self.journal.plans) + 1,
        )
        finding = self._keep(first, evidence, chase, shrunk, cost)
        self.findings.append(finding)
        self.on_finding(finding)
        return finding

    def _trial(self, outcome: RunResult, chase: Sightings) -> Trial:
        """What a run says about the signature that is chased; other violations are written down."""
        news = self._news(outcome) if outcome.verdict.kind == "broken" else []
        chase.saw(outcome.history, news)
        wanted = [v for v in news if self.shrink_any or chase.wants(v)]
        if outcome.verdict.kind != "invalid":
            chase.noted(outcome.history, broken=bool(wanted))
        used = outcome.used
        if not wanted:
            return Trial("invalid" if outcome.verdict.kind == "invalid" else "kept", used=used)
        shown = wanted[0]
        blamed = blame(outcome.history, shown)
        return Trial("broken", last_step(outcome.history, shown.at_s), blamed, used)

    def _evidence(self, minimal: Plan, chase: Sightings) -> list[RunResult]:
        """Whole runs of the minimal plan that break it, for what a report shows."""
        shown = []
        stay_s = max(minimal.stay_s, self.spec.lease_s, EVIDENCE_STAY_S)
        watched = replace(minimal, stay_s=stay_s)
        begun = deque[PendingRun]()
        for number in range(EVIDENCE_RUNS):
            with suppress(BudgetSpent):
                while len(begun) < min(self.runner.slots, EVIDENCE_RUNS - number):
                    begun.append(self.runner.start(watched, "evidence"))
            if not begun:
                break
            outcome = self._outcome(begun.popleft(), "evidence")
            if self._trial(outcome, chase).kind == "broken":
                shown.append(outcome)
            else:
                self.runner.discard(outcome)
        return shown

    def _keep(
        self,
        first: RunResult,
        evidence: list[RunResult],
        chase: Sightings,
        shrunk: Shrunk,
        cost: ShrinkCost,
    ) -> Finding:
        """Make a case of it, and move the folders of its runs to where the case is looked for."""
        case = case_of(self.spec, self.runner.host, chase, shrunk, [*evidence, first], cost)
        case = with_past(case, self.corpus)
        # First of all, so that no other process takes the same bug for news.
        path = self.corpus.save(case)
        shown, first = file_finding(
            evidence[0] if evidence else first, first, self.results_dir / case.id
        )
        for outcome in evidence[1:]:
            self.runner.discard(outcome)
        counts = case.status in ("open", "unshrunk") or self.strict
        others = chase.others(case)
        return Finding(case, shown, first, others, counts, path)


@dataclass(slots=True)
class _Candidates:
    """Runs of candidates, for one chase; see `speculation.CandidateRunner`."""

    judge: Judge
    chase: Sightings
    budget: Budget
    slots: int

    def on_fresh(self, plan: Plan) -> Trial:
        return self.result(self.start(plan))

    def on_used(self, plan: Plan) -> Trial:
        return self.result(self.start(plan, may_reuse=True))

    def start(self, plan: Plan, *, may_reuse: bool = False) -> PendingRun:
        if not self.budget.has_room(0.0):
            raise OutOfBudget
        self.budget.begin_run()
        enough = partial(self.judge._shows, self.chase)  # noqa: SLF001 - it is a part of it
        try:
            return self.judge.runner.start(plan, "shrink", enough=enough, may_reuse=may_reuse)
        except BudgetSpent:
            raise OutOfBudget from None

    def result(self, pending: PendingRun) -> Trial:
        outcome = self.judge._outcome(pending, "shrink")  # noqa: SLF001
        trial = self.judge._trial(outcome, self.chase)  # noqa: SLF001
        self.judge.runner.discard(outcome)
        return trial

    def is_done(self, pending: PendingRun) -> bool:
        return pending.done.done()

    def cancel(self, pending: PendingRun) -> None:
        self.judge._cancel(pending)  # noqa: SLF001


def _acts(plan: Plan) -> tuple[Step, ...]:
    """The steps that do something: a plan that adds only waiting to a case tells nothing new."""
    return tuple(step for step in plan.steps if not isinstance(step, Wait | WaitReady))
