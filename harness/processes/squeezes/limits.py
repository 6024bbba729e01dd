"""Squeeze files and memory by soft resource limits, which a process can't exceed and the harness can set from outside.

The kernel checks a soft limit at each call. A new file descriptor must have a number below RLIMIT_NOFILE, otherwise the call fails with
EMFILE. The new size of the address space must be below RLIMIT_AS, otherwise the allocation fails with ENOMEM. What a process has already,
it keeps. So the limit itself, read back from the kernel, proves the effect.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from graphquake.harness.processes.guard import stat_of

MIB: Final = 1 << 20
# A file that is closed while the limit is set leaves its number free below the limit. Then the limit is set again, at most this often.
TRIES_MAX: Final = 20


class Limit(NamedTuple):
    """A soft limit of one process.

    Attributes:
        start: when the process started, in clock ticks since boot: another process may get its pid.
        before: the soft limit before the squeeze.
        now: the soft limit of the squeeze.
        used: the number of open files, or the size of the address space in bytes.
    """

    pid: int
    start: int
    what: int
    before: int
    now: int
    used: int


def limit_files(pids: Iterable[int]) -> list[Limit]:
    """Let processes open no further file. Processes that have ended meanwhile are left out.

    Raises:
        PermissionError: if the harness may not set limits of these processes.
        TimeoutError: if a process closes files faster than they can be counted.
    """
    return [one for pid in pids if (one := _limit_files(pid)) is not None]


def _limit_files(pid: int) -> Limit | None:
    stat = stat_of(pid)
    if stat is None or not stat.runs:
        return None
    with suppress(ProcessLookupError, FileNotFoundError):
        before, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        for _ in range(TRIES_MAX):
            free, used = _lowest_free(pid)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
            if _lowest_free(pid)[0] >= free:
                return Limit(pid, stat.start, resource.RLIMIT_NOFILE, before, free, used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (before, hard))
        raise TimeoutError(f"pid {pid} opens and closes files too fast to count them")
    return None


def _lowest_free(pid: int) -> tuple[int, int]:
    """The number that the next file of a process would get, and the number of its open files."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = next(number for number in range(len(taken) + 1) if number not in taken)
    return free, len(taken)


def limit_memory(pids: Iterable[int], room_mib: int) -> list[Limit]:
    """Let the address space of processes grow by at most `room_mib` MiB. Processes that have ended meanwhile are left out.

    Raises:
        PermissionError: if the harness may not set limits of these processes.
    """
    return [one for pid in pids if (one := _limit_memory(pid, room_mib)) is not None]


def _limit_memory(pid: int, room_mib: int) -> Limit | None:
    stat = stat_of(pid)
    if stat is None or not stat.runs:
        return None
    with suppress(ProcessLookupError, FileNotFoundError):
        before, hard = resource.prlimit(pid, resource.RLIMIT_AS)
        used = address_space_bytes(pid)
        resource.prlimit(pid, resource.RLIMIT_AS, (used + room_mib * MIB, hard))
        now, _ = resource.prlimit(pid, resource.RLIMIT_AS)
        return Limit(pid, stat.start, resource.RLIMIT_AS, before, now, used)
    return None


def address_space_bytes(pid: int) -> int:
    """The size of the address space of a process, in bytes.

    Raises:
        FileNotFoundError: if the process does not exist.
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def lift(limits: Iterable[Limit]) -> list[Limit]:
    """Give processes their soft limits back. Return those that still run, and have them again."""
    lifted = []
    for one in limits:
        stat = stat_of(one.pid)
        if stat is None or stat.start != one.start:
            continue
        with suppress(ProcessLookupError):
            _, hard = resource.prlimit(one.pid, one.what)
            resource.prlimit(one.pid, one.what, (one.before, hard))
            if resource.prlimit(one.pid, one.what)[0] == one.before:
                lifted.append(one)
    return lifted
