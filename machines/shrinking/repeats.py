"""Several trials of a plan in one live run: the plan is carried out, undone, and carried out again.

At a low failure rate, a candidate is rejected only after many kept runs. Most of the time of these runs is the same each time: the start of
the graph, the load before the plan, and the wait at the end. A repeated plan pays for that once. It has the steps of the plan, then the
steps that bring the graph back (respawns, a wait until ready, a pause), then the steps of the plan again. So one run makes several trials.

| the run | says about the plan |
|---|---|
| broke in the first repetition | it breaks, as in a run of its own: nothing had been repeated by then |
| broke later | it breaks, or leftovers of an earlier repetition broke the promise. A fresh run of the plan has to decide |
| kept the promise | each repetition is one kept trial, if it is known that later repetitions can break (see `TrialLog`) |

This module is pure. The model of the graph decides whether a plan can be repeated. `state` decides when and how often it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Respawn, Step, Wait, WaitReady
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.model import GraphModel

# Failures are judged from the end of the time on in which they are excused. The next repetition begins this much later, in seconds.
JUDGED_S: Final = 0.5
# The most seconds of a run that repeats a plan, about. An invalid run loses them all, and a budget may end within them.
RUN_S_MAX: Final = 60.0
# As many kept trials as the last check of a shrink may want. More of them in one run would teach nothing.
TIMES_MAX: Final = 12


@dataclass(frozen=True, slots=True)
class Repeats:
    """How plans may be repeated within one run.

    Attributes:
        pause_s: the time from the moment when every replica is ready again to the next repetition, in seconds. It must be long enough for
            the violation to show.
        ready_s: the time that a dead replica takes about to be ready again, in seconds.
    """

    pause_s: float
    ready_s: float = 1.0

    def times_of(self, plan: Plan, wanted: int) -> int:
        """How often a plan is repeated in one run, if `wanted` trials of it are wanted. The run should not take too long."""
        steps_s = sum(step.waits_s + step.lasts_s + step.sends_s for step in plan.steps)
        each_s = steps_s + self.ready_s + max(self.pause_s, plan.stay_s)
        return max(1, min(wanted, TIMES_MAX, int(RUN_S_MAX / each_s)))


@dataclass(frozen=True, slots=True)
class Repeated:
    """A plan whose steps are carried out several times in one run.

    Attributes:
        plan: the plan that is run.
        each: the number of steps of one repetition, with the steps that bring the graph back after it.
        times: the number of repetitions.
    """

    plan: Plan
    each: int
    times: int

    def place(self, last_step: int) -> tuple[int, int]:
        """The repetition to which a step belongs, from 0, and the index of the step within it."""
        return divmod(last_step, self.each)


def repeats_of(spec: GraphSpec, promise: str, ready_s: float) -> Repeats | None:
    """How plans may be repeated that break a promise, or None if they may not.

    A repetition can only break a promise that is judged at any time of a run. `recovery`, `throughput` and `no_leak` are judged once, after
    the plan. Nothing is known about the user's own promises.

    Args:
        spec: the graph.
        promise: the name of the promise.
        ready_s: the time that a dead replica takes about to be ready again, in seconds.
    """
    bounds = spec.promises
    shows_s = {
        "answers": bounds.window_s,
        "blast_radius": bounds.window_s,
        "refusals_are_cheap": bounds.window_s,
        "honest": bounds.window_s,
        "no_panic": bounds.window_s,
        "drain": max(bounds.window_s, bounds.drain_s),
        "ends": max(bounds.window_s, bounds.stall_s),
        "error_window": bounds.window_s,
        "views_agree": max(bounds.window_s, spec.outage_shows_s),
    }
    return Repeats(shows_s[promise] + JUDGED_S, ready_s) if promise in shows_s else None


@lru_cache(maxsize=1 << 12)
def repeated(spec: GraphSpec, plan: Plan, times: int, pause_s: float) -> Repeated | None:
    """Repeat a plan within one run.

    Args:
        spec: the graph.
        plan: the plan.
        times: the number of repetitions, at least 2.
        pause_s: the pause between two repetitions, in seconds (see `Repeats`). It is at least as long as the plan's own stay.

    Returns:
        The repeated plan. None if the model can't bring the graph back to its first state. For example, only heal ends a step of the
        plan, or the plan leaves dead replicas dead.
    """
    if plan.heal != "all":
        return None
    gone = _dead_after(spec, plan)
    respawns = (Respawn(one.role, one.index) for one in spec.replicas() if one in gone)
    back = (*plan.steps, *respawns, WaitReady())
    # A replica is ready while it is squeezed or cut off. The pause begins when that is over.
    left_s = [one.left_s for one in _model_after(spec, back).ongoing]
    if math.inf in left_s:
        return None
    once = (*back, Wait(round(max(pause_s, plan.stay_s) + max(left_s, default=0.0), 2)))
    after = _model_after(spec, once)
    if after.dead or after.ending or after.coming or after.ongoing:
        return None
    whole = replace(plan, steps=(*once * (times - 1), *plan.steps))
    return Repeated(whole, len(once), times) if feasible(spec, whole) else None


def puts_back(spec: GraphSpec, plan: Plan, left_out: Iterable[Step]) -> bool:
    """True if a repeated plan respawns a replica although a respawn of that replica was left out of the plan.

    Its later repetitions then come after the very step that was left out. So if one of them breaks, that says little about the plan.
    """
    respawned = {one for step in left_out if step.repairs for one in step.aims}
    return bool(respawned & _dead_after(spec, plan))


def _dead_after(spec: GraphSpec, plan: Plan) -> frozenset[Replica]:
    """The replicas that a plan leaves dead or shutting down."""
    model = _model_after(spec, plan.steps)
    return model.dead | model.ending


def _model_after(spec: GraphSpec, steps: Iterable[Step]) -> GraphModel:
    model = GraphModel(spec)
    for step in steps:
        model = step.after(model)
    return model
