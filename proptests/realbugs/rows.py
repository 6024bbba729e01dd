"""The result of one search as data, and the tables over many of them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

# So many fresh runs of its plan confirm a finding, even if there was no time for the others.
CONFIRMED_RUNS: Final = 3


@dataclass(slots=True)
class Mark:
    """The cost of a search up to one moment.

    Attributes:
        runs: the live runs so far, invalid ones included.
        live_s: the sum of their durations, in seconds.
        wall_s: the seconds since the search began.
    """

    runs: int
    live_s: float
    wall_s: float


@dataclass(slots=True)
class Row:
    """The result of one search, or of another way to look for a bug.

    Attributes:
        entry: the name of the entry.
        way: how it was looked for: `search`, or the name of a baseline.
        release: `before` for the release with the bug, `after` for the one without it.
        system: the release in words.
        seed: the seed. A way without chance has seed 0.
        found: true if the bug was found.
        plan, by_hand: the steps of the plan that was found, and of the plan by hand.
        status: the status of the case, e.g. `open`. Empty for a way without cases.
        broke, of: how many of how many fresh runs of the plan broke.
        first, held, confirmed: the cost up to the first run that showed the bug, up to the first run of the minimal plan that showed it,
            and up to the saved case. None if the way did not get there.
        runs, live_s, wall_s: the cost of all of it.
        invalid: how many of its runs were invalid.
        others: other findings, one line each.
        error: the reason why the search did not end, or an empty text.
    """

    entry: str
    way: str
    release: str
    system: str
    seed: int
    found: bool = False
    plan: list[str] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    status: str = ""
    broke: int = 0
    of: int = 0
    first: Mark | None = None
    held: Mark | None = None
    confirmed: Mark | None = None
    runs: int = 0
    live_s: float = 0.0
    wall_s: float = 0.0
    invalid: int = 0
    others: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells two rows apart."""
        return self.entry, self.way, self.release, self.seed

    @property
    def is_minimal(self) -> bool:
        """True if the bug was found with at most one step more than by hand."""
        return self.found and len(self.plan) <= len(self.by_hand) + 1

    @property
    def is_confirmed(self) -> bool:
        """True if the case is open, or at least `CONFIRMED_RUNS` fresh runs showed the bug before the budget ended."""
        return self.found and (self.status == "open" or self.broke >= CONFIRMED_RUNS)

    @classmethod
    def of_json(cls, said: dict[str, Any]) -> Row:
        """Return the row that `dataclasses.asdict` wrote."""
        marks = {
            key: Mark(**said[key]) if said[key] else None for key in ("first", "held", "confirmed")
        }
        return cls(**(said | marks))


def line(row: Row) -> str:
    """Return one row as a line of text."""
    says = "found" if row.found else "not found"
    if row.error:
        says = f"ended by an error: {row.error}"
    text = f"{row.entry} {row.release} {row.way} {row.seed}: {says}, {row.runs} runs, {row.wall_s:.0f} s"
    for name, mark in (("first", row.first), ("minimal", row.held), ("confirmed", row.confirmed)):
        if mark:
            text += (
                f", {name} after {mark.runs} runs, {mark.live_s:.0f} live s, {mark.wall_s:.0f} s"
            )
    if row.plan:
        text += f", {len(row.plan)} steps for {len(row.by_hand)}, {row.broke} of {row.of} {row.status}: {'; '.join(row.plan)}"
    if row.others:
        text += f"; others: {' | '.join(row.others)}"
    return text


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table with a line for each entry and way, and a table of what was found on releases without the bug."""
    lines = [
        "| entry | system | way | found | first failure | minimal plan | confirmed | steps | broke |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    before = [row for row in rows if row.release == "before"]
    for entry, way in dict.fromkeys((row.entry, row.way) for row in before):
        lines.append(_line_of([row for row in before if (row.entry, row.way) == (entry, way)]))
    lines.append(f"\n{_sum_up(before)}")
    if after := [row for row in rows if row.release == "after"]:
        lines += ["", "| entry | system without the bug | way | the bug | other findings |", "|---|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| {row.entry} | {row.system} | {row.way} {row.seed} | {'FOUND' if row.found else 'not found'} "
            f"| {'<br>'.join(row.others) or 'none'} |"
            for row in after
        ]
    return "\n".join(lines)


def _line_of(rows: Sequence[Row]) -> str:
    hits = [row for row in rows if row.found]
    steps = ", ".join(str(len(row.plan)) for row in hits)
    return (
        f"| {rows[0].entry} | {rows[0].system} | {rows[0].way} | {len(hits)} of {len(rows)} "
        f"| {_middle(row.first for row in hits)} | {_middle(row.held for row in hits)} "
        f"| {_middle(row.confirmed for row in hits)} "
        f"| {f'{steps} for {len(rows[0].by_hand)}' if hits else ''} "
        f"| {', '.join(f'{row.broke} of {row.of}' for row in hits if row.of)} |"
    )


def _middle(marks: Iterable[Mark | None]) -> str:
    """The medians of some costs as text: runs, live seconds and seconds."""
    there = [mark for mark in marks if mark]
    if not there:
        return ""
    runs = statistics.median(mark.runs for mark in there)
    live_s = statistics.median(mark.live_s for mark in there)
    wall_s = statistics.median(mark.wall_s for mark in there)
    return f"{runs:g} runs, {live_s:.0f} live s, {wall_s:.0f} s"


def _sum_up(rows: Sequence[Row]) -> str:
    said = []
    for way in dict.fromkeys(row.way for row in rows):
        of = [row for row in rows if row.way == way]
        hits = [row for row in of if row.found]
        good = [row for row in hits if row.is_minimal and row.is_confirmed]
        text = f"{way}: {len(hits)} of {len(of)} found the bug, {len(good)} with a confirmed plan of at most one step more than by hand"
        text += f"; {sum(row.live_s for row in of):.0f} live s in all"
        if times := [row.confirmed.wall_s for row in good if row.confirmed]:
            text += f"; median {statistics.median(times):.0f} s to the confirmation"
        said.append(f"- {text}")
    return "\n".join(said)
