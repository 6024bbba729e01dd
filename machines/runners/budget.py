"""Budgets in seconds and in live runs. A session, each shrink and each replay has one.

A user writes a budget as `20m`, `60runs` or `20m,60runs`. This module imports only the standard library, because every pytest in an
environment with graphquake imports it.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field
from typing import Final

NO_BOUND: Final = float("inf")
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?\Z")
_RUNS: Final = re.compile(r"(\d+)runs?\Z")


class BudgetSpent(BaseException):
    """No further run fits into a budget. This may be the budget of one graph in the session, of one shrink, or of one replay."""


def parse_duration(text: str) -> float:
    """Read a duration such as `90`, `90s`, `20m` or `1h30m`, in seconds.

    Raises:
        ValueError: if the text is not a duration. The message names the text that was found and a correct one.
    """
    if text.isdecimal():
        return float(text)
    found = _DURATION.match(text)
    if not text or not found:
        raise ValueError(
            f'found "{text}", expected a duration such as 90s, 20m or 1h30m, runs such as 60runs, or both with a comma'
        )
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def duration_text(seconds: float) -> str:
    """Write a duration as a budget is written, rounded to whole seconds: `45s`, `2m05s`."""
    whole = round(seconds)
    return f"{whole // 60}m{whole % 60:02}s" if whole >= 60 else f"{whole}s"  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Limit:
    """The bounds of a budget, as the user wrote them.

    Attributes:
        seconds: the most seconds, or infinity if there is no bound.
        runs: the most live runs, or infinity if there is no bound.
    """

    seconds: float = NO_BOUND
    runs: float = NO_BOUND

    def begin(self, share: float = 1.0) -> Budget:
        """Return a budget that begins now, with a share (0 to 1) of these bounds."""
        return Budget(self.seconds * share, self.runs * share)


UNLIMITED: Final = Limit()


def parse_limit(text: str) -> Limit:
    """Read a limit such as `20m`, `60runs` or `20m,60runs`.

    Raises:
        ValueError: if the text is not a limit. The message names the text that was found and a correct one.
    """
    seconds = runs = NO_BOUND
    for part in text.replace(" ", "").split(","):
        if found := _RUNS.match(part):
            runs = float(found[1])
        else:
            seconds = parse_duration(part)
    return Limit(seconds, runs)


@dataclass(slots=True)
class Budget:
    """A budget that is being spent.

    Attributes:
        total_s: the seconds in all, or infinity if there is no bound.
        total_runs: the live runs in all, or infinity if there is no bound.
        begun_s: `time.monotonic()` when the budget began.
        begun_runs: the number of runs that were begun.
        whole: the budget of which this one is a share, or None if it is not a share.
    """

    total_s: float
    total_runs: float = NO_BOUND
    begun_s: float = field(default_factory=time.monotonic)
    begun_runs: int = 0
    whole: Budget | None = None

    @property
    def spent_s(self) -> float:
        """The seconds since the budget began."""
        return time.monotonic() - self.begun_s

    @property
    def left_s(self) -> float:
        """The seconds that are left. Never negative."""
        return max(0.0, self.total_s - self.spent_s)

    @property
    def left_runs(self) -> float:
        """The number of runs that may still be begun. Never negative."""
        return max(0.0, self.total_runs - self.begun_runs)

    def share(self, of: float) -> Budget:
        """A budget with a share (0 to 1) of the rest of this budget. Its runs count in this budget, too."""
        return Budget(self.left_s * of, self.left_runs * of, whole=self)

    def has_room(self, run_s: float) -> bool:
        """True if one more run that takes `run_s` seconds fits into the rest of the budget, and of the one of which this is a share."""
        if self.whole is not None and not self.whole.has_room(run_s):
            return False
        return self.left_s > 0 and self.left_s >= run_s and self.left_runs >= 1

    def begin_run(self) -> None:
        """Count one run, here and in the budget of which this one is a share."""
        self.begun_runs += 1
        if self.whole is not None:
            self.whole.begin_run()


class Budgets:
    """Divides a session's budget among its graphs. When the turn of a graph comes, the rest is divided equally among those to come.

    Args:
        limit: the budget of the whole session.
        graphs: the number of graphs.
    """

    def __init__(self, limit: Limit, graphs: int) -> None:
        self._limit, self._graphs = limit, graphs
        self._given: list[Budget] = []

    def next(self) -> Budget:
        """Begin the budget of the next graph."""
        begun_s = self._given[0].begun_s if self._given else time.monotonic()
        left_s = max(0.0, self._limit.seconds - (time.monotonic() - begun_s))
        left_runs = self._limit.runs - sum(one.begun_runs for one in self._given)
        share = max(1, self._graphs)
        self._graphs -= 1
        runs = left_runs if math.isinf(left_runs) else left_runs // share
        self._given.append(Budget(left_s / share, runs))
        return self._given[-1]
