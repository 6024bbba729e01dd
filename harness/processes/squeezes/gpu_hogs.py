"""Take memory or time of a replica's GPU by a process beside it, with proof by NVML.

An engine that runs already keeps its memory. One that takes its memory at its start feels the hog when it is started again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

from graphquake.harness.processes.resources.gpus import (
    MIB,
    free_bytes_of,
    has_nvml,
    utilization_of,
    visible_gpus,
)
from graphquake.harness.processes.squeezes import gpu_hog

SCRIPT: Final = [sys.executable, "-I", "-S", gpu_hog.__file__]
# The time limit for the effect of a hog, in seconds. The first context on a GPU takes up to some seconds.
EFFECT_WITHIN_S: Final = 20.0
LOOK_EVERY_S: Final = 0.1
# NVML counts a GPU as busy in percent of the last sample, which takes up to a second.
BUSY: Final = 90
# NVML may count some memory as free that the CUDA driver does not. So the free memory may exceed the wanted amount by this, in MiB.
SLACK_MIB: Final = 256


def hogs_lack() -> str:
    """Return the reason why this machine can't have hogs of a GPU. Empty if it can."""
    if not visible_gpus():
        return "CUDA_VISIBLE_DEVICES and /dev show no GPU"
    return "" if has_nvml() else "no NVML: it needs a driver and the package nvidia-ml-py"


def hog_command(what: str, left_mib: int, for_s: float) -> list[str]:
    """Return the command line of a hog. `what` is `gpu memory` or `gpu compute`."""
    if what == "gpu memory":
        return [*SCRIPT, "memory", str(left_mib), f"{for_s:g}"]
    return [*SCRIPT, "compute", f"{for_s:g}"]


async def effect_text(
    gpu: str, what: str, left_mib: int, before_bytes: int, runs: Callable[[], bool]
) -> str:
    """Wait until NVML shows the effect of a hog, and return it in words. Empty if the hog ends before that, or it takes too long.

    Args:
        gpu: the GPU.
        what: `gpu memory` or `gpu compute`.
        left_mib: the free memory that the hog leaves, in MiB.
        before_bytes: the free memory before the hog, in bytes.
        runs: returns true while the hog runs.
    """
    until_s = time.monotonic() + EFFECT_WITHIN_S
    while time.monotonic() < until_s and runs():
        free_mib = free_bytes_of(gpu) // MIB
        if what == "gpu memory" and free_mib <= left_mib + SLACK_MIB:
            return f"{free_mib} MiB of GPU {gpu} are free, {before_bytes // MIB} MiB before (NVML)"
        if what == "gpu compute" and (busy := utilization_of(gpu)) >= BUSY:
            return f"GPU {gpu} is busy for {busy}% of the time (NVML)"
        await asyncio.sleep(LOOK_EVERY_S)
    return ""


async def free_text(gpu: str, what: str, end: Callable[[], Awaitable[None]]) -> str:
    """End a hog, and return the proof by NVML."""
    await end()
    if what == "gpu memory":
        return f"{free_bytes_of(gpu) // MIB} MiB of GPU {gpu} are free again"
    return "the hog is gone"
