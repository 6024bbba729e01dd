"""Was the machine there for the graph, or busy with others?

A graph that others keep from the cores shows failures that are not its own: a burst that takes a second alone took three beside two
other graphs. So while a run goes on, the kernel is asked how long the graph's threads and the clients waited for a core
(`run_delay` in /proc/PID/schedstat), and how much of the cores others used. Both have to be high: a graph that waits for itself has
collapsed by its own doing, and that is for the promises.

Measured on two cores, kill and burst of 55, the worst second of each run: alone at most 0.4 threads waited a core, two graphs side by side
at most 0.7, three of them 0.7 to 1.5, and from 1.2 on answers came two seconds late.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# Over this time the machine is judged: a respawn alone makes everybody wait for half a second.
WINDOW_S: Final = 1.0
# Threads of the graph that waited for a core at any moment, for each core; and the share of the cores that others had meanwhile.
WAITING_MAX: Final = 1.0
OTHERS_MAX: Final = 0.35
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
# Where idle and iowait stand in a line of /proc/stat, and where what it counts twice begins.
_IDLE: Final = slice(3, 5)
_GUESTS: Final = 8


@dataclass(frozen=True, slots=True)
class _Sample:
    """Sums up to a moment, in seconds: what all cores were busy, what ours ran, and what it waited."""

    at_s: float
    busy_s: float
    ran_s: float
    waited_s: float


@dataclass(slots=True)
class Strain:
    """Samples the machine during one run."""

    _cores: frozenset[int] = field(default_factory=lambda: frozenset(os.sched_getaffinity(0)))
    _seen: dict[int, tuple[float, float]] = field(default_factory=dict)
    _samples: list[_Sample] = field(default_factory=list)
    _ran_s: float = 0.0
    _waited_s: float = 0.0

    def look(self, pids: Iterable[int]) -> tuple[float, str]:
        """Sample, and judge the last `WINDOW_S`.

        Args:
            pids: the graph's processes and the clients'; those met for the first time count from now on.

        Returns:
            When the stretch began (`time.monotonic()`) and what is wrong with it; no words if nothing is.
        """
        for pid in pids:
            ran_s, waited_s = _of_process(pid)
            before = self._seen.get(pid, (ran_s, waited_s))
            # A thread that ended takes its share with it.
            self._ran_s += max(0.0, ran_s - before[0])
            self._waited_s += max(0.0, waited_s - before[1])
            self._seen[pid] = ran_s, waited_s
        now = _Sample(time.monotonic(), _busy_s(self._cores), self._ran_s, self._waited_s)
        self._samples = [one for one in self._samples if now.at_s - one.at_s < 2 * WINDOW_S]
        self._samples.append(now)
        long_enough = [one for one in self._samples if now.at_s - one.at_s >= WINDOW_S]
        return (
            (long_enough[-1].at_s, self._words(long_enough[-1], now)) if long_enough else (0.0, "")
        )

    def _words(self, then: _Sample, now: _Sample) -> str:
        core_s = len(self._cores) * (now.at_s - then.at_s)
        waiting = (now.waited_s - then.waited_s) / core_s
        others = (now.busy_s - then.busy_s - now.ran_s + then.ran_s) / core_s
        if waiting < WAITING_MAX or others < OTHERS_MAX:
            return ""
        return (
            f"machine too busy: {waiting:.1f} threads of the graph and its clients waited for each core "
            f"while others used {others:.0%} of the cores"
        )


def _of_process(pid: int) -> tuple[float, float]:
    """For how long the threads of a process ran and waited for a core so far, in seconds."""
    ran_ns = waited_ns = 0
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                text = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text()
                ran, waited, _ = text.split()
                ran_ns, waited_ns = ran_ns + int(ran), waited_ns + int(waited)
    return ran_ns / 1e9, waited_ns / 1e9


def _busy_s(cores: frozenset[int]) -> float:
    """For how long these cores were busy since boot, in seconds."""
    wanted = {f"cpu{core}" for core in cores}
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in wanted:
            counts = [int(one) for one in ticks[:_GUESTS]]
            busy += sum(counts) - sum(counts[_IDLE])
    return busy / _TICKS_A_SECOND
