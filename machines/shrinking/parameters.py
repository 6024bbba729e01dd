"""The numbers of a plan, and how to make them small: waits, bursts, and how long the run stays on.

A `Number` reads and writes one value of a plan. `smallest` finds about the least value that is still accepted, by bisection. It asks a
function about each value, and does not know about runs and rates. Values move only down, so the new plan embeds in the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.steps.kind import Knob

# The precision of a threshold, as a share of the value: within a quarter of it. A tenth would cost one run more a number.
WITHIN: Final = 0.18
STAY: Final = Knob("stay_s", 0.1, 0.0, seldom=True)


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a plan.

    Attributes:
        place: the index of its step, or -1 for the plan's own `stay_s`.
        knob: the step's description of it.
    """

    place: int
    knob: Knob

    @property
    def name(self) -> str:
        """The field that holds it."""
        return self.knob.name

    def of(self, plan: Plan) -> float:
        """Its value in a plan."""
        owner = plan if self.place < 0 else plan.steps[self.place]
        return float(getattr(owner, self.name))

    def put(self, plan: Plan, value: float) -> Plan:
        """The plan with another value."""
        if self.place < 0:
            return replace(plan, stay_s=round(value, 2))
        return plan.with_step(self.place, plan.steps[self.place].turned(self.name, value))


def numbers(plan: Plan) -> Iterator[Number]:
    """The numbers of a plan. Those that cost time when they are large come first."""
    if plan.stay_s:
        yield Number(-1, STAY)
    for is_time in (True, False):
        for place, step in enumerate(plan.steps):
            yield from (Number(place, knob) for knob in step.knobs() if knob.is_time == is_time)


def smallest(
    value: float,
    least: float,
    unit: float,
    accepts: Callable[[float], bool],
    *,
    matters: bool = False,
) -> float:
    """About the least value that is accepted.

    The least of all is asked first, because most numbers do not matter. Then the interval is halved until it is at most a fifth of the
    value.

    Args:
        value: a value that is accepted.
        least: the lower end.
        unit: values are multiples of it.
        accepts: tells whether a value will do. It is called only for values between `least` and `value`.
        matters: the least value is known not to be accepted.
    """
    if value <= least:
        return value
    if not matters and accepts(least):
        return least
    low = least
    while value - low > max(unit * 1.01, WITHIN * value):
        middle = round(round((low + value) / 2 / unit) * unit, 2)
        if not low < middle < value:
            break
        if accepts(middle):
            value = middle
        else:
            low = middle
    return value
