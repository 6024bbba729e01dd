"""Estimate which steps of a failing plan the failure needs, choose the next removal to try, and learn from its run.

A removal is a set of steps to leave out, by their indices in the plan. Every step has a probability that the failure needs it. The best
removal leaves out the most steps by expectation: the number of its
steps times the probability that none of them is needed (ProbDD: Wang et al., FSE 2021). ProbDD believes every answer. Here a run without
the steps may keep the promise by chance. So a kept run raises the probabilities only as far as the plan's failure rate allows:

    P(needed | kept) = p / (1 - rate * q)

    p     the probability so far that the step is needed
    rate  the failure rate of the plan with the steps
    q     the probability so far that none of the removed steps is needed

At rate 1 this is ProbDD's own rule. At lower rates, the same removal or one that overlaps it is tried again if it is still the best one.
That needs no separate rule.

The prior probabilities follow from the kind of step: most failures need one or two faults, and few need a certain wait. A wrong prior costs
runs, but loses no step. A step is left out only after a run without it has failed, and it stays only after runs without it
kept the promise. Whole groups (all waits, one role, one replica) are not tried separately. Trying them first saved no runs, because the
best removal mostly is a whole group. This module is pure and makes no runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Final

from graphquake.harness.spec.feasible import impossible
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step, Wait
from graphquake.harness.spec.replica import Replica

# Bounds on prior knowledge: before the first run, no step is certainly needed, and no step is certainly not needed.
WEIGHT_MAX: Final = 4.0
PRIOR_MIN: Final = 0.01
PRIOR_MAX: Final = 0.90
# A removal is worth a run only if the probability that none of its steps is needed is at least this. The last check of a shrink tries
# every single step anyway.
CHANCE_MIN: Final = 0.10

Removal = frozenset[int]


@dataclass(frozen=True, slots=True)
class StepProbabilities:
    """A failing plan, and for each of its steps the probability that the failure needs it. Build one with `prior`.

    Attributes:
        spec: the graph. Its model says which steps become impossible without others.
        plan: the plan.
        needed: for each step, the probability that the failure needs it.
        undoes: for each respawn, the index of the fault that it repairs. -1 for every other step.
    """

    spec: GraphSpec
    plan: Plan
    needed: tuple[float, ...]
    undoes: tuple[int, ...] = field(repr=False, compare=False)

    def without(self, removal: Removal) -> StepProbabilities:
        """Leave out the steps of a removal. Waits that are then neighbours become one wait: the run is the same, with fewer steps."""
        steps: list[Step] = []
        needed: list[float] = []
        for place, (step, p) in enumerate(zip(self.plan.steps, self.needed, strict=True)):
            if place in removal:
                continue
            last = steps[-1] if steps else None
            if isinstance(step, Wait) and isinstance(last, Wait):
                steps[-1] = Wait(round(last.for_s + step.for_s, 2))
                needed[-1] = max(needed[-1], p)
                continue
            steps.append(step)
            needed.append(p)
        left = replace(self.plan, steps=tuple(steps))
        return StepProbabilities(self.spec, left, tuple(needed), _undoes(left))

    def with_waits_joined(self) -> StepProbabilities:
        """Join neighbouring waits, so that two plans with the same run are equal and share one count."""
        return self.without(frozenset())

    def until(self, last_step: int) -> StepProbabilities:
        """Cut off the steps after `last_step`, the last step that had begun when the violation began.

        The violation began before the end of the plan. So a long stay did not cause it either, and is cut off, too.
        Nothing is cut if `last_step` is the last step of the plan, or -1 for an unknown step.
        """
        size = len(self.plan.steps)
        if not 0 <= last_step < size - 1:
            return self.with_waits_joined()
        cut = self.without(frozenset(range(last_step + 1, size)))
        return replace(cut, plan=replace(cut.plan, stay_s=0.0))

    def mended(self, places: Removal) -> Removal:
        """A removal together with the steps that it makes impossible."""
        return _impossible(self.spec, self.plan, places)

    def chance(self, removal: Removal) -> float:
        """The probability that no step of a removal is needed.

        A respawn is needed only if the fault that it repairs is needed. So if a removal contains both, only the fault counts.
        """
        return math.prod(
            1 - self.needed[place] for place in removal if self.undoes[place] not in removal
        )

    def best(self, is_out: Callable[[Plan], bool]) -> Removal | None:
        """The removal that leaves out the most steps by expectation, or None if no removal is worth a run.

        Args:
            is_out: true if no further run of a plan can teach anything. A removal that leads to such a plan is not chosen.
        """
        # Of steps with equal probabilities, the step that takes the longest is left out first. This makes the next run short.
        order = sorted(
            range(len(self.needed)),
            key=lambda place: (self.needed[place], -_takes_s(self.plan.steps[place]), -place),
        )
        prefixes = (frozenset(order[: size + 1]) for size in range(len(order)))
        singles = (frozenset([place]) for place in order)
        found: Removal | None = None
        most = 0.0
        for places in (*prefixes, *singles):
            removal = self.mended(places)
            chance = self.chance(removal)
            if chance < CHANCE_MIN or chance * len(removal) <= most:
                continue
            if not is_out(self.without(removal).plan):
                found, most = removal, chance * len(removal)
        return found

    def kept(self, removal: Removal, rate: float) -> StepProbabilities:
        """Raise the probabilities of the steps of a removal, after a run without them kept the promise.

        Args:
            removal: the steps that were left out.
            rate: the failure rate of the plan with these steps.
        """
        surprise = 1 - min(rate, 0.999) * self.chance(removal)
        needed = tuple(
            min(p / surprise, 1.0) if place in removal else p for place, p in enumerate(self.needed)
        )
        return replace(self, needed=needed)

    def after_last(self, last_step: int) -> StepProbabilities:
        """Lower the probabilities of the steps after `last_step`: they began after the violation, so they did not cause it."""
        if last_step < 0:
            return self
        needed = tuple(
            p if place <= last_step else min(p, PRIOR_MIN) for place, p in enumerate(self.needed)
        )
        return replace(self, needed=needed)


def _takes_s(step: Step) -> float:
    """Roughly the seconds that a step takes in a run."""
    return step.waits_s + step.lasts_s + step.sends_s


# Cached, because speculation repeats the same shrink again and again with the same arguments.
_impossible = lru_cache(maxsize=1 << 16)(impossible)


def _undoes(plan: Plan) -> tuple[int, ...]:
    last: dict[tuple[Replica, ...], int] = {}
    faults = []
    for place, step in enumerate(plan.steps):
        faults.append(last.get(step.aims, -1) if step.repairs else -1)
        if step.is_fault:
            last[step.aims] = place
    return tuple(faults)


def prior(spec: GraphSpec, plan: Plan, weights: tuple[float, ...] = ()) -> StepProbabilities:
    """The prior probabilities of the steps of a failing plan.

    Args:
        spec: the graph.
        plan: the plan.
        weights: for each step, a factor on its odds of being needed, limited to 1/4 to 4. Empty if all factors are 1.
    """
    needed = []
    for place, step in enumerate(plan.steps):
        share = step.prior
        weight = weights[place] if place < len(weights) else 1.0
        odds = share / (1 - share) * min(WEIGHT_MAX, max(1 / WEIGHT_MAX, weight))
        needed.append(min(PRIOR_MAX, max(PRIOR_MIN, odds / (1 + odds))))
    return StepProbabilities(spec, plan, tuple(needed), _undoes(plan))


def pairs(plan: Plan) -> Iterator[tuple[int, int]]:
    """The pairs of steps that may only go together: successive steps with the same aims, and successive waits."""
    acts: dict[tuple[Replica, ...] | str, list[int]] = {}
    for place, step in enumerate(plan.steps):
        if step.aims:
            acts.setdefault(step.aims, []).append(place)
        elif isinstance(step, Wait):
            acts.setdefault("waits", []).append(place)
    for places in acts.values():
        yield from pairwise(places)
