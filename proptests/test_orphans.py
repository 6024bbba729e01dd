"""No process outlives its owner, whatever ends the owner."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphquake.harness.errors import GraphError
from graphquake.harness.processes.guard import children_of, stat_of
from graphquake.harness.processes.procfs import OWNER, Owner, command_of
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.scope import TREE

from support.toys import in_loop, left_of, toy_spec

MOMENTS = 20


# ---------------------------------------------------------------------------------------------- no process outlives its owner


@in_loop
async def test_an_error_of_the_user_ends_the_graph(tmp_path: Path) -> None:
    """An error in the body of `launch` is raised unchanged, and no process of the graph is left."""
    with pytest.raises(ZeroDivisionError):
        async with Supervisor.launch(toy_spec(tmp_path), tmp_path / "run"):
            raise ZeroDivisionError
    assert left_of(os.getpid()) == []


@in_loop
async def test_the_guard_is_killed_at_random_moments(tmp_path: Path) -> None:
    """If the guard is killed, the user of the graph gets a GraphError. Within two seconds no process is left, not even a detached child."""
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
                await asyncio.sleep(60)
        await killer
        assert left_of(os.getpid()) == []
        assert time.monotonic() - killed_s < 2


def is_guard(pid: int) -> bool:
    """True if a child of this process is a guard."""
    return "guard.py" in command_of(pid)


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
    """If the harness is killed by SIGKILL, no process of its graph is left after two seconds."""
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
async def test_processes_of_a_dead_owner_are_swept(tmp_path: Path) -> None:
    """A launch ends the processes that carry the mark of a dead owner, and leaves those of a living owner alone."""
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
            assert left["dead"].wait(30) == -signal.SIGKILL
            assert left["alive"].poll() is None
    finally:
        for process in left.values():
            process.kill()
            process.wait()


@in_loop
async def test_a_stalled_replica_does_not_outlive_its_graph(tmp_path: Path) -> None:
    """Stopped processes end when their graph is closed."""
    spec = toy_spec(tmp_path, worker="--children 2")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        assert (await target.stall(Replica("worker", 0), TREE)).ok
    assert left_of(os.getpid()) == []
