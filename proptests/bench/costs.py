"""What a simulated run would take live, and how small the numbers of a plan could be. No way to shrink knows either.

The seconds are those of a small real graph on one machine; each stands beside its reason. Another engine is another `Costs`: one that
starts in 31 s and whose run goes on for 45 s differs in two numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from graphquake.harness.promises.verdict import VerdictKind
from graphquake.harness.spec.plan import Plan
from graphquake.machines.shrinking.parameters import Number, numbers

from support.simulated import SPEC, Shape, timeline

# A number is small enough if it is within this share of the least value that still shows the bug.
NEAR: Final = 0.25
# Waits are summed up in floats: 0.80 s after a kill may be 0.7999.
SLACK: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Costs:
    """The seconds of one live run.

    Attributes:
        start_s: until a fresh graph is ready. Its processes are forked from one that has imported everything.
        baseline_s: the load before the plan, against which the rest is judged.
        after_s: what a kept run does after its plan: heal, recover (clients calm for 0.5 s), steady (half a second beyond W), drain.
        tick_s: how often a run is judged while it goes on. A broken one ends at its violation and at most one such tick later.
    """

    start_s: float = 0.55
    baseline_s: float = 0.6
    after_s: float = 1.8
    tick_s: float = 0.25

    def run_s(self, shape: Shape, plan: Plan, says: VerdictKind) -> float:
        """What one run takes; an invalid one is cut where its plan ends, as Hypothesis cuts what it does not want to draw on."""
        moments = timeline(SPEC, plan)
        begun_s = self.start_s + self.baseline_s
        planned_s = begun_s + (moments[-1].at_s if moments else 0.0)
        if says == "invalid":
            return planned_s
        whole_s = planned_s + self.after_s + plan.stay_s
        at_s = shape.at_s(plan)
        if says == "kept" or at_s is None:
            return whole_s
        return min(whole_s, begun_s + at_s + self.tick_s)


@dataclass(frozen=True, slots=True)
class Size:
    """One number of a plan, and the least value of it that still shows the bug while the others are as they are."""

    name: str
    value: float
    least: float
    unit: float

    @property
    def is_near(self) -> bool:
        """Whether it is about as small as it can be."""
        return self.value <= max(self.least * (1 + NEAR), self.least + self.unit) + SLACK


def sizes(shape: Shape, plan: Plan) -> list[Size]:
    """The numbers of a plan that are worth to be small: how many requests, how long a wait, how long the run stays."""
    return [
        Size(number.name, number.of(plan), least_value(shape, plan, number), number.unit)
        for number in numbers(plan)
        if number.name in ("requests", "for_s", "stay_s")
    ]


def least_value(shape: Shape, plan: Plan, number: Number) -> float:
    """The least value of a number that still shows the bug, by bisection down to its unit; no run, only the predicate."""

    def shows(units: int) -> bool:
        return shape.at_s(number.put(plan, units * number.unit)) is not None

    low, high = round(number.least / number.unit), round(number.of(plan) / number.unit)
    if high <= low:
        return number.of(plan)
    if shows(low):
        return number.least
    while high - low > 1:
        middle = (low + high) // 2
        if shows(middle):
            high = middle
        else:
            low = middle
    return round(high * number.unit, 2)
