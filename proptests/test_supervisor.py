"""Real processes: what is launched, how it is killed and proved, what is left (nothing)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import BecameReady, Died, Spawned
from graphquake.harness.processes.guard import children_of, stat_of
from graphquake.harness.processes.procfs import OWNER, REPLICA, Owner, command_of, runs
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.scope import PROCESS, TREE, Child

from support.toys import are_open, in_loop, left_of, toy_spec

MOMENTS = 20


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


async def until(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait until something holds; fail if it does not."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


@in_loop
async def test_a_graph_comes_and_goes(tmp_path: Path) -> None:
    """Every replica gets ready and is listed; afterwards there is neither a process nor a socket."""
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
    """They share no port and no folder."""
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
    """What would make a worker join somebody's production stays outside; the file's own words arrive."""
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
async def test_kill_respawn_and_what_is_written_down(tmp_path: Path) -> None:
    """A kill has landed when the kernel says so; the next incarnation has a pid of its own, and the same port."""
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
        assert await target.wait_ready(5)
        assert pids_of(target)[Replica("worker", 0)] != before
        assert await target.leaks() == []


@in_loop
async def test_terminate_lets_it_end_by_itself(tmp_path: Path) -> None:
    """The step is over when the signal is sent; the exit comes later and counts as aimed at."""
    async with Supervisor.launch(toy_spec(tmp_path), tmp_path / "run") as target:
        landed = await target.terminate(Replica("worker", 0))
        assert landed.ok
        assert await target.gone(Replica("worker", 0), 5)
        assert not target.ending(Replica("worker", 0))
        (death,) = [event for event in target.log if isinstance(event, Died)]
        assert death.aimed
        assert death.at_s >= landed.at_s


@pytest.mark.parametrize("children", ["--children 2", "--children 2 --detach"])
@in_loop
async def test_a_tree_is_killed_whole(tmp_path: Path, children: str) -> None:
    """Also a child that went to a session of its own, and whose parent is gone."""
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
async def test_what_a_process_leaves_behind_is_found(tmp_path: Path) -> None:
    """SIGKILL to the main process alone: its children, and their sockets, are leaks until they are gone."""
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
    """Children are counted in the order of their start; one that is not there is a fault that did not land."""
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
async def test_two_who_bring_it_back_start_one_process(tmp_path: Path) -> None:
    """The supervisor by itself and a respawn, at about the same time: every process that was started is somebody's."""
    async with Supervisor.launch(toy_spec(tmp_path, restart="always"), tmp_path / "run") as target:
        for number in range(1, 11):
            await target.kill(Replica("worker", 0), TREE)
            # The supervisor begins when it hears of the exit: from before that to some time after.
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
            workers = [pid for pid in children_of(main) if "work --port" in command_of(pid)]
            assert len(workers) == 2


@in_loop
async def test_restart_always(tmp_path: Path) -> None:
    """What dies comes back by itself, without a step."""
    async with Supervisor.launch(toy_spec(tmp_path, restart="always"), tmp_path / "run") as target:
        before = pids_of(target)
        assert (await target.kill(Replica("worker", 0), TREE)).ok
        assert await target.wait_ready(5)
        assert pids_of(target)[Replica("worker", 0)] != before[Replica("worker", 0)]


@in_loop
async def test_a_gauge_that_is_up(tmp_path: Path) -> None:
    """A request under way shows in the gauge; when it is over, the gauge is back."""
    spec = toy_spec(tmp_path)
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        port = int(target.entries()[0].rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b'{"prompt": "x", "max_tokens": 100}'
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        await asyncio.sleep(0.1)
        (leak,) = await target.leaks()
        assert (leak.kind, leak.what) == ("gauge", "front 0: toy_busy is 1")
        await asyncio.sleep(1.0)
        assert await target.leaks() == []
        writer.close()


BAD_GRAPHS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "no command": ({"more": "", "worker": ""}, 'cannot run "', ("toy.toml: roles.worker: worker",)),
    "dies": ({"worker": "--exit-after 0.1"}, "ended with exit status 1 before it was ready", ("out of luck",)),
    "deaf": ({"worker": "--deaf", "within_s": 0.5}, "not ready within 0.5 s", ("HTTP 200 starting", "log is empty")),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_GRAPHS)
@in_loop
async def test_a_graph_that_does_not_start(tmp_path: Path, kind: str) -> None:
    """One error that names the place and what was seen; nothing is left running."""
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
    """Each replica gets its own; too few are one clear error."""
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


# ---------------------------------------------------------------------------------------------- nothing outlives anything


