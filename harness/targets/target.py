"""The protocol between a run and its graph.

A run, the reuse of a graph, and every observation reach the graph only through `Target`. Only a target may start, restart or retire a
replica, and only a target may send a signal. `run/open_target.py` decides which target a graph gets.

All times are absolute `time.monotonic()` seconds. A run converts them to its own clock (see `history`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from graphquake.harness.history.events import (
    LeakKind,
    Measured,
    ReplicaEvent,
    ViewKind,
)
from graphquake.harness.history.notices import Notice
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Actions, Landed

__all__ = ["SLOW_WAY", "Landed", "Leak", "SocketFactory", "Target", "View", "Work"]

# The first words of each text about a slow way between the clients and the graph (see `Target.disturbed`).
SLOW_WAY: Final = "slow way to the graph"
# Makes the sockets of an `aiohttp.TCPConnector`.
SocketFactory: TypeAlias = Callable[[Any], socket.socket]


@dataclass(frozen=True, slots=True)
class Leak:
    """A process, a listening socket, GPU memory or a raised gauge that should be gone while no load runs.

    Attributes:
        kind: `process`, `socket`, `gpu memory` or `gauge`.
        what: a description, with the pid, port, amount or gauge.
    """

    kind: LeakKind
    what: str


@dataclass(frozen=True, slots=True)
class View:
    """One answer of a replica about the graph, and the right answer.

    Attributes:
        observer: the replica that was asked.
        what: `listing` (how many replicas work) or `readiness` (whether the observer is ready). A cluster answers two more questions about
            the observer: `pod` (whether its pod is ready) and `endpoint` (whether an EndpointSlice lists it as ready).
        says: the answer. For `listing` the number of replicas that it lists, whatever its HTTP status, or -1 without an answer.
            For the others 1 or 0.
        holds: the right answer, in the same form.
    """

    observer: Replica
    what: ViewKind
    says: int
    holds: int


class Work(NamedTuple):
    """The work that a replica has received so far.

    Attributes:
        received_bytes: the number of bytes that came in over TCP, without the harness's own probes. 0 if that can't be measured.
        cpu_s: the CPU time of its processes, in seconds.
    """

    received_bytes: int
    cpu_s: float


class Target(Actions, Protocol):
    """A live graph, as a run reaches it. The actions of steps are in `Actions`.

    To write a target, begin with the smallest one:

    1. A graph that other people run and that must not be changed. `entries` gives its base URLs, `alive` and `ready` are always true,
       and `ending` is always false. `wait_ready` returns True. `log`, `notices`, `pids`, `views`, `measures`, `work` and `leaks` are empty,
       `disturbed` is None.
       `begin_run` and `note_baseline_memory` have no effect. Each fault returns `Landed(ok=False, ...)`: a run with a fault is then
       invalid, never wrong.
    2. Add faults one by one. A fault returns when it has taken effect, with a proof that does not come from the graph itself.
       `log` must then tell of each death and each new incarnation, because promises excuse failures by these events.
    3. Add `views`, `measures`, `work` and `leaks` where the graph can be asked.

    A function of the type `OpenTarget` (run/open_target.py) opens the target and ends it. While a target is open it may find out that the
    graph can no longer be used. It then cancels the task that uses the graph (see `begin_run`). Its context raises a `GraphError` in place
    of this cancellation.
    `proptests/support/fake_target.py` is a small target in memory.

    Replicas are named by role and index, as `decode 0`.

    Attributes:
        spec: the graph file's content.
    """

    spec: GraphSpec

    @property
    def log(self) -> Sequence[ReplicaEvent]:
        """The events of all incarnations that lived when the run began or were started later, those of each replica in order of time.

        The events are the spawn of each incarnation, its first readiness, its death, and forbidden lines that it logs during the run.
        """
        ...

    @property
    def notices(self) -> Sequence[Notice]:
        """The notices of a cluster about the graph since the run began. Empty for other targets. No promise uses them."""
        ...

    @property
    def disturbed(self) -> tuple[float, str] | None:
        """The monotonic time since which something else than the graph has kept it from the clients in this run, and the cause in words.

        The cause begins with `SLOW_WAY`. None if nothing has, and for targets without such a thing.
        """
        ...

    def begin_run(self) -> None:
        """Prepare the graph for its next run, which is carried out by the calling task.

        `log` loses the events of dead incarnations. From then on, only the calling task may use the graph. It is the task that is cancelled
        if the graph can no longer be used.

        Raises:
            GraphError: if the graph can no longer be used.
        """
        ...

    def entries(self) -> list[str]:
        """The base URLs that clients talk to, one for each replica of the entry role."""
        ...

    @property
    def socket_factory(self) -> SocketFactory | None:
        """Makes the clients' sockets, if the graph has a network of its own. None for ordinary sockets."""
        ...

    def alive(self, replica: Replica) -> bool:
        """True while the replica's main process runs."""
        ...

    def ready(self, replica: Replica) -> bool:
        """True if the replica's present incarnation runs, has passed its readiness probe, and is not stalled."""
        ...

    def varied(self) -> Sequence[Replica]:
        """The replicas that run, or will run, another command than that of their role (see `Actions.use`)."""
        ...

    def pids(self) -> Sequence[int]:
        """The pids of all processes of the graph that run on this machine now. CPU contention is measured on these."""
        ...

    async def views(self) -> list[View]:
        """Ask working replicas about the graph: read each list and each readiness probe that the graph file names.

        The result is empty while a replica that no request passes through is down, e.g. a registry. The other replicas may then not learn
        of changes, so wrong answers would not be bugs. It is empty, too, while only a part of a replica is stalled, or while a replica
        is squeezed: both answers about such a replica can be defended.
        """
        ...

    async def measures(self) -> list[Measured]:
        """Sample the resources and the load of each live replica."""
        ...

    async def work(self) -> Mapping[Replica, Work]:
        """Measure the work that each live replica has received. The numbers only grow. Empty if this target can't measure it."""
        ...

    def note_baseline_memory(self) -> None:
        """Record the GPU memory that the graph holds now as its normal amount. `leaks` reports a graph that holds much more than that."""
        ...

    async def leaks(self) -> list[Leak]:
        """Find everything that should be gone while no load runs: processes, listening sockets, GPU memory, and gauges above 0."""
        ...
