"""Tests of whole runs on a live toy graph, without bugs and with bugs switched on."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.errors import GraphError, InputError
from graphquake.harness.history.events import PhaseBegan, Resumed, Spawned, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.processes.squeezes.squeezer import Squeezer
from graphquake.harness.promises.availability import availability
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run import first_answer
from graphquake.harness.run.live import describe_host
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Squeezable

from support.made import plan_of
from support.toy import expected
from support.toys import in_loop, left_of, toy_file, toy_spec
from support.undisturbed import run_live

KILLS = plan_of(
    "kill worker 0", "wait 0.20 s", "respawn worker 0", "wait until ready",
    "burst 20 over 0.20 s, 50% leave", "terminate worker 1",
)  # fmt: skip


def other_answer(prompt: str, max_tokens: int) -> str:
    """An oracle that disagrees with every answer of the toy."""
    return expected(prompt, max_tokens)[::-1] + "!"


def seen(verdict: Verdict) -> set[str]:
    """The promises that were broken."""
    return {violation.promise for violation in verdict.violations}


@in_loop
async def test_a_graph_that_keeps_its_promises(tmp_path: Path) -> None:
    """A graph without bugs keeps its promises under a plan of five steps. The run's folder gives the same verdict again."""
    run = await run_live(toy_spec(tmp_path), KILLS, tmp_path / "run")
    assert run.verdict.violations == ()
    assert run.verdict.kind == "kept"
    steps = list(run.history.of(StepDone))
    assert [step.step for step in steps] == list(KILLS.steps)
    assert all(step.landed for step in steps)
    assert [phase.phase for phase in run.history.of(PhaseBegan)] == [
        "baseline", "plan", "heal", "recover", "steady", "drain",
    ]  # fmt: skip
    left = [request for request in run.history.requests if request.outcome == "left"]
    assert len(left) == 10
    assert sum(request.outcome == Outcome.OK for request in run.history.requests) > 50
    again = History.load(tmp_path / "run")
    assert judge(again) == run.verdict
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "plan.txt", "graph.json", "events.jsonl", "requests.csv", "verdict.json", "logs",
    }  # fmt: skip
    assert left_of(os.getpid()) == []


@pytest.mark.parametrize(
    ("changes", "lines", "promise", "signature"),
    [
        ({"front": "--panic 1.2"}, ["kill worker 0"], "error_window", "HTTP 503"),
        ({"front": "--panic 4"}, ["kill worker 0"], "recovery", "HTTP 503"),
        ({"worker": "--children 1"}, ["kill worker 0 process"], "no_leak", "process"),
        ({"worker": "--serve-for 1.6"}, ["wait 1.00 s"], "blast_radius", "exit status 1"),
    ],
)  # fmt: skip
@in_loop
async def test_planted_bugs(
    tmp_path: Path, changes: dict[str, str], lines: list[str], promise: str, signature: str
) -> None:
    """Each bug breaks its promise, and `clients.jsonl` has one line for each failed request."""
    spec = toy_spec(tmp_path, **changes)
    run = await run_live(spec, plan_of(*lines), tmp_path / "run")
    assert run.verdict.kind == "broken"
    broken = [v for v in run.verdict.violations if v.promise == promise]
    assert broken
    assert signature in str(broken[0].signature)
    failed = [request for request in run.history.requests if request.failed]
    said = (tmp_path / "run" / "logs" / "clients.jsonl").read_text().splitlines()
    lines_of = {line["number"]: line for line in map(json.loads, said)}
    assert set(lines_of) == {request.number for request in failed}
    for request in failed:
        line = lines_of[request.number]
        assert line["entry"].startswith("http://127.0.0.1:")
        assert '"prompt"' in line["asked"]
        assert line["detail"] == request.detail
        if request.detail.startswith("HTTP"):
            assert request.message[:20] in line["answer"]


@in_loop
async def test_a_cut_stream_breaks_a_window_of_zero(tmp_path: Path) -> None:
    """Without an error window, a cut stream breaks `error_window`. A front that retries keeps it."""
    plan = plan_of("burst 20 over 0.00 s", "wait 0.03 s", "kill worker 0")
    for front, says in (("--forget", "broken"), ("", "kept")):
        spec = toy_spec(tmp_path, front=front)
        # An answer of 16 tokens takes 64 ms, so on a busy machine the streams could end before the kill lands.
        load = replace(spec.load, max_tokens=64)
        spec = replace(spec, load=load, promises=replace(spec.promises, window_s=0.0))
        run = await run_live(spec, plan, tmp_path / "run")
        assert run.verdict.kind == says
        assert seen(run.verdict) <= {"error_window"}


@in_loop
async def test_a_fault_that_does_not_land_proves_nothing(tmp_path: Path) -> None:
    """A run with a kill of a dead replica is invalid, and its cause names the replica."""
    plan = plan_of("kill worker 0", "kill worker 0")
    run = await run_live(toy_spec(tmp_path), plan, tmp_path / "run")
    assert run.verdict.kind == "invalid"
    assert any("worker 0 was dead already" in cause for cause in run.verdict.causes)


@in_loop
async def test_heal_none_leaves_the_dead_dead(tmp_path: Path) -> None:
    """With `heal none` the dead replica is not started again, and the run is judged on the other worker."""
    run = await run_live(
        toy_spec(tmp_path), plan_of("kill worker 0", "heal none"), tmp_path / "run"
    )
    assert run.verdict.kind == "kept"
    assert [event.replica for event in run.history.of(Spawned)].count(Replica("worker", 0)) == 1


