"""The numbers of a plan, and a search for small ones: waits, bursts, and the time of the run after the last step.

A `Number` reads and writes one value of a plan. `smallest` finds about the least value that is still accepted, by bisection. It asks a
function about each value, and does not know about runs or failure rates. Values only get lower, so the new plan embeds in the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.steps.knob import Knob

# Bisection ends when the gap between the rejected and the accepted value is at most this share of the accepted value.
# A tenth would cost one more run for each number.
WITHIN: Final = 0.18
# The same for a number that makes the run longer. Each value takes a long run, and a reader seldom needs the time that precisely.
WITHIN_TIME: Final = 0.5
STAY: Final = Knob("stay_s", 0.1, 0.0, seldom=True)


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a plan.

    Attributes:
        place: the index of the step that holds the number, or -1 for the plan's own `stay_s`.
        knob: the description of the number by the kind of the step.
    """

    place: int
    knob: Knob

    @property
    def name(self) -> str:
        """The name of the field that holds the number, such as `stay_s`."""
        return self.knob.name

    def of(self, plan: Plan) -> float:
        """The value of the number in a plan."""
        owner = plan if self.place < 0 else plan.steps[self.place]
        return float(getattr(owner, self.name))

    def put(self, plan: Plan, value: float) -> Plan:
        """The plan with another value of the number."""
        if self.place < 0:
            return replace(plan, stay_s=round(value, 2))
        return plan.with_step(self.place, plan.steps[self.place].turned(self.name, value))


def numbers(plan: Plan) -> Iterator[Number]:
    """The numbers of a plan. The numbers that make a run longer come first."""
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
    within: float = WITHIN,
) -> float:
    """Find about the least value of a number that is accepted.

    `least` is tried first, because most numbers do not matter. Then the interval between a rejected and an accepted value is halved, until
    it is at most a given share of the accepted value.

    Args:
        value: a value that is known to be accepted.
        least: the least value that may be tried.
        unit: the values between `least` and `value` are rounded to multiples of this.
        accepts: true if a value is accepted. It is called only for values from `least` on and below `value`.
        matters: if true, `least` is known to be rejected, and is not tried.
        within: that share.
    """
    if value <= least:
        return value
    if not matters and accepts(least):
        return least
    low = least
    while value - low > max(unit * 1.01, within * value):
        middle = round(round((low + value) / 2 / unit) * unit, 2)
        if not low < middle < value:
            break
        if accepts(middle):
            value = middle
        else:
            low = middle
    return value
