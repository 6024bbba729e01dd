"""Squeezes: each leaves a replica little of a resource, proves it, and gives it back. A squeeze without an effect does not land."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen
from unittest import mock

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Resumed
from graphquake.harness.processes import abilities
from graphquake.harness.processes.guard import stat_of
from graphquake.harness.processes.squeezes import squeezer
from graphquake.harness.processes.squeezes.cgroups import CpuGroup
from graphquake.harness.processes.squeezes.cpu_hogs import hogs_for
from graphquake.harness.processes.squeezes.disks import disks_lack
from graphquake.harness.processes.squeezes.limits import lift, limit_files, limit_memory
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import parse_plan, parse_step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.resources.squeeze import Squeeze
from graphquake.harness.spec.steps.scope import TREE
from graphquake.machines.plans.sweep import sweep

from support.fake_target import FakeTargets, fake_spec
from support.made import spec_of
from support.toys import in_loop, left_of, toy_spec
from support.undisturbed import run_live
from support.until import until

ONE = Replica("worker", 0)
LINES = [
    "squeeze decode 0 cpu to 20% for 4.00 s",
    "squeeze decode 1 memory to 64 MiB more for 0.50 s",
    "squeeze decode 0 files for 4.00 s",
]


def squeezes(spec: GraphSpec) -> list[Squeeze]:
    """The squeezes that a search sweeps, in order."""
    steps = (step for plan in sweep(spec).seldom for step in plan.steps)
    return [step for step in steps if isinstance(step, Squeeze)]


@pytest.mark.simulated
@pytest.mark.parametrize("line", LINES)
def test_the_text_of_a_squeeze_survives(line: str) -> None:
    """A plan with a squeeze is read from its text and written as the same text. The replica does not work meanwhile."""
    step = parse_step(line)
    assert str(step) == line
    model = step.after(GraphModel(spec_of()))
    assert not model.works(step.aims[0])
    assert model.later(step.lasts_s).works(step.aims[0])


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("squeeze decode 0 cpu to 0% for 1 s", "found 0, expected percent of a core from 1 to 100"),
        ("squeeze decode 0 cup to 20% for 1 s", "is not of the form: squeeze ROLE INDEX cpu"),
        ("squeeze decode 2 files for 1 s", "made has decode 0 and decode 1"),
    ],
)
def test_a_wrong_squeeze_is_one_clear_error(line: str, error: str) -> None:
    """The error names the right form or the bounds."""
    with pytest.raises(InputError, match=error):
        check_plan(spec_of(), parse_plan("p", [line]), "p")


@pytest.mark.simulated
def test_squeezes_are_drawn_only_if_the_file_names_them() -> None:
    """A machine may lack one kind. Then the others are still drawn."""
    assert squeezes(spec_of()) == []
    spec = replace(spec_of(faults=["squeeze"]), lacks={"squeeze cpu": "no"})
    assert {step.called for step in squeezes(spec)} == {"squeeze memory", "squeeze files"}


@in_loop
async def test_a_squeeze_is_undone_once(tmp_path: Path) -> None:
    """It ends when its time is over, and the replica counts as resumed."""
    targets = FakeTargets()
    plan = parse_plan("p", ["squeeze worker 0 files for 0.10 s"])
    run = await run_live(fake_spec(tmp_path), plan, tmp_path / "run", opener=targets)
    assert run.verdict.kind == "kept"
    assert targets.opened[-1].calls == ["squeeze worker 0 files 0 0.1", "release worker 0 files"]
    assert [event.replica for event in run.history.of(Resumed)] == [ONE]


# --------------------------------------------------------------------------------------------------- the kernel's part

PROBE = """
import os, sys
first = os.open("/dev/null", os.O_RDONLY)
os.close(first)
for line in sys.stdin:
    try:
        if line == "file\\n":
            os.close(os.open("/dev/null", os.O_RDONLY))
        else:
            bytearray(32 << 20)
        said = "fine"
    except OSError as error:
        said = os.strerror(error.errno)
    except MemoryError:
        said = "no memory"
    print(said, flush=True)
