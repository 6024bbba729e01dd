"""Repeat runs that other work on the machine disturbed: they showed violations then, or their clients were late.

A repeat is alone: no other run of the search is in progress. Before it, the machine gets time to become quiet. If it stays busy, the last
run is returned as it is: invalid, with its cause.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

import psutil

from graphquake.harness.promises.judgement import LATE
from graphquake.harness.run.live import LiveRun
from graphquake.harness.run.noise.contention import BUSY, OTHERS_MAX, cores_busy_s, cpu_time_s
from graphquake.harness.targets.target import SLOW_WAY

# The most repeats of one run.
REPEATS_MAX: Final = 4
# The longest wait for a quiet machine before a repeat, in seconds, and the length of one look at it.
QUIET_WITHIN_S: Final = 8.0
LOOK_S: Final = 0.5
# The machine is quiet if other processes use less than this share of its cores. It is well below the limit at which a run is invalid.
QUIET: Final = OTHERS_MAX / 2


def is_disturbed(run: LiveRun) -> bool:
    """True if the run is invalid only because other work kept the graph or its clients from the CPU, or slowed the way between them."""
    causes = run.verdict.causes
    return bool(causes) and all(cause.startswith((BUSY, LATE, SLOW_WAY)) for cause in causes)


async def undisturbed(
    run: Callable[[], Awaitable[LiveRun]],
    may_repeat: Callable[[LiveRun], bool] = lambda _: True,
    alone: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> LiveRun:
    """Make a run, and make it again while other work disturbs it.

    Args:
        run: makes the run. Each repeat overwrites its folder.
        may_repeat: called with each disturbed run. If it returns false, that run is the result.
        alone: the block of all repeats. It waits until no other run of the search is in progress.

    Returns:
        The first run that was not disturbed. If there is none among the first and `REPEATS_MAX` repeats, the last one.
    """
    result = await run()
    if not is_disturbed(result) or not may_repeat(result):
        return result
    async with alone():
        for repeats_left in reversed(range(REPEATS_MAX)):
            await _until_quiet(QUIET_WITHIN_S)
            result = await run()
            if not repeats_left or not is_disturbed(result) or not may_repeat(result):
                break
    return result


async def _until_quiet(within_s: float) -> None:
    """Wait until processes that are not ours leave most of the cores idle, or for `within_s` seconds."""
    cores = frozenset(os.sched_getaffinity(0))
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        begun_s, busy_s, own_s = time.monotonic(), cores_busy_s(cores), _own_s()
        await asyncio.sleep(LOOK_S)
        others_s = cores_busy_s(cores) - busy_s - max(0.0, _own_s() - own_s)
        if others_s < QUIET * len(cores) * (time.monotonic() - begun_s):
            return


def _own_s() -> float:
    """The seconds for which this process and its descendants have run."""
    own = psutil.Process()
    return sum(cpu_time_s(one.pid) for one in (own, *own.children(recursive=True)))
