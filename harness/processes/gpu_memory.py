"""What processes hold of the memory of GPUs, as NVML counts it.

Needs `nvidia-ml-py`; without it, or without a driver, nothing is known and nothing is said.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any, Final

MIB: Final = 1 << 20


@cache
def _nvml() -> Any:
    """The library, ready to be asked; None if there is none, or no driver."""
    try:
        import pynvml  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - optional
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def memory_by_pid() -> Counter[int]:
    """For each process that has something on any GPU, how many bytes."""
    nvml, found = _nvml(), Counter[int]()
    if nvml is None:
        return found
    for number in range(nvml.nvmlDeviceGetCount()):
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(device):
            found[process.pid] += process.usedGpuMemory or 0
    return found
