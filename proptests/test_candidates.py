"""The runs that a shrink asks for: they wait only for what its violation needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphquake.harness.history.request import Outcome
from graphquake.harness.promises.judgement import judge
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.candidates import needs_patience
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import RunResult

from support.made import Made, plan_of, spec_of
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated

PLAN = plan_of("kill decode 0")


def broken(*, at_s: float, steady_s: float | None) -> RunResult:
    """A run in which a request gets a wrong answer at a time. If `steady_s` is None, the run ended before `steady`."""
    made = Made(spec_of(), PLAN).steady(0.0, 1.0).step("kill decode 0", 1.5)
    made.ask(at_s, outcome=Outcome.WRONG, detail="wrong")
    if steady_s is not None:
        made.phase("steady", steady_s)
    history = made.history()
    return RunResult(PLAN, judge(history), history, 10.0)


@pytest.mark.parametrize(
    ("at_s", "steady_s", "needs"),
    [(2.0, 4.0, False), (2.0, None, False), (6.0, 4.0, True)],
)
def test_a_shrink_waits_for_lists_only_if_its_violation_came_so_late(
    at_s: float, steady_s: float | None, *, needs: bool
) -> None:
    """What came before the graph was steady comes without the wait for lists. What came later may need that wait."""
    first = broken(at_s=at_s, steady_s=steady_s)
    (violation,) = first.verdict.violations
    assert needs_patience(first, violation.signature) == needs


def test_a_violation_that_the_first_run_does_not_show_needs_the_wait() -> None:
    """Nothing is known about when it comes."""
    first = broken(at_s=2.0, steady_s=None)
    other = broken(at_s=2.0, steady_s=None).verdict.violations[0].signature
    assert not needs_patience(first, other)
    kept = RunResult(PLAN, judge(Made(spec_of(), PLAN).history()), first.history, 10.0)
    assert needs_patience(kept, other)


def test_candidates_do_not_wait_for_lists_and_evidence_does(tmp_path: Path) -> None:
    """The runs of a shrink for a wrong answer are short. The full run for the report waits for everything."""
    runner = SimRunner([Bug(PLAN, "wrong")])
    pipeline = FindingPipeline(runner, Corpus(tmp_path), RunLog(), results_dir=tmp_path)
    plan = plan_of("kill prefill 0", "kill decode 0")
    first = runner.run(plan, "first")
    assert pipeline.find(plan, first, first.verdict.violations[0]) is not None
    patience = {
        why: {one for other, one in runner.asked if other == why} for why, _ in runner.asked
    }
    assert patience["shrink"] == {False}
    assert patience["evidence"] == {True}
