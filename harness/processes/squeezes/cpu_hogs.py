"""Squeeze CPU without control groups: the replica shares one core with processes that never sleep.

The kernel divides a core evenly, so a replica beside N hogs gets about 1 / (N + 1) of it. Each hog is a child of the guard, so it ends with
the graph. It also ends by itself when its time is over.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

# More hogs than this would slow down the whole machine each time the kernel moves one of them.
HOGS_MAX: Final = 19
PROGRAM: Final = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
end_s = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end_s:
    pass
"""


def hogs_for(share: int) -> int:
    """Return the number of hogs that leave a replica this share of a core, in percent."""
    return min(HOGS_MAX, max(1, math.ceil(100 / share) - 1))


def hog_command(cpu: int, for_s: float) -> list[str]:
    """Return the command line of a hog that runs on one core, for at most `for_s` seconds."""
    return [sys.executable, "-I", "-S", "-c", PROGRAM, str(cpu), f"{for_s:g}"]


def threads_of(pids: Iterable[int]) -> list[int]:
    """Return the threads of some processes."""
    found: list[int] = []
    for pid in pids:
        with suppress(OSError):
            found += map(int, os.listdir(f"/proc/{pid}/task"))
    return found


def bind(threads: Iterable[int], cpus: set[int]) -> dict[int, set[int]]:
    """Let threads run on some cores only.

    Returns:
        The cores on which each thread could run before.
    """
    before = {}
    for thread in threads:
        with suppress(ProcessLookupError):
            before[thread] = os.sched_getaffinity(thread)
            os.sched_setaffinity(thread, cpus)
    return before


def waited_s(threads: Iterable[int]) -> float:
    """Return the time for which threads were ready to run and did not get a core so far, in seconds."""
    total_ns = 0
    for thread in threads:
        with suppress(OSError):
            total_ns += int(Path(f"/proc/{thread}/schedstat").read_text().split()[1])
    return total_ns / 1e9
