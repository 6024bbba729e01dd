"""Pairs of disturbances: which two, in which order, and how close to each other.

The disturbances are those of the sweep. The second one hits the same replica as the first, or another one of its role, where both are of
one role. It comes at once, a little later, after the first one was repaired, or at an event: at a number of requests in flight, at a first
token, or while a replica of the first one starts. `novelty` chooses among the pairs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Respawn, Step, Wait, WaitReady
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.kind import disturbs
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.waits.timings import timings

# The wait between two disturbances that are not at once, in seconds.
LATER_S: Final = 0.6
# The search ends to look for a new pair after this many that it has had already.
STALE_MAX: Final = 1_000


def pairs(spec: GraphSpec, singles: Sequence[Plan], seed: int) -> Iterator[Plan]:
    """Yield different plans of two disturbances, in the order that a seed gives, until hardly any new one is left.

    Args:
        spec: the graph. Plans that its model does not allow are left out.
        singles: plans of one disturbance. Their waits are not used.
        seed: decides the order.
    """
    rng = random.Random(seed)
    steps = list(dict.fromkeys(step for plan in singles for step in plan.steps if disturbs(step)))
    known: set[Plan] = set()
    stale = 0
    while steps and stale < STALE_MAX:
        first, second = rng.choice(steps), _elsewhere(spec, rng.choice(steps), rng)
        plan = Plan((first, *_between(spec, first, second, rng), second))
        if plan in known or not feasible(spec, plan):
            stale += 1
            continue
        stale = 0
        known.add(plan)
        yield plan


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


def _between(spec: GraphSpec, first: Step, second: Step, rng: random.Random) -> tuple[Step, ...]:
    """The steps between the two disturbances. About one pair in four is timed by an event."""
    respawns = tuple(Respawn(one.role, one.index) for one in first.aims)
    begun = _Begun(first.after(GraphModel(spec)), [first])
    events = [(event,) for event in timings(begun)] if second.is_fault else []
    # A respawn ends as soon as the replica has been spawned. So the step after it strikes while the replica starts.
    timed = [*events, respawns] if respawns else events
    gaps: list[tuple[Step, ...]] = [(), (Wait(LATER_S),), (*respawns, WaitReady())]
    return rng.choice([*gaps, rng.choice(timed)] if timed else gaps)
