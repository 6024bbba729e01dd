"""Remembers which events came in the runs of a search, so that plans that wait for an event in vain are not run again and again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.spec.plan import Plan, Step, Until

# An event that never came, and was missed this many times, is not waited for any more. A single miss may be due to the steps before it.
MISSES: Final = 2


@dataclass(slots=True)
class AwaitedEvents:
    """Counts the events that came and that were missed."""

    _came: set[Step] = field(default_factory=set)
    _missed: Counter[Step] = field(default_factory=Counter)

    def add(self, history: History) -> None:
        """Count the events of one run."""
        for done in history.of(StepDone):
            if isinstance(done.step, Until) and done.landed:
                if done.missed:
                    self._missed[done.step] += 1
                else:
                    self._came.add(done.step)

    def is_in_vain(self, plan: Plan) -> bool:
        """True if a plan waits for an event that was missed `MISSES` times and never came. More of such an event does not come either."""
        return any(map(self._never_came, plan.steps))

    def _never_came(self, step: Step) -> bool:
        if not isinstance(step, Until) or any(one.covers(step) for one in self._came):
            return False
        return sum(count for one, count in self._missed.items() if step.covers(one)) >= MISSES
