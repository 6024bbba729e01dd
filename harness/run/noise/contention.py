"""Detect CPU contention from other processes during a run.

A graph that cannot get the cores because other processes use them shows failures that are not its own. For example, a burst that takes
one second alone took three seconds beside two other graphs. During a run this module therefore reads two numbers from the kernel:

- how long the threads of the graph and of the clients waited for a core (`run_delay` in /proc/PID/schedstat);
- the share of the cores that other processes used.

There is contention if both numbers are high. If only the first one is high, the graph overloads itself, and the promises judge that.

The limits were measured on two cores, with plans of a kill and a burst of 55 requests. In the worst second of each run, a graph alone had
at most 0.4 waiting threads a core. Two graphs side by side had at most 0.7, and three graphs 0.7 to 1.5. With 1.2 or more, answers came two
seconds late.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# The length of the interval over which contention is judged. A respawn alone makes all threads wait for half a second, which is shorter.
WINDOW_S: Final = 1.0
# The first words of each text about contention.
BUSY: Final = "machine too busy"
# There is contention if both limits are reached. The first is the number of waiting threads of the graph and its clients, for each core.
# The second is the share of the cores that other processes used, 0 to 1.
WAITING_MAX: Final = 1.0
OTHERS_MAX: Final = 0.35
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
# The columns of the idle and iowait times in a line of /proc/stat, and the first column whose time is also part of an earlier column.
_IDLE: Final = slice(3, 5)
_GUESTS: Final = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """The CPU times of the machine and of one run's processes, each summed up to the same moment.

    Attributes:
        at_s: the monotonic time of that moment.
        busy_s: the time for which the cores were busy since boot, over all cores and all processes.
        ran_s: the time for which the threads of the graph and the clients ran, since the first sample.
        waited_s: the time for which these threads waited for a core, since the first sample.
    """

    at_s: float
    busy_s: float
    ran_s: float
    waited_s: float


def contention(then: Sample, now: Sample, cores: int) -> str:
    """Describe the CPU contention in the interval between two samples, in words. The text is empty if there was none.

    Args:
        then: the sample at the start of the interval.
        now: the sample at its end.
        cores: the number of cores whose times the samples count.
    """
    core_s = cores * (now.at_s - then.at_s)
    waiting = (now.waited_s - then.waited_s) / core_s
    others = (now.busy_s - then.busy_s - now.ran_s + then.ran_s) / core_s
    if waiting < WAITING_MAX or others < OTHERS_MAX:
        return ""
    return (
        f"{BUSY}: {waiting:.1f} threads of the graph and its clients waited for each core "
        f"while others used {others:.0%} of the cores"
    )


@dataclass(slots=True)
class ContentionMonitor:
    """Samples the CPU times of the machine and of one run's processes, and judges whether there is contention."""

    _cores: frozenset[int] = field(default_factory=lambda: frozenset(os.sched_getaffinity(0)))
    _known: dict[int, tuple[float, float]] = field(default_factory=dict)
    _samples: list[Sample] = field(default_factory=list)
    _ran_s: float = 0.0
    _waited_s: float = 0.0

    def sample(self, pids: Iterable[int]) -> tuple[float, str]:
        """Take one sample of the CPU times, and judge the contention in the last `WINDOW_S` seconds.

        Args:
            pids: the processes of the graph and of the clients. A process counts from its second sample on.

        Returns:
            The monotonic time at which the judged interval began, and the contention in words. The text is empty if there was none, or if
            the first sample is less than `WINDOW_S` old.
        """
        for pid in pids:
            ran_s, waited_s = _of_process(pid)
            before = self._known.get(pid, (ran_s, waited_s))
            # The sums of a process shrink when one of its threads ends.
            self._ran_s += max(0.0, ran_s - before[0])
            self._waited_s += max(0.0, waited_s - before[1])
            self._known[pid] = ran_s, waited_s
        now = Sample(time.monotonic(), cores_busy_s(self._cores), self._ran_s, self._waited_s)
        self._samples = [one for one in self._samples if now.at_s - one.at_s < 2 * WINDOW_S]
        self._samples.append(now)
        old_enough = [one for one in self._samples if now.at_s - one.at_s >= WINDOW_S]
        if not old_enough:
            return 0.0, ""
        return old_enough[-1].at_s, contention(old_enough[-1], now, len(self._cores))


def cpu_time_s(pid: int) -> float:
    """The seconds for which the threads of a process ran. 0 if the process has ended."""
    return _of_process(pid)[0]


def _of_process(pid: int) -> tuple[float, float]:
    """The seconds for which the threads of a process ran, and for which they waited for a core. Both are 0 if the process has ended."""
    ran_ns = waited_ns = 0
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                text = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text()
                ran, waited, _ = text.split()
                ran_ns, waited_ns = ran_ns + int(ran), waited_ns + int(waited)
    return ran_ns / 1e9, waited_ns / 1e9


def cores_busy_s(cores: frozenset[int]) -> float:
    """The seconds for which these cores were busy since boot, summed over the cores.

    The work of processes with a lower priority (`nice`) counts, too. Linux schedules each session as a group of its own, and a low priority
    only gives way to others of its group.
    """
    wanted = {f"cpu{core}" for core in cores}
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in wanted:
            counts = [int(one) for one in ticks[:_GUESTS]]
            busy += sum(counts) - sum(counts[_IDLE])
    return busy / _TICKS_A_SECOND
