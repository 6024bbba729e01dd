"""The interface of observers of live runs: counts for metrics, and traces.

An observer learns of the start, the state and the end of every run on a live graph. Runs that go on side by side are told apart, and a run
that is repeated counts as two. An observer is called in the thread of the runs, so it must be quick, and it must not raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from graphquake.harness.run.live import LiveRun
from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.plan import Plan


class ObservedRun(Protocol):
    """What an observer does about one run."""

    def show(self, status: RunStatus) -> None:
        """Take the state of the run. It comes several times a second, once the graph is ready."""
        ...

    def end(self, run: LiveRun | None) -> None:
        """Take the whole run. None if there is none: it was cancelled, or its graph did not start."""
        ...


class RunObserver(Protocol):
    """Observes the runs of a runner."""

    def begin(self, plan: Plan, why: str) -> ObservedRun:
        """Observe a run that begins.

        Args:
            plan: the plan of the run.
            why: the purpose of the run, in a word or two.
        """
        ...


class Observation:
    """One run, and what its observers do about it.

    Attributes:
        run: the run, as soon as it is over.
    """

    def __init__(self, observed: list[ObservedRun]) -> None:
        self.run: LiveRun | None = None
        self._observed = observed

    def show(self, status: RunStatus) -> None:
        """Pass the state of the run on."""
        for one in self._observed:
            one.show(status)

    def end(self) -> None:
        """Pass the run on, or None."""
        for one in self._observed:
            one.end(self.run)


@contextmanager
def observed(observers: Iterable[RunObserver], plan: Plan, why: str) -> Iterator[Observation]:
    """Let observers observe the run that the block makes. The block sets `Observation.run`."""
    one = Observation([observer.begin(plan, why) for observer in observers])
    try:
        yield one
    finally:
        one.end()
