"""The result of a shrink: the minimal plan, and the counts of the runs that support it.

Every count is there, even if the budget ended the shrink early: an untried step is marked as untested, never left out. `shrink` decides
which runs are made, and in which order. `cases/wording` turns the counts into sentences.
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
        step: the step that was left out.
        broke: how many of these runs broke the promise. If there are any, they were too few, so the smaller plan was given up.
        kept: how many of these runs kept the promise.
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
        broke: how many of these runs broke the promise, although there was no fault.
        kept: how many of these runs kept the promise.
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
        below: the highest number lower than `value` with which a run kept the promise.
        broke: how many runs with the number `below` broke the promise.
        kept: how many runs with the number `below` kept the promise.
    """

    step: Step | None
    name: str
    value: float
    below: float
    broke: int
    kept: int


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The minimal plan, and the counts of the runs that support it.

    Attributes:
        plan: the minimal plan, or the original plan if no run showed the finding again.
        broke: how many runs of exactly this plan broke the promise, on fresh graphs.
        runs: how many runs of exactly this plan broke or kept the promise, on fresh graphs.
        control_broke: how many runs of the plan without its faults broke the promise.
        control_runs: how many runs of the plan without its faults broke or kept the promise.
        needed: for each step, the counts of the runs without it, in the order of the plan.
        thresholds: for each number that matters, the value from which on it matters.
        any_replica: true if other replicas of the same roles break the promise, too. None if no run says so or denies it.
        live_runs: the number of all live runs of the shrink, invalid ones included.
        complete: true if everything was tried. False if the budget ended the shrink, or if the runs of the plan became invalid.
        confirmed: true if a run on a fresh graph showed the violation again.
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
    """Yield the threshold of each number of the minimal plan, if a run with a lower value of the number kept the promise."""
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
    """Yield, for each step of the minimal plan in order, the counts of the runs without that step."""
    whole = prior(spec, minimal)
    for place, step in enumerate(minimal.steps):
        plan = whole.without(whole.mended(frozenset([place]))).plan
        count = log.count(plan)
        broke, kept = count.ever_broke, count.ever_kept
        yield Needed(step, broke, kept)
