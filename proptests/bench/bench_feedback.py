"""Measure whether feedback from runs helps to choose plans: `tox -e bench -- bench_feedback --seeds 20`.

A run shows **facts**, such as the template of a log line. If a run shows a new fact, then each feature of its plan is lifted: its worth
is multiplied by a factor, for the rest of the search. The search itself does not do this (see the page of measurements).

Nobody knows which facts a bug shows before it breaks a promise. So there are three worlds, from helpful to useless facts:

- **parts**: each part of a minimal plan of the bug, from its first step on, shows a fact of its own when it is complete;
- **echo**: each kind of fault at each role shows a fact of its own, whatever the bug is;
- **chance**: a run shows a new fact by chance, in a share of `CHANCE` of the runs.

As in `bench_steering`, the measure is the number of runs until a simulated bug first shows. Plans come from a plain random generator, not
from Hypothesis, so that many seeds take little time.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, TypeAlias
from unittest import mock

from graphquake.harness.spec.feasible import mend
from graphquake.harness.spec.plan import Plan
from graphquake.machines.plans import novelty
from graphquake.machines.plans.judged import judged_share
from graphquake.machines.plans.novelty import LOOK_MAX, PAIRS, Feature, Novelty

from support.embedding import complete_at
from support.simulated import SHAPES, SPEC, Shape, drawn, failing

RUNS: Final = 60
SEEDS: Final = 20
FACTORS: Final = (1.0, 1.5, 2.0, 4.0)
# The share of the runs that show a new fact in the world of chance. After the first sweep of one search, new log templates came in 1 of 34
# runs of the reference graph, and in 8 of 22 of a Dynamo graph.
CHANCE: Final = 0.25

Fact: TypeAlias = tuple[str, ...]
World: TypeAlias = Callable[[Shape, Plan], frozenset[Fact]]


@cache
def minimal(shape: Shape) -> Plan:
    """Return a plan that shows the bug, and shows it no more without any of its steps."""
    plan = failing(shape, 0)
    while not shape.is_step_minimal(plan):
        shorter = (
            mend(SPEC, replace(plan, steps=(*plan.steps[:place], *plan.steps[place + 1 :])))
            for place in range(len(plan.steps))
        )
        plan = next(one for one in shorter if shape.at_s(one) is not None)
    return plan


def parts(shape: Shape, plan: Plan) -> frozenset[Fact]:
    """One fact for each part of the bug's minimal plan that is complete in a plan."""
    steps = minimal(shape).steps
    begun = (Plan(steps[:length]) for length in range(1, len(steps) + 1))
    return frozenset((str(len(one.steps)),) for one in begun if complete_at(one, plan) is not None)


def echo(_: Shape, plan: Plan) -> frozenset[Fact]:
    """One fact for each feature of a single act."""
    return frozenset(one for one in features_of(plan) if PAIRS.isdisjoint(one))


def chance(shape: Shape, plan: Plan) -> frozenset[Fact]:
    """A fact that no other plan shows, or none."""
    text = f"{shape.name}/{plan}"
    return frozenset({(text,)} if random.Random(text).random() < CHANCE else ())


WORLDS: Final[dict[str, World]] = {"parts": parts, "echo": echo, "chance": chance}


@cache
def features_of(plan: Plan) -> frozenset[Feature]:
    """The features of a plan, which many searches ask for."""
    return _features(SPEC, plan)


@cache
def share_of(plan: Plan) -> float:
    """The judged share of a plan's run, which many searches ask for."""
    return _share(SPEC, plan)


_features, _share = novelty.features, judged_share


@dataclass(slots=True)
class Lifted(Novelty):
    """A choice by novelty in which runs that showed a new fact lift the features of their plans.

    Attributes:
        factor: the worth of a lifted feature, as a multiple of its worth without feedback.
    """

    factor: float = 1.0
    _known: set[Fact] = field(default_factory=set)
    _lifts: Counter[Feature] = field(default_factory=Counter)

    def _worth(self, feature: Feature) -> float:
        return Novelty._worth(self, feature) * self.factor ** min(1, self._lifts[feature])

    def showed(self, plan: Plan, facts: frozenset[Fact]) -> None:
        """Lift the features of a plan whose run showed a new fact."""
        if facts - self._known:
            self._lifts.update(features_of(plan))
        self._known |= facts


def runs_until(shape: Shape, plans: Sequence[Plan], world: World, factor: float) -> int | None:
    """Return the number of the first run that shows a bug, from 1, or None if no run within `RUNS` shows it."""
    turns, ran = Lifted(SPEC, factor=factor), 0
    for plan in plans:
        if not turns.has_turn(plan):
            continue
        ran += 1
        if shape.at_s(plan) is not None:
            return ran
        if ran == RUNS:
            return None
        turns.ran(plan)
        turns.showed(plan, world(shape, plan))
    return None


def rows(seeds: int) -> Iterator[str]:
    """Yield the rows of the table. A bug that never shows counts with all runs."""
    draws = LOOK_MAX * RUNS // 2
    each = [[drawn(f"{seed}/{number}") for number in range(draws)] for seed in range(seeds)]
    plain: list[int] = []
    for name, world in WORLDS.items():
        for factor in FACTORS if not plain else FACTORS[1:]:
            met = [runs_until(shape, plans, world, factor) for plans in each for shape in SHAPES]
            needed = [RUNS if one is None else one for one in met]
            plain = plain or needed
            sooner = sum(a < b for a, b in zip(needed, plain, strict=True))
            later = sum(a > b for a, b in zip(needed, plain, strict=True))
            way = "no feedback" if factor == 1 else f"{name}, lifted {factor:g} times"
            found = sum(one is not None for one in met)
            yield f"| {way} | {found} of {len(met)} | {statistics.mean(needed):.1f} | {sooner} | {later} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    print("| way | met | runs (mean) | sooner | later |\n|---|--:|--:|--:|--:|")
    with (
        mock.patch.object(novelty, "features", lambda _, plan: features_of(plan)),
        mock.patch.object(novelty, "judged_share", lambda _, plan: share_of(plan)),
    ):
        for row in rows(arguments.seeds):
            print(row, flush=True)


if __name__ == "__main__":
    main()
