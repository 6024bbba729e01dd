"""The result of a shrink: the minimal plan, and the counts behind it.

Every count is there, even if the budget ended the shrink early: an untried step is marked as untested, never left out. `shrink` decides
what to try, and in which order. `cases/wording` turns the counts into sentences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step
from graphquake.machines.shrinking.parameters import numbers
from graphquake.machines.shrinking.probdd import prior
from graphquake.machines.shrinking.trials import TrialLog, Tried


@dataclass(frozen=True, slots=True)
class Needed:
    """The runs of the minimal plan without one of its steps.

    Attributes:
        step: the step.
        broke: how many runs broke the promise all the same: too few of them to show the finding without the step.
        kept: how many runs kept the promise.
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
    """The runs of the minimal plan without its faults.

    Attributes:
        broke: how many runs broke the promise all the same.
        kept: how many runs kept it.
    """

    broke: int
    kept: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """The value from which on a number of the minimal plan matters.

    Attributes:
        step: the step that holds the number, or None for the plan's own stay.
        name: the field that holds the number. A name that ends with `_s` is in seconds.
        value: the number in the minimal plan: about the lowest that breaks the promise.
        below: the highest lower number that was run and did not show the finding.
        broke: how many runs with that lower number broke the promise.
        kept: how many of them kept it.
    """

    step: Step | None
    name: str
    value: float
    below: float
    broke: int
    kept: int


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The minimal plan, and the counts behind it.

    Attributes:
        plan: the smallest plan that broke the promise and shows the finding, or the original plan if no run showed it again.
        broke: how many runs of exactly this plan broke the promise, on fresh graphs.
        runs: how many such runs proved something.
        control_broke: how many runs of the plan without its faults broke the promise.
        control_runs: how many such runs proved something.
        needed: the runs without each step, in the order of the plan.
        thresholds: where each number that matters begins to matter.
        any_replica: whether other replicas of the same roles break the promise too, or None if that was not tried.
        live_runs: all live runs of the shrink, invalid ones included.
        complete: everything was tried. False if the budget ended the shrink.
        confirmed: a fresh run showed the violation again.
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
    """For each number with a lower value that was kept: the highest such value."""
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
    """The counts of the runs without each single step of a plan, in the order of the plan."""
    whole = prior(spec, minimal)
    for place, step in enumerate(minimal.steps):
        plan = whole.without(whole.mended(frozenset([place]))).plan
        count = log.count(plan)
        broke, kept = count.ever_broke, count.ever_kept
        yield Needed(step, broke, kept)
