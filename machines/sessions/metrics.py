"""The numbers of searches as Prometheus metrics.

They come from the state files of the searches (see `live_state`), which are read at each scrape. So one endpoint shows all processes
that divide a search, and it touches nothing that a search uses. A file is written at the start and at the end of each run, and twice a
second meanwhile.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from graphquake.machines.runners.run_tally import FaultCount, added_up
from graphquake.machines.sessions.live_state import NAME, LiveState, read_state

# The statuses of a finding that fresh runs did not show again, or that was not shrunk.
NOT_CONFIRMED: Final = frozenset({"unconfirmed", "unshrunk"})
VERDICTS: Final = ("kept", "broken", "invalid")
# The key in `LiveState.drawn` for plans that were run.
RUN: Final = "run"
PREFIX: Final = "graphquake_"


@dataclass(frozen=True, slots=True)
class Search:
    """One search, with all processes that divide it.

    Attributes:
        graph: the name of the graph. For a `chaos` class it is the name of its results folder.
        parts: the state of each process.
    """

    graph: str
    parts: list[LiveState]

    def total(self, name: str) -> float:
        """The sum of a number over all processes."""
        return float(sum(getattr(one, name) or 0 for one in self.parts))

    def counted(self, name: str) -> Counter[str]:
        """The sums of a table of counts over all processes."""
        total: Counter[str] = Counter()
        for one in self.parts:
            total.update(getattr(one, name))
        return total

    @property
    def spent_s(self) -> float:
        """The seconds of the budget that are spent, also since the files were written. All processes spend them at the same time."""
        now = time.time()
        return max(
            one.spent_s + (max(0.0, now - one.written) if one.lives else 0.0) for one in self.parts
        )

    @property
    def lives(self) -> bool:
        """True while one of the processes runs."""
        return any(one.lives for one in self.parts)

    @property
    def budget_s(self) -> float:
        """The budget in seconds, or infinity."""
        return max(math.inf if one.budget_s is None else one.budget_s for one in self.parts)

    @property
    def budget_runs(self) -> float:
        """The budget in live runs, or infinity."""
        return sum(math.inf if one.budget_runs is None else one.budget_runs for one in self.parts)

    @property
    def faults(self) -> list[FaultCount]:
        """The faults, by kind and target."""
        return added_up(FaultCount(**row) for one in self.parts for row in one.faults)

    @property
    def in_force(self) -> list[FaultCount]:
        """The faults of the processes that live: those of another one ended with it. Kinds and targets without a fault stay, too."""
        rows = [(one.lives, FaultCount(**row)) for one in self.parts for row in one.faults]
        for lives, row in rows:
            row.landed = row.landed if lives else row.ended
        return added_up(row for _, row in rows)

    @property
    def slots_in_use(self) -> float:
        """The number of runs that go on now."""
        return float(sum(one.slots_in_use for one in self.parts if one.lives))


def searches_of(results: Path, since: float) -> list[Search]:
    """Read the searches of this process, and of the pytest-xdist workers that it controls.

    Args:
        results: the results folder.
        since: the time before which these searches did not begin, as `time.time()`. A file of an earlier process may have the same pid.
    """
    found: dict[str, Search] = {}
    for pattern in (f"*/{NAME}", f"*/shard-*/{NAME}"):
        for path in sorted(results.glob(pattern)):
            state = read_state(path.parent)
            if state is None or state.began < since:
                continue
            if os.getpid() in (state.pid, state.controller):
                name = path.relative_to(results).parts[0]
                found.setdefault(name, Search(name, [])).parts.append(state)
    return list(found.values())


# Values of labels beside `graph`, and the value of the metric.
Row: TypeAlias = tuple[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric.

    Attributes:
        name: its name, without the prefix and without `_total`.
        text: its help text.
        rows: gives the values for one search.
        labels: the names of its labels beside `graph`.
        is_counter: true for a counter, false for a gauge.
    """

    name: str
    text: str
    rows: Callable[[Search], Iterable[Row]]
    labels: tuple[str, ...] = ()
    is_counter: bool = False

    def family(self, searches: Iterable[Search]) -> Metric:
        """The metric with the values of some searches."""
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        family = kind(PREFIX + self.name, self.text, labels=("graph", *self.labels))
        for search in searches:
            for labels, value in self.rows(search):
                family.add_metric((search.graph, *labels), value)
        return family


def _gauge(name: str, text: str, value: Callable[[Search], float]) -> Definition:
    return Definition(name, text, lambda search: [((), value(search))])


def _counter(name: str, text: str, value: Callable[[Search], float]) -> Definition:
    return Definition(name, text, lambda search: [((), value(search))], is_counter=True)


