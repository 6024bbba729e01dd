"""The seam between a run and its graph: any target can take part in a run, and none but the chosen one is opened."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import Died, Invalidated, Spawned, StepDone
from graphquake.harness.run import first_answer, live
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import SLOW_WAY, Target
from graphquake.machines.runners.weakness import ON_SLOW, weakness

from support.fake_target import FakeTarget, FakeTargets, fake_spec
from support.made import plan_of
from support.toys import in_loop
from support.undisturbed import run_live

KILL = plan_of("kill worker 0", "wait 0.10 s")


def test_the_fake_target_follows_the_protocol(tmp_path: Path) -> None:
    """The type checker accepts the fake target as a `Target`, and it has every member of the protocol."""
    target: Target = FakeTarget(fake_spec(tmp_path))
    members = {name for name in vars(Target) if not name.startswith("_")}
    assert members
    assert all(hasattr(target, name) for name in members)


@in_loop
async def test_a_plan_runs_against_a_target_in_memory(tmp_path: Path) -> None:
    """A run only needs the `Target` protocol of its graph: steps, heal, judging and the run's folder work without a process."""
    targets = FakeTargets()
    run = await run_live(fake_spec(tmp_path), KILL, tmp_path / "run", opener=targets)
    assert run.verdict.violations == ()
    assert not run.verdict.causes
    assert [step.landed for step in run.history.of(StepDone)] == [True, True]
    assert targets.opened[0].calls == ["kill worker 0", "respawn worker 0"]
    assert [event.replica for event in run.history.of(Died)] == [Replica("worker", 0)]
    assert (tmp_path / "run" / "logs" / "fake.log").read_text() == "opened\n"
    assert targets.open_now == 0


@in_loop
async def test_a_slow_way_to_the_graph_makes_a_run_doubtful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target says since when. A run that kept every promise all the same is kept, and weak."""
    since_s, cause = time.monotonic(), f"{SLOW_WAY}: the API server took 1.2 s to answer"
    monkeypatch.setattr(FakeTarget, "disturbed", (since_s, cause))
    run = await live.run_live(fake_spec(tmp_path), KILL, tmp_path / "run", opener=FakeTargets())
    (doubt,) = run.history.of(Invalidated)
    assert (doubt.cause, doubt.spares_kept) == (cause, True)
    assert doubt.at_s <= 0.5
    assert run.verdict.kind == "kept"
    assert weakness(run.verdict, run.history) == ON_SLOW


@in_loop
async def test_faults_are_timed_by_events(tmp_path: Path) -> None:
    """The clients wake the steps that wait for requests in flight and for first tokens. An event that does not come makes the run weak."""
    plan = plan_of(
        "burst 30 over 0 s, 100% leave",
        "wait until 10 in flight",
        "wait until a first token",
        "kill worker 0",
        "respawn worker 0",
        "wait until worker 0 starts",
        'wait until worker 0 logs "nothing"',
    )
    run = await run_live(fake_spec(tmp_path), plan, tmp_path / "run", opener=FakeTargets())
    done = list(run.history.of(StepDone))
    assert [one.step for one in done] == list(plan.steps)
    assert [one.missed for one in done] == [False] * 6 + [True]
    assert done[1].at_s - done[1].begun_s < 1.0
    assert re.match(r"\d\d in flight, \d+ ms after the wait began$", done[1].proof)
    assert re.match(r"first token of request \d+, \d+ ms after it was sent, ", done[2].proof)
    (weak,) = run.verdict.weak_because
    assert weak.startswith('"wait until worker 0 logs "nothing"" waited in vain: ')


@in_loop
async def test_a_fault_that_a_target_cannot_do_makes_the_run_invalid(tmp_path: Path) -> None:
    """A target may refuse a fault: the run is then invalid and quotes the target's reason."""
    plan = plan_of("stall worker 0 for 0.50 s")
    run = await run_live(fake_spec(tmp_path), plan, tmp_path / "run", opener=FakeTargets())
    assert run.verdict.kind == "invalid"
    assert any("worker 0 has no processes" in cause for cause in run.verdict.causes)


@in_loop
async def test_a_target_in_memory_is_used_again(tmp_path: Path) -> None:
    """A reusable target is healed and serves the next run. A target that is lost meanwhile is closed, and a fresh one is opened."""
    targets, spec = FakeTargets(), fake_spec(tmp_path)
    plan = plan_of("kill worker 0", "heal none")
    first = await run_live(spec, plan, tmp_path / "1", opener=targets, keep=True)
    assert first.reusable is not None
    first.reusable.start_s = 1.0
    second = await run_live(
        spec, KILL, tmp_path / "2", opener=targets, graph=first.reusable, keep=True
    )
    assert second.used
    spawned = {e.replica: e.incarnation for e in second.history.of(Spawned) if e.at_s < 0}
    assert spawned == {Replica("front", 0): 0, Replica("worker", 0): 1, Replica("worker", 1): 0}
    assert second.reusable is not None
    assert second.reusable.uses == 2
    targets.opened[0].is_lost = True
    third = await run_live(spec, KILL, tmp_path / "3", opener=targets, graph=second.reusable)
    assert not third.used
    assert len(targets.opened) == 2
    assert targets.open_now == 0
    assert not list(tmp_path.glob("*-graph"))


@in_loop
async def test_a_repeat_leaves_the_graph_of_the_first_run_alone(tmp_path: Path) -> None:
    """A run may be repeated while its first graph waits for another run. The repeat opens a graph in another folder."""
    targets, spec = FakeTargets(), fake_spec(tmp_path)
    graphs = []
    for _ in range(3):
        run = await live.run_live(spec, KILL, tmp_path / "1", opener=targets, keep=True)
        assert run.reusable is not None
        graphs.append(run.reusable)
    assert len({graph.work for graph in graphs}) == 3
    assert all((graph.work / "logs" / "fake.log").is_file() for graph in graphs)
    for graph in graphs:
        await graph.close()
    assert targets.open_now == 0
    assert not list(tmp_path.glob("*-graph"))


@in_loop
async def test_a_graph_that_is_ended_while_it_heals_leaves_no_folder(tmp_path: Path) -> None:
    """A run that is cancelled while its used graph heals ends that graph and removes its folder."""
    targets, spec = FakeTargets(), fake_spec(tmp_path)
    first = await run_live(spec, KILL, tmp_path / "1", opener=targets, keep=True)
    assert first.reusable is not None
    assert first.reusable.work.is_dir()
    healing = asyncio.Event()

    async def wait_ready(within_s: float) -> bool:
        del within_s
        healing.set()
        await asyncio.sleep(60)
        return True

    targets.opened[0].wait_ready = wait_ready  # type: ignore[method-assign]  # never ready
    run = asyncio.create_task(
        run_live(spec, KILL, tmp_path / "2", opener=targets, graph=first.reusable)
    )
    await healing.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert targets.opened[0].calls[-1] == "cancelled"
    assert targets.open_now == 0
    assert not first.reusable.work.exists()


@in_loop
async def test_a_target_that_never_answers_right_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that is ready but whose answers are all wrong is one GraphError that quotes the last answer's fault."""
    monkeypatch.setattr(first_answer, "FIRST_ANSWER_S", 0.2)
    targets = FakeTargets(answers=lambda: "five")
    spec = fake_spec(tmp_path)
    with pytest.raises(
        GraphError,
        match=r"fake: every replica is ready, but no right answer within 0\.2 s: wrong tokens",
    ):
        await run_live(spec, KILL, tmp_path / "run", opener=targets)
    assert targets.open_now == 0
