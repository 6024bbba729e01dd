"""Choose the drawn plans that are worth a live run: those that show the most features that few runs have shown.

A draw costs milliseconds and a run costs seconds. So of several draws in a row only one is run. The choice follows from the model and from
earlier draws alone, so the same seed still runs the same plans.

A plan shows **features**. One act has these: the kind of fault on a role, the replica that is hit, the number of lives and deaths of a
role, and an outage that outlasts its hidden time. Two acts have these: a fault while another role is out, a fault soon after a replica came
back, and a burst while a role is out. Two acts in a row are a feature, too, with the time between them.
A feature that is rarely drawn counts more, because its chance does not come again soon. Each run of a feature lowers its worth.

This rules out no plan for good: a plan without new features is run as soon as none of its neighbours shows more.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step, WaitReady
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.model import GraphModel

Feature: TypeAlias = tuple[str, ...]

# A plan is run after this many draws at the earliest, if it is worth the most so far. After `LOOK_MAX` draws any plan is run.
LOOK: Final = 5
LOOK_MAX: Final = 25
# The assumed cost of a run, in seconds, without the waits of its plan. The true cost is about twice that. So waits weigh more than
# they cost: a plan that waits long has to show a lot.
RUN_S: Final = 1.5
# Each run of a feature multiplies its worth by this.
AGAIN: Final = 0.25
# The features of single acts weigh more than those of pairs. Pairs are far more numerous, and would outweigh them.
ALONE: Final = 4.0
HIDDEN: Final = "without a path"
PAIRS: Final = frozenset({"then", "while out", "after the return of"})
# Two acts with less time between them count as simultaneous.
SOON_S: Final = 0.3


def features(spec: GraphSpec, plan: Plan) -> frozenset[Feature]:
    """Return the features that a run of a plan would show, by the model."""
    look = _Look(spec)
    for step in plan.steps:
        look.at(step)
    if plan.stay_s:
        look.found |= {
            ("stays", role) for role in {one.role for step in plan.faults for one in step.aims}
        }
    return frozenset(look.found)


@dataclass(slots=True)
class _Look:
    """Collects the features of a plan, step by step.

    Attributes:
        found: the features so far.
        out: the roles with a replica that is out, and the time since when.
        back: the respawned replicas, and the time at which each came back.
        last: the act before, and its time.
    """

    spec: GraphSpec
    found: set[Feature] = field(default_factory=set)
    at_s: float = 0.0
    out: dict[str, float] = field(default_factory=dict)
    back: dict[Replica, float] = field(default_factory=dict)
    last: tuple[str, float] | None = None
    _model: GraphModel = field(init=False)
    _lives: Counter[str] = field(default_factory=Counter)
    _deaths: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._model = GraphModel(self.spec)

    def at(self, step: Step) -> None:
        """Add the features of the next step."""
        act = ""
        if step.is_fault:
            act = self._fault(step)
        elif step.repairs:
            act = self._repair(step)
        elif step.adds_load:
            act = self._load(step)
        elif isinstance(step, WaitReady):
            self.back = dict.fromkeys(self.back, self.at_s)
        elif step.waits_s:
            self._wait(step)
        self._model = step.after(self._model)
        down = (one.role for one in self.spec.replicas() if not self._model.works(one))
        self.out = {role: self.out.get(role, self.at_s) for role in down}
        if act:
            if self.last is not None:
                self.found.add((self.last[0], "then", act, self._soon(self.last[1])))
            self.last = act, self.at_s

    def _hidden(self) -> tuple[str, ...]:
        """The mark of a step while no path is up. It makes a separate feature: requests do not show the effect of such a step."""
        return () if self._model.serves() else (HIDDEN,)

    def _soon(self, since_s: float) -> str:
        return "soon" if self.at_s - since_s < SOON_S else "later"

    def _wait(self, step: Step) -> None:
        self.at_s += step.waits_s
        shows_s = self.spec.outage_shows_s
        long = (role for role, since_s in self.out.items() if self.at_s - since_s > shows_s)
        self.found |= {("out for long", role) for role in long}

    def _load(self, step: Step) -> str:
        act = step.feature(self.spec)
        shown = {(act, "while out", role) for role in self.out or ("no replica",)}
        self.found |= {(*feature, *self._hidden()) for feature in shown}
        return act

    def _repair(self, step: Step) -> str:
        for one in step.aims:
            self._lives[one.role] += 1
            self.back[one] = self.at_s
            self.found.add((step.verb, one.role, str(self._lives[one.role])))
        return step.feature(self.spec)

    def _fault(self, step: Step) -> str:
        act = step.feature(self.spec)
        shown = {(act,), *(("hits", one.role, str(one.index)) for one in step.aims)}
        shown |= {(act, "while out", role) for role in self.out}
        shown |= {
            (
                act,
                "after the return of",
                "itself" if who in step.aims else who.role,
                self._soon(since_s),
            )
            for who, since_s in self.back.items()
        }
        self.found |= {(*feature, *self._hidden()) for feature in shown}
        for one in step.aims:
            self.back.pop(one, None)
            if not step.lasts_s:
                self._deaths[one.role] += 1
                self.found.add(("dies", one.role, str(self._deaths[one.role])))
        return act


@dataclass(slots=True)
class Novelty:
    """Counts the features that were drawn and run, and decides which plan is run next."""

    spec: GraphSpec
    _run: Counter[Feature] = field(default_factory=Counter)
    _drawn: Counter[Feature] = field(default_factory=Counter)
    _draws: int = 0
    _looked: int = 0
    _best: float = 0.0

    def has_turn(self, plan: Plan) -> bool:
        """True if a plan should be run now. Call it once for each draw."""
        shown = features(self.spec, plan)
        self._draws += 1
        self._drawn.update(shown)
        worth = sum(map(self._worth, shown)) / _takes_s(plan)
        self._looked += 1
        if (self._looked > LOOK and worth >= self._best) or self._looked > LOOK_MAX:
            self._looked, self._best = 0, 0.0
            return True
        self._best = max(self._best, worth)
        return False

    def _worth(self, feature: Feature) -> float:
        """The worth of one more run of a feature: the rarer it is drawn the more, and less for each run of it."""
        weight = ALONE if PAIRS.isdisjoint(feature) else 1.0
        rarity = 1 + math.log2(self._draws / self._drawn[feature])
        return weight * rarity * AGAIN ** self._run[feature]

    def ran(self, plan: Plan) -> None:
        """Note that a plan was run."""
        self._run.update(features(self.spec, plan))


def _takes_s(plan: Plan) -> float:
    """The approximate time that a run of a plan takes, in seconds."""
    # A step that only heal undoes does not add time.
    waited_s = sum(
        step.waits_s + (step.lasts_s if step.lasts_s < math.inf else 0.0) for step in plan.steps
    )
    return RUN_S + waited_s + plan.stay_s
