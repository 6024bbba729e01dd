"""Hogs of a GPU, on a machine without one: a fake NVML reads what a stand-in of the hog has written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.processes.resources import gpus
from graphquake.harness.processes.squeezes import gpu_hog, gpu_hogs
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.feasible import check_plan, left_out
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.plan import parse_plan, parse_step
from graphquake.harness.spec.replica import Replica

from support.made import spec_of
from support.toys import in_loop, toy_file

LINES = [
    "hog decode 0 gpu memory to 256 MiB free for 4.00 s",
    "hog decode 0 gpu compute for 4.00 s",
]
# The stand-in takes what it is told to take in a file, in place of a GPU. It puts everything back when it is killed: the file is its pid.
HOG = """
import os, sys, time
from pathlib import Path
what, *rest = sys.argv[2:]
if what == "compute" and os.environ["CUDA_VISIBLE_DEVICES"] == "1":
    sys.exit("CUDA: no device")
(Path(sys.argv[1]) / f"{what}-{os.getpid()}").write_text(rest[0])
print("took all", flush=True)
time.sleep(60)
"""


class Nvml:
    """NVML as far as the harness asks it, for two GPUs of 10,000 MiB.

    Args:
        folder: the folder in which the stand-in writes what it has taken.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVML's own name
        """There are two."""
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        """A handle is the number."""
        return number

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        """Every UUID is that of the first one."""
        assert uuid.startswith("GPU-")
        return 0

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[SimpleNamespace]:  # noqa: N802
        """Nobody is seen."""
        del device
        return []

    def _taken(self, what: str) -> list[str]:
        found = self._folder.glob(f"{what}-*")
        return [one.read_text() for one in found if Path("/proc", one.name.split("-")[1]).exists()]

    def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        """The memory that a hog leaves, or all of it."""
        del device
        left = self._taken("memory")
        return SimpleNamespace(free=(int(left[0]) if left else 10_000) << 20)

    def nvmlDeviceGetUtilizationRates(self, device: int) -> SimpleNamespace:  # noqa: N802
        """Busy while a hog runs."""
        del device
        return SimpleNamespace(gpu=100 if self._taken("compute") else 3)


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs that the fake NVML knows, and the stand-in of the hog."""
    (tmp_path / "hog.py").write_text(HOG)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(gpus, "_nvml", lambda: Nvml(tmp_path))
    script = [sys.executable, str(tmp_path / "hog.py"), str(tmp_path)]
    monkeypatch.setattr(gpu_hogs, "SCRIPT", script)


@pytest.mark.simulated
@pytest.mark.parametrize("line", LINES)
def test_the_text_of_a_hog_survives(line: str) -> None:
    """A plan with a hog is read from its text and written as the same text."""
    assert str(parse_step(line)) == line


@pytest.mark.simulated
def test_a_hog_needs_a_gpu_and_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what is missing: of the role, of the machine, or of the Python environment."""
    plan = parse_plan("p", LINES[:1])
    with pytest.raises(InputError, match=r"decode gets no GPU \(roles\.decode\.gpus\)"):
        check_plan(spec_of(), plan, "p")
    graph = load_graph("reference-gpu")
    check_plan(graph, plan, "p")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert set(left_out(on_this_machine(graph))) >= {"hog gpu memory", "hog gpu compute"}
    with pytest.raises(InputError, match="CUDA_VISIBLE_DEVICES and /dev show no GPU"):
        check_plan(on_this_machine(graph), plan, "p")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(gpus, "_nvml", lambda: None)
    with pytest.raises(InputError, match="no NVML: it needs a driver and the package nvidia-ml-py"):
        check_plan(on_this_machine(graph), plan, "p")


def test_the_hog_says_why_it_can_not_use_a_gpu() -> None:
    """Without a driver, the script ends at once with the reason."""
    if gpus.visible_gpus():
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-I", "-S", gpu_hog.__file__, "memory", "256", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("CUDA: ")


@in_loop
async def test_a_hog_is_proved_by_nvml_and_ends(two_gpus: None, tmp_path: Path) -> None:
    """The memory is free again afterwards. A hog that NVML does not see has not landed."""
    path = toy_file(tmp_path, children="{}\ngpus = 1")
    one, other = Replica("worker", 0), Replica("worker", 1)
    async with Supervisor.launch(load_graph(str(path)), tmp_path / "run") as target:
        squeeze, release = target.resources.squeeze, target.resources.release
        landed = await squeeze(one, "gpu memory", 256, 4.0)
        assert landed.ok, landed.proof
        assert landed.proof.startswith("256 MiB of GPU ")
        assert "are free, 10000 MiB before (NVML), by pid" in landed.proof
        released = await release(one, "gpu memory")
        assert released.proof.startswith("10000 MiB of GPU ")
        gpu = {str(name): state.gpus for name, state in target._replicas.items()}
        idle = next(name for name, held in gpu.items() if held == ["1"])
        busy = one if idle == str(other) else other
        landed = await squeeze(busy, "gpu compute", 0, 4.0)
        assert landed.ok, landed.proof
        assert "GPU 0 is busy for 100% of the time (NVML)" in landed.proof
        assert (await release(busy, "gpu compute")).ok
        assert not any(key.endswith(".0") and "hog" in key for key in target._tree.keys().values())
        missed = await squeeze(Replica.parse(idle), "gpu compute", 0, 4.0)
        assert not missed.ok
        assert missed.proof.endswith("had no effect that NVML shows: CUDA: no device")
        missed = await squeeze(Replica("front", 0), "gpu compute", 0, 4.0)
        assert missed.proof == "front 0 has no GPU"
