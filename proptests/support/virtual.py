"""Slots in virtual time: as many simulated runs side by side as there are slots, on a clock that moves when somebody waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from graphquake.harness.spec.plan import Plan
from graphquake.machines.shrinking.trials import Trial


@dataclass(slots=True, eq=False)
class Begun:
    """A run that was begun: what it will say, and when."""

    trial: Trial
    slot: int
    ends_s: float


@dataclass(slots=True)
class VirtualRunner:
    """See `graphquake.machines.shrinking.speculation.CandidateRunner`.

    Attributes:
        graph: says what a run of a plan says.
        takes_s: how long it takes.
        now_s: the clock.
        runs: how many were begun.
    """

    graph: Callable[[Plan], Trial]
    takes_s: Callable[[Plan, Trial], float]
    slots: int
    now_s: float = 0.0
    runs: int = 0
    _free_s: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self._free_s = [0.0] * self.slots

    def start(self, plan: Plan) -> Begun:
        """Begin a run as soon as a slot is free."""
        trial = self.graph(plan)
        self.runs += 1
        slot = self._free_s.index(min(self._free_s))
        ends_s = max(self.now_s, self._free_s[slot]) + self.takes_s(plan, trial)
        self._free_s[slot] = ends_s
        return Begun(trial, slot, ends_s)

    def result(self, run: Begun) -> Trial:
        """Wait for a run."""
        self.now_s = max(self.now_s, run.ends_s)
        return run.trial

    def is_done(self, run: Begun) -> bool:
        """Whether it has ended by now."""
        return run.ends_s <= self.now_s

    def cancel(self, run: Begun) -> None:
        """Free its slot."""
        if not self.is_done(run):
            self._free_s[run.slot] = self.now_s
