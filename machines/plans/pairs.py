"""Pairs of disturbances: which two, in which order, and how close to each other.

The disturbances are those of the sweep. The second one hits the same replica as the first, or another one of its role, where both are of
one role. It comes at once, a little later, after the first one was repaired, or at an event: at a number of requests in flight, at a first
token, or while a replica of the first one starts. `novelty` chooses among the pairs.

The plainest pairs come first: two roles lose a replica at once, or a replica dies again in its second life (`plainest_pairs`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Kill, Plan, Respawn, Step, Wait, WaitReady
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.kind import disturbs
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.waits.timings import timings

# The wait between two disturbances that are not at once, in seconds.
LATER_S: Final = 0.6
# The search for a new pair ends after this many pairs that were yielded before.
STALE_MAX: Final = 1_000
# The share of pairs that have a rare fault. The plain faults still meet each other in most pairs.
SELDOM_SHARE: Final = 0.25
HALF: Final = 0.5


def pairs(
    spec: GraphSpec, singles: Sequence[Plan], seed: int, seldom: Sequence[Plan] = ()
) -> Iterator[Plan]:
    """Yield different plans of two disturbances, in the order that a seed gives, until hardly any new one is left.

    Args:
        spec: the graph. Plans that its model does not allow are left out.
        singles: plans of one disturbance. Their waits are not used.
        seed: decides the order.
        seldom: plans of one disturbance that is rarely a part of a pair (see `SELDOM_SHARE`).
    """
    rng = random.Random(seed)
    steps, others = _acts(singles), _acts(seldom)
    known: set[Plan] = set()
    stale = 0
    while steps and stale < STALE_MAX:
        first, second = rng.choice(steps), rng.choice(steps)
        if others and rng.random() < SELDOM_SHARE:
            other = rng.choice(others)
            first, second = (first, other) if rng.random() < HALF else (other, second)
        second = _elsewhere(spec, second, rng)
        plan = Plan((first, *_between(spec, first, second, rng), second))
        if plan in known or not feasible(spec, plan):
            stale += 1
            continue
        stale = 0
        known.add(plan)
        yield plan


def plainest_pairs(spec: GraphSpec, singles: Sequence[Plan], seed: int) -> list[Plan]:
    """Return the pairs of kills with which a search begins its pairs, in the order that a seed gives.

    For each two roles, one plan kills a replica of both at once. For each role, one plan kills a replica, and kills it again in its second
    life. Plans at roles with several replicas come first: a path is left there, so a run judges more.

    Args:
        spec: the graph. Plans that its model does not allow are left out.
        singles: plans of one disturbance. Only roles whose kills are among them count.
        seed: decides the order.
    """
    kills = [one for one in _acts(singles) if isinstance(one, Kill) and one == Kill(one.role, 0)]
    plans = [Plan(both) for both in itertools.combinations(kills, 2)]
    plans += [Plan((one, Respawn(one.role, 0), WaitReady(), one)) for one in kills]
    random.Random(seed).shuffle(plans)
    plans.sort(key=partial(_single_victims, spec))
    return [plan for plan in plans if feasible(spec, plan)]


def _single_victims(spec: GraphSpec, plan: Plan) -> int:
    """The number of faults of a plan that hit the only replica of a role."""
    return sum(spec.role(one.role).replicas == 1 for step in plan.faults for one in step.aims)


def _acts(plans: Sequence[Plan]) -> list[Step]:
    """The different disturbances of some plans."""
    return list(dict.fromkeys(step for plan in plans for step in plan.steps if disturbs(step)))


def _elsewhere(spec: GraphSpec, step: Step, rng: random.Random) -> Step:
    """The same step at any replica of its role."""
    shift = rng.randrange(max((spec.role(one.role).replicas for one in step.aims), default=1))

    def other(one: Replica) -> Replica:
        return replace(one, index=(one.index + shift) % spec.role(one.role).replicas)

    return step.moved(other)


@dataclass(slots=True)
class _Begun:
    """The first disturbance of a pair, as `timings` needs it."""

    model: GraphModel
    steps: list[Step]


def _after(model: GraphModel, steps: Sequence[Step]) -> GraphModel:
    for step in steps:
        model = step.after(model)
    return model


def _between(spec: GraphSpec, first: Step, second: Step, rng: random.Random) -> tuple[Step, ...]:
    """The steps between the two disturbances. About one pair in four is timed by an event."""
    begun = _Begun(first.after(GraphModel(spec)), [first])
    dead = (one for one in first.aims if not begun.model.lives(one))
    respawns = tuple(Respawn(one.role, one.index) for one in dead)
    events = [(event,) for event in timings(begun)] if second.is_fault else []
    # A respawn ends as soon as the replica has been spawned. So the step after it strikes while the replica starts.
    timed = [*events, respawns] if respawns else events
    gaps: list[tuple[Step, ...]] = [(), (Wait(LATER_S),)]
    if _after(begun.model, respawns).settled().serves():
        gaps.append((*respawns, WaitReady()))
    return rng.choice([*gaps, rng.choice(timed)] if timed else gaps)
