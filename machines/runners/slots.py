"""The number of graphs that this machine carries side by side, measured from the first run of a search.

The first run shows the cores and the memory that a run uses, with its clients. There is at most one slot for each core. If runs disturb
each other, the runner gives up a slot (see `harness.run.noise.contention`).
"""

from __future__ import annotations

import os
import resource
from collections import defaultdict
from dataclasses import dataclass
from typing import Final, Self

import psutil

from graphquake.harness.history.events import Measured
from graphquake.harness.history.history import History
from graphquake.harness.processes.resources.gpus import free_gpu_memory_bytes, visible_gpus

# The shares of the cores and of the free memory that all runs together may use, by the mean of the first run. Much of its CPU time is the
# start of the graph, so the cores are seldom all in use at once. If runs disturb each other all the same, a slot is given up (see
# `SideBySide`).
CORES_SHARE: Final = 1.25
MEMORY_SHARE: Final = 0.7
# The most slots that are chosen if the user names no number.
AUTO_MAX: Final = 8
# If more than this share of the runs is disturbed by the others, one slot less ends about as many runs.
DISTURBED_SHARE: Final = 1 / 3
DISTURBED_MIN: Final = 3
_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources that one run uses.

    Attributes:
        cores: the mean number of cores that the graph and its clients used.
        memory_bytes: the most resident memory of all replicas together.
        gpus: the number of GPUs that the graph has for itself.
        gpu_memory_bytes: the most GPU memory of all replicas together, or 0 if it is not known.
        shares_gpus: true if the graph shares its GPUs with other graphs.
    """

    cores: float
    memory_bytes: int
    gpus: int = 0
    gpu_memory_bytes: int = 0
    shares_gpus: bool = False

    @classmethod
    def of(cls, history: History, cpu_s: float, live_s: float, gpus: int) -> Self:
        """The usage of a run.

        Args:
            history: the run.
            cpu_s: the seconds of CPU time that the run took in all processes (see `cpu_spent_s`).
            live_s: the seconds that the run took.
            gpus: the number of GPUs of the graph.
        """
        memory, on_gpus = defaultdict[float, int](int), defaultdict[float, int](int)
        for one in history.of(Measured):
            memory[one.at_s] += one.rss_bytes
            on_gpus[one.at_s] += one.gpu_bytes
        shares = history.spec.share_gpus and gpus > 0
        return cls(
            cpu_s / live_s,
            max(memory.values(), default=0),
            0 if shares else gpus,
            max(on_gpus.values(), default=0),
            shares,
        )


@dataclass(frozen=True, slots=True)
class Machine:
    """The resources of this machine.

    Attributes:
        cores: the number of cores.
        memory_bytes: the memory that is free while no graph runs.
        gpus: the number of GPUs that may be used.
        gpu_memory_bytes: the memory of these GPUs that is free while no graph runs, or 0 if it is not known.
    """

    cores: int
    memory_bytes: int
    gpus: int = 0
    gpu_memory_bytes: int = 0

    @classmethod
    def here(cls) -> Self:
        """This machine, as it is now."""
        return cls(
            cores_here(),
            psutil.virtual_memory().available,
            len(visible_gpus()),
            free_gpu_memory_bytes(),
        )


def cores_here() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_spent_s() -> float:
    """The seconds of CPU time that this process and its ended descendants have used."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


@dataclass(slots=True)
class SideBySide:
    """Counts the runs that ended while others ran, and tells when there are too many slots.

    Two runs side by side end nearly twice as many runs in the same time. So it pays to repeat a run that the others disturbed now and then.

    Attributes:
        runs: the number of runs.
        disturbed: how many of them were invalid because the machine was too busy.
    """

    runs: int = 0
    disturbed: int = 0

    def add(self, *, disturbed: bool) -> None:
        """Count a run."""
        self.runs += 1
        self.disturbed += disturbed

    @property
    def too_many(self) -> bool:
        """True if more than `DISTURBED_SHARE` of the runs were disturbed, and at least `DISTURBED_MIN` of them."""
        return self.disturbed >= DISTURBED_MIN and self.disturbed > DISTURBED_SHARE * self.runs


def slots_for(run: Usage, machine: Machine) -> tuple[int, str]:
    """Return the number of runs that the machine carries, at least 1, and the reason in words."""
    fits = [
        CORES_SHARE * machine.cores / max(run.cores, 0.01),
        MEMORY_SHARE * machine.memory_bytes / max(run.memory_bytes, 1),
        *([machine.gpus / run.gpus] if run.gpus else []),
        *_fits_gpu_memory(run, machine),
        machine.cores,
        AUTO_MAX,
    ]
    slots = max(1, int(min(fits)))
    uses = f"a run uses {run.cores:.1f} of {machine.cores} cores and {run.memory_bytes / _GIB:.1f} of {machine.memory_bytes / _GIB:.0f} GiB"
    gpus = f", and {run.gpus} of {machine.gpus} GPUs" if run.gpus else ""
    if run.shares_gpus and run.gpu_memory_bytes:
        gpus = f", and {run.gpu_memory_bytes / _GIB:.1f} of {machine.gpu_memory_bytes / _GIB:.0f} GiB of GPU memory"
    return slots, uses + gpus


def _fits_gpu_memory(run: Usage, machine: Machine) -> list[float]:
    """The number of graphs that the free GPU memory carries, if graphs share GPUs. Empty if that does not matter or is not known."""
    if not run.shares_gpus or not run.gpu_memory_bytes:
        return []
    return [MEMORY_SHARE * machine.gpu_memory_bytes / run.gpu_memory_bytes]


def graphs_for(run: Usage, machine: Machine, others: int) -> int:
    """Return the number of graphs that the machine can hold open at once, by its memory and its GPUs.

    Args:
        run: the usage of a run.
        machine: the machine. Its memory is the memory that the other graphs leave free.
        others: the number of graphs that are open now.
    """
    if run.shares_gpus and not run.gpu_memory_bytes:
        # It is not known whether the GPUs hold one graph more.
        return 1
    fits = [MEMORY_SHARE * machine.memory_bytes / max(run.memory_bytes, 1)]
    more = min(fits + _fits_gpu_memory(run, machine))
    return int(min([others + more, *([machine.gpus / run.gpus] if run.gpus else [])]))
