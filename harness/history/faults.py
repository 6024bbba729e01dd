"""The faults of a run, each with its start, its landing and its end.

The events of a history record a fault in two parts: `StepDone` when it landed, and `Resumed` or `Undone` when it ended. This module joins
them. It does not judge: `promises` do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from graphquake.harness.history.events import Event, Resumed, StepDone, Undone
from graphquake.harness.spec.plan import Step
from graphquake.harness.spec.steps.network.fault import LinkFault


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a run. Times are seconds on the run's clock.

    Attributes:
        number: the place of its step in the plan, from 0.
        step: the step.
        begun_s: the time at which the step began.
        landed_s: the time at which the fault landed, or None if it has not landed.
        missed: true if the fault was found not to land.
        ended_s: the time at which the fault ended. A kill ends as soon as it has landed. None while the fault is in force.
        proof: the observation that shows whether the fault landed, in words. Empty as long as nothing is known.
        end_proof: the observation that shows how the fault ended, in words. Empty for a fault that ends as soon as it has landed.
    """

    number: int
    step: Step
    begun_s: float
    landed_s: float | None = None
    missed: bool = False
    ended_s: float | None = None
    proof: str = ""
    end_proof: str = ""

    @property
    def in_force(self) -> bool:
        """True if the fault has landed and has not ended."""
        return self.landed_s is not None and self.ended_s is None

    @property
    def target(self) -> str:
        """The replicas, or the ends of the links, that the fault acts on, e.g. `decode 0`."""
        links = self.step.links if isinstance(self.step, LinkFault) else ()
        ends = [str(end) for link in links for end in link.ends]
        return ", ".join(dict.fromkeys(ends or map(str, self.step.aims or self.step.roles)))

    @property
    def due_s(self) -> float:
        """The time at which the fault should end, or infinity if heal ends it."""
        return math.inf if self.landed_s is None else self.landed_s + self.step.lasts_s


def faults_of(events: Iterable[Event], landing: Fault | None = None) -> tuple[Fault, ...]:
    """Return the faults among the events of a run, in the order of their ends as steps.

    A fault that no event ends is in force, also if the run is over.

    Args:
        events: the events, in the order of their times.
        landing: a fault that is being carried out. It comes last.
    """
    found: list[Fault] = []
    for event in events:
        if isinstance(event, StepDone) and event.fault:
            found.append(_begun(event))
        elif isinstance(event, (Resumed, Undone)):
            ended = [one for one in found if one.in_force and _ends(event, one)]
            # Two faults of one replica end in the order of their due times.
            if ended:
                one = min(ended, key=lambda one: one.due_s)
                place = found.index(one)
                found[place] = replace(one, ended_s=event.at_s, end_proof=event.proof)
    return (*found, *([landing] if landing else []))


class FaultTrail:
    """Follows the faults of a run that goes on, in a time that does not grow with the number of its other events.

    Args:
        events: the list to which the run appends its events.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._followed = 0
        self._about_faults: list[Event] = []

    def faults(self, landing: Fault | None = None) -> tuple[Fault, ...]:
        """The faults so far, see `faults_of`."""
        new = self._events[self._followed :]
        self._followed += len(new)
        self._about_faults += [one for one in new if isinstance(one, (StepDone, Resumed, Undone))]
        return faults_of(self._about_faults, landing)


def _begun(event: StepDone) -> Fault:
    return Fault(
        event.number,
        event.step,
        event.begun_s,
        landed_s=event.at_s if event.landed else None,
        missed=not event.landed,
        ended_s=event.at_s if event.landed and not event.step.lasts_s else None,
        proof=event.proof,
    )


def _ends(event: Resumed | Undone, fault: Fault) -> bool:
    if isinstance(event, Undone):
        return event.number == fault.number
    return event.replica in fault.step.aims and not isinstance(fault.step, LinkFault)
