"""The protocol between a run and its graph.

A run, the reuse of a graph, and every observation reach the graph only through `Target`. Only a target may start, restart or retire a
replica, and only a target may send a signal. `run/open_target.py` decides which target a graph gets.

All times are absolute `time.monotonic()` seconds. A run puts them on its own clock (see `history`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from graphquake.harness.history.events import (
    BecameReady,
    Died,
    LeakKind,
    Measured,
    Spawned,
    ViewKind,
)
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Actions, Landed

__all__ = ["Landed", "Leak", "Target", "View"]


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that should be gone.

    Attributes:
        kind: `process`, `socket`, `gpu memory` or `gauge`.
        what: what exactly, in words.
    """

    kind: LeakKind
    what: str


@dataclass(frozen=True, slots=True)
class View:
    """The graph's statement about itself, and the true state.

    Attributes:
        observer: the replica that was asked.
        what: `listing` or `readiness`.
        says: the number of items that it listed, for any HTTP status (-1 without an answer), or whether it says that it is ready.
        holds: the number of replicas that it should list, or whether it should be ready.
    """

    observer: Replica
    what: ViewKind
    says: int
    holds: int


class Target(Actions, Protocol):
    """A live graph. The things that steps do to it are in `Actions`.

    To write a target, begin with the smallest one:

    1. A graph that other people run and that must not be changed. `entries` gives its base URLs, `alive` and `ready` are always true,
       and `ending` is always false. `wait_ready` returns True. `log`, `pids`, `views`, `measures` and `leaks` are empty. `begin_run` and
       `note_baseline_memory` have no effect. Each fault returns `Landed(ok=False, ...)`: a run with a fault is then invalid, never wrong.
    2. Add faults one by one. A fault returns when it has taken effect, with a proof that does not come from the graph itself.
       `log` must then tell of each death and each new incarnation, because promises excuse failures by these events.
    3. Add `views`, `measures` and `leaks` where the graph can be asked.

    A function of the type `OpenTarget` (run/open_target.py) opens the target and ends it. While a target is open it may find out that the
    graph is lost. It then cancels the task that uses it (see `begin_run`), and its context raises a `GraphError` in place of that.
    `proptests/support/fake_target.py` is a small target in memory.

    Replicas are named by role and index, as `decode 0`.

    Attributes:
        spec: the graph file's content.
    """

    spec: GraphSpec

    @property
    def log(self) -> Sequence[Spawned | BecameReady | Died]:
        """Every spawn, first readiness and death since the run began, in order, after one spawn of each replica that lived then."""
        ...

    def begin_run(self) -> None:
        """Prepare for a further run, which may belong to another task.

        From then on `log` holds only the incarnations that live now. Only the calling task uses the graph.

        Raises:
            GraphError: if the graph can no longer be used.
        """
        ...

    def entries(self) -> list[str]:
        """The base URLs that clients talk to, one for each replica of the entry role."""
        ...

    def alive(self, replica: Replica) -> bool:
        """True while the replica's main process runs."""
        ...

    def ready(self, replica: Replica) -> bool:
        """True if its present incarnation runs, has passed its readiness probe, and is not stalled."""
        ...

    def pids(self) -> Sequence[int]:
        """Every process of the graph that runs on this machine now. CPU contention is measured on these."""
        ...

    async def views(self) -> list[View]:
        """Ask the graph about itself, wherever its file says how: for each listing and each readiness probe.

        Empty while a replica that no request passes through is down, e.g. a registry: the graph cannot learn of changes then.
        """
        ...

    async def measures(self) -> list[Measured]:
        """Sample the resources and the load of each live replica."""
        ...

    def note_baseline_memory(self) -> None:
        """Take the GPU memory that the graph holds now as its normal amount. Much more than that at rest is a leak."""
        ...

    async def leaks(self) -> list[Leak]:
        """Find what should be gone while no load runs: processes, listening sockets, GPU memory, gauges above 0."""
        ...
