"""Which drawn plans are alike, so that live runs go to those that are not.

Hypothesis follows up each plan that it draws with a few that differ from it in a number or two, which is good for properties that
take a microsecond and a waste where a run takes seconds. Two plans have the same shape if they do the same things to the same kind of
replicas in the same order, whatever their numbers. A shape is run once, until nothing but shapes that were run is drawn any more; then
once more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from graphquake.harness.plan import Burst, Kill, Plan, Respawn, Stall, Terminate, Wait

Shape: TypeAlias = tuple[str, ...]

# After so many draws in a row of shapes that had their turn, each has one more.
PASSED_OVER_MAX: Final = 100


def shape_of(plan: Plan) -> Shape:
    """What a plan does, without waits and numbers; replicas are told apart by the order in which they are met."""
    met: dict[tuple[str, int], int] = {}
    shape = []
    for step in plan.steps:
        match step:
            case Kill() | Terminate() | Stall() | Respawn():
                of_role = [index for role, index in met if role == step.role]
                number = met.setdefault((step.role, step.index), len(of_role))
                scope = step.scope if isinstance(step, Kill) else ""
                shape.append(f"{type(step).__name__} {step.role} {number} {scope}")
            case Burst():
                shape.append("Burst")
            case Wait():
                pass
            case _:
                shape.append(str(step))
    return tuple(shape)


@dataclass(slots=True)
class Shapes:
    """The shapes that were run, and whether it is anybody's turn again."""

    _runs: Counter[Shape] = field(default_factory=Counter)
    _turns: int = 1
    _passed_over: int = 0

    def has_turn(self, plan: Plan) -> bool:
        """Whether a plan of this shape may be run now; to be asked once for each draw."""
        if self._runs[shape_of(plan)] < self._turns:
            self._passed_over = 0
            return True
        self._passed_over += 1
        if self._passed_over >= PASSED_OVER_MAX:
            self._passed_over, self._turns = 0, self._turns + 1
        return False

    def ran(self, plan: Plan) -> None:
        """A plan was run."""
        self._runs[shape_of(plan)] += 1
