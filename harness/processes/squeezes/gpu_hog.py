"""A process that takes memory or time of a GPU, within limits. Run as a script without packages: it uses the CUDA driver alone.

    gpu_hog.py memory LEFT_MIB SECONDS     take memory until this much is free
    gpu_hog.py compute SECONDS             keep every multiprocessor busy

It uses the first GPU of CUDA_VISIBLE_DEVICES. It prints one line about its effect, and ends by itself when its time is over.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any, Final

MIB: Final = 1 << 20
# Memory is taken in pieces of these sizes, in MiB: large ones while they fit, small ones at the end.
PIECES_MIB: Final = (1024, 64, 2)
# A kernel lasts this long, in nanoseconds, so that the hog ends soon after it is told to.
KERNEL_NS: Final = 20_000_000
BLOCKS_A_PROCESSOR: Final = 8
THREADS: Final = 256
_MULTIPROCESSOR_COUNT: Final = 16
# Spins until a time has passed on the GPU's own clock.
SPIN: Final = b"""
.version 6.3
.target sm_70
.address_size 64
.visible .entry spin(.param .u64 for_ns)
{
    .reg .u64 %t<5>;
    .reg .pred %p<2>;
    ld.param.u64 %t1, [for_ns];
    mov.u64 %t2, %globaltimer;
again:
    mov.u64 %t3, %globaltimer;
    sub.u64 %t4, %t3, %t2;
    setp.lt.u64 %p1, %t4, %t1;
    @%p1 bra again;
    ret;
}
"""


class CudaError(Exception):
    """A call of the CUDA driver failed."""


class Cuda:
    """The first GPU, through the CUDA driver.

    Raises:
        CudaError: if the driver or the GPU can't be used.
    """

    def __init__(self) -> None:
        try:
            self._driver: Any = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CudaError(str(error)) from None
        self._device = ctypes.c_int()
        context = ctypes.c_void_p()
        self._do("cuInit", 0)
        self._do("cuDeviceGet", ctypes.byref(self._device), 0)
        self._do("cuCtxCreate_v2", ctypes.byref(context), 0, self._device)

    def _do(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            said = ctypes.c_char_p()
            self._driver.cuGetErrorName(code, ctypes.byref(said))
            raise CudaError(f"{name}: {(said.value or b'error').decode()} ({code})")

    def free_bytes(self) -> int:
        """The free memory of the GPU."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._do("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def take(self, left_bytes: int) -> int:
        """Take memory until only so much is free. Return the amount that was taken. Other processes may take some at the same time."""
        taken = 0
        for piece in (mib * MIB for mib in PIECES_MIB):
            while self.free_bytes() - piece >= left_bytes:
                at = ctypes.c_void_p()
                try:
                    self._do("cuMemAlloc_v2", ctypes.byref(at), ctypes.c_size_t(piece))
                except CudaError:
                    break
                taken += piece
        return taken

    def spin(self, until_s: float) -> None:
        """Keep every multiprocessor busy until a monotonic time. Say a line when the first kernel has ended."""
        module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
        self._do("cuModuleLoadData", ctypes.byref(module), SPIN)
        self._do("cuModuleGetFunction", ctypes.byref(kernel), module, b"spin")
        count = ctypes.c_int()
        self._do("cuDeviceGetAttribute", ctypes.byref(count), _MULTIPROCESSOR_COUNT, self._device)
        for_ns = ctypes.c_uint64(KERNEL_NS)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(for_ns))
        blocks = count.value * BLOCKS_A_PROCESSOR
        first = True
        while time.monotonic() < until_s:
            self._do(
                "cuLaunchKernel", kernel, blocks, 1, 1, THREADS, 1, 1, 0, None, arguments, None
            )
            self._do("cuCtxSynchronize")
            if first:
                print(f"{blocks} blocks of {THREADS} threads spin", flush=True)
                first = False


def main(arguments: list[str]) -> None:
    """Carry out the command line."""
    match arguments:
        case ["memory", left_mib, for_s]:
            cuda = Cuda()
            taken = cuda.take(int(left_mib) * MIB)
            free = cuda.free_bytes()
            print(f"took {taken // MIB} MiB, {free // MIB} MiB are free", flush=True)
            time.sleep(float(for_s))
        case ["compute", for_s]:
            Cuda().spin(time.monotonic() + float(for_s))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CudaError as error:
        sys.exit(f"CUDA: {error}")
