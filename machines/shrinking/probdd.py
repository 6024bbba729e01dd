"""Which steps of a failing plan are behind the failure? The next removal to try, and what each answer teaches.

Every step has a probability of being needed. The best removal is the one that is expected to get rid of the most steps, the number of
steps times the probability that none of them is needed (ProbDD: Wang et al., FSE 2021). ProbDD believes every answer; here one that
says "kept" may be an accident, so it raises the probabilities only as far as the rate allows:

    P(needed | kept) = p / (1 - rate * q)        q: the probability that nothing that was removed is needed

At rate 1 that is ProbDD's own rule. At lower rates the same removal, or another one that overlaps it, is tried again by itself if it
still promises the most, which needs no rule of its own.

Where the probabilities start is a matter of the kind of step: most failures need one fault or two, few need a certain wait. A wrong
prior costs runs and loses nothing, since a step leaves only with a failure that was seen without it, and stays only after
removals of it were kept. Whole groups (all waits, one role, one replica) need no turn of their own: tried first, they saved nothing,
since the best removal by these numbers mostly is such a group. Pure; runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Final

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import (
    Aimed,
    Burst,
    Fault,
    Kill,
    Plan,
    Respawn,
    Stall,
    Step,
    Terminate,
    Wait,
    WaitReady,
)
from graphquake.machines.plans.graph_model import Model

# How often a step of that kind is needed, over simulated failures of ten shapes; twice or half of it costs one run in ten.
PRIORS: Final[dict[type[Step], float]] = {
    Kill: 0.40,
    Terminate: 0.40,
    Stall: 0.40,
    Respawn: 0.25,
    Burst: 0.12,
    Wait: 0.04,
    WaitReady: 0.04,
}
# What is known beforehand never makes a step certain, and never rules one out.
WEIGHT_MAX: Final = 4.0
PRIOR_MIN: Final = 0.01
PRIOR_MAX: Final = 0.90
# A removal that is less likely than this to show anything is not worth a run here; the last check tries it anyway.
CHANCE_MIN: Final = 0.10

Removal = frozenset[int]


@dataclass(frozen=True, slots=True)
class Suspects:
    """The steps of a plan that fails, each with the probability that the failure needs it.

    Attributes:
        spec: the graph, whose model says which steps are left without meaning once others are gone.
        plan: the plan.
        needed: a probability for each of its steps.
    """

    spec: GraphSpec
    plan: Plan
    needed: tuple[float, ...]
    _faults: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # For each respawn, the place of the fault that it makes good; -1 for all other steps.
        last: dict[tuple[str, int], int] = {}
        faults = []
        for place, step in enumerate(self.plan.steps):
            faults.append(
                last.get((step.role, step.index), -1) if isinstance(step, Respawn) else -1
            )
            if isinstance(step, Fault):
                last[step.role, step.index] = place
        object.__setattr__(self, "_faults", tuple(faults))

    def without(self, removal: Removal) -> Suspects:
        """What is left; waits that come to stand side by side become one, which is the same run in fewer steps."""
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
        return Suspects(self.spec, replace(self.plan, steps=tuple(steps)), tuple(needed))

    def until(self, last_step: int) -> Suspects:
        """The plan up to the step that was the last when the violation began. It began before the end, so a long stay is not behind it."""
        size = len(self.plan.steps)
        if not 0 <= last_step < size - 1:
            return self.without(frozenset())
        cut = self.without(frozenset(range(last_step + 1, size)))
        return replace(cut, plan=replace(cut.plan, stay_s=0.0))

    def mended(self, places: Removal) -> Removal:
        """A removal together with the steps that become impossible by it."""
        return _mended(self.spec, self.plan, places)

    def chance(self, removal: Removal) -> float:
        """The probability that nothing of it is needed.

        A respawn is needed only if the fault before it is, so beside that fault it takes nothing from the chance.
        """
        return math.prod(
            1 - self.needed[place] for place in removal if self._faults[place] not in removal
        )

    def best(self, is_out: Callable[[Plan], bool]) -> Removal | None:
        """The removal that promises the most; None if no removal promises enough.

        Args:
            is_out: whether nothing more is to be learnt from a plan.
        """
        # At equal odds without the step that takes the longest: what is left is the cheapest run.
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

    def kept(self, removal: Removal, rate: float) -> Suspects:
        """What a run teaches that kept the promise without those steps, if the plan breaks it at that rate."""
        surprise = 1 - min(rate, 0.999) * self.chance(removal)
        needed = tuple(
            min(p / surprise, 1.0) if place in removal else p for place, p in enumerate(self.needed)
        )
        return replace(self, needed=needed)

    def after_last(self, last_step: int) -> Suspects:
        """What a violation teaches that began while that step was the last: what came later is not behind it."""
        if last_step < 0:
            return self
        needed = tuple(
            p if place <= last_step else min(p, PRIOR_MIN) for place, p in enumerate(self.needed)
        )
        return replace(self, needed=needed)


def _takes_s(step: Step) -> float:
    """What a step takes of a run, about, in seconds."""
    match step:
        case Wait() | Stall():
            return step.for_s
        case Burst():
            return step.over_s
        case _:
            return 0.0


@lru_cache(maxsize=1 << 16)
def _mended(spec: GraphSpec, plan: Plan, places: Removal) -> Removal:
    # Remembered: whoever looks ahead lets a shrink run again and again with the same questions.
    gone = places
    model = Model(spec)
    for place, step in enumerate(plan.steps):
        if place in places:
            continue
        if model.possible(step) is None:
            model = model.after(step)
        else:
            gone |= {place}
    return gone


def suspects(spec: GraphSpec, plan: Plan, weights: tuple[float, ...] = ()) -> Suspects:
    """The steps of a plan with their prior probabilities.

    Args:
        spec: the graph.
        plan: the plan that fails.
        weights: for each step a factor on its odds of being needed, 1/4 to 4; empty for none.
    """
    needed = []
    for place, step in enumerate(plan.steps):
        prior = PRIORS[type(step)]
        weight = weights[place] if place < len(weights) else 1.0
        odds = prior / (1 - prior) * min(WEIGHT_MAX, max(1 / WEIGHT_MAX, weight))
        needed.append(min(PRIOR_MAX, max(PRIOR_MIN, odds / (1 + odds))))
    return Suspects(spec, plan, tuple(needed))


def pairs(plan: Plan) -> Iterator[tuple[int, int]]:
    """Steps that may undo one another: neighbours at the same replica, and neighbouring waits."""
    acts: dict[tuple[str, int] | str, list[int]] = {}
    for place, step in enumerate(plan.steps):
        if isinstance(step, Aimed):
            acts.setdefault((step.role, step.index), []).append(place)
        elif isinstance(step, Wait):
            acts.setdefault("waits", []).append(place)
    for places in acts.values():
        yield from pairwise(places)
