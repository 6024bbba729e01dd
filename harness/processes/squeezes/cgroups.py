"""A control group of its own for one replica, below the group of the harness. The guard removes it when the graph ends, however it ends.

Both versions of control groups are used. Version 1 has a hierarchy for each controller. Version 2 has one for all, and a group has a
controller only if the group above gives it. The harness never changes a group that it has not made. So a group can't always be made.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# The length of a period in which the kernel counts the CPU time of a group, in microseconds.
PERIOD_US: Final = 100_000
V1: Final = 1
V2: Final = 2
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class CpuGroup:
    """A control group that limits the CPU time of its processes.

    Attributes:
        folder: the folder of the group.
        parent: the folder of the group of the harness, to which the processes go back.
        version: 1 or 2.
    """

    folder: Path
    parent: Path
    version: int

    @classmethod
    def make(cls, share: int, announce: Callable[[str], None]) -> CpuGroup:
        """Make a group that gets a share of one core.

        Args:
            share: the share in percent.
            announce: gets the folder before it is made, so that the guard can remove it in any case.

        Raises:
            OSError: if this machine or this user can't make one.
        """
        parent, version = _cpu_folder()
        folder = parent / f"graphquake-{os.getpid()}-{next(_numbers)}"
        announce(str(folder))
        folder.mkdir()
        group = cls(folder, parent, version)
        quota_us = PERIOD_US * share // 100
        try:
            if version == V2:
                (folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
            else:
                (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
        except OSError:
            group.remove()
            raise
        return group

    def add(self, pids: Iterable[int]) -> None:
        """Move processes into the group, with all their threads. Their later children are born in it."""
        _move(pids, self.folder)

    def throttled(self) -> int:
        """The number of periods in which the processes of the group wanted more CPU time than they got."""
        lines = (line.split() for line in (self.folder / "cpu.stat").read_text().splitlines())
        return next(int(value) for name, value in lines if name == "nr_throttled")

    def remove(self) -> None:
        """Move the processes of the group back, and remove the group."""
        with suppress(FileNotFoundError):
            _move(map(int, (self.folder / "cgroup.procs").read_text().split()), self.parent)
            self.folder.rmdir()


def _move(pids: Iterable[int], folder: Path) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            (folder / "cgroup.procs").write_text(str(pid))


def _cpu_folder() -> tuple[Path, int]:
    """The folder of the harness's own group for the controller `cpu`, and the version of its hierarchy.

    Raises:
        OSError: if no hierarchy with this controller is mounted.
    """
    own = {
        name: path
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        for _, names, path in [line.split(":", 2)]
        for name in names.split(",")
    }
    for point, kind, options in _mounts():
        if kind == "cgroup" and "cpu" in options and "cpu" in own:
            return point / own["cpu"].lstrip("/"), V1
        if kind == "cgroup2" and "" in own:
            folder = point / own[""].lstrip("/")
            if "cpu" in (folder / "cgroup.subtree_control").read_text().split():
                return folder, V2
    raise OSError("no control group gives the controller cpu to new groups below it")


def _mounts() -> Iterator[tuple[Path, str, list[str]]]:
    """Yield the mount point, the type and the options of each mounted file system."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        yield Path(before.split()[4]), kind, options.split(",")
