"""Slots on a real Ray cluster of one node. These tests are skipped where Ray is not installed, as in CI."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.on_ray.cluster import ray_runner
from graphquake.machines.runners.on_ray.option import OnRay

from support.made import plan_of
from support.toys import TOY, toy_file

pytest.importorskip("ray")
# Ray itself warns about its own future.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240), pytest.mark.roomy]

# 5 s after the loss of a slot, nothing of its graph may be left.
GONE_WITHIN_S = 5.0


@pytest.fixture
def spec(tmp_path: Path) -> GraphSpec:
    """A toy with a planted bug: no answers for 0.9 s after a worker's death. Its oracle lies beside the graph file."""
    path = toy_file(tmp_path, front="--panic 0.9", first_ok_s=2.0, more="blast_radius = false")
    (tmp_path / "oracle_beside.py").write_text((TOY.parent / "toy.py").read_text())
    path.write_text(path.read_text().replace("support.toy:expected", "oracle_beside:expected"))
    return load_graph(str(path))


def wait_until(holds: Callable[[], bool], within_s: float) -> float:
    """Wait until something holds, and return how long that took, in seconds."""
    begun_s = time.monotonic()
    while not holds():
        assert time.monotonic() - begun_s < within_s, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - begun_s


def slot_with_graph() -> psutil.Process | None:
    """A slot that runs a graph."""
    for one in psutil.process_iter(["cmdline"]):
        line = " ".join(one.info["cmdline"] or ())
        if line.startswith("ray::_Actor") and any("toy.py" in arguments(kid) for kid in kids(one)):
            return one
    return None


def kids(process: psutil.Process) -> list[psutil.Process]:
    """All living descendants of a process."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def arguments(process: psutil.Process) -> str:
    """The command line of a process, or nothing if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def lives(process: psutil.Process) -> bool:
    """True if a process has not ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_node_gives_the_verdict_of_this_machine(spec: GraphSpec, tmp_path: Path) -> None:
    """A plan shows the same violations on Ray as here. The folder of the run came back, and names the node."""
    plan = plan_of("kill worker 0")
    with LiveRunner(spec, tmp_path / "here", Budget(60.0)) as here:
        local = here.run(plan, "confirm")
    with ray_runner(OnRay(1), spec, tmp_path / "there", Budget(120.0)) as there:
        remote = there.run(plan, "confirm")
    assert local.verdict.kind == remote.verdict.kind == "broken"
    signatures = [{one.signature for one in run.verdict.violations} for run in (local, remote)]
    assert signatures[0] == signatures[1]
    assert remote.history.host.node
    assert remote.folder is not None
    assert list((remote.folder / "logs").glob("front*"))


def test_a_killed_slot_loses_no_run_and_no_process(spec: GraphSpec, tmp_path: Path) -> None:
    """After SIGKILL to a slot in mid-run, its graph ends, and its run is made again."""
    said: list[str] = []
    plan = plan_of("wait 2 s", "kill worker 0")
    with ray_runner(OnRay(2), spec, tmp_path / "runs", Budget(200.0), say=said.append) as runner:
        begun = [runner.start(plan, "confirm") for _ in range(2)]
        wait_until(lambda: slot_with_graph() is not None, 60.0)
        slot = slot_with_graph()
        assert slot is not None
        graph = kids(slot)
        os.kill(slot.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(lives, graph)), GONE_WITHIN_S)
        results = [runner.result(one) for one in begun]
    assert [one.verdict.kind for one in results] == ["broken", "broken"]
    lost = [verdict.causes[0] for one in results for verdict, _ in one.disturbed]
    assert any("was lost" in cause for cause in lost)
    assert any("the run begins again" in line for line in said)
