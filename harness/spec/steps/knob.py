"""A number of a step that the shrinker may lower."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Knob:
    """A number of a step that the shrinker may lower.

    Attributes:
        name: the field of the step that holds the number.
        unit: the least difference between two values that the shrinker tries.
        least: the lowest value that the shrinker tries.
        seldom: true if the number matters in few failures. The shrinker first lowers all such numbers together, in one run.
        matters: true if the failure is known not to occur at `least`. The shrinker then does not try that value.
        is_time: true if a larger number makes the run longer.
    """

    name: str
    unit: float
    least: float
    seldom: bool = False
    matters: bool = False
    is_time: bool = False
