"""A run that other work on the machine disturbed is repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphquake.harness.history.history import History
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.live import LiveRun
from graphquake.harness.run.noise import undisturbed as module
from graphquake.harness.run.noise.contention import BUSY
from graphquake.harness.run.noise.undisturbed import REPEATS_MAX, undisturbed
from graphquake.harness.spec.plan import Plan
from graphquake.harness.targets.target import SLOW_WAY
from graphquake.machines.plans.sweep import sweep
from graphquake.machines.reports.summary import GraphSummary
from graphquake.machines.runners import live_runner
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.runner import SEARCH

from support.made import plan_of, spec_of
from support.searched import searched
from support.sim_runner import SimRunner

pytestmark = pytest.mark.simulated

DISTURBED = Verdict("invalid", causes=(f"{BUSY}: 2 threads",))
OTHERWISE = Verdict("invalid", causes=(f"{BUSY}: 2 threads", "the fault did not land"))
SLOW = Verdict("invalid", causes=(f"{SLOW_WAY}: the API server took 1.2 s to answer",))
LATE = Verdict("invalid", causes=("client late: 9 of 90 requests",))
LATE_AND_BUSY = Verdict("invalid", causes=(*LATE.causes, *DISTURBED.causes))
KEPT = Verdict("kept")


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a quiet machine."""
    monkeypatch.setattr(module, "QUIET_WITHIN_S", 0.0)


def made(verdicts: list[Verdict]) -> Iterator[LiveRun]:
    """Yield runs with these verdicts."""
    for verdict in verdicts:
        yield LiveRun(History(spec_of(), Plan(())), verdict, Path(), live_s=2.0, start_s=0.5)


@pytest.mark.parametrize(
    ("verdicts", "taken"),
    [
        ([KEPT], 1),
        ([OTHERWISE, KEPT], 1),
        ([LATE, LATE_AND_BUSY, KEPT], 3),
        ([DISTURBED, DISTURBED, KEPT, KEPT], 3),
        ([SLOW, KEPT], 2),
        ([DISTURBED] * 10, 1 + REPEATS_MAX),
    ],
)
def test_only_disturbed_runs_are_repeated(verdicts: list[Verdict], taken: int) -> None:
    """A run is repeated while the machine was the only cause, and at most `REPEATS_MAX` times. Late clients are such a cause."""
    runs = made(verdicts)

    async def run() -> LiveRun:
        return next(runs)

    assert asyncio.run(undisturbed(run)).verdict == verdicts[taken - 1]
    assert len(list(runs)) == len(verdicts) - taken


@pytest.mark.parametrize(("budget", "repeats"), [(60.0, 1), (1.0, 0)])
def test_the_runner_tells_what_it_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget: float, repeats: int
) -> None:
    """The result names each disturbed run, and a repeat needs room in the budget."""
    runs = made([DISTURBED, KEPT])

    async def run_live(*_: object, **__: object) -> LiveRun:
        return next(runs)

    monkeypatch.setattr(live_runner, "run_live", run_live)
    with LiveRunner(spec_of(), tmp_path, Budget(budget)) as runner:
        result = runner.run(Plan(()), "shrink")
        assert runner.budget.begun_runs == 1 + repeats
    assert result.disturbed == ((DISTURBED, 2.0),) * repeats
    assert result.verdict == (KEPT if repeats else DISTURBED)


def test_a_repeat_has_no_other_run_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run of a search that another run disturbed is repeated once, when the other one has ended. Later runs wait for the repeat."""
    first, second = plan_of("kill decode 0"), plan_of("kill decode 1")
    begun: list[tuple[Plan, int]] = []
    running = 0

    async def run_live(_: object, plan: Plan, *__: object, **___: object) -> LiveRun:
        nonlocal running
        running += 1
        begun.append((plan, running))
        await asyncio.sleep(0.02 if plan == first else 0.1)
        running -= 1
        verdict = DISTURBED if plan == first and len(begun) < 4 else KEPT
        return LiveRun(History(spec_of(), plan), verdict, Path(), live_s=0.1, start_s=0.0)

    monkeypatch.setattr(live_runner, "run_live", run_live)
    with LiveRunner(spec_of(), tmp_path, Budget(60.0), slots=2) as runner:
        pending = [runner.start(plan, SEARCH) for plan in (first, second, second)]
        results = [runner.result(one) for one in pending]
    assert begun == [(first, 1), (second, 2), (first, 1), (second, 1)]
    # The second disturbance was not the other run's fault. The search comes back to the plan later.
    assert [one.verdict for one in results] == [DISTURBED, KEPT, KEPT]
    assert results[0].disturbed == ((DISTURBED, 0.1),)


@pytest.mark.parametrize(("made_good", "nothing"), [(0, True), (3, False)])
def test_what_was_made_good_does_no_harm(made_good: int, nothing: bool) -> None:  # noqa: FBT001
    """A search with many invalid runs proves nothing, unless they were repeated with a valid result."""
    summary = GraphSummary("toy", 1, total_s=60.0)
    summary.live = {"kept": 8, "invalid": 4}
    summary.causes = {BUSY: 4}
    summary.made_good = made_good
    assert summary.proved_nothing == nothing
    says = "4 machine too busy; 3 of them repeated"
    assert (says in summary.text()) == bool(made_good)


def test_a_search_comes_back_to_a_plan_with_an_invalid_run(tmp_path: Path) -> None:
    """One run in seven is invalid. All plans of the sweep have a valid run in the end, and the invalid ones before it do no harm."""
    runner = SimRunner([], seed=4, runs_max=30, invalid=0.15)
    rounds, _ = searched(runner, tmp_path)
    wanted = sweep(runner.spec).first
    assert set(wanted) <= rounds._ran
    assert 0 < rounds.log.made_good <= rounds.log.live["invalid"]
