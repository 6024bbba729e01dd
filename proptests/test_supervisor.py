"""Tests of the supervisor with real processes: launching, faults and their proofs, and the end of all processes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import BecameReady, Died, Spawned
from graphquake.harness.observation.introspection import unlisted_text
from graphquake.harness.processes.guard import children_of, stat_of
from graphquake.harness.processes.guard_client import Guard
from graphquake.harness.processes.procfs import OWNER, REPLICA, command_of, runs
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.scope import PROCESS, TREE, Child
from graphquake.harness.targets.target import View

from support.toys import are_open, in_loop, left_of, toy_spec
from support.until import until


def pids_of(target: Supervisor) -> dict[Replica, int]:
    """The main processes that run."""
    return {
        event.replica: event.pid
        for event in target.log
        if isinstance(event, Spawned) and target.alive(event.replica)
    }


def ports_of(target: Supervisor) -> set[int]:
    """All ports that were given to the graph."""
    return {port for one in target._replicas.values() for port in one.ports.values()}


@in_loop
async def test_a_graph_comes_and_goes(tmp_path: Path) -> None:
    """Every replica becomes ready and is listed. After the graph is closed, no process and no socket is left."""
    async with Supervisor.launch(toy_spec(tmp_path), tmp_path / "run") as target:
        names = [Replica("front", 0), Replica("worker", 0), Replica("worker", 1)]
        assert all(target.alive(name) and target.ready(name) for name in names)
        ready = [event.replica for event in target.log if isinstance(event, BecameReady)]
        assert sorted(ready) == names
        assert {(one.observer, one.what, one.says, one.holds) for one in await target.views()} == {
            (Replica("front", 0), "listing", 2, 2), *((name, "readiness", 1, 1) for name in names),
        }  # fmt: skip
        assert await target.leaks() == []
        ports = ports_of(target)
        assert are_open(ports) == ports
        assert len(left_of(os.getpid())) == 3
    assert left_of(os.getpid()) == []
    assert are_open(ports) == set()
    logs = {log.name for log in (tmp_path / "run" / "logs").iterdir()}
    assert logs == {"front-0.0.log", "worker-0.0.log", "worker-1.0.log"}


@in_loop
async def test_two_graphs_side_by_side(tmp_path: Path) -> None:
    """Two graphs that run side by side share neither ports nor folders, and a kill in one leaves the other alone."""
    spec = toy_spec(tmp_path)
    async with (
        Supervisor.launch(spec, tmp_path / "one") as one,
        Supervisor.launch(spec, tmp_path / "two") as two,
    ):
        assert not ports_of(one) & ports_of(two)
        assert await one.leaks() == await two.leaks() == []
        await one.kill(Replica("worker", 0), TREE)
        assert two.alive(Replica("worker", 0))


@in_loop
async def test_processes_get_a_clean_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas do not inherit variables that could make them join a production system. They get the variables of the graph file."""
    secrets = {"ETCD_ENDPOINTS": "prod:2379", "DYN_NAMESPACE": "prod", "KUBECONFIG": "/root/prod"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TOKEN", "given on")
    spec = toy_spec(tmp_path, more='[env]\nMINE = "{role} {index} ${TOKEN}"')
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        pid = pids_of(target)[Replica("worker", 1)]
        pairs = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
        env = dict(pair.split("=", 1) for pair in pairs)
    run_dir = str(tmp_path / "run")
    assert env.pop(OWNER).startswith(f"{os.getpid()}:")
    assert env.pop("PATH") == os.environ["PATH"]
    assert env == {
        "HOME": f"{run_dir}/home",
        "TMPDIR": f"{run_dir}/tmp",
        "LANG": "C.UTF-8",
        "MINE": "worker 1 given on",
        REPLICA: "worker 1.0",
    }


@in_loop
async def test_kill_respawn_and_their_events(tmp_path: Path) -> None:
    """A kill has landed when the kernel reports the end of the process. After a respawn the replica has a new pid."""
    async with Supervisor.launch(toy_spec(tmp_path), tmp_path / "run") as target:
        before = pids_of(target)[Replica("worker", 0)]
        begun_s = time.monotonic()
        landed = await target.kill(Replica("worker", 0), TREE)
        assert landed.ok
        assert f"pid {before} gone" in landed.proof
        assert begun_s <= landed.at_s <= time.monotonic()
        assert stat_of(before) is None
        assert not target.alive(Replica("worker", 0))
        (death,) = [event for event in target.log if isinstance(event, Died)]
        assert (death.replica, death.pid, death.status, death.aimed) == (
            Replica("worker", 0),
            before,
            -9,
            True,
        )
        assert not (await target.kill(Replica("worker", 0), TREE)).ok
        assert not (await target.terminate(Replica("worker", 0))).ok
        assert (await target.respawn(Replica("worker", 0))).ok
        assert not (await target.respawn(Replica("worker", 0))).ok
        assert await target.wait_ready(30)
        assert pids_of(target)[Replica("worker", 0)] != before
        assert await target.leaks() == []


@in_loop
async def test_a_terminated_replica_ends_later(tmp_path: Path) -> None:
    """A terminate lands when the signal is sent. The exit comes later, and counts as aimed at."""
    async with Supervisor.launch(toy_spec(tmp_path), tmp_path / "run") as target:
        landed = await target.terminate(Replica("worker", 0))
        assert landed.ok
        assert await target.gone(Replica("worker", 0), 30)
        assert not target.ending(Replica("worker", 0))
        (death,) = [event for event in target.log if isinstance(event, Died)]
        assert death.aimed
        assert death.at_s >= landed.at_s


@pytest.mark.parametrize("children", ["--children 2", "--children 2 --detach"])
@in_loop
async def test_a_whole_tree_is_killed(tmp_path: Path, children: str) -> None:
    """A kill of a process tree also ends a child that has started another session."""
    spec = toy_spec(tmp_path, worker=children)
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        await until(lambda: len(left_of(os.getpid())) == 7)
        assert await target.leaks() == []
        landed = await target.kill(Replica("worker", 0), TREE)
        assert landed.ok
        assert "and 2 more gone" in landed.proof
        assert len(left_of(os.getpid())) == 4
        assert await target.leaks() == []


@in_loop
async def test_children_that_outlive_a_process_are_leaks(tmp_path: Path) -> None:
    """If only the main process is killed, its children and their sockets are leaks until they are gone."""
    spec = toy_spec(tmp_path, worker="--children 1")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        await until(lambda: "toy-engine" in (tmp_path / "run/logs/worker-0.0.log").read_text())
        assert (await target.kill(Replica("worker", 0), PROCESS)).ok
        leaks = await target.leaks()
        assert sorted(leak.kind for leak in leaks) == ["process", "socket"]
        assert all("left by worker 0" in leak.what for leak in leaks)
        assert (await target.respawn(Replica("worker", 0))).ok
        assert len(await target.leaks()) == 2
    assert left_of(os.getpid()) == []


@in_loop
async def test_a_child_by_name_and_number(tmp_path: Path) -> None:
    """Children are counted in the order of their start. A kill of a missing child does not land."""
    spec = toy_spec(tmp_path, worker="--children 2")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        log = tmp_path / "run/logs/worker-1.0.log"
        await until(lambda: log.read_text().count("toy-engine") == 2)
        first, second = sorted(children_of(pids_of(target)[Replica("worker", 1)]))
        landed = await target.kill(Replica("worker", 1), Child("engine", 1))
        assert landed.ok
        assert f"pid {second} (toy-engine) gone" in landed.proof
        assert not runs(second)
        assert runs(first)
        assert target.alive(Replica("worker", 1))
        missing = await target.kill(Replica("worker", 1), Child("engine", 1))
        assert not missing.ok
        assert "has 1 child processes called toy-engine" in missing.proof


@in_loop
async def test_two_concurrent_restarts_start_one_process(tmp_path: Path) -> None:
    """If a respawn and the supervisor restart a replica at about the same time, only one new process runs."""
    async with Supervisor.launch(toy_spec(tmp_path, restart="always"), tmp_path / "run") as target:
        for number in range(1, 11):
            await target.kill(Replica("worker", 0), TREE)
            # The supervisor begins when it hears of the exit. The respawn comes shortly before or after that.
            await asyncio.sleep(number * 0.0005)
            await target.respawn(Replica("worker", 0))
            await until(lambda: target.ready(Replica("worker", 0)))
            begun = [
                e.incarnation
                for e in target.log
                if isinstance(e, Spawned) and e.replica == Replica("worker", 0)
            ]
            assert begun == list(range(number + 1))
            main = target._guard.pid
            workers = [pid for pid in children_of(main) if "toy.py work " in command_of(pid)]
            assert len(workers) == 2


@in_loop
async def test_restart_always(tmp_path: Path) -> None:
    """With `restart = "always"`, a dead replica is restarted without a respawn step. Steps that wait for its start or its log wake."""
    who, lives_on = Replica("worker", 0), Replica("worker", 1)
    spec = toy_spec(tmp_path, restart="always", worker="--children 1")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        before = pids_of(target)
        logs = [tmp_path / f"run/logs/worker-{index}.0.log" for index in (0, 1)]
        # A worker is ready before its child is up, and the waits are about what is logged after their begin.
        await until(lambda: all("is up" in log.read_text() for log in logs))
        waits = [
            asyncio.create_task(one)
            for one in (
                target.moments.started(who, 30.0),
                target.moments.logged(who, "is up", 30.0),
                target.moments.started(lives_on, 0.01),
                target.moments.logged(lives_on, "is up", 0.01),
            )
        ]
        await asyncio.sleep(0)
        assert (await target.kill(who, TREE)).ok
        assert await target.wait_ready(30)
        now = pids_of(target)[who]
        assert now != before[who]
        start, line, *others = await asyncio.gather(*waits)
        spawned = [e.at_s for e in target.log if isinstance(e, Spawned) and e.pid == now]
        assert start.proof.startswith(f"pid {now}, ")
        assert [start.at_s] == spawned
        assert line.proof.startswith('"toy-engine is up", ')
        assert line.at_s > start.at_s
        assert not any(one.ok for one in others)


@in_loop
async def test_a_gauge_that_is_up(tmp_path: Path) -> None:
    """A gauge above 0 is a leak while a request is in flight, and is not a leak when its client has left."""
    # The answer would take minutes. The front gives its worker the time for it.
    spec = toy_spec(tmp_path, front="--patience 300")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        port = int(target.entries()[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b'{"prompt": "x", "max_tokens": 50000, "stream": true}'
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        await reader.readuntil(b"data: ")
        (leak,) = await target.leaks()
        assert (leak.kind, leak.what) == ("gauge", "front 0: toy_busy is 1")
        writer.close()
        async with asyncio.timeout(30):
            while await target.leaks():
                await asyncio.sleep(0.02)


def test_a_short_list_is_named(tmp_path: Path) -> None:
    """The error names the replicas whose lists are too short, and the key to check. A list that did not come is not a number."""
    front, other = Replica("front", 0), Replica("front", 1)
    lists = [View(front, "listing", 1, 2), View(other, "listing", 2, 2)]
    text = unlisted_text(toy_spec(tmp_path), 10.0, lists)
    assert text == "toy.toml: after 10 s, front 0 lists 1 of 2 replicas. Check roles.front.listed."
    text = unlisted_text(toy_spec(tmp_path), 10.0, [View(front, "listing", -1, 2)])
    assert text == "toy.toml: after 10 s, front 0 gave no list. Check roles.front.listed."
    text = unlisted_text(toy_spec(tmp_path), 10.0, lists, {front: "http://here/list gave '[]'"})
    assert text.endswith("Check roles.front.listed.\n    front 0: http://here/list gave '[]'.")


@in_loop
async def test_a_command_that_is_too_long() -> None:
    """An environment that does not fit into an order is an error that has both sizes."""
    guard = Guard(lambda *_: None, lambda: None)
    try:
        with pytest.raises(GraphError, match=r"take 1500\d\d bytes; at most 131072 fit\. Shorten"):
            await guard.spawn("key", ["true"], {"A": "x" * 150_000}, "/", "log")
    finally:
        await guard.close()


BAD_GRAPHS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "no command": ({"more": "", "worker": ""}, 'cannot run "', ("toy.toml: roles.worker: worker",)),
    "dies": ({"worker": "--exit-after 0.1"}, "ended with exit status 1 before it was ready", ("out of luck",)),
    # A busy machine takes a second until the worker answers at all.
    "deaf": ({"worker": "--deaf", "within_s": 5}, "not ready within 5 s", ("HTTP 200: starting", "log is empty")),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_GRAPHS)
@in_loop
async def test_a_graph_that_does_not_start(tmp_path: Path, kind: str) -> None:
    """A graph that does not start is one GraphError that names the cause, and leaves no process."""
    changes, message, more = BAD_GRAPHS[kind]
    path = toy_spec(tmp_path, **changes).path
    if kind == "no command":
        text = path.read_text().replace(
            "{python} " + str(Path(__file__).parent / "support/toy.py work"), "no-such-program"
        )
        path.write_text(text)
    with pytest.raises(GraphError, match=message) as caught:
        async with Supervisor.launch(load_graph(str(path)), tmp_path / "run"):
            raise AssertionError
    assert all(part in str(caught.value) for part in more)
    assert left_of(os.getpid()) == []


@in_loop
async def test_gpus_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each replica gets its own GPUs. If there are too few, the launch ends with one GraphError."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    spec = toy_spec(tmp_path, worker='"\ngpus = 1\n#"')
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        given = [one.gpus for one in target._layout.of_role("worker")]
        assert given == [["4"], ["5"]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    with pytest.raises(
        GraphError, match=r"roles\.worker: asks for 1 GPUs; this machine shows 1, of which 0"
    ):
        async with Supervisor.launch(spec, tmp_path / "run"):
            raise AssertionError


@in_loop
async def test_a_stall_stops_all_of_a_replica_and_ends(tmp_path: Path) -> None:
    """During a stall every process of the replica is in state T, and the replica is not ready. After it, the replica is ready again."""
    spec = toy_spec(tmp_path, worker="--children 2")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        family = [
            pids_of(target)[Replica("worker", 0)],
            *children_of(pids_of(target)[Replica("worker", 0)]),
        ]
        assert len(family) == 3
        landed = await target.stall(Replica("worker", 0), TREE)
        assert landed.ok
        assert landed.proof.startswith("3 processes stopped (state T)")
        assert {stat.state for pid in family if (stat := stat_of(pid))} == {"T"}
        assert not target.ready(Replica("worker", 0))
        assert target.alive(Replica("worker", 0))
        assert not await target.wait_ready(0.1)
        landed = await target.resume(Replica("worker", 0))
        assert landed.ok
        assert "T" not in {stat.state for pid in family if (stat := stat_of(pid))}
        assert await target.wait_ready(30)
        await target.stall(Replica("worker", 0), TREE)
        assert (await target.kill(Replica("worker", 0), TREE)).ok
        assert not any(map(runs, family))
        assert (await target.resume(Replica("worker", 0))).proof == "it had died"
