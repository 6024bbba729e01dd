"""Tests of live graphs that several runs use: a used graph is as good as a fresh one, or it is not used again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from graphquake.harness.history.events import Died, Spawned
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.promises.judgement import LATE
from graphquake.harness.run.noise import undisturbed
from graphquake.harness.run.noise.contention import BUSY
from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Target
from graphquake.machines.runners import graph_pool
from graphquake.machines.runners import live_runner as runners
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.live_runner import LiveRunner

from support.made import plan_of
from support.toys import in_loop, left_of, toy_spec
from support.undisturbed import run_live

KILL = plan_of("kill worker 0")
DEAD = plan_of("kill worker 0", "wait 2.00 s")


def pids(target: Target) -> dict[Replica, int]:
    """Return the latest main process of each replica, from the log."""
    return {event.replica: event.pid for event in target.log if isinstance(event, Spawned)}


@in_loop
async def test_a_graph_is_used_again_as_if_it_were_fresh(tmp_path: Path) -> None:
    """A second run on a graph finds the killed replica back, and its history has no event of the first run."""
    spec = toy_spec(tmp_path)
    first = await run_live(spec, KILL, tmp_path / "1", keep=True)
    assert first.verdict.kind == "kept"
    assert not first.used
    assert first.reusable is not None
    before = pids(first.reusable.target)
    second = await run_live(spec, plan_of("kill worker 1"), tmp_path / "2", graph=first.reusable)
    assert second.verdict.kind == "kept"
    assert second.used
    spawned = {e.replica: e.pid for e in second.history.of(Spawned) if e.at_s < 0}
    assert spawned == before
    assert [e.replica for e in second.history.of(Died)] == [Replica("worker", 1)]
    assert second.live_s < first.live_s
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["1", "2"]
    assert left_of(os.getpid()) == []


@in_loop
async def test_a_replica_that_an_ended_run_left_dead_is_brought_back(tmp_path: Path) -> None:
    """After a run that ended early, its victim is dead. It is brought back before the next run."""
    spec = toy_spec(tmp_path)
    first = await run_live(
        spec, DEAD, tmp_path / "1", enough=lambda history: any(history.of(Died)), keep=True
    )
    assert first.reusable is not None
    assert not first.reusable.target.alive(Replica("worker", 0))
    # As if the other replicas took much longer to start.
    first.reusable.start_s *= 4
    second = await run_live(spec, Plan(()), tmp_path / "2", graph=first.reusable)
    assert (second.used, second.verdict.kind) == (True, "kept")
    assert left_of(os.getpid()) == []


@pytest.mark.parametrize("spoil", ["a leak", "the guard"])
@in_loop
async def test_a_graph_that_is_not_whole_is_not_used(tmp_path: Path, spoil: str) -> None:
    """A graph with a leaked process, or without its guard, is closed, and the next run gets a fresh one."""
    spec = toy_spec(tmp_path, worker="--children 1") if spoil == "a leak" else toy_spec(tmp_path)
    lines = ["kill worker 0 process"] if spoil == "a leak" else []
    first = await run_live(spec, plan_of(*lines), tmp_path / "1", keep=True)
    assert first.reusable is not None
    if spoil == "the guard":
        assert isinstance(first.reusable.target, Supervisor)
        os.kill(first.reusable.target._guard.pid, signal.SIGKILL)
    second = await run_live(spec, Plan(()), tmp_path / "2", graph=first.reusable)
    assert (second.used, second.verdict.kind) == (False, "kept")
    assert left_of(os.getpid()) == []


@in_loop
async def test_a_graph_that_is_slower_to_heal_than_to_start_is_closed(tmp_path: Path) -> None:
    """A graph is closed, not healed, if the start of its dead replica took longer than the start of a whole graph."""
    first = await run_live(
        toy_spec(tmp_path), DEAD, tmp_path / "1", enough=lambda h: any(h.of(Died)), keep=True
    )
    assert first.reusable is not None
    assert 0 < first.reusable._took_s(Replica("worker", 0)) < first.reusable.start_s
    first.reusable.start_s = 100.0
    assert first.reusable.is_worth_healing()
    first.reusable.start_s = 1e-3
    assert not first.reusable.is_worth_healing()
    assert not await first.reusable.heal_or_close()
    assert not first.reusable.work.exists()
    assert left_of(os.getpid()) == []


def test_a_graph_is_opened_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a run goes on, the next fresh graph starts. A run on it has a fresh graph, and takes less time. None is left at the end."""
    monkeypatch.setattr(runners, "SLOW_START_S", 1.0)
    spec = toy_spec(tmp_path, worker="--start-s 1.5")
    # After a run that other work disturbed, no graph is opened ahead. Then all is made again.
    for attempt in range(3):
        folder = tmp_path / f"runs-{attempt}"
        with LiveRunner(spec, folder, Budget(120.0)) as runner:
            outcomes = [runner.run(Plan(()), "shrink") for _ in range(3)]
            is_disturbed = any(outcome.disturbed for outcome in outcomes)
            assert is_disturbed or list(folder.glob("ahead-*"))
        assert not list(folder.glob("*-graph"))
        assert left_of(os.getpid()) == []
        if not is_disturbed:
            break
    first, _, last = outcomes
    assert last.live_s < first.live_s - 1.0
    assert min(runner.starts_s) > 1.5
    assert [outcome.used for outcome in outcomes] == [False] * 3
    assert all(outcome.verdict.kind == "kept" for outcome in outcomes)
    assert all((folder / f"000{n}" / "logs").is_dir() for n in (1, 2, 3))


def test_a_runner_reuses_slow_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner reuses a slow graph only for runs that allow it, and at most `USES_MAX` times. It closes all graphs at its end."""
    # A repeat of a disturbed run would take another graph.
    monkeypatch.setattr(undisturbed, "is_disturbed", lambda _: False)
    monkeypatch.setattr(runners, "SLOW_START_S", 0.0)
    monkeypatch.setattr(graph_pool, "USES_MAX", 2)
    with LiveRunner(toy_spec(tmp_path), tmp_path / "runs", Budget(120.0)) as runner:
        assert not runner.reuses
        outcomes = [runner.run(Plan(()), "search")]
        assert runner.reuses
        reusable = [True, True, True, False, True, True]
        outcomes += [
            runner.result(runner.start(Plan(()), "shrink", may_reuse=may)) for may in reusable
        ]
    used = [outcome.used for outcome in outcomes]
    # The third graph waits while a fresh one runs. So the run after that takes it.
    assert used == [False, False, True, False, False, True, False]
    assert len(runner.starts_s) == used.count(False)
    causes = [cause for outcome in outcomes for cause in outcome.verdict.causes]
    assert all(cause.startswith((BUSY, LATE)) for cause in causes)
    assert not any(outcome.verdict.kind == "broken" for outcome in outcomes)
    assert not list((tmp_path / "runs").glob("*-graph"))
    assert left_of(os.getpid()) == []
