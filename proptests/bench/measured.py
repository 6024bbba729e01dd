"""What one shrink of the benchmark was worth and what it cost, and the numbers over many of them. Pure.

Where a way says anything but the finding, what it cost does not count: the medians are those of shrinks that ended with a plan. How many
did not stands beside them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphquake.harness.spec.plan import Burst, Plan, Step, Wait

from bench.costs import sizes
from bench.ways import FINDING, NOT_FOUND, Result
from support.simulated import Shape


@dataclass(frozen=True, slots=True)
class Row:
    """One shrink.

    Attributes:
        says: `finding`, or what the way said instead.
        steps: the length of its plan.
        is_minimal: whether it is the finding, and no single step of it is too many.
        near, numbers: how many of how many numbers are about as small as can be; 0 of 0 if it is not minimal.
        until_held: live runs after the first failure until a plan of the final steps was first seen to break (A); at low
            rates that may be a run that was made for evidence, so this can exceed B.
        sought: all live runs that were no mere evidence, with confirmation (B).
        runs: all live runs (C).
        sought_s, live_s: live seconds of B and of C.
    """

    way: str
    shape: str
    rate: float
    seed: int
    says: str
    steps: int
    is_minimal: bool
    near: int
    numbers: int
    until_held: int
    sought: int
    runs: int
    sought_s: float
    live_s: float
    plan: str


def row_of(way: str, shape: Shape, rate: float, seed: int, result: Result) -> Row:
    """Look at one result."""
    is_minimal = result.says == FINDING and shape.is_step_minimal(result.plan)
    own = sizes(shape, result.plan) if is_minimal else []
    return Row(
        way=way,
        shape=shape.name,
        rate=rate,
        seed=seed,
        says=result.says,
        steps=len(result.plan.steps),
        is_minimal=is_minimal,
        near=sum(size.is_near for size in own),
        numbers=len(own),
        until_held=until_held(result),
        sought=sum(not one.evidence for one in result.runs),
        runs=len(result.runs),
        sought_s=round(result.sought_s, 2),
        live_s=round(result.live_s, 2),
        plan=result.plan.one_line(),
    )


def until_held(result: Result) -> int:
    """How many runs until a plan of the final steps was first seen to break; 0 if that is the plan it began with."""
    final = _acts(result.plan)
    for number, one in enumerate(result.runs, start=1):
        if one.trial.kind == "broken" and _acts(one.plan) == final:
            return number
    return 0


def _acts(plan: Plan) -> list[Step | type[Step]]:
    """The steps of a plan without their numbers."""
    return [type(step) if isinstance(step, Burst | Wait) else step for step in plan.steps]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 95th percentile; None for nothing."""

    median: float | None
    p95: float | None

    def __str__(self) -> str:
        if self.median is None or self.p95 is None:
            return "–"
        return f"{self.median:.0f} ({self.p95:.0f})"


def spread(values: Iterable[float]) -> Spread:
    """The median of some values, and the least that 95% of them do not exceed."""
    ordered = sorted(values)
    if not ordered:
        return Spread(None, None)
    return Spread(statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1])


@dataclass(frozen=True, slots=True)
class Summary:
    """Many shrinks of one way.

    Attributes:
        of: how many had a failure to begin with.
        not_found: how many had none, and are left out of everything else.
        minimal, near, other: shares of those: step-minimal; numbers about as small as can be; anything but the finding shown.
        says: what was said instead, and how often.
    """

    of: int
    not_found: int
    minimal: float
    near: float | None
    other: float
    says: dict[str, int]
    until_held: Spread
    sought: Spread
    runs: Spread
    sought_s: Spread
    live_s: Spread


def summary(rows: Sequence[Row]) -> Summary:
    """The numbers over some rows."""
    begun = [row for row in rows if row.says != NOT_FOUND]
    shown = [row for row in begun if row.says == FINDING]
    others = [row.says for row in begun if row.says != FINDING]
    numbers = sum(row.numbers for row in begun)
    return Summary(
        of=len(begun),
        not_found=len(rows) - len(begun),
        minimal=_share(sum(row.is_minimal for row in begun), len(begun)),
        near=sum(row.near for row in begun) / numbers if numbers else None,
        other=_share(len(others), len(begun)),
        says={word: others.count(word) for word in sorted(set(others))},
        until_held=spread(row.until_held for row in shown),
        sought=spread(row.sought for row in shown),
        runs=spread(row.runs for row in shown),
        sought_s=spread(row.sought_s for row in shown),
        live_s=spread(row.live_s for row in shown),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
