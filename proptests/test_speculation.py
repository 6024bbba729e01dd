"""Speculation: candidates run side by side, and the minimal plan is the same, sooner."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, partial

import pytest

from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.shrinking.result import Shrunk
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.speculation import shrink_ahead
from graphquake.machines.shrinking.trials import OnTrial, RunPlan, Trial

from support.simulated import SHAPES, SPEC, Shape, broken, failing
from support.virtual import VirtualRunner

pytestmark = pytest.mark.simulated

SEEDS = range(2)
# The broken fresh runs that confirm a minimal plan.
CONFIRMED = 3


@dataclass(slots=True)
class Fixed:
    """A graph with a bug in a share of the runs. The n-th run of a plan gives the same trial whenever it is made."""

    shape: Shape
    seed: int
    rate: float
    runs_max: int = 10_000
    _runs: Counter[Plan] = field(default_factory=Counter)

    def __call__(self, plan: Plan) -> Trial:
        """Make one fresh run."""
        if self._runs.total() >= self.runs_max:
            raise BudgetSpent
        self._runs[plan] += 1
        draw = random.Random(f"{self.shape.name}/{self.seed}/{plan}/{self._runs[plan]}")
        return broken(self.shape, plan) if draw.random() < self.rate else Trial("kept")


@cache
def shrunk(
    name: str, seed: int, rate: float, slots: int, start_s: float = 0.0, *, reuses: bool = False
) -> tuple[Shrunk, VirtualRunner]:
    """Shrink a plan, with runs of 4 s each, and the start of a graph."""
    shape = next(shape for shape in SHAPES if shape.name == name)
    plan = failing(shape, seed)
    shrinker = partial(_shrink, plan, broken(shape, plan))
    runner = VirtualRunner(Fixed(shape, seed, rate), lambda *_: 4.0, slots, start_s, reuses)
    return shrink_ahead(shrinker, runner), runner


def _shrink(
    plan: Plan, first: Trial, run: RunPlan, on_trial: OnTrial | None, reuse: RunPlan | None
) -> Shrunk:
    return shrink(SPEC, plan, first, run, on_trial=on_trial, reuse=reuse)


@pytest.mark.parametrize(("rate", "slots", "shapes"), [(1.0, 2, 4), (0.6, 4, 2)])
def test_the_result_does_not_depend_on_slots(rate: float, slots: int, shapes: int) -> None:
    """A shrink with several slots has the plan, the counts and the journal of a shrink with one."""
    for shape in SHAPES[:shapes]:
        for seed in SEEDS:
            one, _ = shrunk(shape.name, seed, rate, 1)
            more, _ = shrunk(shape.name, seed, rate, slots)
            assert more == one


@pytest.mark.parametrize(("slots", "most"), [(2, 0.65), (4, 0.45)])
def test_slots_cut_the_time_of_a_shrink(slots: int, most: float) -> None:
    """With several slots, the median shrink takes a bounded share of the time with one, and no shrink takes longer."""
    ratios = []
    for shape in SHAPES:
        for seed in SEEDS:
            _, one = shrunk(shape.name, seed, 1.0, 1)
            _, more = shrunk(shape.name, seed, 1.0, slots)
            ratios.append(more.now_s / one.now_s)
    assert statistics.median(ratios) <= most
    assert max(ratios) <= 1.0


def test_speculative_runs_are_bounded() -> None:
    """With four slots at rate 1, a shrink makes at most twice the runs of one slot (median)."""
    ratios = [
        shrunk(shape.name, seed, 1.0, 4)[1].runs / shrunk(shape.name, seed, 1.0, 1)[1].runs
        for shape in SHAPES
        for seed in SEEDS
    ]
    assert statistics.median(ratios) <= 2.0


def test_used_graphs_and_slots_save_time_together() -> None:
    """Where a start takes twice as long as the rest of a run, three slots with used graphs take less time than either alone.

    The minimal plan is the same, and has broken on fresh graphs.
    """
    slots, used, both = [], [], []
    for shape in SHAPES[:4]:
        plain, _ = shrunk(shape.name, 1, 1.0, 1, 8.0)
        slots.append(shrunk(shape.name, 1, 1.0, 3, 8.0)[1].now_s)
        used.append(shrunk(shape.name, 1, 1.0, 1, 8.0, reuses=True)[1].now_s)
        one, runner = shrunk(shape.name, 1, 1.0, 3, 8.0, reuses=True)
        both.append(runner.now_s)
        assert one.plan == plain.plan
        assert one.broke == one.runs >= CONFIRMED
    assert sum(both) <= 0.85 * min(sum(slots), sum(used))


def test_a_budget_that_ends_beforehand_is_no_end() -> None:
    """A budget that ends during speculation does not end the shrink. The first question without a run does."""
    shape = SHAPES[0]
    plan = failing(shape, 1)
    runner = VirtualRunner(Fixed(shape, 1, 1.0, runs_max=12), lambda *_: 4.0, 4)
    one = shrink_ahead(partial(_shrink, plan, broken(shape, plan)), runner)
    assert not one.complete
    assert runner.runs == 12
