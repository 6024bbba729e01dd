"""Simulated runs side by side, one in each slot. The clock is virtual and moves only when a result is awaited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from graphquake.harness.spec.plan import Plan
from graphquake.machines.shrinking.trials import Trial


@dataclass(slots=True, eq=False)
class Begun:
    """A simulated run in progress.

    Attributes:
        trial: its result.
        slot: the slot that it takes.
        ends_s: when it ends, on the virtual clock.
    """

    trial: Trial
    slot: int
    ends_s: float


@dataclass(slots=True)
class VirtualRunner:
    """A `graphquake.machines.shrinking.speculation.CandidateRunner` in virtual time.

    Attributes:
        graph: returns the result of a run of a plan.
        takes_s: returns how long that run takes, in seconds.
        slots: how many runs go side by side.
        start_s: how long a graph starts, in seconds. `takes_s` does not count it. A run on a used graph does not take this time.
        reuses: whether runs that may take a used graph do so.
        now_s: the virtual clock.
        runs: how many runs were begun.
    """

    graph: Callable[[Plan], Trial]
    takes_s: Callable[[Plan, Trial], float]
    slots: int
    start_s: float = 0.0
    reuses: bool = False
    now_s: float = 0.0
    runs: int = 0
    _free_s: list[float] = field(init=False)
    _left: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._free_s = [0.0] * self.slots

    def start(self, plan: Plan, *, may_reuse: bool = False) -> Begun:
        """Begin a run in the slot that is free first. Each slot leaves a graph that a later run may use."""
        slot = self._free_s.index(min(self._free_s))
        used = self.reuses and may_reuse and slot in self._left
        trial = replace(self.graph(plan), used=used)
        self.runs += 1
        self._left.add(slot)
        start_s = 0.0 if used else self.start_s
        ends_s = max(self.now_s, self._free_s[slot]) + start_s + self.takes_s(plan, trial)
        self._free_s[slot] = ends_s
        return Begun(trial, slot, ends_s)

    def result(self, run: Begun) -> Trial:
        """Move the clock to the end of a run and return its result."""
        self.now_s = max(self.now_s, run.ends_s)
        return run.trial

    def is_done(self, run: Begun) -> bool:
        """Return whether a run has ended by now."""
        return run.ends_s <= self.now_s

    def cancel(self, run: Begun) -> None:
        """Cancel a run and free its slot."""
        if not self.is_done(run):
            self._free_s[run.slot] = self.now_s
