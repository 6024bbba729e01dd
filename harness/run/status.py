"""The state of a run at one moment, for progress displays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from graphquake.harness.history.events import Phase


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The state of a run at one moment, as a `Watch` receives it.

    Attributes:
        phase: the present phase.
        now_s: the time on the run's clock, in seconds.
        step: the number of the step that is being carried out, from 0, or -1 outside the plan.
        sent: the number of requests that clients have sent since the run began.
        failed: the number of these requests that failed.
    """

    phase: Phase
    now_s: float
    step: int
    sent: int
    failed: int


Watch: TypeAlias = Callable[[RunStatus], None]
