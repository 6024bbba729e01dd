"""The number of graphs that run side by side, if nobody asked for one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphquake.harness.history.events import Measured
from graphquake.harness.spec.replica import Replica
from graphquake.machines.runners.slots import AUTO_MAX, Machine, SideBySide, Usage, slots_for

from support.made import Made

pytestmark = pytest.mark.simulated

GIB = 2**30


@pytest.mark.parametrize(
    ("run", "machine", "slots"),
    [
        (Usage(0.8, GIB), Machine(2, 20 * GIB), 2),
        (Usage(0.4, GIB), Machine(2, 20 * GIB), 2),
        (Usage(1.0, GIB), Machine(2, 20 * GIB), 2),
        (Usage(4.0, GIB), Machine(16, 200 * GIB), 5),
        (Usage(1.9, GIB), Machine(2, 20 * GIB), 1),
        (Usage(0.1, GIB), Machine(2, 3 * GIB), 2),
        (Usage(0.1, 8 * GIB), Machine(2, 3 * GIB), 1),
        (Usage(0.0, 0), Machine(64, 200 * GIB), AUTO_MAX),
        (Usage(0.5, GIB, gpus=2), Machine(64, 200 * GIB, gpus=8), 4),
        (Usage(0.5, GIB, gpus=2), Machine(64, 200 * GIB, gpus=1), 1),
        (
            Usage(0.5, GIB, gpu_memory_bytes=20 * GIB, shares_gpus=True),
            Machine(64, 200 * GIB, gpus=1, gpu_memory_bytes=80 * GIB),
            2,
        ),
    ],
)
def test_as_many_runs_as_fit(run: Usage, machine: Machine, slots: int) -> None:
    """Cores, memory and GPUs each limit the number of runs, and there is always one."""
    assert slots_for(run, machine)[0] == slots


def test_the_reason_names_what_a_run_uses() -> None:
    """A reader sees which resource is the narrow one."""
    _, why = slots_for(Usage(0.52, GIB, gpus=1), Machine(2, 20 * GIB, gpus=4))
    assert why == "a run uses 0.5 of 2 cores and 1.0 of 20 GiB, and 1 of 4 GPUs"


def test_the_reason_names_shared_gpu_memory() -> None:
    """If graphs share GPUs, their memory is the resource."""
    _, why = slots_for(
        Usage(0.5, GIB, gpu_memory_bytes=4 * GIB, shares_gpus=True),
        Machine(2, 20 * GIB, gpus=1, gpu_memory_bytes=80 * GIB),
    )
    assert why == "a run uses 0.5 of 2 cores and 1.0 of 20 GiB, and 4.0 of 80 GiB of GPU memory"


def test_the_usage_of_a_run_is_read_from_its_history() -> None:
    """Memory is the largest sum over the replicas, cores the mean over the run."""
    made = Made()
    for at_s, each in ((1.0, (2, 3)), (2.0, (4, 5)), (3.0, (1, 7))):
        made.events += [
            Measured(at_s, Replica("decode", index), 0.1, size, 2 * size)
            for index, size in enumerate(each)
        ]
    history = made.history()
    assert Usage.of(history, cpu_s=3.0, live_s=6.0, gpus=2) == Usage(0.5, 9, 2, 18)
    history.spec = replace(history.spec, share_gpus=True)
    shared = Usage.of(history, cpu_s=3.0, live_s=6.0, gpus=2)
    assert shared == Usage(0.5, 9, 0, 18, shares_gpus=True)


@pytest.mark.parametrize(
    ("disturbed", "kept", "too_many"),
    [(2, 0, False), (3, 0, True), (3, 5, True), (3, 6, False), (8, 16, False)],
)
def test_a_slot_is_given_up_if_more_than_a_third_is_disturbed(
    disturbed: int, kept: int, *, too_many: bool
) -> None:
    """A disturbed run now and then costs less than a slot."""
    beside = SideBySide()
    for one in [True] * disturbed + [False] * kept:
        beside.add(disturbed=one)
    assert beside.too_many == too_many
