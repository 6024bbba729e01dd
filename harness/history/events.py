"""The events of a run: the acts on the graph, the lives of its processes, and the graph's answers about itself.

Each event has `at_s`, in seconds on the run's own clock (see `history`). Code tells events apart by their class only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar, get_args

from graphquake.harness.spec.plan import Step
from graphquake.harness.spec.replica import Replica

Phase: TypeAlias = Literal["baseline", "plan", "heal", "recover", "steady", "drain"]
ViewKind: TypeAlias = Literal["listing", "readiness"]
LeakKind: TypeAlias = Literal["process", "socket", "gpu memory", "gauge"]


def exit_text(status: int) -> str:
    """Return the end of a process, in words.

    Args:
        status: the exit code, or minus the number of the signal.
    """
    return f"signal {-status}" if status < 0 else f"exit status {status}"


@dataclass(frozen=True, slots=True)
class Spawned:
    """An incarnation got its pid."""

    at_s: float
    replica: Replica
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class BecameReady:
    """An incarnation passed its readiness probe for the first time."""

    at_s: float
    replica: Replica
    incarnation: int


@dataclass(frozen=True, slots=True)
class Died:
    """An incarnation ended.

    Attributes:
        status: the exit code, or minus the signal's number.
        aimed: true if a step or the harness aimed at it.
    """

    at_s: float
    replica: Replica
    incarnation: int
    pid: int
    status: int
    aimed: bool

    @property
    def how(self) -> str:
        """The end of the process, in words."""
        return exit_text(self.status)


@dataclass(frozen=True, slots=True)
class PhaseBegan:
    """The run entered a phase."""

    at_s: float
    phase: Phase


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step ended.

    Attributes:
        begun_s: the time at which it began.
        number: its place in the plan, from 0.
        step: the step.
        landed: true if it took effect. A fault that did not land makes the run invalid.
        proof: the observation that shows it, in words.
    """

    at_s: float
    begun_s: float
    number: int
    step: Step
    landed: bool
    proof: str

    @property
    def fault(self) -> bool:
        """True if the step takes something away from the graph."""
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
    """A stalled replica was resumed.

    Attributes:
        proof: the observation that shows it, in words.
    """

    at_s: float
    replica: Replica
    proof: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The graph's answer about itself changed, or the right answer did.

    Attributes:
        observer: the replica that was asked.
        what: `listing` (the number of replicas that it lists) or `readiness` (1 or 0).
        says: its answer, or -1 if it gave none.
        holds: the right answer. Both numbers are 0 if the observer can't be asked any more.
    """

    at_s: float
    observer: Replica
    what: ViewKind
    says: int
    holds: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A sample of the resources of one replica, and of the load that its metrics report.

    Attributes:
        cores: the number of cores that its processes kept busy since the last sample. 0 in their first sample.
        rss_bytes, gpu_bytes: the memory of its processes.
        in_flight, waiting: numbers of requests, from its metrics, or None if they do not contain them.
        kv_usage: the share of its KV cache that is in use, 0 to 1, or None if its metrics do not contain it.
    """

    at_s: float
    replica: Replica
    cores: float
    rss_bytes: int
    gpu_bytes: int = 0
    in_flight: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None


@dataclass(frozen=True, slots=True)
class Leaked:
    """Something was left after the load had ended and the grace time was over."""

    at_s: float
    kind: LeakKind
    what: str


@dataclass(frozen=True, slots=True)
class Invalidated:
    """From here on the run is invalid, for this cause."""

    at_s: float
    cause: str


Event: TypeAlias = (
    Spawned | BecameReady | Died | PhaseBegan | StepDone | Resumed | Seen | Measured | Leaked | Invalidated
)  # fmt: skip
EVENT_KINDS: Final[dict[str, Callable[..., Event]]] = {
    kind.__name__: kind for kind in get_args(Event)
}
E = TypeVar("E", bound=Event)
