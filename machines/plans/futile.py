"""Remembers the steps that never took effect in the runs of a search. Plans with such a step are not run again.

A wait comes to nothing if its event does not come, and a burst if none of its clients can leave at its token. A fault comes to nothing if
it does not land, e.g. because no process has the name of the child that it aims at. A step that came to nothing `MISSES` times, and never
worked, is futile. A single time may be due to the steps before it.

The faults of a link count together: if no packet meets a cut between two roles, none meets another fault there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.promises.bursts import missed_bursts
from graphquake.harness.spec.plan import Burst, Plan, Step, Until

MISSES: Final = 2
ENDS: Final = 2


@dataclass(slots=True)
class FutileSteps:
    """Counts the steps that worked, and those that came to nothing."""

    _worked: set[Step] = field(default_factory=set)
    _missed: Counter[Step] = field(default_factory=Counter)

    def add(self, history: History) -> None:
        """Count the waits for events, the faults, and the bursts whose clients leave at a token of one run. The run may be invalid."""
        missed = {done.number for done, _, _ in missed_bursts(history)}
        for done in history.of(StepDone):
            if isinstance(done.step, Until) or done.step.is_fault or _leaves_later(done.step):
                if done.landed and not done.missed and done.number not in missed:
                    self._worked.add(done.step)
                else:
                    self._missed[done.step] += 1

    def any_in(self, plan: Plan) -> bool:
        """True if a step of a plan is futile."""
        return any(map(self._is_futile, plan.steps))

    def _is_futile(self, step: Step) -> bool:
        if isinstance(step, Burst) and not _leaves_later(step):
            return False
        if isinstance(step, Until):
            # More of an event that does not come does not come either.
            worked = any(one.covers(step) for one in self._worked)
            missed = (count for one, count in self._missed.items() if step.covers(one))
        elif step.is_link:
            # A part of a link may carry no packets where the whole does. If the whole carries none, no part does.
            worked = any(_same_link(one, step) or step.covers(one) for one in self._worked)
            missed = (
                count
                for one, count in self._missed.items()
                if _same_link(one, step) or one.covers(step)
            )
        else:
            worked = any(_are_alike(one, step) for one in self._worked)
            missed = (count for one, count in self._missed.items() if _are_alike(one, step))
        return not worked and sum(missed) >= MISSES


def _leaves_later(step: Step) -> bool:
    return isinstance(step, Burst) and step.leave_later > 0


def _are_alike(one: Step, other: Step) -> bool:
    """True if two steps differ at most in the size of their numbers."""
    return one.covers(other) or other.covers(one)


def _same_link(one: Step, other: Step) -> bool:
    """True if two faults act on the links of the same two roles."""
    return (link := _link(one)) is not None and link == _link(other)


def _link(step: Step) -> frozenset[str] | None:
    """The two roles between which a fault of the network acts, or None."""
    return frozenset(step.roles) if step.is_link and len(step.roles) == ENDS else None
