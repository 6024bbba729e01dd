"""The state of a run at one moment, for progress displays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from graphquake.harness.history.events import Phase
from graphquake.harness.history.faults import Fault


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The state of a run at one moment, as a `Watch` receives it.

    Attributes:
        phase: the present phase.
        now_s: the time on the run's clock, in seconds.
        step: the number of the step that is being carried out, from 0, or -1 outside the plan.
        sent: the number of requests that clients have sent since the run began.
        failed: the number of these requests that failed.
        ok: the number of these requests that got a right answer.
        faults: the faults so far. The last one has not landed yet if it is being carried out.
        began: the wall-clock time of the run's time 0.
    """

    phase: Phase
    now_s: float
    step: int
    sent: int
    failed: int
    ok: int = 0
    faults: tuple[Fault, ...] = ()
    began: datetime | None = None


Watch: TypeAlias = Callable[[RunStatus], None]
