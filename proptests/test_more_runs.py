"""More fresh runs for findings that count already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.history.request import Outcome
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.finding import Finding
from graphquake.machines.findings.more_runs import RUNS_MAX, one_more_run
from graphquake.machines.findings.pipeline import FindingPipeline

from support.searched import SINGLE, searched
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated


def lacks_runs(pipeline: FindingPipeline) -> Finding:
    """Let the only finding of a search have three runs, and return it."""
    (finding,) = pipeline.findings
    few = replace(finding.case.observed[-1], broke=3, runs=3)
    pipeline.findings[0] = replace(finding, case=replace(finding.case, observed=(few,)))
    return pipeline.findings[0]


def test_a_finding_gets_all_of_its_runs_after_the_search(tmp_path: Path) -> None:
    """The case on disk and the finding in memory have the same ten runs, and no more are made."""
    rounds, ended = searched(SimRunner([Bug(SINGLE, "wrong tokens")]), tmp_path)
    (finding,) = rounds.pipeline.findings
    (case,) = Corpus(tmp_path / "cases")
    assert ended == "findings"
    assert case == finding.case
    assert (case.observed[-1].broke, case.observed[-1].runs) == (RUNS_MAX, RUNS_MAX)
    assert not one_more_run(rounds.pipeline)


def test_only_the_signature_of_the_case_counts(tmp_path: Path) -> None:
    """A run that shows only another violation that the case names is not a broken run of the case."""
    bugs = [
        Bug(SINGLE, "HTTP 503", outcome=Outcome.ERROR, after_s=8.0),
        Bug(SINGLE, "HTTP 500", outcome=Outcome.ERROR, after_s=9.0),
    ]
    runner = SimRunner(bugs)
    rounds, _ = searched(runner, tmp_path)
    pipeline = rounds.pipeline
    assert "HTTP 500" in str(lacks_runs(pipeline).case.also)
    runner.bugs = bugs[1:]
    assert one_more_run(pipeline)
    last = pipeline.findings[0].case.observed[-1]
    assert (last.broke, last.runs) == (3, 4)


def test_a_case_that_a_user_has_removed_stays_removed(tmp_path: Path) -> None:
    """The next run of the finding does not save its case again."""
    rounds, _ = searched(SimRunner([Bug(SINGLE, "wrong tokens")]), tmp_path)
    pipeline = rounds.pipeline
    finding = lacks_runs(pipeline)
    pipeline.corpus.path(finding.case).unlink()
    assert one_more_run(pipeline)
    assert not list(Corpus(tmp_path / "cases"))
    assert not list(pipeline.corpus)


def test_a_mark_of_the_user_stays(tmp_path: Path) -> None:
    """If somebody marks the case while the search goes on, the next run adds to its counts, and the mark stays."""
    rounds, _ = searched(SimRunner([Bug(SINGLE, "wrong tokens")]), tmp_path)
    pipeline = rounds.pipeline
    finding = lacks_runs(pipeline)
    Corpus(tmp_path / "cases").save(replace(finding.case, status="known", why="URL"))
    assert one_more_run(pipeline)
    (case,) = Corpus(tmp_path / "cases")
    assert (case.status, case.why, case.observed[-1].runs) == ("known", "URL", 4)
