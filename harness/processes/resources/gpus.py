"""Find the GPUs of this machine that this process may use, and the GPU memory that each process holds.

The amounts of memory come from NVML, which needs the package `nvidia-ml-py` and a driver. If one of them is missing, this module reports
that no GPU memory is in use.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

MIB: Final = 1 << 20


def visible_gpus() -> Sequence[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. If that is not set, every GPU with a device file."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [one.strip() for one in visible.split(",") if one.strip()]
    numbers = [name[6:] for name in os.listdir("/dev") if name.startswith("nvidia")]
    return sorted((number for number in numbers if number.isdigit()), key=int)


@cache
def _nvml() -> Any:
    """The NVML library, initialized. None if it is not installed or the driver is missing."""
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
    """The GPU memory that each process holds on all GPUs together, in bytes, by pid."""
    nvml, found = _nvml(), Counter[int]()
    if nvml is None:
        return found
    for number in range(nvml.nvmlDeviceGetCount()):
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(device):
            found[process.pid] += process.usedGpuMemory or 0
    return found


def free_gpu_memory_bytes() -> int:
    """The free memory of the GPUs that this process may use, all together. 0 if it is not known."""
    nvml, visible = _nvml(), visible_gpus()
    if nvml is None:
        return 0
    numbers = [one for one in range(nvml.nvmlDeviceGetCount()) if str(one) in visible]
    return sum(
        nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(one)).free for one in numbers
    )


def has_nvml() -> bool:
    """True if NVML can be asked."""
    return _nvml() is not None


def free_bytes_of(gpu: str) -> int:
    """The free memory of one GPU, as CUDA_VISIBLE_DEVICES names it. 0 if it is not known."""
    nvml = _nvml()
    return 0 if nvml is None else int(nvml.nvmlDeviceGetMemoryInfo(_device(gpu)).free)


def utilization_of(gpu: str) -> int:
    """The share of the last sample in which a GPU was busy, in percent. 0 if it is not known."""
    nvml = _nvml()
    return 0 if nvml is None else int(nvml.nvmlDeviceGetUtilizationRates(_device(gpu)).gpu)


def _device(gpu: str) -> Any:
    """The handle of a GPU: by its number, or by its UUID."""
    nvml = _nvml()
    by_number = gpu.isdigit()
    return (
        nvml.nvmlDeviceGetHandleByIndex(int(gpu))
        if by_number
        else nvml.nvmlDeviceGetHandleByUUID(gpu)
    )
