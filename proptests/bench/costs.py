"""The live seconds of a simulated run, and the least numbers with which a plan still shows its bug. No way of shrinking knows either.

The seconds were measured on a small real graph. Each stands beside its reason. Another engine is another `Costs`: an engine that starts in
31 s and whose run lasts 45 s differs in two numbers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from graphquake.harness.spec.plan import Plan
from graphquake.machines.shrinking.parameters import Number, numbers
from graphquake.machines.shrinking.trials import Trial

from support.simulated import SPEC, Shape, repetitions, shown_s, timeline

# A number counts as small if it exceeds the least value that still shows the bug by at most this share.
NEAR: Final = 0.25
# Waits are added as floats: 0.80 s after a kill may be 0.7999.
SLACK: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Costs:
    """The seconds of one live run.

    Attributes:
        start_s: the start of a fresh graph, whose processes are forked from one that has imported everything.
        baseline_s: the load before the plan, against which the rest is judged.
        after_s: the phases of a kept run after its plan: heal, recover (clients calm for 0.5 s), steady (half a second beyond W), drain.
        tick_s: how often a run is judged while it goes on. A broken run ends at most one tick after its violation.
    """

    start_s: float = 0.55
    baseline_s: float = 0.6
    after_s: float = 1.8
    tick_s: float = 0.25

    def run_s(self, shape: Shape, plan: Plan, trial: Trial) -> float:
        """Return the seconds of one run. An invalid run ends with its plan, like an example that Hypothesis stops drawing."""
        moments = timeline(SPEC, plan)
        begun_s = self.start_s + self.baseline_s
        planned_s = begun_s + (moments[-1].at_s if moments else 0.0)
        if trial.kind == "invalid":
            return planned_s
        whole_s = planned_s + self.after_s + plan.stay_s
        at_s = None if trial.kind == "kept" else _shown_s(shape, plan, trial.last_step)
        if at_s is None:
            return whole_s
        return min(whole_s, begun_s + at_s + self.tick_s)


def _shown_s(shape: Shape, plan: Plan, last_step: int) -> float | None:
    """Return when a broken run showed its bug: in the repetition to which the last step before it belongs."""
    ends = itertools.accumulate(len(part.steps) for part in repetitions(plan))
    repetition = next((number for number, end in enumerate(ends) if last_step < end), 0)
    return shown_s(shape, plan, repetition)


@dataclass(frozen=True, slots=True)
class Size:
    """One number of a plan, and its least value that still shows the bug while the other numbers stay."""

    name: str
    value: float
    least: float
    unit: float

    @property
    def is_near(self) -> bool:
        """True if the number is about as small as it can be."""
        return self.value <= max(self.least * (1 + NEAR), self.least + self.unit) + SLACK


def sizes(shape: Shape, plan: Plan) -> list[Size]:
    """Return the numbers of a plan that cost time: requests of bursts, seconds of waits, and the long stay."""
    return [
        Size(number.name, number.of(plan), least_value(shape, plan, number), number.knob.unit)
        for number in numbers(plan)
        if number.name in ("requests", "for_s", "stay_s")
    ]


def least_value(shape: Shape, plan: Plan, number: Number) -> float:
    """Return the least value of a number that still shows the bug, by bisection with the predicate. It does not make runs."""

    def shows(units: int) -> bool:
        return shape.at_s(number.put(plan, units * number.knob.unit)) is not None

    low, high = (
        round(number.knob.least / number.knob.unit),
        round(number.of(plan) / number.knob.unit),
    )
    if high <= low:
        return number.of(plan)
    if shows(low):
        return number.knob.least
    while high - low > 1:
        middle = (low + high) // 2
        if shows(middle):
            high = middle
        else:
            low = middle
    return round(high * number.knob.unit, 2)
