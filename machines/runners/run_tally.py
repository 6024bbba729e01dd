"""Counts the requests and the faults of the live runs of a search, also those of the runs that still go on.

A count never falls. A run that goes on counts with its last state, and with its history as soon as it is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from graphquake.harness.history.faults import Fault, faults_of
from graphquake.harness.history.request import Outcome
from graphquake.harness.run.live import LiveRun
from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.plan import Plan

# The most kinds and targets of faults that are told apart. A long search of a large graph cuts very many links.
TARGETS_MAX: Final = 100
# Stands for the targets whose faults are longer ago.
OTHERS: Final = "others"


@dataclass(slots=True)
class FaultCount:
    """The faults of one kind that act on one target.

    Attributes:
        kind: the name of the kind, as in the list `faults` of a graph file.
        target: the replicas, or the ends of the links, that they act on.
        begun: the number of faults whose step began.
        landed: the number of these that took effect.
        missed: the number of these that did not take effect.
        ended: the number of these that took effect and are over. A kill is over as soon as it has landed.
        begin: the time at which the last fault that landed began, in seconds since the epoch, or 0.
        end: the time at which the last fault that is over ended, in seconds since the epoch, or 0.
    """

    kind: str
    target: str
    begun: int = 0
    landed: int = 0
    missed: int = 0
    ended: int = 0
    begin: float = 0.0
    end: float = 0.0

    def row(self) -> dict[str, Any]:
        """The fields by name, from which `FaultCount(**row)` makes the same counts."""
        return {name: getattr(self, name) for name in FaultCount.__slots__}

    def add(self, other: FaultCount) -> None:
        """Add the counts of another table for the same kind and target."""
        self.begun += other.begun
        self.landed += other.landed
        self.missed += other.missed
        self.ended += other.ended
        self.begin, self.end = max(self.begin, other.begin), max(self.end, other.end)


def added_up(counts: Iterable[FaultCount]) -> list[FaultCount]:
    """Add up the counts of each kind and target."""
    found: dict[tuple[str, str], FaultCount] = {}
    for one in counts:
        found.setdefault((one.kind, one.target), FaultCount(one.kind, one.target)).add(one)
    return list(found.values())


def without_old_targets(counts: list[FaultCount]) -> list[FaultCount]:
    """Put the counts of the oldest targets into one row for each kind, if there are more than `TARGETS_MAX` rows."""
    if len(counts) <= TARGETS_MAX:
        return counts
    by_age = sorted(counts, key=lambda one: one.begin, reverse=True)
    for one in by_age[TARGETS_MAX:]:
        one.target, one.begin, one.end = OTHERS, 0.0, 0.0
    return added_up(by_age)


@dataclass(slots=True)
class Counts:
    """The counts of some runs.

    Attributes:
        sent: the number of requests that clients have sent.
        ok: the number of these that got a right answer.
        failed: the number of these that failed.
        faults: the faults, by kind and target.
    """

    sent: int = 0
    ok: int = 0
    failed: int = 0
    faults: list[FaultCount] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Add the counts of other runs."""
        self.sent += other.sent
        self.ok += other.ok
        self.failed += other.failed
        self.faults = added_up([*self.faults, *other.faults])


class RunTally:
    """Observes runs, and counts (see `RunObserver`).

    Its methods are called in the thread of the runs, and `counts` in any thread.

    Attributes:
        on_change: called after the start and after the end of each run.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        # The counts of the runs that are over, and the other runs. Both change together, so a reader in another thread misses nothing.
        self._state: tuple[Counts, frozenset[_Tallied]] = (Counts(), frozenset())

    def begin(self, plan: Plan, why: str) -> _Tallied:
        """See `RunObserver.begin`."""
        del plan, why
        one = _Tallied(self._end)
        over, going_on = self._state
        self._state = over, going_on | {one}
        self.on_change()
        return one

    def _end(self, one: _Tallied) -> None:
        over, going_on = self._state
        total = Counts()
        total.add(over)
        total.add(one.counts)
        total.faults = without_old_targets(total.faults)
        self._state = total, going_on - {one}
        self.on_change()

    @property
    def going_on(self) -> int:
        """The number of runs that go on now."""
        return len(self._state[1])

    def counts(self) -> Counts:
        """The counts of all runs so far."""
        over, going_on = self._state
        total = Counts()
        for counts in (over, *(one.counts for one in going_on)):
            total.add(counts)
        return total


class _Tallied:
    """The counts of one run."""

    def __init__(self, on_end: Callable[[_Tallied], None]) -> None:
        self.counts = Counts()
        self._on_end = on_end
        self._last: RunStatus | None = None

    def show(self, status: RunStatus) -> None:
        """See `ObservedRun.show`."""
        self._last = status
        faults = _counted(status.faults, status.began)
        self.counts = Counts(status.sent, status.ok, status.failed, faults)

    def end(self, run: LiveRun | None) -> None:
        """See `ObservedRun.end`. No fault outlasts its run: it was undone, or its graph has ended."""
        if run is not None:
            history = run.history
            requests = history.requests
            ok = sum(request.outcome == Outcome.OK for request in requests)
            failed = sum(request.failed for request in requests)
            faults = _counted(faults_of(history.events), history.host.began, are_over=True)
            self.counts = Counts(len(requests), ok, failed, faults)
        elif (last := self._last) is not None:
            self.counts.faults = _counted(last.faults, last.began, are_over=True)
        self._on_end(self)


def _counted(
    faults: Iterable[Fault], began: datetime | None, *, are_over: bool = False
) -> list[FaultCount]:
    """Count faults by kind and target.

    Args:
        faults: the faults of one run.
        began: the wall-clock time of the run's time 0.
        are_over: true if the run is over. Faults that were in force then end now.
    """
    zero = began.timestamp() if began else 0.0
    rows = []
    for fault in faults:
        row = FaultCount(fault.step.called, fault.target, begun=1, missed=int(fault.missed))
        if fault.landed_s is not None:
            row.landed, row.begin = 1, zero + fault.begun_s
            if fault.ended_s is not None:
                row.ended, row.end = 1, zero + fault.ended_s
            elif are_over:
                row.ended, row.end = 1, time.time()
        rows.append(row)
    return added_up(rows)