@in_loop
async def test_a_run_ends_early(tmp_path: Path) -> None:
    """A run ends as soon as its history is enough, or when it is cancelled. No process is left."""
    spec = toy_spec(tmp_path)
    long = plan_of("kill worker 0", "wait 30.00 s")
    run = await run_live(
        spec, long, tmp_path / "run", enough=lambda history: any(history.of(StepDone))
    )
    assert run.live_s < 10
    task = asyncio.create_task(run_live(spec, long, tmp_path / "again"))
    await asyncio.sleep(1.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_of(os.getpid()) == []


@in_loop
async def test_a_run_does_not_end_early_while_a_step_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history excuses the failures around the end of a step only when it has the end. The step is undone once."""
    calls: list[Replica] = []
    ended: list[Replica] = []
    release = Squeezer.release

    async def slowly(self: Squeezer, replica: Replica, what: Squeezable) -> Landed:
        calls.append(replica)
        landed = await release(self, replica, what)
        await asyncio.sleep(4.0)
        ended.append(replica)
        return landed

    monkeypatch.setattr(Squeezer, "release", slowly)
    plan = plan_of("squeeze worker 0 files for 0.30 s", "wait 20.00 s")
    spec = toy_spec(tmp_path)
    run = await run_live(spec, plan, tmp_path / "run", enough=lambda _: bool(calls))
    assert [event.replica for event in run.history.of(Resumed)] == [Replica("worker", 0)]
    assert run.live_s < 15
    assert calls == ended == [Replica("worker", 0)]


@in_loop
async def test_a_graph_that_never_answers_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ready graph whose answers all differ from the oracle's is one GraphError, and leaves no process."""
    monkeypatch.setattr(first_answer, "FIRST_ANSWER_S", 0.5)
    path = toy_file(tmp_path)
    path.write_text(path.read_text().replace("support.toy:expected", "test_live:other_answer"))
    with pytest.raises(GraphError, match=r"^toy: every replica is ready, but no right answer"):
        await run_live(load_graph(str(path)), plan_of(), tmp_path / "run")
    assert left_of(os.getpid()) == []


@in_loop
async def test_an_oracle_that_does_not_exist(tmp_path: Path) -> None:
    """An oracle that cannot be imported is one InputError that names the file and the key."""
    path = toy_file(tmp_path)
    path.write_text(path.read_text().replace("support.toy:expected", "toys:never"))
    with pytest.raises(InputError, match=r"toy\.toml: promises\.answers\.oracle: toys:never"):
        await run_live(load_graph(str(path)), plan_of(), tmp_path / "run")
    assert left_of(os.getpid()) == []


@in_loop
async def test_version_commands(tmp_path: Path) -> None:
    """The first line that a version command prints is the version. The command sees the file's `[env]`, and its failure is noted."""
    spec = toy_spec(tmp_path, more="[versions]\npython = '{python} --version'\n")
    assert (await describe_host(spec)).versions["python"].startswith("Python 3.")
    commands = """
        here = "{python} -c 'import os; print(os.environ[\\"OF_THE_FILE\\"])'"
        bad = "{python} -c 'raise SystemExit(\\"no such model\\")'"
        gone = "no-such-program"
        err = "{python} -c 'import sys; print(7, file=sys.stderr)'"
        [env]
        OF_THE_FILE = "{model} 7"
        OF_A_RUN = "{run_dir}"
    """
    versions = (await describe_host(toy_spec(tmp_path, more=f"[versions]{commands}"))).versions
    assert versions["here"] == "toy 7"
    assert versions["bad"] == "unknown (exit status 1: no such model)"
    assert versions["err"] == "7"
    assert versions["gone"] == "unknown (no-such-program: No such file or directory)"


@in_loop
async def test_a_stall_lasts_as_long_as_it_says(tmp_path: Path) -> None:
    """Later steps run during a stall. Heal begins only after the stall has ended."""
    plan = plan_of("stall worker 0 for 0.60 s", "wait 0.10 s", "kill worker 1")
    run = await run_live(toy_spec(tmp_path), plan, tmp_path / "run")
    stall, _, kill = run.history.of(StepDone)
    (resumed,) = run.history.of(Resumed)
    assert stall.landed
    assert stall.fault
    assert 0.6 <= resumed.at_s - stall.at_s < 0.8
    assert stall.at_s < kill.at_s < resumed.at_s
    healed_s = run.history.phase_began_s("heal")
    assert healed_s is not None
    assert healed_s >= resumed.at_s
    (outage,) = [gap for gap in availability(run.history).outages if gap.begin_s < healed_s]
    assert outage.end_s == pytest.approx(resumed.at_s)
    assert judge(History.load(tmp_path / "run")) == run.verdict


@in_loop
async def test_a_graph_that_hangs_with_a_stalled_replica_is_found_out(tmp_path: Path) -> None:
    """A front that keeps requests at a stalled worker, while another could serve them, breaks `ends`."""
    spec = toy_spec(tmp_path, front="--patience 9")
    run = await run_live(spec, plan_of("stall worker 0 for 4.00 s"), tmp_path / "run")
    assert seen(run.verdict) == {"ends"}
