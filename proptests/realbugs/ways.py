"""The ways to look for a bug: our search, and the baselines that it is compared with.

Each way gets an entry, a graph, a seed and a budget, and returns a row. A new way is a function in `WAYS`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.early_verdict import Enough
from graphquake.harness.run.scenarios import (
    NONE,
    NotThereError,
    Strike,
    scenario_graph,
    scenario_names,
    scenario_plan,
)
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.finding import Finding
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.plans.novelty import Novelty
from graphquake.machines.runners.budget import Budget, BudgetSpent, Limit
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import Begun, PendingRun
from graphquake.machines.sessions.search import search

from realbugs.entries import Entry
from realbugs.rows import Mark, Row
from realbugs.script import RUNS, run_script

# A search goes on after other findings, until it finds the bug or its budget is spent.
FINDINGS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Job:
    """One search to make.

    Attributes:
        entry: the bug.
        spec: the graph, on one release.
        release: `before` or `after`.
        seed: the seed.
        limit: the budget.
        folder: the folder for its files.
        slots: the number of graphs side by side.
        runs: how often the plan by hand is run.
    """

    entry: Entry
    spec: GraphSpec
    release: str
    seed: int
    limit: Limit
    folder: Path
    slots: int = 1
    runs: int = 5

    def row(self, way: str) -> Row:
        """Return the row of this job, without a result."""
        system = self.entry.releases()[self.release].name
        by_hand = [str(step) for step in self.entry.plan.steps]
        return Row(self.entry.name, way, self.release, system, self.seed, by_hand=by_hand)


class Clock:
    """Tells how far a search is.

    Args:
        log: the log of the search.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._begun_s = time.monotonic()

    def mark(self) -> Mark:
        """Return the cost up to now."""
        wall_s = time.monotonic() - self._begun_s
        return Mark(self._log.live.total(), round(self._log.live_s, 1), round(wall_s, 1))


@dataclass(slots=True)
class Sight:
    """A run that broke a promise: its plan, its signatures, and the cost of the search up to its end."""

    plan: Plan
    signatures: list[Signature]
    at: Mark


class WatchedLog(RunLog):
    """A log that notes the moment of each broken run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.clock = Clock(self)
        self.sights: list[Sight] = []

    def run(
        self,
        plan: Plan,
        why: str,
        verdict: Verdict,
        live_s: float,
        what: str,
        explained: Sequence[str] = (),
        folder: str = "",
        node: str = "",
        begun: Begun | None = None,
    ) -> None:
        """See `RunLog.run`."""
        super().run(plan, why, verdict, live_s, what, explained, folder, node, begun)
        if verdict.kind == "broken":
            signatures = [one.signature for one in verdict.violations]
            self.sights.append(Sight(plan, signatures, self.clock.mark()))


class EndingRunner(LiveRunner):
    """A runner that makes no more runs once it has been told to end."""

    ended = False

    def start(
        self,
        plan: Plan,
        why: str,
        *,
        enough: Enough | None = None,
        may_reuse: bool = False,
        patient: bool = True,
        spec: GraphSpec | None = None,
    ) -> PendingRun:
        """See `Runner.start`."""
        if self.ended:
            raise BudgetSpent
        return super().start(
            plan, why, enough=enough, may_reuse=may_reuse, patient=patient, spec=spec
        )


@dataclass(slots=True)
class Always(Novelty):
    """Gives every drawn plan its turn: the choice is uniformly random."""

    def has_turn(self, plan: Plan) -> bool:
        """See `Novelty.has_turn`."""
        del plan
        return True


@dataclass(slots=True)
class _Search:
    """One search, and what it has shown so far."""

    job: Job
    row: Row
    log: WatchedLog
    findings: list[Finding] = field(default_factory=list)

    def note(self, finding: Finding, runner: EndingRunner, *, held: bool = False) -> None:
        """Enter a finding into the row. If it is the bug, the search is over. Another finding is entered once it is no longer held."""
        case, row = finding.case, self.row
        if row.found:
            return
        if not finding.counts or not self.job.entry.is_case(case):
            if held:
                return
            row.others.append(f"{case.signature} ({case.status}): {case.plan.one_line()}")
            return
        row.found, row.status = True, case.status
        row.plan = [str(step) for step in case.plan.steps]
        if case.observed:
            row.broke, row.of = case.observed[-1].broke, case.observed[-1].runs
        row.confirmed = self.log.clock.mark()
        row.first = self._first()
        row.held = self._first(case.plan)
        runner.ended = True

    def _first(self, plan: Plan | None = None) -> Mark | None:
        """The cost up to the first run that showed the bug: of any plan, or of a plan with the steps of this one."""
        for sight in self.log.sights:
            shows = any(map(self.job.entry.is_shown_by, sight.signatures))
            if shows and (plan is None or sight.plan.steps == plan.steps):
                return sight.at
        return None


def by_search(job: Job, way: str = "search", choice: type[Novelty] | None = None) -> Row:
    """Search from a seed as `pytest --chaos` does.

    Args:
        job: what to search for.
        way: the name of this way in the row.
        choice: chooses the drawn plans that are run, in place of the search's own choice.
    """
    log = WatchedLog(job.folder / "journal.jsonl")
    state = _Search(job, job.row(way), log)
    with EndingRunner(job.spec, job.folder / "runs", job.limit.begin(), slots=job.slots) as runner:
        rounds = Rounds(
            FindingPipeline(
                runner,
                Corpus(job.folder / "cases"),
                log,
                results_dir=job.folder,
                on_finding=lambda finding: state.note(finding, runner),
                on_held=lambda finding: state.note(finding, runner, held=True),
            )
        )
        if choice is not None:
            rounds.novelty = choice(job.spec)
        search(rounds, job.seed, findings_max=FINDINGS_MAX, plain=choice is None)
    log.close()
    _total(state.row, log)
    return state.row


def by_drawing(job: Job) -> Row:
    """The first baseline: each drawn plan is run, whatever it shows. The shrinker is the same."""
    return by_search(job, "uniform", Always)


def by_scenarios(job: Job) -> Row:
    """The second baseline: the fixed scenarios of Dynamo's fault tolerance suite, each of them once, under the load of the graph file."""
    log = WatchedLog(job.folder / "journal.jsonl")
    row = job.row("scenarios")
    spec = scenario_graph(job.spec, None, respawn=False)
    budget: Budget = job.limit.begin()
    plans: dict[str, Plan] = {}
    for name in scenario_names(spec):
        try:
            plans[name] = scenario_plan(spec, name, Strike())
        except NotThereError:
            continue
    with LiveRunner(spec, job.folder / "runs", budget) as runner:
        for name, plan in plans.items():
            try:
                result = runner.run(plan, name)
            except BudgetSpent:
                break
            shown = dict.fromkeys(str(one.signature) for one in result.verdict.violations)
            log.run(plan, name, result.verdict, result.live_s, "; ".join(shown))
            hits = [one for one in shown if job.entry.is_shown_by(Signature.parse(one))]
            if hits and name != NONE and not row.found:
                row.found, row.first = True, log.clock.mark()
                row.plan = [str(step) for step in plan.steps]
            elif shown:
                row.others.append(f"{', '.join(shown)}: {plan.one_line()}")
            runner.discard(result)
    log.close()
    _total(row, log)
    return row


