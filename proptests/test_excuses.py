"""Known cases excuse violations, as they stood when a snapshot of them was taken."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.promises.signature import Signature
from graphquake.machines.cases.case import Case
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.excuses import ShowsWanted, excuses_of
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import RunResult

from support.made import plan_of
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated

PLAN = plan_of("kill decode 0")
RUNNER = SimRunner([Bug(PLAN, "wrong tokens")])


def found(folder: Path) -> tuple[Case, Corpus, RunResult]:
    """The case of a bug, the corpus that holds it, and a run that shows the bug."""
    corpus = Corpus(folder / "cases")
    pipeline = FindingPipeline(RUNNER, corpus, RunLog(), results_dir=folder)
    result = RUNNER.run(PLAN, "search")
    finding = pipeline.find(PLAN, result, result.verdict.violations[0])
    assert finding is not None
    return finding.case, corpus, result


def test_a_case_explains_its_violation_and_is_named(tmp_path: Path) -> None:
    """A violation of a known case is explained by the id of that case, and is not news."""
    case, corpus, result = found(tmp_path)
    excuses = excuses_of(corpus, RUNNER.spec)
    assert excuses.sort(result.verdict.violations, result.history) == ([], [case.id])
    assert excuses.unexplained(result) == []


def test_a_case_that_is_shrunk_further_excuses_nothing(tmp_path: Path) -> None:
    """While a case is shrunk further, its violations count as new."""
    case, corpus, result = found(tmp_path)
    without = excuses_of(corpus, RUNNER.spec, [case.id])
    assert without.unexplained(result) == list(result.verdict.violations)


def test_a_fixed_case_excuses_nothing(tmp_path: Path) -> None:
    """A case that counts as fixed is news when its violation comes back."""
    case, corpus, result = found(tmp_path)
    corpus.save(replace(case, status="fixed"))
    assert excuses_of(corpus, RUNNER.spec).unexplained(result)


def test_a_snapshot_does_not_see_later_changes_of_the_corpus(tmp_path: Path) -> None:
    """An early verdict in another thread judges by the cases of the moment when its shrink began."""
    case, corpus, result = found(tmp_path)
    corpus.drop(case)
    early = ShowsWanted(excuses_of(corpus, RUNNER.spec), case.signature)
    corpus.save(case)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(early, result.history).result()
    assert not ShowsWanted(excuses_of(corpus, RUNNER.spec), case.signature)(result.history)


def test_an_early_verdict_waits_for_the_wanted_violation(tmp_path: Path) -> None:
    """Another violation does not end a run early, unless any violation counts."""
    case, corpus, result = found(tmp_path)
    corpus.drop(case)
    none = excuses_of(corpus, RUNNER.spec)
    assert not ShowsWanted(none, Signature("answers", "tokens lost"))(result.history)
    assert ShowsWanted(none, None)(result.history)