@in_loop
async def test_whoever_uses_the_graph_may_fail(tmp_path: Path) -> None:
    """Their error comes out as it is, and the graph is gone."""
    with pytest.raises(ZeroDivisionError):
        async with Supervisor.launch(toy_spec(tmp_path), tmp_path / "run"):
            raise ZeroDivisionError
    assert left_of(os.getpid()) == []


@in_loop
async def test_the_guard_is_killed_at_random_moments(tmp_path: Path) -> None:
    """Whoever uses the graph hears of it as a GraphError; no process is left, detached children included."""
    spec = toy_spec(tmp_path, worker="--children 1 --detach")
    draw = random.Random(1)
    for _ in range(MOMENTS):
        at_s = draw.uniform(0.0, 0.5)
        killed_s = 0.0

        async def kill_guard(at_s: float = at_s) -> None:
            nonlocal killed_s
            await asyncio.sleep(at_s)
            # Under load the guard may not have been started by then.
            while not (guards := [pid for pid in children_of(os.getpid()) if is_guard(pid)]):
                await asyncio.sleep(0.001)
            (guard,) = guards
            killed_s = time.monotonic()
            os.kill(guard, signal.SIGKILL)

        killer = asyncio.create_task(kill_guard())
        with pytest.raises(GraphError, match="guard"):
            async with Supervisor.launch(spec, tmp_path / "run"):
                await asyncio.sleep(10)
        await killer
        assert left_of(os.getpid()) == []
        assert time.monotonic() - killed_s < 2


def is_guard(pid: int) -> bool:
    """Whether a child of ours is a guard."""
    return b"guard.py" in Path(f"/proc/{pid}/cmdline").read_bytes()


HARNESS = """
import asyncio, sys
from pathlib import Path
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.processes.supervisor import Supervisor

async def main():
    async with Supervisor.launch(load_graph(sys.argv[1]), Path(sys.argv[2])):
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_the_harness_is_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL to it: within two seconds there is no process and no LISTEN socket of its graph."""
    path = toy_spec(tmp_path, worker="--children 1 --detach").path
    draw = random.Random(2)
    for number in range(MOMENTS):
        argv = [sys.executable, "-c", HARNESS, str(path), str(tmp_path / f"run{number}")]
        with subprocess.Popen(argv) as harness:
            time.sleep(draw.uniform(0.0, 0.9))
            harness.kill()
        killed_s = time.monotonic()
        while left := left_of(harness.pid):
            assert time.monotonic() - killed_s < 2, left
            time.sleep(0.01)


@in_loop
async def test_what_a_harness_and_its_guard_left_is_swept(tmp_path: Path) -> None:
    """Both were killed: the next launch ends what carries the mark of an owner that is no more; nothing else."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    own = stat_of(os.getpid())
    assert own is not None
    marks = {
        "dead": str(Owner(gone.pid, 1, "1")),
        "alive": str(Owner(os.getpid(), own.start, "x")),
    }
    left = {
        name: subprocess.Popen(["sleep", "60"], env={OWNER: mark}) for name, mark in marks.items()
    }
    try:
        async with Supervisor.launch(toy_spec(tmp_path), tmp_path / "run"):
            assert left["dead"].wait(2) == -signal.SIGKILL
            assert left["alive"].poll() is None
    finally:
        for process in left.values():
            process.kill()
            process.wait()


@in_loop
async def test_a_stall_stops_all_of_a_replica_and_ends(tmp_path: Path) -> None:
    """Every process is in state T while it lasts, and in none of them after it; the replica is not ready meanwhile."""
    spec = toy_spec(tmp_path, worker="--children 2")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        family = [
            pids_of(target)[Replica("worker", 0)],
            *children_of(pids_of(target)[Replica("worker", 0)]),
        ]
        assert len(family) == 3
        landed = await target.stall(Replica("worker", 0))
        assert landed.ok
        assert landed.proof.startswith("3 processes stopped (state T)")
        assert {stat.state for pid in family if (stat := stat_of(pid))} == {"T"}
        assert not target.ready(Replica("worker", 0))
        assert target.alive(Replica("worker", 0))
        assert not await target.wait_ready(0.1)
        landed = await target.resume(Replica("worker", 0))
        assert landed.ok
        assert "T" not in {stat.state for pid in family if (stat := stat_of(pid))}
        assert await target.wait_ready(2.0)
        await target.stall(Replica("worker", 0))
        assert (await target.kill(Replica("worker", 0), TREE)).ok
        assert not any(map(runs, family))
        assert (await target.resume(Replica("worker", 0))).proof == "it had died"


@in_loop
async def test_what_is_stalled_does_not_outlive_its_graph(tmp_path: Path) -> None:
    """A stopped process ends with the rest."""
    spec = toy_spec(tmp_path, worker="--children 2")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        assert (await target.stall(Replica("worker", 0))).ok
    assert left_of(os.getpid()) == []