"""


def test_a_process_meets_its_soft_limits_until_they_are_lifted() -> None:
    """An open fails with EMFILE, and an allocation fails. What the limit leaves is still possible. Another process is not touched."""
    with Popen([sys.executable, "-c", PROBE], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def asked(what: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{what}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert asked("file") == asked("memory") == "fine"
        own = resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_AS)
        files = limit_files([process.pid])
        assert asked("file") == "Too many open files"
        assert asked("memory") == "fine"
        assert lift(files) == files
        assert asked("file") == "fine"
        memory = limit_memory([process.pid], 8)
        assert asked("memory") == "no memory"
        assert asked("file") == "fine"
        lift(memory)
        assert asked("memory") == "fine"
        memory = limit_memory([process.pid], 128)
        assert asked("memory") == "fine"
        lift(memory)
        assert own == (
            resource.getrlimit(resource.RLIMIT_NOFILE),
            resource.getrlimit(resource.RLIMIT_AS),
        )
    assert limit_files([process.pid]) == limit_memory([process.pid], 0) == lift(memory) == []


@pytest.mark.simulated
def test_hogs_leave_the_share_that_was_asked_for() -> None:
    """Beside N hogs a replica gets one part in N + 1. There are never many hogs."""
    assert [hogs_for(share) for share in (100, 50, 33, 20, 5, 1)] == [1, 1, 3, 4, 19, 19]


def no_cgroup(share: int, announce: object) -> CpuGroup:
    """Fail as on a machine without writable control groups."""
    raise PermissionError(13, "Permission denied")


def hogs_of(target: Supervisor) -> list[int]:
    """The hogs of a graph that run now."""
    return [pid for pid, key in target._tree.keys().items() if key.startswith("hog of ")]


@in_loop
async def test_replicas_are_squeezed_and_released(tmp_path: Path) -> None:
    """Each squeeze proves its effect by the kernel's counts. Afterwards, the replica has everything again, and no hog is left."""
    spec = toy_spec(tmp_path, worker="--children 1")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        # While the child starts, it needs files.
        log = tmp_path / "run/logs/worker-0.0.log"
        await until(lambda: "is up" in log.read_text())
        pid = next(one.child.pid for one in [target._replicas[ONE].running] if one)
        limits = [
            resource.prlimit(pid, what) for what in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS)
        ]
        cores = os.sched_getaffinity(pid)
        landed = await target.resources.squeeze(ONE, "files", 0, 1.0)
        assert landed.ok, landed.proof
        assert "and the next one fails (EMFILE)" in landed.proof
        assert "2 processes of worker 0" in landed.proof
        assert await target.views() == []
        assert target.ready(ONE)
        assert not (await target.resources.squeeze(ONE, "files", 0, 1.0)).ok
        assert (await target.resources.release(ONE, "files")).ok
        landed = await target.resources.squeeze(ONE, "memory", 64, 1.0)
        assert f"pid {pid} may allocate 64 MiB more (ENOMEM)" in landed.proof
        released = await target.resources.release(ONE, "memory")
        assert released.proof == "2 of 2 processes have their old soft limits"
        assert limits == [
            resource.prlimit(pid, what) for what in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS)
        ]
        assert await target.views()
        # A stalled worker needs no core, so a squeeze of the CPU has no effect.
        assert (await target.stall(ONE, TREE)).ok
        with mock.patch.object(squeezer, "EFFECT_WITHIN_S", 0.2):
            missed = await target.resources.squeeze(ONE, "cpu", 50, 1.0)
            assert not missed.ok
            assert "worker 0 needed no more than its share in 0.2 s" in missed.proof
            with mock.patch.object(CpuGroup, "make", no_cgroup):
                missed = await target.resources.squeeze(ONE, "cpu", 50, 1.0)
            assert not missed.ok
        assert os.sched_getaffinity(pid) == cores
        assert not hogs_of(target)
        assert (await target.kill(ONE, TREE)).ok
        assert not (await target.resources.squeeze(ONE, "files", 0, 1.0)).ok


BUSY = "while True: sum(range(1000))"


@in_loop
@pytest.mark.parametrize("way", ["control group", "hogs"])
async def test_a_busy_replica_gets_little_of_a_core(way: str, tmp_path: Path) -> None:
    """Its CPU time falls, and rises again. Hogs end, and the control group is removed."""
    more = f'[roles.busy]\ncommand = """{{python}} -c "{BUSY}" """'
    spec = toy_spec(tmp_path, more=more)
    busy = Replica("busy", 0)
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        pid = next(one.child.pid for one in [target._replicas[busy].running] if one)
        if way == "control group":
            try:
                CpuGroup.make(50, lambda _: None).remove()
            except OSError as error:
                pytest.skip(f"no control group here: {error}")
        patched = (
            mock.patch.object(CpuGroup, "make", no_cgroup) if way == "hogs" else mock.MagicMock()
        )
        with patched:
            landed = await target.resources.squeeze(busy, "cpu", 20, 1.0)
        assert landed.ok, landed.proof
        assert ("was throttled" if way == "control group" else "shares core") in landed.proof
        assert len(hogs_of(target)) == (4 if way == "hogs" else 0)
        released = await target.resources.release(busy, "cpu")
        assert released.ok
        assert not hogs_of(target)
        assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
        folders = [one.folder for one in target.resources._groups]
        assert len(folders) == (way == "control group")
        assert not any(folder.exists() for folder in folders)


WRITER = """
import os, time
folder = os.environ["TMPDIR"]
print(len(os.listdir(folder)), "there", flush=True)
while True:
    try:
        with open(f"{folder}/{time.monotonic_ns()}", "w") as file:
            file.write("x")
        print("fine", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
    time.sleep(0.02)
"""


