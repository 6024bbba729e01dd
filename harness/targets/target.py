"""How a graph is reached: the seam between a run and whatever holds the processes.

The supervisor is the target that launches a graph itself. Graphs that others started come later; so nothing but a target
may assume that it can start, restart or retire a graph, and nothing else may send a signal.

All times are absolute `time.monotonic()` seconds; a run puts them on its own clock (see `history`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from graphquake.harness.history.events import BecameReady, Died, Measured, Spawned
from graphquake.harness.spec.graph import GraphSpec


@dataclass(frozen=True, slots=True)
class Landed:
    """What a target saw of something that it was asked to do.

    Attributes:
        ok: whether it took effect.
        proof: what was seen, in words.
        at_s: when it took effect.
    """

    ok: bool
    proof: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that should be gone.

    Attributes:
        kind: `process`, `socket`, `gpu memory` or `gauge`.
        what: what exactly, in words.
    """

    kind: str
    what: str


@dataclass(frozen=True, slots=True)
class View:
    """What the graph says about itself, against what is.

    Attributes:
        observer: the replica that was asked.
        what: `listing` or `readiness`.
        says: how many items it listed, whatever the HTTP status (-1 if there was no answer), or whether it says that it is ready.
        holds: how many replicas it should list, or whether it should be ready.
    """

    observer: str
    what: str
    says: int
    holds: int


def replica_name(role: str, index: int) -> str:
    """How a replica is called everywhere: `decode 0`."""
    return f"{role} {index}"


class Target(Protocol):
    """A live graph.

    Attributes:
        spec: what the graph is.
    """

    spec: GraphSpec

    @property
    def log(self) -> Sequence[Spawned | BecameReady | Died]:
        """Every spawn, first readiness and death so far, in order, on absolute time."""
        ...

    def entries(self) -> list[str]:
        """The base URLs that clients talk to, one for each replica of the entry role."""
        ...

    def alive(self, replica: str) -> bool:
        """Whether its main process runs."""
        ...

    def ready(self, replica: str) -> bool:
        """Whether its present incarnation runs, has passed its readiness probe, and is not stalled."""
        ...

    def ending(self, replica: str) -> bool:
        """Whether it is to end (by SIGTERM, or with a child that it dies with) and its main process still runs."""
        ...

    async def gone(self, replica: str, within_s: float) -> bool:
        """Wait until its main process is gone; False if it still runs after `within_s`."""
        ...

    async def kill(self, replica: str, scope: str, child: int) -> Landed:
        """SIGKILL, and wait until every process aimed at is gone."""
        ...

    async def terminate(self, replica: str) -> Landed:
        """SIGTERM to its main process."""
        ...

    async def stall(self, replica: str) -> Landed:
        """SIGSTOP to all its processes, and wait until every one is stopped."""
        ...

    async def resume(self, replica: str) -> Landed:
        """SIGCONT to all its processes, and wait until none is stopped; one that died meanwhile is as good."""
        ...

    async def respawn(self, replica: str) -> Landed:
        """Start a dead replica again."""
        ...

    async def wait_ready(self, within_s: float) -> bool:
        """Wait until every replica that lives is ready, and the graph lists at least as many as live.

        Not "just as many": a graph with leases lists what was killed for as long as the lease lasts. While a replica is dead
        by which others get listed, this may end sooner than `within_s`.
        """
        ...

    def pids(self) -> Sequence[int]:
        """Every process of the graph that runs now on this machine."""
        ...

    async def views(self) -> list[View]:
        """What the graph says now, wherever its file says that a replica lists something or can be asked whether it is ready.

        Nothing while a replica is away that is no part of a path, e.g. a registry: nobody can learn then what became of others.
        """
        ...

    async def measures(self) -> list[Measured]:
        """What each replica that lives uses now, and says about its load, on absolute time."""
        ...

    def settled(self) -> None:
        """Note what the graph holds (GPU memory) now that it has served for a while: more than that at rest is a leak."""
        ...

    async def leaks(self) -> list[Leak]:
        """What is still there now and should not be, while no load runs."""
        ...
