"""A shrink that the budget ends leaves an unshrunk case, and a later search goes on with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import Case
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.finding import Finding
from graphquake.machines.findings.pipeline import EVIDENCE_RUNS, FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.reports.finding_text import finding_text
from graphquake.machines.runners.budget import Limit
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.sessions.search import search

from support.made import plan_of
from support.searched import PAIR, QUICK, searched
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated

# A plan with more steps than the bug needs.
LONG = plan_of(
    "burst 5 over 0.00 s", "kill decode 0", "wait 0.50 s", "kill prefill 0", "terminate frontend 0"
)  # fmt: skip


def find(runner: SimRunner, folder: Path) -> Finding:
    """The finding of a search that met `LONG`."""
    pipeline = FindingPipeline(runner, Corpus(folder / "cases"), RunLog(), results_dir=folder)
    first = pipeline.take(runner.start(LONG, "search"), "search")
    finding = pipeline.find(LONG, first, first.verdict.violations[0])
    assert finding is not None
    return finding


def test_a_budget_that_ends_in_a_shrink_leaves_the_best_so_far(tmp_path: Path) -> None:
    """A budget that ends during a shrink leaves an unshrunk case with the smallest plan so far."""
    bug = Bug(PAIR, "wrong tokens")
    find(whole := SimRunner([bug]), tmp_path / "all")
    finding = find(SimRunner([bug], runs_max=len(whole.runs) - 8), tmp_path)
    (case,) = Corpus(tmp_path / "cases")
    assert case == finding.case
    assert case.status == "unshrunk"
    assert embeds(PAIR, case.plan)
    assert len(case.plan.steps) < len(LONG.steps)
    assert finding.counts


def test_a_shrink_has_a_budget_of_its_own(tmp_path: Path) -> None:
    """A shrink limit of five live runs ends the shrink, and the case stays unshrunk."""
    rounds = Rounds(FindingPipeline(
        SimRunner([Bug(PAIR, "wrong tokens")]), Corpus(tmp_path / "cases"), RunLog(),
        results_dir=tmp_path, shrink_limit=Limit(runs=5),
    ))  # fmt: skip
    assert search(rounds, 1, findings_max=1, config=QUICK) == "findings"
    (case,) = Corpus(tmp_path / "cases")
    assert case.status == "unshrunk"
    assert case.cost.live_runs <= 5 + EVIDENCE_RUNS


def test_an_unshrunk_case_is_continued(tmp_path: Path) -> None:
    """An unshrunk case is shrunk further: the minimal case takes its place. On a graph without the bug, it stays as it is."""
    bug = Bug(PAIR, "wrong tokens")
    left, corpus = _left_unshrunk(bug, tmp_path)
    well = Rounds(FindingPipeline(SimRunner([]), corpus, RunLog(), results_dir=tmp_path / "well"))
    well.pipeline.go_on(left)
    assert list(Corpus(tmp_path / "cases")) == [left]
    rounds = Rounds(
        FindingPipeline(SimRunner([bug]), corpus, RunLog(), results_dir=tmp_path / "results")
    )
    rounds.pipeline.go_on(left)
    (case,) = Corpus(tmp_path / "cases")
    assert (case.status, len(case.plan.steps)) == ("open", 2)
    assert [finding.case for finding in rounds.pipeline.findings] == [case]


def test_a_case_without_time_for_a_second_run_stays_unshrunk(tmp_path: Path) -> None:
    """A case that a spent budget leaves no time to confirm stays unshrunk, with the counts that it had."""
    bug = Bug(PAIR, "HTTP 503", outcome=Outcome.ERROR, after_s=8.0)
    left, corpus = _left_unshrunk(bug, tmp_path)
    rounds = Rounds(
        FindingPipeline(
            SimRunner([bug], runs_max=1), corpus, RunLog(), results_dir=tmp_path / "results"
        )
    )
    rounds.pipeline.go_on(left)
    assert [finding.case for finding in rounds.pipeline.findings] == [left]
    assert list(Corpus(tmp_path / "cases")) == [left]


def test_a_finding_that_was_never_run_again_is_reported_and_not_saved(tmp_path: Path) -> None:
    """Without a second run, nothing confirms the finding. The report gives the command that runs its plan again."""
    runner = SimRunner([Bug(PAIR, "HTTP 503", outcome=Outcome.ERROR, after_s=8.0)], runs_max=1)
    pipeline = FindingPipeline(
        runner, Corpus(tmp_path / "cases"), RunLog(), results_dir=tmp_path / "results"
    )
    first = pipeline.take(runner.start(PAIR, "search"), "search")
    finding = pipeline.find(PAIR, first, first.verdict.violations[0])
    assert finding is not None
    assert (finding.case.status, finding.counts, finding.path) == ("unconfirmed", False, None)
    assert list(Corpus(tmp_path / "cases")) == []
    text = finding_text(finding)
    assert 'graphquake run "kill decode 0; kill prefill 0" --graph /made.toml' in text
    assert "graphquake replay" not in text


def test_a_finding_without_evidence_runs_shows_a_run_of_its_minimal_plan(tmp_path: Path) -> None:
    """If the budget ends before the evidence, the report shows a run that confirmed the minimal plan, never one of the drawn plan."""
    bug = Bug(PAIR, "wrong tokens")
    find(whole := SimRunner([bug]), tmp_path / "all")
    evidence = next(
        n for n, plan in enumerate(whole.runs) if plan.steps == PAIR.steps and plan.stay_s
    )
    finding = find(SimRunner([bug], runs_max=evidence), tmp_path / "less")
    assert finding.case.plan == PAIR
    assert finding.original.history.plan == LONG
    assert finding.shown.history.plan == PAIR


def _left_unshrunk(bug: Bug, folder: Path) -> tuple[Case, Corpus]:
    """Return the case of a search whose budget ended during the shrink, and its corpus."""
    found = next(n for n, plan in enumerate(_runs_of(bug, folder / "all"), 1) if embeds(PAIR, plan))
    searched(SimRunner([bug], runs_max=found + 3), folder, seed=1)
    corpus = Corpus(folder / "cases")
    (left,) = corpus
    assert left.status == "unshrunk"
    return left, corpus


def _runs_of(bug: Bug, folder: Path) -> list[Plan]:
    runner = SimRunner([bug])
    searched(runner, folder, seed=1)
    return runner.runs


def test_a_run_that_goes_on_at_the_end_of_the_budget_is_judged(tmp_path: Path) -> None:
    """A run that still goes on at the end of the budget is judged, and its bug is saved as an unshrunk case."""
    bug = Bug(PAIR, "wrong tokens")
    searched(first := SimRunner([bug]), tmp_path / "one", seed=2)
    until = next(n for n, plan in enumerate(first.runs, 1) if embeds(PAIR, plan))
    rounds, ended = searched(SimRunner([bug], slots=4, runs_max=until), tmp_path / "more", seed=2)
    assert ended == "budget"
    assert [finding.case.status for finding in rounds.pipeline.findings] == ["unshrunk"]