def _faults(name: str, text: str, value: Callable[[FaultCount], int]) -> Definition:
    def rows(search: Search) -> Iterator[Row]:
        total: Counter[str] = Counter()
        for one in search.faults:
            total[one.kind] += value(one)
        yield from (((kind,), number) for kind, number in total.items())

    return Definition(name, text, rows, ("kind",), is_counter=True)


def _by_target(
    name: str,
    text: str,
    value: Callable[[FaultCount], float],
    of: Callable[[Search], Iterable[FaultCount]] = lambda search: search.faults,
) -> Definition:
    """A gauge for each kind and target of faults. A value of 0 s since the epoch is left out: there was no such time yet."""
    is_time = name.endswith("timestamp_seconds")

    def rows(search: Search) -> Iterator[Row]:
        for one in of(search):
            if (number := value(one)) or not is_time:
                yield (one.kind, one.target), number

    return Definition(name, text, rows, ("kind", "target"))


DEFINITIONS: Final = (
    Definition(
        "search_info",
        "The seed of the search. The value is always 1.",
        lambda search: [((str(search.parts[0].seed),), 1.0)],
        ("seed",),
    ),
    _gauge(
        "search_running", "1 while the search runs, 0 when it has ended.", lambda one: one.lives
    ),
    Definition(
        "runs",
        "Live runs that have ended, by verdict.",
        lambda search: [((kind,), search.counted("live")[kind]) for kind in VERDICTS],
        ("verdict",),
        is_counter=True,
    ),
    _counter(
        "live_seconds",
        "Seconds that live runs took, with the start of their graphs.",
        lambda one: one.total("live_s"),
    ),
    _counter(
        "plans_drawn",
        "Plans that the search drew or chose.",
        lambda one: one.counted("drawn").total(),
    ),
    _counter(
        "plans_run",
        "Drawn plans that were run. The rest would not have shown anything new.",
        lambda one: one.counted("drawn")[RUN],
    ),
    _gauge("findings", "Findings so far.", lambda one: one.counted("statuses").total()),
    _gauge(
        "findings_confirmed",
        "Findings that fresh runs have confirmed.",
        lambda one: sum(
            number
            for status, number in one.counted("statuses").items()
            if status not in NOT_CONFIRMED
        ),
    ),
    _counter(
        "requests_sent",
        "Requests that clients have sent.",
        lambda one: one.counted("requests")["sent"],
    ),
    _counter(
        "requests_ok",
        "Requests that got a right answer.",
        lambda one: one.counted("requests")["ok"],
    ),
    _counter(
        "requests_failed",
        "Requests that were refused, got an error, were cut short, or timed out.",
        lambda one: one.counted("requests")["failed"],
    ),
    _faults("faults_begun", "Faults whose step has begun.", lambda one: one.begun),
    _faults("faults_landed", "Faults that took effect, with proof.", lambda one: one.landed),
    _faults("faults_missed", "Faults that did not take effect.", lambda one: one.missed),
    _faults(
        "faults_ended",
        "Faults that took effect and are over. A kill is over as soon as it has taken effect.",
        lambda one: one.ended,
    ),
    _by_target(
        "faults_in_force",
        "Faults that act on the graph now.",
        lambda one: one.landed - one.ended,
        lambda search: search.in_force,
    ),
    _by_target(
        "fault_begin_timestamp_seconds",
        "Start of the last fault of this kind and target that took effect.",
        lambda one: one.begin,
    ),
    _by_target(
        "fault_end_timestamp_seconds",
        "End of the last fault of this kind and target that is over.",
        lambda one: one.end,
    ),
    _gauge(
        "budget_seconds",
        "Budget of the search in seconds. +Inf means that it has no limit.",
        lambda one: one.budget_s,
    ),
    _gauge(
        "budget_spent_seconds",
        "Seconds of the budget that are spent.",
        lambda one: one.spent_s,
    ),
    _gauge(
        "budget_runs",
        "Budget of the search in live runs. +Inf means that it has no limit.",
        lambda one: one.budget_runs,
    ),
    _gauge(
        "budget_spent_runs",
        "Live runs of the budget that were begun.",
        lambda one: one.total("spent_runs"),
    ),
    _gauge("slots", "Runs that may go on side by side.", lambda one: one.total("slots")),
    _gauge("slots_in_use", "Runs that go on now.", lambda one: one.slots_in_use),
)


class SearchCollector(Collector):
    """Collects the metrics of the searches whenever the endpoint is asked (see `searches_of`).

    Args:
        results: the results folder.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._since = time.time()

    def describe(self) -> Iterator[Metric]:
        """Yield each metric without values. The registry asks for it once."""
        return (one.family([]) for one in DEFINITIONS)

    def collect(self) -> Iterator[Metric]:
        """Yield each metric, with the values of all searches."""
        searches = searches_of(self._results, self._since)
        return (one.family(searches) for one in DEFINITIONS)
