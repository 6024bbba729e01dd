"""The quality and the cost of one benchmark shrink, and statistics over many of them. Pure.

The medians are those of shrinks that ended with the finding. The share of the others stands beside them.
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
        says: `finding`, or the other word with which the way ended.
        steps: the length of its plan.
        is_minimal: whether it is the finding, and no single step of its plan can be left out.
        near, numbers: how many of how many numbers are about as small as they can be. It is 0 of 0 if the plan is not minimal.
        until_held: the live runs after the first failure until a plan with the final steps first broke (A). At low rates that may be a run
            for evidence, so A can exceed B.
        sought: all live runs except those for evidence alone, with confirmation (B).
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
    """Return the row of one result."""
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
    """Return the runs until a plan with the final steps first broke, or 0 if the shrink began with that plan."""
    final = _acts(result.plan)
    for number, one in enumerate(result.runs, start=1):
        if one.trial.kind == "broken" and _acts(one.plan) == final:
            return number
    return 0


def _acts(plan: Plan) -> list[Step | type[Step]]:
    """Return the steps of a plan without their numbers."""
    return [type(step) if isinstance(step, Burst | Wait) else step for step in plan.steps]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 95th percentile, or None without values."""

    median: float | None
    p95: float | None

    def __str__(self) -> str:
        if self.median is None or self.p95 is None:
            return "–"
        return f"{self.median:.0f} ({self.p95:.0f})"


def spread(values: Iterable[float]) -> Spread:
    """Return the median and the 95th percentile (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        return Spread(None, None)
    return Spread(statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1])


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of many shrinks of one way.

    Attributes:
        of: how many shrinks began with a failure.
        not_found: how many began without a failure. No other number counts them.
        minimal, near, other: the share of plans that are step-minimal, the share of numbers that are about as small as they can be, and the
            share of shrinks that ended with another word than `finding`.
        says: those other words, with counts.
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
    """Return the statistics of some rows."""
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
