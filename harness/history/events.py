"""The events of a run: steps and phases, starts and ends of replicas, answers of the graph about itself, resources and leaks.

Each event has `at_s`, in seconds on the run's own clock (see `history`). The class of an event is its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar, get_args

from graphquake.harness.spec.plan import Step
from graphquake.harness.spec.replica import Replica

Phase: TypeAlias = Literal["baseline", "plan", "heal", "recover", "steady", "drain"]
ViewKind: TypeAlias = Literal["listing", "readiness", "pod", "endpoint"]
TrafficMeans: TypeAlias = Literal["bytes", "cpu", "none"]
LeakKind: TypeAlias = Literal["process", "socket", "gpu memory", "gauge"]


def exit_text(status: int) -> str:
    """Return how a process ended, e.g. `exit status 1` or `signal 9`.

    Args:
        status: the exit code of the process, or minus the number of the signal that ended it.
    """
    return f"signal {-status}" if status < 0 else f"exit status {status}"


@dataclass(frozen=True, slots=True)
class Spawned:
    """An incarnation of a replica was started and got its pid."""

    at_s: float
    replica: Replica
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class BecameReady:
    """An incarnation of a replica passed its readiness probe for the first time."""

    at_s: float
    replica: Replica
    incarnation: int


@dataclass(frozen=True, slots=True)
class Died:
    """The main process of an incarnation ended.

    Attributes:
        status: the exit code of the process, or minus the number of the signal that ended it.
        aimed: true if a step or the harness sent SIGKILL or SIGTERM to this process on purpose.
    """

    at_s: float
    replica: Replica
    incarnation: int
    pid: int
    status: int
    aimed: bool

    @property
    def how(self) -> str:
        """The way in which the process ended, e.g. `exit status 1` or `signal 9`."""
        return exit_text(self.status)


@dataclass(frozen=True, slots=True)
class Panicked:
    """A line in the log of an incarnation matched a pattern of the promise `no_panic`. It is recorded once for each pattern.

    Attributes:
        at_s: the time at which the line was read, at most 0.25 s after it was written.
        pattern: the name of the pattern, or the user's own pattern in quotes.
        line: the line, shortened.
    """

    at_s: float
    replica: Replica
    incarnation: int
    pattern: str
    line: str


# What a target tells about its replicas by itself.
ReplicaEvent: TypeAlias = Spawned | BecameReady | Died | Panicked


def goes_on(event: ReplicaEvent, live: Collection[tuple[Replica, int]]) -> bool:
    """True if an event of an earlier run on the same graph still tells about the graph, because its incarnation lives.

    Args:
        event: the event.
        live: the replica and the number of each incarnation that lives.
    """
    return (event.replica, event.incarnation) in live and not isinstance(event, Panicked)


@dataclass(frozen=True, slots=True)
class PhaseBegan:
    """The run entered a phase."""

    at_s: float
    phase: Phase


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step ended.

    Attributes:
        at_s: the time at which the step landed, or was found not to land.
        begun_s: the time at which the step began.
        number: the place of the step in the plan, from 0.
        step: the step.
        landed: true if the step took effect. A step that did not land makes the run invalid.
        proof: the observation that shows whether the step took effect, in words.
        missed: true if the step waited for an event that did not come in its time.
        told: the time at which each replica was told to end, if the step told several, one after the other (see `Landed`).
    """

    at_s: float
    begun_s: float
    number: int
    step: Step
    landed: bool
    proof: str
    missed: bool = False
    told: tuple[tuple[float, Replica], ...] = ()

    @property
    def fault(self) -> bool:
        """True if the step is a fault."""
        return self.step.is_fault

    @property
    def waits(self) -> bool:
        """True if the step only lets time pass."""
        return self.step.is_wait

    @property
    def victim(self) -> Replica | None:
        """The first replica that the step aims at, or None if it aims at none."""
        return next(iter(self.step.aims), None)


