"""The numbers of a plan, and how to make them small: waits, bursts, and how long the run stays on.

A `Number` is one of them: it reads and writes its value in a plan. `smallest` finds about the least value that is still accepted, by
bisection. It asks a function for each value and knows nothing of runs and rates. Values move only down, so that the plan
that comes out embeds in the one that went in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from graphquake.harness.spec.plan import Burst, Plan, Stall, Step, Wait

# How exactly a threshold is looked for, as a share of the value: within a quarter of it. A tenth would cost one run more a number.
WITHIN: Final = 0.18


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a plan.

    Attributes:
        place: the index of its step; -1 for the plan's own `stay_s`.
        name: the field that holds it.
        unit: the least difference that matters.
        least: the least value that is worth a run; smaller ones are as good as it.
        seldom: it matters in few failures.
        matters: it matters for sure: at its least the step would be none, and without the step the plan was kept.
    """

    place: int
    name: str
    unit: float
    least: float
    seldom: bool = False
    matters: bool = False

    def of(self, plan: Plan) -> float:
        """Its value in a plan."""
        owner = plan if self.place < 0 else plan.steps[self.place]
        return float(getattr(owner, self.name))

    def put(self, plan: Plan, value: float) -> Plan:
        """The plan with another value."""
        if self.place < 0:
            return replace(plan, stay_s=round(value, 2))
        step = plan.steps[self.place]
        new: Step
        match step, self.name:
            case Burst(), "requests":
                new = replace(step, requests=round(value))
            case Burst(), "over_s":
                new = replace(step, over_s=round(value, 2))
            case Burst(), "leave":
                new = replace(step, leave=round(value, 2))
            case Stall(), _:
                new = replace(step, for_s=round(value, 2))
            case _:
                new = Wait(round(value, 2))
        return replace(plan, steps=(*plan.steps[: self.place], new, *plan.steps[self.place + 1 :]))


def numbers(plan: Plan) -> Iterator[Number]:
    """The numbers of a plan; the one that costs the most time when it is large comes first."""
    if plan.stay_s:
        yield Number(-1, "stay_s", 0.1, 0.0, seldom=True)
    for place, step in enumerate(plan.steps):
        if isinstance(step, Wait | Stall):
            yield Number(place, "for_s", 0.01, 0.05, matters=isinstance(step, Wait))
    for place, step in enumerate(plan.steps):
        if isinstance(step, Burst):
            yield Number(place, "leave", 0.05, 0.0, seldom=True)
            yield Number(place, "over_s", 0.01, 0.0, seldom=True)
            yield Number(place, "requests", 1.0, 1.0)


def smallest(
    value: float,
    least: float,
    unit: float,
    accepts: Callable[[float], bool],
    *,
    matters: bool = False,
) -> float:
    """About the least value that is accepted.

    The least of all is asked first: most numbers do not matter. Then by halves, until what is left open is within a fifth.

    Args:
        matters: it is known that the least of all is not accepted.
        value: one that is accepted.
        least: where to end.
        unit: values are multiples of it.
        accepts: whether a value will do; asked for values between `least` and `value` only.
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
