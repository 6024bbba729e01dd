"""The private disks of a launched graph: one for each replica whose role has `disk_mib`.

A process of the graph holds the disks (see `private_disk`). Every process of such a replica enters its namespace before it runs its
program, and finds HOME and TMPDIR on the disk. A disk outlives the incarnations of its replica, as a volume does.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Final

from graphquake.harness.errors import GraphError
from graphquake.harness.processes.guard_client import Guard
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.process_tree import ProcessTree
from graphquake.harness.processes.procfs import OWNER, REPLICA, kill_all
from graphquake.harness.processes.replicas import ReplicaState
from graphquake.harness.processes.squeezes import private_disk
from graphquake.harness.spec.replica import Replica

SCRIPT: Final = [sys.executable, "-I", "-S", private_disk.__file__]
# The mark of the holder, which belongs to no replica.
HOLDER: Final = "private disks"
MOUNT_WITHIN_S: Final = 5.0
# The time limit to fill a disk, in seconds. A tmpfs takes about 1 GiB a second.
FILL_WITHIN_S: Final = 20.0
POLL_S: Final = 0.005


@cache
def disks_lack() -> str:
    """Return the reason why this machine or user can't mount private disks. Empty if it can. Tries it once, in a child process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*SCRIPT, "try", f"{folder}/disk"]
        tried = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    said = (tried.stderr.strip().splitlines() or ["no error text"])[-1]
    return f"a private disk can't be mounted ({said})" if tried.returncode else ""


class PrivateDisks:
    """Holds, fills and frees the disks of one graph.

    Args:
        layout: the replicas of the graph.
        guard: starts the holder and the commands.
        tree: finds the processes that fill a disk.
        owner: the mark of the graph's processes.
    """

    def __init__(self, layout: Layout, guard: Guard, tree: ProcessTree, owner: str) -> None:
        self._layout = layout
        self._guard = guard
        self._tree = tree
        self._fillers: dict[Replica, int] = {}
        self._env = {OWNER: owner, "PATH": os.environ.get("PATH", os.defpath)}
        self._holder = 0

    async def start(self) -> None:
        """Mount the disks. Without such roles, or where that is not possible, replicas use ordinary folders.

        Raises:
            GraphError: if the disks can't be mounted although this machine could mount one.
        """
        with_disk = [one for one in self._layout.replicas.values() if one.role.disk_mib]
        if not with_disk or disks_lack():
            return
        disks = [
            str(word) for one in with_disk for word in (self._layout.disk(one), one.role.disk_mib)
        ]
        log = self._layout.run_dir / "logs" / "private-disks.log"
        self._holder = await self._guard.begin(
            HOLDER,
            [*SCRIPT, "hold", *disks],
            self._env | {REPLICA: HOLDER},
            str(self._layout.run_dir),
            str(log),
        )
        if (said := await _first_line(log, MOUNT_WITHIN_S)) != "ready":
            raise GraphError(f"private disks: {said}")
        for one in with_disk:
            one.has_disk = True

    def command(self, replica: ReplicaState, argv: list[str]) -> list[str]:
        """Return the command line with which a replica's program runs on its disk, or as it is if it has none."""
        if not replica.has_disk:
            return argv
        return [*SCRIPT, "enter", str(self._holder), str(self._layout.run_dir), *argv]

    async def fill(self, replica: ReplicaState, for_s: float) -> str:
        """Fill the disk of a replica, keep it full for at most `for_s` seconds, and return the proof.

        Raises:
            GraphError: if the replica has no disk, or the disk can't be filled.
        """
        if not replica.has_disk:
            raise GraphError(
                f"{replica.name} has no private disk (roles.{replica.role.name}.disk_mib)"
            )
        said, self._fillers[replica.name] = await self._begin("fill", replica, f"{for_s:g}")
        if "ENOSPC" not in said:
            raise GraphError(f"fill: {said}")
        return said

    async def free(self, replica: ReplicaState) -> str:
        """Free the space that `fill` has taken, and return the proof.

        Raises:
            GraphError: if the disk is still full.
        """
        filler = self._fillers.pop(replica.name)
        await kill_all(lambda: {filler} & {*self._tree.keys()}, FILL_WITHIN_S)
        said, freer = await self._begin("free", replica)
        await kill_all(lambda: {freer} & {*self._tree.keys()}, FILL_WITHIN_S)
        if "free again" not in said:
            raise GraphError(f"free: {said}")
        return said

    async def _begin(self, what: str, replica: ReplicaState, *more: str) -> tuple[str, int]:
        """Start a command of the script on the disk of a replica. Return its first line of text, and its pid."""
        mark = f"{what} {replica.name}"
        log = self._layout.run_dir / "logs" / f"{mark.replace(' ', '-')}.log"
        log.unlink(missing_ok=True)
        pid = await self._guard.begin(
            mark,
            self.command(replica, [*SCRIPT, what, str(self._layout.disk(replica)), *more]),
            self._env | {REPLICA: mark},
            str(self._layout.run_dir),
            str(log),
        )
        self._tree.add(pid, mark)
        return await _first_line(log, FILL_WITHIN_S), pid


async def _first_line(log: Path, within_s: float) -> str:
    """Wait for the first line of a log. If it does not come in time, return a text that says so."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if said := _read_line(log):
            return said
        await asyncio.sleep(POLL_S)
    return f"no text within {within_s:g} s"


def _read_line(log: Path) -> str:
    """The first line of a log, or nothing as long as it is not complete."""
    line, end, _ = (log.read_text() if log.is_file() else "").partition("\n")
    return line if end else ""