@dataclass(frozen=True, slots=True)
class Resumed:
    """The stall of a replica ended: by SIGCONT, or because the replica had died.

    Attributes:
        proof: the observation that shows how the stall ended, in words.
    """

    at_s: float
    replica: Replica
    proof: str


@dataclass(frozen=True, slots=True)
class Undone:
    """A step of the user's own, a network fault, a scale or a cordon was undone: in its time, at heal, or at an early end of the run.

    Attributes:
        number: the place of the step in the plan, from 0.
        step: the step.
        proof: the end of the command that undid the step, in words.
    """

    at_s: float
    number: int
    step: Step
    proof: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A replica answered a question about the graph. An answer is recorded if it or the right answer has changed, or if it is wrong.

    Attributes:
        observer: the replica that was asked.
        what: the question: `listing` (how many replicas are listed?) or `readiness` (is the observer ready? 1 or 0). A cluster answers
            two questions about the observer: `pod` (is its pod ready?) and `endpoint` (does an EndpointSlice list it as ready?).
        says: the answer of the observer, or -1 if it gave none.
        holds: the right answer. `says` and `holds` are both 0 if the observer can't be asked any more.
    """

    at_s: float
    observer: Replica
    what: ViewKind
    says: int
    holds: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A sample of the resources that one replica uses, and of the load that its metrics report.

    Attributes:
        cores: the average number of CPU cores that the replica's processes used since the last sample. 0 in their first sample.
        rss_bytes: the resident memory of the replica's processes.
        gpu_bytes: the GPU memory of the replica's processes.
        in_flight: the number of requests in progress, or None if the replica's metrics do not contain it.
        waiting: the number of requests that wait, or None if the replica's metrics do not contain it.
        kv_usage: the used share of the replica's KV cache, 0 to 1, or None if the replica's metrics do not contain it.
        threads: the number of threads of the replica's processes, or 0 if it was not measured.
        files: the number of their open files and connections, or 0 if it was not measured.
    """

    at_s: float
    replica: Replica
    cores: float
    rss_bytes: int
    gpu_bytes: int = 0
    in_flight: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    threads: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """The work that one replica received in an interval, beside the work of the whole role. `promises.idle` judges it.

    It is recorded at the end of the baseline for each replica that requests pass through, and at each fault for its victims.

    Attributes:
        at_s: the end of the interval.
        since_s: the start of the interval: the start of the baseline, or the later moment at which the replica became ready.
        replica: the replica.
        number: the number of the fault's step, from 0, or -1 for the end of the baseline.
        means: the kind of the amounts: `bytes` received over TCP, `cpu` seconds, or `none` if neither tells anything.
        amount: the work of the replica.
        of_role: the work of all replicas of its role that were ready at the end of the interval, this one included.
        replicas: the number of these replicas.
    """

    at_s: float
    since_s: float
    replica: Replica
    number: int
    means: TrafficMeans
    amount: float
    of_role: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Leaked:
    """The graph had a leak at the end of the grace time, which begins when the load has ended.

    Attributes:
        kind: the kind of the leak.
        what: a description of the leak, in words.
    """

    at_s: float
    kind: LeakKind
    what: str


@dataclass(frozen=True, slots=True)
class Invalidated:
    """From this time on, violations prove nothing: something else may have caused them.

    Attributes:
        cause: the cause, in words.
        spares_kept: true if the cause can only make promises harder to keep. Then a run without violations is kept, and weak. If it is
            false, the run is invalid in any case.
    """

    at_s: float
    cause: str
    spares_kept: bool = False


Event: TypeAlias = (
    Spawned | BecameReady | Died | Panicked | PhaseBegan | StepDone | Resumed | Undone | Seen | Measured | Traffic | Leaked | Invalidated
)  # fmt: skip
EVENT_KINDS: Final[dict[str, Callable[..., Event]]] = {
    kind.__name__: kind for kind in get_args(Event)
}
E = TypeVar("E", bound=Event)
