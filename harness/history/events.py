"""The events of a run: what was done to the graph, what became of its processes, what it was seen to say.

Each has `at_s`, on the run's own clock (see `history`). Whoever writes or reads one knows its class; nothing else tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar, get_args

from graphquake.harness.spec.plan import Aimed, Step, Wait, WaitReady, is_fault
from graphquake.harness.spec.replica import Replica

Phase: TypeAlias = Literal["baseline", "plan", "heal", "recover", "steady", "drain"]
ViewKind: TypeAlias = Literal["listing", "readiness"]
LeakKind: TypeAlias = Literal["process", "socket", "gpu memory", "gauge"]


def exit_text(status: int) -> str:
    """How a process ended, in words.

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
        aimed: whether a step (or the harness itself) had aimed at it.
    """

    at_s: float
    replica: Replica
    incarnation: int
    pid: int
    status: int
    aimed: bool

    @property
    def how(self) -> str:
        """How it ended, in words."""
        return exit_text(self.status)


@dataclass(frozen=True, slots=True)
class PhaseBegan:
    """The run entered a phase: baseline, plan, heal, recover, steady, drain."""

    at_s: float
    phase: Phase


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step ended.

    Attributes:
        begun_s: when it began.
        number: its place in the plan, from 0.
        step: what was done.
        landed: whether it took effect; a fault that did not makes the run invalid.
        proof: what was seen of it.
    """

    at_s: float
    begun_s: float
    number: int
    step: Step
    landed: bool
    proof: str

    @property
    def fault(self) -> bool:
        """Whether the step takes something away from the graph."""
        return is_fault(self.step)

    @property
    def waits(self) -> bool:
        """Whether the step only lets time pass."""
        return isinstance(self.step, Wait | WaitReady)

    @property
    def victim(self) -> Replica | None:
        """The replica that the step aims at; None unless it is a fault or a respawn."""
        step = self.step
        return Replica(step.role, step.index) if isinstance(step, Aimed) else None


@dataclass(frozen=True, slots=True)
class Resumed:
    """A replica that had been stalled was let go on.

    Attributes:
        proof: what was seen of it.
    """

    at_s: float
    replica: Replica
    proof: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the graph said about itself changed, or what it should have said did.

    Attributes:
        observer: the replica that was asked.
        what: `listing` (how many it lists) or `readiness` (1 or 0).
        says: its answer; -1 if it gave none.
        holds: what would be right; 0 with `says` 0 if it can't be asked any more.
    """

    at_s: float
    observer: Replica
    what: ViewKind
    says: int
    holds: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a replica used, and what it said about its load.

    Attributes:
        cores: how many cores its processes kept busy since the sample before; 0 in their first one.
        rss_bytes, gpu_bytes: the memory that they hold.
        in_flight, waiting: requests, by its metrics; None where it tells no such thing.
        kv_usage: the share of its KV cache that is taken, 0 to 1.
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
    """Something was still there after the load had ended and its grace was over."""

    at_s: float
    kind: LeakKind
    what: str


@dataclass(frozen=True, slots=True)
class Invalidated:
    """A cause for which the run proves nothing from here on."""

    at_s: float
    cause: str


Event: TypeAlias = (
    Spawned | BecameReady | Died | PhaseBegan | StepDone | Resumed | Seen | Measured | Leaked | Invalidated
)  # fmt: skip
EVENT_KINDS: Final[dict[str, Callable[..., Event]]] = {
    kind.__name__: kind for kind in get_args(Event)
}
E = TypeVar("E", bound=Event)
