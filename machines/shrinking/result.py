"""What a shrink hands back: the minimal plan, and what it rests on.

Every count is there, also where the budget ended it early: what was not tried is told as such, never left out. How it reads in a report is
left to `report`, which steps are tried in which order to `shrink`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step
from graphquake.machines.shrinking.parameters import numbers
from graphquake.machines.shrinking.probdd import suspects
from graphquake.machines.shrinking.trials import TrialLog, Tried


@dataclass(frozen=True, slots=True)
class Needed:
    """What was seen without one step of the minimal plan.

    Attributes:
        step: the step.
        broke, kept: runs of the plan without it. If some broke, they were too few of them to stand for the finding.
    """

    step: Step
    broke: int
    kept: int

    @property
    def untested(self) -> bool:
        """True if no run of the plan without the step proved anything."""
        return not self.broke + self.kept


@dataclass(frozen=True, slots=True)
class Control:
    """What was seen without the faults of the minimal plan.

    Attributes:
        broke: how many runs broke the promise all the same.
        kept: how many runs kept it.
    """

    broke: int
    kept: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where the number of a step begins to matter.

    Attributes:
        step: the step of the minimal plan; None for how long the run stays on.
        name: the field that holds the number.
        value: what it is in the minimal plan, about the least that breaks it.
        below: the highest lower value that was run and did not stand for the finding.
        broke, kept: runs with that one.
    """

    step: Step | None
    name: str
    value: float
    below: float
    broke: int
    kept: int


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The minimal plan, and what it rests on.

    Attributes:
        plan: the smallest plan that was seen to fail and stands for what was found; the original one if it was never seen again.
        broke, runs: how many of how many fresh runs of just this plan broke the promise.
        control_broke, control_runs: the same of the plan without its faults.
        needed: for each step of the plan, what was seen without it.
        thresholds: for each number that matters, where it begins to.
        any_replica: whether it also fails with other replicas of the same roles; None if that was not tried.
        live_runs: all that it cost, invalid ones included.
        complete: everything was tried; False if the budget ended it.
        confirmed: it was seen again in a fresh run.
        journal: every live run, in order.
    """

    plan: Plan
    broke: int
    runs: int
    control_broke: int
    control_runs: int
    needed: tuple[Needed, ...]
    thresholds: tuple[Threshold, ...]
    any_replica: bool | None
    live_runs: int
    complete: bool
    confirmed: bool
    journal: tuple[Tried, ...]


def thresholds(minimal: Plan, log: TrialLog) -> Iterator[Threshold]:
    """For each number of which a lower value was kept: the highest of those."""
    kinds = [type(step) for step in minimal.steps]
    alike = [
        (plan, count)
        for plan, count in log.counts()
        if count.ever_kept and [type(step) for step in plan.steps] == kinds
    ]
    for number in numbers(minimal):
        value = number.of(minimal)
        lower = [
            (number.of(plan), count)
            for plan, count in alike
            if number.of(plan) < value and number.put(plan, value) == minimal
        ]
        if lower:
            below, count = max(lower, key=lambda one: one[0])
            step = minimal.steps[number.place] if number.place >= 0 else None
            yield Threshold(step, number.name, value, below, count.ever_broke, count.ever_kept)


def without_each(spec: GraphSpec, minimal: Plan, log: TrialLog) -> Iterator[Needed]:
    """What was seen without each step of a plan, one at a time."""
    whole = suspects(spec, minimal)
    for place, step in enumerate(minimal.steps):
        plan = whole.without(whole.mended(frozenset([place]))).plan
        count = log.count(plan)
        broke, kept = count.ever_broke, count.ever_kept
        yield Needed(step, broke, kept)