def by_script(job: Job) -> Row:
    """The third baseline: a script of 40 lines, as an engineer would write it (see `script`)."""
    log = WatchedLog(job.folder / "journal.jsonl")
    row = job.row("script")
    with LiveRunner(job.spec, job.folder / "runs", job.limit.begin()) as runner:
        for found in run_script(runner, log):
            if not row.found and any(map(job.entry.is_shown_by, found.signatures)):
                row.found, row.confirmed = True, log.clock.mark()
                row.plan = [str(step) for step in found.plan.steps]
                row.broke = row.of = RUNS
            else:
                row.others.append(f"{found.signatures[0]}: {found.plan.one_line()}")
            if row.found:
                break
    log.close()
    row.first = next(
        (one.at for one in log.sights if any(map(job.entry.is_shown_by, one.signatures))), None
    )
    _total(row, log)
    return row


def by_hand(job: Job) -> Row:
    """Run the plan by hand several times. This measures the rate that the entry states, and shows whether a release has the bug."""
    log = WatchedLog(job.folder / "journal.jsonl")
    row = job.row("hand")
    plan = job.entry.plan
    others: Counter[str] = Counter()
    with LiveRunner(job.spec, job.folder / "runs", job.limit.begin()) as runner:
        for _ in range(job.runs):
            try:
                result = runner.run(plan, "by hand")
            except BudgetSpent:
                break
            shown = list(dict.fromkeys(one.signature for one in result.verdict.violations))
            log.run(plan, "by hand", result.verdict, result.live_s, "; ".join(map(str, shown)))
            if result.verdict.kind == "invalid":
                continue
            row.of += 1
            row.broke += any(map(job.entry.is_shown_by, shown))
            others.update(str(one) for one in shown if not job.entry.is_shown_by(one))
    log.close()
    row.found, row.plan = row.broke > 0, list(row.by_hand) if row.broke else []
    row.first = log.sights[0].at if row.found else None
    row.others = [f"{count} of {row.of}: {text}" for text, count in others.items()]
    _total(row, log)
    return row


def _total(row: Row, log: WatchedLog) -> None:
    whole = log.clock.mark()
    row.runs, row.live_s, row.wall_s = whole.runs, whole.live_s, whole.wall_s
    row.invalid = log.live["invalid"]


WAYS: Final[dict[str, Callable[[Job], Row]]] = {
    "search": by_search,
    "uniform": by_drawing,
    "scenarios": by_scenarios,
    "script": by_script,
    "hand": by_hand,
}
# The ways that the benchmark compares. The others are made only if they are asked for.
COMPARED: Final = ("search", "uniform", "scenarios", "script")
# Ways without chance. One seed is enough.
FIXED: Final = frozenset({"scenarios", "script", "hand"})
# Ways that are made on the release without the bug, too.
ON_BOTH: Final = frozenset({"search", "hand"})
