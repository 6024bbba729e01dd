"""Findings of the sweep are held after a few runs, and shrunk later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.history.request import Outcome
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.hold import AGAIN, HOLD_RUNS, SOON_RUNS, Holds
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.reports.finding_text import finding_text
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import PendingRun, RunResult
from graphquake.machines.shrinking.state import REPRODUCE_TRIALS

from support.made import plan_of
from support.searched import searched
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated

STALL = plan_of("stall decode 0 for 1.00 s")
KILL = plan_of("kill prefill 0")


def runs_of(journal: Path) -> Iterator[tuple[str, Plan]]:
    """The purpose and the plan of each live run, in order."""
    for line in journal.read_text(encoding="utf-8").splitlines():
        entry: dict[str, Any] = json.loads(line)
        if "run" in entry:
            yield entry["why"], plan_of(*entry["plan"])


def test_the_sweep_goes_on_after_a_few_runs(tmp_path: Path) -> None:
    """A finding takes three runs of its plan and a control. It is shrunk after the sweep, and its smaller case replaces the first."""
    runner = SimRunner([Bug(STALL, "wrong tokens"), Bug(KILL, "tokens lost")])
    rounds, _ = searched(runner, tmp_path, findings_max=2, journal=tmp_path / "journal")
    runs = list(runs_of(tmp_path / "journal"))
    whys = [why for why, _ in runs]
    begins = whys.index("shrink")
    assert {*whys[:begins]} == {"search", "confirm"}
    assert whys[:begins].count("confirm") == 2 * HOLD_RUNS + 1
    cases = {str(one.case.signature): one.case for one in rounds.pipeline.findings}
    held = next(plan for why, plan in runs if why == "confirm" and plan.steps)
    shrunk = cases["answers / wrong tokens"].plan
    assert shrunk != held
    assert embeds(shrunk, held)
    assert cases["answers / tokens lost"].plan == KILL
    assert {case.id for case in Corpus(tmp_path / "cases")} == {one.id for one in cases.values()}
    assert all(case.control and case.control.kept >= 3 for case in cases.values())


def test_a_held_finding_counts_if_the_budget_ends(tmp_path: Path) -> None:
    """There was no time to shrink it. Its case is open, with the runs that it had, and it is reported."""
    runner = SimRunner([Bug(STALL, "wrong tokens")], runs_max=14)
    rounds, ended = searched(runner, tmp_path, findings_max=2, journal=tmp_path / "journal")
    (finding,) = rounds.pipeline.findings
    (case,) = Corpus(tmp_path / "cases")
    assert "shrink" not in {why for why, _ in runs_of(tmp_path / "journal")}
    assert ended == "budget"
    assert case == finding.case
    assert (case.status, case.observed[-1].broke, case.observed[-1].runs) == ("open", 3, 3)
    assert [one.kept for one in case.needed] == [1]
    assert finding.counts


def test_a_plan_that_does_not_always_break_is_shrunk_after_the_sweep(tmp_path: Path) -> None:
    """It is not held. Its confirming runs count all the same."""
    postponed = 0
    for seed in range(8):
        runner = SimRunner([Bug(KILL, "wrong tokens", rate=0.5)], seed=seed)
        folder = tmp_path / str(seed)
        rounds, _ = searched(runner, folder, journal=folder / "journal")
        whys = [why for why, plan in runs_of(folder / "journal") if plan.steps]
        (finding,) = rounds.pipeline.findings
        assert "kill prefill 0" in finding.case.plan.one_line()
        if "confirm" in whys and whys[whys.index("shrink") - 1] == "search":
            postponed += 1
            assert finding.case.observed[-1].runs > whys.count("confirm")
    assert postponed


def test_a_shrink_does_not_repeat_the_sweep(tmp_path: Path) -> None:
    """The sweep has run the plainest plans, and all were kept. A shrink of two steps takes none of them for a plainer plan again."""
    pair = plan_of("kill decode 0", "kill prefill 0")
    runner = SimRunner([Bug(pair, "HTTP 500", outcome=Outcome.ERROR, after_s=9.0)])
    rounds, _ = searched(runner, tmp_path, journal=tmp_path / "journal")
    runs = list(runs_of(tmp_path / "journal"))
    plainest = set(rounds.pipeline.plainest)
    assert {plan for why, plan in runs if why == "search"} >= plainest
    assert not {plan for why, plan in runs if why == "shrink"} & plainest - singles_of(pair)
    (finding,) = rounds.pipeline.findings
    assert finding.case.plan == pair
    assert all(one.kept > 1 for one in finding.case.needed)


def singles_of(plan: Plan) -> set[Plan]:
    """The plans of one step of a plan. The last check of a shrink runs them, too."""
    return {replace(plan, steps=(step,)) for step in plan.steps}


class SeenOnce(SimRunner):
    """A graph whose bugs show in one run, and later only from its run with the number `back` on."""

    def __init__(self, bug: Bug, back: int, runs_max: int) -> None:
        super().__init__([bug], runs_max=runs_max)
        self._bug, self._back = bug, back

    def result(self, pending: PendingRun) -> RunResult:
        """Return the result of a run."""
        result = super().result(pending)
        if result.verdict.kind == "broken":
            self.bugs = []
        if len(self.runs) >= self._back:
            self.bugs = [self._bug]
        return result


@pytest.mark.parametrize(("back", "status"), [(1_000, "unconfirmed"), (45, "open")])
def test_a_rare_failure_does_not_hold_up_the_search(tmp_path: Path, back: int, status: str) -> None:
    """A plan broke once, and not in the runs after the sweep. It gets one more run now and then, until it breaks or the time is over."""
    bug = Bug(KILL, "HTTP 500", outcome=Outcome.ERROR, after_s=9.0)
    runner = SeenOnce(bug, back, runs_max=120)
    rounds, _ = searched(runner, tmp_path, journal=tmp_path / "journal")
    lines = (tmp_path / "journal").read_text(encoding="utf-8").splitlines()
    reasons = [run["reason"] for run in map(json.loads, lines) if "reason" in run]
    rows = [len(list(row)) for reason, row in groupby(reasons) if reason == AGAIN]
    assert rows[0] < SOON_RUNS
    assert {*rows[1:]} == {1}
    assert sum(rows) < REPRODUCE_TRIALS
    (finding,) = rounds.pipeline.findings
    assert finding.case.status == status
    assert finding.case.plan == KILL
    assert finding.case.observed[-1].runs >= sum(rows)


ERROR = Bug(KILL, "HTTP 500", outcome=Outcome.ERROR, after_s=9.0)


def once_seen(runner: SimRunner, bug: Bug, folder: Path) -> Holds:
    """Let a plan break once and not again, so that it is postponed."""
    pipeline = FindingPipeline(
        runner, Corpus(folder / "cases"), RunLog(None), results_dir=folder / "results"
    )
    runner.bugs = [bug]
    first, holds = runner.run(KILL, "search"), Holds(pipeline)
    runner.bugs = []
    assert holds.hold(KILL, first, pipeline.excuses.unexplained(first)[0]) is None
    return holds


def test_a_failure_that_never_comes_again_is_unconfirmed_after_enough_runs(tmp_path: Path) -> None:
    """Its plan gets as many runs as a reproduction has trials, and no more."""
    holds = once_seen(runner := SimRunner([]), ERROR, tmp_path)
    assert holds.find_postponed() is None
    tries = 0
    while holds.has_postponed:
        finding, tries = holds.try_again(), tries + 1
    assert tries == REPRODUCE_TRIALS - SOON_RUNS
    assert finding is not None
    assert (finding.case.status, finding.counts) == ("unconfirmed", False)
    assert finding.case.observed[-1].runs == REPRODUCE_TRIALS
    assert runner.runs.count(KILL) == 1 + REPRODUCE_TRIALS


def test_invalid_runs_do_not_keep_a_plan_postponed_for_ever(tmp_path: Path) -> None:
    """They tell nothing, but they take time."""
    holds = once_seen(runner := SimRunner([]), ERROR, tmp_path)
    runner.invalid = 1.0
    assert holds.find_postponed() is None
    tries = 0
    while holds.has_postponed and tries < 2 * REPRODUCE_TRIALS:
        holds.try_again()
        tries += 1
    assert tries == REPRODUCE_TRIALS - SOON_RUNS


def test_a_wrong_answer_that_was_seen_once_counts_at_once(tmp_path: Path) -> None:
    """One run proves it, so it does not wait until the search is over."""
    holds = once_seen(SimRunner([]), Bug(KILL, "wrong tokens", after_s=9.0), tmp_path)
    finding = holds.find_postponed()
    assert finding is not None
    assert finding.counts
    assert not holds.has_postponed


def test_another_violation_of_a_further_run_is_held(tmp_path: Path) -> None:
    """The plan is run for a failure that it showed once. It shows another one instead, in each run. That one is a finding."""
    holds = once_seen(runner := SimRunner([]), ERROR, tmp_path)
    runner.bugs = [Bug(KILL, "HTTP 503", outcome=Outcome.ERROR, after_s=9.0)]
    assert holds.find_postponed() is None
    (finding,) = holds.pipeline.findings
    assert "HTTP 503" in str(finding.case.signature)
    assert (finding.case.observed[-1].broke, finding.counts) == (HOLD_RUNS, True)
    assert holds.has_postponed


def test_the_last_runs_of_a_budget_are_read(tmp_path: Path) -> None:
    """With several slots, the budget has room for one more run only. That run is not cancelled, and it shows the failure."""
    holds = once_seen(runner := SimRunner([], slots=3), ERROR, tmp_path)
    runner.bugs = [ERROR]
    runner.runs_max = len(runner.runs) + 1
    holds.find_postponed()
    (finding,) = holds.pipeline.findings
    assert finding.counts


def test_the_violation_that_shows_again_is_followed(tmp_path: Path) -> None:
    """The first run shows two violations, and the further runs only the later one. The earlier one does not hide it."""
    often = Bug(KILL, "HTTP 500", outcome=Outcome.ERROR, after_s=9.0)
    once = Bug(KILL, "HTTP 503", outcome=Outcome.ERROR, after_s=8.0)
    runner = SimRunner([once, often])
    pipeline = FindingPipeline(
        runner, Corpus(tmp_path / "cases"), RunLog(None), results_dir=tmp_path / "results"
    )
    first = runner.run(KILL, "search")
    runner.bugs = [often]
    violation = pipeline.excuses.unexplained(first)[0]
    assert "HTTP 503" in str(violation.signature)
    finding = Holds(pipeline).hold(KILL, first, violation)
    assert finding is not None
    assert "HTTP 500" in str(finding.case.signature)
    assert (finding.case.observed[-1].broke, finding.counts) == (HOLD_RUNS, True)


def test_a_case_of_another_process_replaces_a_held_one(tmp_path: Path) -> None:
    """Another process has saved a case that explains the held run, too. The held finding is dropped, and nothing crashes."""
    runner = SimRunner([Bug(KILL, "HTTP 500", outcome=Outcome.ERROR, after_s=9.0)])
    pipeline = FindingPipeline(
        runner, Corpus(tmp_path / "cases"), RunLog(None), results_dir=tmp_path / "results"
    )
    first, holds = runner.run(KILL, "search"), Holds(pipeline)
    finding = holds.hold(KILL, first, pipeline.excuses.unexplained(first)[0])
    assert finding is not None
    alone = replace(finding.case, id="0a0a0a", plan=plan_of())
    Corpus(tmp_path / "cases").save(alone)
    assert holds.shrink_next() is None
    assert [case.id for case in Corpus(tmp_path / "cases")] == ["0a0a0a"]


def test_a_wrong_answer_beside_a_held_finding_is_found(tmp_path: Path) -> None:
    """One plan breaks two promises in each run. A wrong answer is never another name of a failure, so the plan runs once more."""
    bugs = [
        Bug(KILL, "HTTP 503", outcome=Outcome.ERROR, after_s=8.0),
        Bug(KILL, "wrong tokens", after_s=9.0),
    ]
    rounds, _ = searched(
        SimRunner(bugs, runs_max=80), tmp_path, findings_max=2, journal=tmp_path / "journal"
    )
    found = {one.case.promise: one.case.plan for one in rounds.pipeline.findings if one.counts}
    assert set(found) == {"answers", "recovery"}
    assert set(found.values()) == {KILL}
    lines = map(json.loads, (tmp_path / "journal").read_text(encoding="utf-8").splitlines())
    rest = [line["plan"] for line in lines if line.get("reason") == "rest of a finding"]
    assert rest == [KILL.lines()]


def test_load_alone_is_a_finding_of_its_own(tmp_path: Path) -> None:
    """If the run without the step breaks the promise, too, nothing is held. The finding has no step, and it explains what follows."""
    runner = SimRunner([Bug(plan_of(), "wrong tokens"), Bug(KILL, "tokens lost")], runs_max=60)
    rounds, _ = searched(runner, tmp_path, findings_max=3)
    load, kill = (one.case for one in rounds.pipeline.findings)
    assert (load.plan, str(load.signature)) == (plan_of(), "answers / wrong tokens")
    assert load.title.startswith("answers broken by load alone")
    assert "nothing: load alone is enough" in finding_text(rounds.pipeline.findings[0])
    assert (kill.plan, str(kill.signature)) == (KILL, "answers / tokens lost")


@pytest.mark.parametrize(
    ("bug", "counts"),
    [
        (Bug(KILL, "wrong tokens"), True),
        (Bug(KILL, "HTTP 503", outcome=Outcome.ERROR, after_s=8.0), False),
    ],
)
def test_a_control_that_fails_by_chance_hides_no_bug(
    tmp_path: Path, bug: Bug, *, counts: bool
) -> None:
    """The run without the step broke once, and no other run without it did. So the step is needed, and its plan is found, too.

    One wrong answer counts although it was not seen again. It explains nothing else.
    """
    runner = _Once([bug], runs_max=80)
    rounds, _ = searched(runner, tmp_path, findings_max=3)
    assert runner.has_failed
    found = {one.case.plan: one.counts for one in rounds.pipeline.findings}
    assert found == {plan_of(): counts, KILL: True}


@dataclass(slots=True)
class _Once(SimRunner):
    """A runner whose first run of the empty plan breaks the promise that its bug breaks."""

    has_failed: bool = False

    def _outcome(self, plan: Plan) -> RunResult:
        if plan.steps or self.has_failed:
            return SimRunner._outcome(self, plan)
        self.has_failed = True
        bugs, self.bugs = self.bugs, [replace(self.bugs[0], needs=plan_of())]
        result = SimRunner._outcome(self, plan)
        self.bugs = bugs
        return result


def test_another_replica_widens_a_held_case(tmp_path: Path) -> None:
    """The sweep hits the last replica, too. That run shows that the replica does not matter, and is no finding of its own."""
    bugs = [Bug(plan_of(f"kill decode {index}"), "wrong tokens") for index in (0, 1)]
    runner = SimRunner(bugs, runs_max=80)
    rounds, _ = searched(runner, tmp_path, findings_max=2, journal=tmp_path / "journal")
    (finding,) = rounds.pipeline.findings
    assert finding.case.any_replica
    confirms = {plan for why, plan in runs_of(tmp_path / "journal") if why == "confirm"}
    assert confirms == {plan_of(), plan_of("kill decode 0")}


@pytest.mark.parametrize(("findings_max", "shrinks"), [(2, False), (1, True)])
def test_the_mark_of_a_user_stays(tmp_path: Path, findings_max: int, *, shrinks: bool) -> None:
    """A case that is marked during the sweep is not shrunk. If it is marked during its shrink, the smaller case has the mark."""
    runner = _Marks(tmp_path / "cases", [Bug(STALL, "wrong tokens")], runs_max=80)
    rounds, _ = searched(runner, tmp_path, findings_max=findings_max, journal=tmp_path / "journal")
    (case,) = Corpus(tmp_path / "cases")
    assert (case.status, case.why) == ("known", "URL")
    assert shrinks == ("shrink" in {why for why, _ in runs_of(tmp_path / "journal")})
    assert len(rounds.pipeline.findings) == 1


class _Marks(SimRunner):
    """A runner during whose runs a user marks the case. Its corpus is the one in `cases`."""

    def __init__(self, cases: Path, bugs: list[Bug], runs_max: int) -> None:
        super().__init__(bugs, runs_max=runs_max)
        self._cases = cases

    def _outcome(self, plan: Plan) -> RunResult:
        corpus = Corpus(self._cases)
        for case in corpus:
            if case.status == "open":
                corpus.save(replace(case, status="known", why="URL"))
        return super()._outcome(plan)