@in_loop
async def test_a_private_disk_is_filled_and_freed(tmp_path: Path) -> None:
    """Writes of the replica fail with ENOSPC, and only there. Its files outlive it, and the machine never sees the disk."""
    if reason := disks_lack():
        pytest.skip(reason)
    (tmp_path / "writer.py").write_text(WRITER)
    more = f'[roles.writer]\ncommand = "{{python}} {tmp_path}/writer.py"\ndisk_mib = 2'
    spec = toy_spec(tmp_path, more=more)
    writer = Replica("writer", 0)
    async with Supervisor.launch(spec, tmp_path / "run") as target:

        async def until_logs(text: str) -> None:
            assert (await target.moments.logged(writer, text, 30.0)).ok, text

        await until_logs("fine")
        landed = await target.resources.squeeze(writer, "disk", 0, 1.0)
        assert landed.ok, landed.proof
        assert "one more byte failed: No space left on device (ENOSPC)" in landed.proof
        await until_logs("No space left on device")
        released = await target.resources.release(writer, "disk")
        assert released.ok
        assert "bytes are free again" in released.proof
        await until_logs("fine")
        assert await target.leaks() == []
        assert not list((tmp_path / "run" / "disks").glob("*/tmp/*"))
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
        await target.kill(writer, TREE)
        assert (await target.respawn(writer)).ok
        # Its first line may come before a wait for the next line begins.
        log = tmp_path / "run" / "logs" / "writer-0.1.log"
        await until(lambda: "there" in log.read_text())
        assert int(log.read_text().split()[0]) > 0
        missed = await target.resources.squeeze(ONE, "disk", 0, 1.0)
        assert not missed.ok
        assert "worker 0 has no private disk (roles.worker.disk_mib)" in missed.proof


@pytest.mark.simulated
def test_a_full_disk_needs_a_private_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `disk_mib`, or where no disk can be mounted, a plan is an error, and nothing is drawn."""
    line = "squeeze decode 0 disk for 4.00 s"
    plan = parse_plan("p", [line])
    assert plan.lines() == [line]
    with pytest.raises(InputError, match=r"roles\.decode\.disk_mib is missing"):
        check_plan(spec_of(), plan, "p")
    roles = {**spec_of().document["roles"], "decode": {"command": "decode", "disk_mib": 8}}
    spec = spec_of(roles=roles, faults=["squeeze disk"])
    check_plan(spec, plan, "p")
    assert [step.aim for step in squeezes(spec)] == [Replica("decode", 0)] * 2
    monkeypatch.setattr(abilities, "disks_lack", lambda: "a private disk can't be mounted (no)")
    lacking = on_this_machine(spec)
    assert squeezes(lacking) == []
    with pytest.raises(InputError, match=r"not possible here: a private disk can't be mounted"):
        check_plan(lacking, plan, "p")


HARNESS = """
import asyncio, sys
from pathlib import Path
from graphquake.harness.processes.squeezes.cgroups import CpuGroup
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.scope import Child

def no_cgroup(share, announce):
    raise PermissionError(13, "")

async def main():
    async with Supervisor.launch(load_graph(sys.argv[1]), Path(sys.argv[2])) as target:
        # Until then, a child does not have its name.
        log = Path(sys.argv[2], "logs/worker-0.0.log")
        while "is up" not in log.read_text():
            await asyncio.sleep(0.01)
        done = [await target.stall(Replica("worker", 0), Child("engine"))]
        for replica, what in (("worker 1", "files"), ("busy 0", "cpu"), ("busy 1", "cpu")):
            if replica == "busy 1":
                CpuGroup.make = no_cgroup
            done.append(await target.resources.squeeze(Replica.parse(replica), what, 20, 60.0))
        assert all(one.ok for one in done), done
        print(*[one.folder for one in target.resources._groups], flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_nothing_stays_stalled_or_squeezed_if_the_harness_is_killed(tmp_path: Path) -> None:
    """After SIGKILL of the harness, no process of the graph, no hog and no control group is left after two seconds."""
    more = f'[roles.busy]\nreplicas = 2\ncommand = """{{python}} -c "{BUSY}" """'
    path = toy_spec(tmp_path, worker="--children 1", more=more).path
    argv = [sys.executable, "-c", HARNESS, str(path), str(tmp_path / "run")]
    with Popen(argv, stdout=PIPE, text=True) as harness:
        assert harness.stdout is not None
        folders = [Path(name) for name in harness.stdout.readline().split()]
        running = [
            pid for pid in left_of(harness.pid) if (stat := stat_of(pid)) and stat.state == "T"
        ]
        assert len(running) == 1
        assert all(folder.exists() for folder in folders)
        harness.send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    while left_of(harness.pid) or any(folder.exists() for folder in folders):
        assert time.monotonic() - killed_s < 2, (left_of(harness.pid), folders)
        time.sleep(0.01)
