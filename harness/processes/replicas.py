"""The replicas of a launched graph, and their incarnations: the state that changes while the graph runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from graphquake.harness.history.events import exit_text
from graphquake.harness.processes.guard_client import Child
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.roles.role import RoleSpec

# The address at which every replica listens, `{host}` in a graph file, unless each has a network namespace.
HOST: Final = "127.0.0.1"


@dataclass(slots=True)
class Incarnation:
    """One life of a replica, from the start of its main process to the end of that process.

    Attributes:
        number: the number of earlier incarnations of the replica.
        key: a name that is unique within the graph. The guard reports the exit under this key, and the processes carry it as a mark.
        log: the file with the output of the processes.
        child: the main process.
        aimed: true after a step, or heal, sent SIGKILL or SIGTERM to the main process.
        terminating: true after the main process got SIGTERM, or after a step killed a child that the replica depends on (`dies_with`).
        deleted: true after its pod was seen as deleted.
        stalled: true from SIGSTOP to SIGCONT, of all processes or of one.
        partly: true while only one of its processes is stopped, or while it is squeezed. It may then count as ready or not.
        status: the exit code of the main process, or minus the number of the signal that ended it. None while it runs.
        ended_s: the monotonic time of the end of the main process.
        ready: set when the readiness probe has passed.
        ended: set when the main process has ended.
    """

    number: int
    key: str
    log: Path
    child: Child
    aimed: bool = False
    terminating: bool = False
    deleted: bool = False
    stalled: bool = False
    partly: bool = False
    status: int | None = None
    ended_s: float = float("nan")
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def runs(self) -> bool:
        """True while the main process runs."""
        return self.status is None

    @property
    def how_it_ended(self) -> str:
        """The exit status or the signal, in words."""
        assert self.status is not None
        return f"{'died of' if self.status < 0 else 'ended with'} {exit_text(self.status)}"


@dataclass(slots=True)
class ReplicaState:
    """The state of one replica, which has one incarnation after another.

    Attributes:
        ports: the reserved ports, by their names in the graph file.
        host: the address at which it listens.
        spaces: the paths of the namespaces in which its processes run. Empty if they run in those of the harness.
        gpus: the GPUs of the replica, as CUDA_VISIBLE_DEVICES names them.
        has_disk: true if its HOME and TMPDIR are on a private disk.
        variant: the name of the command of the next incarnations. Empty for the command of the role.
        now: the latest incarnation, running or not, or None before the first.
        begun: the number of incarnations so far.
        spawning: a lock that is held while an incarnation is being started. Two incarnations at once would compete for one port.
    """

    role: RoleSpec
    index: int
    ports: dict[str, int] = field(default_factory=dict)
    host: str = HOST
    spaces: tuple[str, ...] = ()
    gpus: list[str] = field(default_factory=list)
    has_disk: bool = False
    variant: str = ""
    now: Incarnation | None = None
    begun: int = 0
    spawning: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> Replica:
        """The role and the index of the replica."""
        return Replica(self.role.name, self.index)

    @property
    def running(self) -> Incarnation | None:
        """The incarnation that runs now, or None if the replica is dead."""
        return self.now if self.now is not None and self.now.runs else None

    @property
    def is_ready(self) -> bool:
        """True if the replica runs, has passed its readiness probe, and is not stalled."""
        running = self.running
        return running is not None and running.ready.is_set() and not running.stalled

    @property
    def is_partly_stalled(self) -> bool:
        """True while one process of the replica is stopped and the others are not, or while the replica is squeezed."""
        return self.running is not None and self.running.partly

    @property
    def is_ending(self) -> bool:
        """True while the replica shuts down: it is terminating, and its main process has not exited yet."""
        return self.running is not None and self.running.terminating

    @property
    def works(self) -> bool:
        """True if the replica is ready and not shutting down."""
        return self.is_ready and not self.is_ending
