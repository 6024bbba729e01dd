"""Estimate which steps of a failing plan the failure needs. The next removal to try, and what each answer teaches.

Every step has a probability of being needed. The best removal gets rid of the most steps by expectation: the number of its
steps times the probability that none of them is needed (ProbDD: Wang et al., FSE 2021). ProbDD believes every answer. Here an
answer "kept" may be an accident, so it raises the probabilities only as far as the rate allows:

    P(needed | kept) = p / (1 - rate * q)        q: the probability that no removed step is needed

At rate 1 this is ProbDD's own rule. At lower rates, the same removal or one that overlaps it is tried again if it still promises the
most. That needs no separate rule.

The prior probabilities follow from the kind of step: most failures need one or two faults, and few need a certain wait. A wrong prior costs
runs, but loses no step. A step leaves only with a failure that was seen without it, and it stays only after removals of it
were kept. Whole groups (all waits, one role, one replica) are not tried separately. Tried first, they saved no runs, because the best
removal by these numbers mostly is a whole group. This module is pure and makes no runs.
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

# Prior knowledge never makes a step certain, and never rules one out.
WEIGHT_MAX: Final = 4.0
PRIOR_MIN: Final = 0.01
PRIOR_MAX: Final = 0.90
# A removal that is less likely than this to break is not worth a run here. The last check of a shrink tries every single step anyway.
CHANCE_MIN: Final = 0.10

Removal = frozenset[int]


@dataclass(frozen=True, slots=True)
class StepProbabilities:
    """A failing plan, and for each of its steps the probability that the failure needs it. Build one with `prior`.

    Attributes:
        spec: the graph; its model says which steps become impossible without others.
        plan: the plan.
        needed: a probability for each step.
        undoes: for each step, the place of the fault that it makes good if it is a respawn, or -1 otherwise.
    """

    spec: GraphSpec
    plan: Plan
    needed: tuple[float, ...]
    undoes: tuple[int, ...] = field(repr=False, compare=False)

    def without(self, removal: Removal) -> StepProbabilities:
        """Remove steps. Waits that come to stand side by side are joined: the run is the same, with fewer steps."""
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
        """The same run with its waits joined, so that the counts of equal runs come together."""
        return self.without(frozenset())

    def until(self, last_step: int) -> StepProbabilities:
        """Cut the plan after a step, the last that had begun before the violation.

        The violation began before the end of the plan, so a long stay did not cause it either.
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

        A respawn is needed only if its fault is. So a removal that contains both counts the fault alone.
        """
        return math.prod(
            1 - self.needed[place] for place in removal if self.undoes[place] not in removal
        )

    def best(self, is_out: Callable[[Plan], bool]) -> Removal | None:
        """The removal that promises the most, or None if no removal promises enough.

        Args:
            is_out: says of a plan that no run of it can teach more.
        """
        # Of steps with equal probabilities, the step that takes the longest goes first, so that the next run is the cheapest.
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
        """Learn from a run without these steps that kept the promise, if the plan breaks it at that rate."""
        surprise = 1 - min(rate, 0.999) * self.chance(removal)
        needed = tuple(
            min(p / surprise, 1.0) if place in removal else p for place, p in enumerate(self.needed)
        )
        return replace(self, needed=needed)

    def after_last(self, last_step: int) -> StepProbabilities:
        """Learn from a violation that began while this step was the last: later steps did not cause it."""
        if last_step < 0:
            return self
        needed = tuple(
            p if place <= last_step else min(p, PRIOR_MIN) for place, p in enumerate(self.needed)
        )
        return replace(self, needed=needed)


def _takes_s(step: Step) -> float:
    """Roughly the seconds that a step takes in a run."""
    return step.waits_s + step.lasts_s + step.sends_s


# Remembered, because speculation runs the same shrink again and again with the same questions.
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
        weights: for each step, a factor on its odds of being needed. It is clipped to 1/4 to 4. Empty for none.
    """
    needed = []
    for place, step in enumerate(plan.steps):
        share = step.prior
        weight = weights[place] if place < len(weights) else 1.0
        odds = share / (1 - share) * min(WEIGHT_MAX, max(1 / WEIGHT_MAX, weight))
        needed.append(min(PRIOR_MAX, max(PRIOR_MIN, odds / (1 + odds))))
    return StepProbabilities(spec, plan, tuple(needed), _undoes(plan))


def pairs(plan: Plan) -> Iterator[tuple[int, int]]:
    """The pairs of steps that may undo each other: neighbours that aim at the same replica, and neighbouring waits."""
    acts: dict[tuple[Replica, ...] | str, list[int]] = {}
    for place, step in enumerate(plan.steps):
        if step.aims:
            acts.setdefault(step.aims, []).append(place)
        elif isinstance(step, Wait):
            acts.setdefault("waits", []).append(place)
    for places in acts.values():
        yield from pairwise(places)
