"""Measure the time saved by reusing a graph that starts slowly within a shrink. Simulated: a start takes 31 s, a whole run 45 s.

A graph is reused after any run. The dead replicas of a broken run are brought back first, which takes as long as at the end of a kept run.
Confirming runs use fresh graphs in both cases, so the time of all other runs stands beside the time of all runs.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace
from typing import Final

from graphquake.harness.run.reuse import USES_MAX
from graphquake.harness.spec.plan import Plan
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.trials import Trial

from bench.costs import Costs
from support.simulated import SHAPES, SPEC, Shape, Simulated, broken, failing

# The seconds of a whole run before and after a plan of 3 s.
SLOW: Final = Costs(start_s=31.0, after_s=10.0)
RUNS_MAX: Final = 120


@dataclass(slots=True)
class Graphs:
    """Runs on fresh and on used graphs.

    Attributes:
        left: how many more runs the present graph may be used for.
        is_healed: whether the run before brought back the replicas that it killed.
        live_s: the seconds of each run, with its waiting for a start or a heal.
    """

    shape: Shape
    graph: Simulated
    left: int = 0
    is_healed: bool = True
    live_s: list[float] = field(default_factory=list)

    def fresh(self, plan: Plan) -> Trial:
        """Make a run on a fresh graph."""
        self.left = USES_MAX
        return self._run(plan, self.graph(plan), SLOW.start_s)

    def used(self, plan: Plan) -> Trial:
        """Make a run on the present graph, or on a fresh one if there is none."""
        if not self.left:
            return self.fresh(plan)
        waited_s = 0.0 if self.is_healed else SLOW.after_s
        return self._run(plan, replace(self.graph(plan), used=True), waited_s)

    def _run(self, plan: Plan, trial: Trial, waited_s: float) -> Trial:
        run_s = SLOW.run_s(self.shape, plan, trial) - SLOW.start_s
        self.live_s.append(waited_s + run_s)
        self.left -= 1
        self.is_healed = trial.kind != "broken"
        return trial


@dataclass(frozen=True, slots=True)
class Shrink:
    """One shrink: the seconds of all its runs, the seconds without the confirming ones, and whether its plan is minimal."""

    all_s: float
    shrinking_s: float
    is_minimal: bool


def shrink_once(shape: Shape, seed: int, rate: float, *, reuse: bool) -> Shrink:
    """Shrink one failing plan, with reused graphs or with fresh ones only."""
    graphs, plan = (
        Graphs(shape, Simulated(shape, seed, rate, runs_max=RUNS_MAX)),
        failing(shape, seed),
    )
    used = graphs.used if reuse else None
    one = shrink(SPEC, plan, broken(shape, plan), graphs.fresh, reuse=used)
    confirming_s = sum(
        s for s, run in zip(graphs.live_s, one.journal, strict=True) if run.reason == "confirm"
    )
    all_s = sum(graphs.live_s)
    is_minimal = one.confirmed and shape.is_step_minimal(one.plan)
    return Shrink(all_s, all_s - confirming_s, is_minimal)


@dataclass(frozen=True, slots=True)
class Saved:
    """Many shrinks with reused graphs, compared with fresh graphs only.

    Attributes:
        all, shrinking: medians of the ratios of seconds.
        minimal, minimal_fresh: shares of minimal plans.
    """

    all: float
    shrinking: float
    minimal: float
    minimal_fresh: float


def saved(rate: float, seeds: int) -> Saved:
    """Measure what reuse saves over all bugs."""
    pairs = [
        tuple(shrink_once(shape, seed, rate, reuse=reuse) for reuse in (False, True))
        for shape in SHAPES
        for seed in range(seeds)
    ]
    return Saved(
        statistics.median(used.all_s / fresh.all_s for fresh, used in pairs),
        statistics.median(used.shrinking_s / fresh.shrinking_s for fresh, used in pairs),
        sum(used.is_minimal for _, used in pairs) / len(pairs),
        sum(fresh.is_minimal for fresh, _ in pairs) / len(pairs),
    )
