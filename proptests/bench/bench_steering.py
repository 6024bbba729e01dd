"""Measure the runs saved by choosing among drawn plans: `tox -e bench -- bench_steering --seeds 20`.

The measure is the number of live runs and seconds until a simulated bug first shows, with and without a choice. The plans of each seed are
drawn once. Every way of choosing takes its runs from the same draws, in their order. Every bug shows at rate 1. A search has at most
`--runs` runs. The seconds of a run are those of a live one (see `costs`).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from graphquake.harness.spec.plan import Plan
from graphquake.machines.plans.novelty import LOOK_MAX, Novelty
from graphquake.machines.sessions.search import draw_plans
from graphquake.machines.shrinking.trials import Trial

from bench.costs import Costs
from support.simulated import SHAPES, SPEC

RUNS: Final = 60
SEEDS: Final = 20
# With fewer draws for each run, a way of choosing runs out of draws before it runs out of runs.
DRAWS_A_RUN: Final = 18

Way: TypeAlias = Callable[[Sequence[Plan], int], list[Plan]]


def in_order(plans: Sequence[Plan], runs: int) -> list[Plan]:
    """Run every drawn plan."""
    return list(plans[:runs])


def by_novelty(plans: Sequence[Plan], runs: int, run_s: float) -> list[Plan]:
    """Choose like the search, if a run costs `run_s` seconds in addition to the waits of its plan."""
    chosen: list[Plan] = []
    turns = Novelty(SPEC, run_s)
    for plan in plans:
        if turns.has_turn(plan):
            turns.ran(plan)
            chosen.append(plan)
            if len(chosen) == runs:
                break
    return chosen


@dataclass(frozen=True, slots=True)
class Row:
    """The result of a way of choosing over all bugs and seeds."""

    way: str
    met: int
    searches: int
    runs_mean: float
    seconds_mean: float
    run_s_median: float

    def __str__(self) -> str:
        return (
            f"| {self.way} | {self.met} of {self.searches} | {self.runs_mean:.0f} | {self.seconds_mean:.0f} "
            f"| {self.run_s_median:.1f} |"
        )


def measure(way: str, choose: Way, drawn: Sequence[Sequence[Plan]], runs: int) -> Row:
    """Measure one way of choosing over all bugs and seeds. A bug that never shows counts with all runs and seconds."""
    costs, met, needed, seconds, each_s = Costs(), 0, [], [], []
    for plans in drawn:
        chosen = choose(plans, runs)
        times_s = [costs.run_s(SHAPES[0], plan, Trial("kept")) for plan in chosen]
        each_s += times_s
        for shape in SHAPES:
            shows = (n for n, plan in enumerate(chosen) if shape.at_s(plan) is not None)
            first = next(shows, None)
            met += first is not None
            until = len(chosen) if first is None else first + 1
            needed.append(until)
            seconds.append(sum(times_s[:until]))
    return Row(
        way,
        met,
        len(needed),
        statistics.mean(needed),
        statistics.mean(seconds),
        statistics.median(each_s),
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ["| way | met | runs (mean) | seconds (mean) | median run, s |", "|---|--:|--:|--:|--:|"]
    return "\n".join([*head, *map(str, rows)])


def main() -> None:
    """Measure every way of choosing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    draws = min(DRAWS_A_RUN, LOOK_MAX) * arguments.runs
    drawn = [draw_plans(SPEC, seed, draws) for seed in range(1, arguments.seeds + 1)]
    ways: dict[str, Way] = {"every drawn plan": in_order}
    for run_s in (0.75, 1.5, 3.0, 6.0):
        ways[f"what shows most, a run at {run_s:g} s"] = partial(by_novelty, run_s=run_s)
    rows = [measure(way, choose, drawn, arguments.runs) for way, choose in ways.items()]
    print(table(rows))


if __name__ == "__main__":
    main()
