"""The output of the shrinker benchmark: two Markdown tables, and the numbers that are wanted of our shrinker. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.measured import Row, Summary, summary
from support.simulated import SHAPES

# The wanted numbers are about bugs of at most this many steps.
CHECKED_STEPS_MAX: Final = 4
CHECKED: Final = "ours"
AGAINST: Final = "hypothesis"
WAYS_HEAD: Final = (
    "| way | rate | step-minimal | numbers within 25% | runs A | runs B | runs C | lower bound | live s, B | live s, C "
    "| anything but the finding | not found |"
)


def lower_bound(steps: int) -> int:
    """Return the fewest runs for a plan of k steps whose bug always shows: one broken run, and one kept run for each removal."""
    return steps + 1


def ways_table(rows: Sequence[Row], ways: Sequence[str]) -> str:
    """Return a line for each way and rate over all bugs: median (95th percentile) of runs and seconds."""
    bound = statistics.median(lower_bound(shape.steps) for shape in SHAPES)
    lines = [
        WAYS_HEAD,
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for way in ways:
        own = [row for row in rows if row.way == way]
        for rate in sorted({row.rate for row in own}, reverse=True):
            one = summary([row for row in own if row.rate == rate])
            near = "–" if one.near is None else f"{one.near:.0%}"
            lines.append(
                f"| {way} | {rate:g} | {one.minimal:.0%} | {near} | {one.until_held} | {one.sought} | {one.runs} "
                f"| {f'{bound:g}' if rate == 1 else '–'} | {one.sought_s} | {one.live_s} | {_others(one)} "
                f"| {one.not_found or ''} |"
            )
    return "\n".join(lines)


def _others(one: Summary) -> str:
    if not one.says:
        return "0%"
    return f"{one.other:.1%} ({', '.join(f'{word} {count}' for word, count in one.says.items())})"


def shapes_table(rows: Sequence[Row], ways: Sequence[str]) -> str:
    """Return a line for each bug at rate 1: the share of step-minimal plans, and the medians of A and B of each way."""
    head = "".join(f" {way}: minimal, A, B |" for way in ways)
    lines = [f"| at rate 1 | lower bound |{head}", "|---|---|" + "---|" * len(ways)]
    for shape in SHAPES:
        cells = []
        for way in ways:
            own = [r for r in rows if (r.way, r.shape, r.rate) == (way, shape.name, 1.0)]
            one = summary(own)
            a, b = one.until_held.median, one.sought.median
            cells.append("–" if a is None or b is None else f"{one.minimal:.0%}, {a:.0f}, {b:.0f}")
        lines.append(f"| {shape.name} | {lower_bound(shape.steps)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Check:
    """One wanted number. `is_met` is None if the number was not measured."""

    text: str
    is_met: bool | None

    def __str__(self) -> str:
        says = {True: "met", False: "MISSED", None: "not measured"}[self.is_met]
        return f"{says}: {self.text}"


def _most(what: str, value: float | None, bound: float) -> Check:
    if value is None:
        return Check(f"{what} at most {bound:g}", None)
    return Check(f"{what} at most {bound:g}: {value:.4g}", value <= bound)


def _least(what: str, one: Summary, bound: float) -> Check:
    if not one.of:
        return Check(f"{what} at least {bound:.0%}", None)
    return Check(f"{what} at least {bound:.0%}: {one.minimal:.1%}", one.minimal >= bound)


def checks(rows: Sequence[Row]) -> list[Check]:
    """Check the wanted numbers of our shrinker, over all bugs of at most four steps."""
    short = {shape.name for shape in SHAPES if shape.steps <= CHECKED_STEPS_MAX}

    def of(way: str, rate: float) -> Summary:
        return summary([r for r in rows if (r.way, r.rate) == (way, rate) and r.shape in short])

    always, often, seldom = (of(CHECKED, rate) for rate in (1.0, 0.6, 0.3))
    theirs = of(AGAINST, 1.0)
    ratio = (
        None
        if always.live_s.median is None or not theirs.live_s.median
        else always.live_s.median / theirs.live_s.median
    )
    return [
        _least("rate 1: step-minimal", always, 1.0),
        _most("rate 1: runs A, median", always.until_held.median, 12),
        _most("rate 1: runs A, 95th percentile", always.until_held.p95, 20),
        _most("rate 1: runs B, median", always.sought.median, 22),
        _most("rate 1: runs B, 95th percentile", always.sought.p95, 35),
        _most(f"rate 1: live seconds (C) as a share of those of {AGAINST}", ratio, 0.2),
        _least("rate .6: step-minimal", often, 0.95),
        _most("rate .6: runs B, median", often.sought.median, 45),
        _least("rate .3: step-minimal within 120 runs", seldom, 0.80),
        _most(
            "rate 1: seconds of a shrink (C) with 2 slots, of one slot's", _of_one(rows, 2), 0.65
        ),
        _most(
            "rate 1: seconds of a shrink (C) with 4 slots, of one slot's", _of_one(rows, 4), 0.45
        ),
    ]


def _of_one(rows: Sequence[Row], slots: int) -> float | None:
    """Return the share of one slot's time that a shrink takes with more slots: the median over all bugs and seeds, at rate 1."""
    one = {(r.shape, r.seed): r.live_s for r in rows if (r.way, r.rate) == (CHECKED, 1.0)}
    more = [r for r in rows if (r.way, r.rate) == (f"{CHECKED}, {slots} slots", 1.0)]
    ratios = [r.live_s / one[r.shape, r.seed] for r in more if (r.shape, r.seed) in one]
    return statistics.median(ratios) if ratios else None
