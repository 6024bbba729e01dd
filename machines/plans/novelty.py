"""Choose the drawn plans that are worth a live run: those with the most features that few runs have shown.

A draw costs milliseconds and a run costs seconds. So of several draws in a row only one is run. The choice follows from the model and from
earlier draws alone, so the same seed still runs the same plans.

An **act** is a fault, a respawn or a burst of a plan. A **feature** is one of these facts about a plan:

- of one act: a kind of fault on a role; the replica that is hit; how many times replicas of a role have died or come back; an outage that
  is long enough to be visible in all that the graph says (`outage_shows_s`); a run that goes on after its steps;
- of two acts: a fault or a burst while a role is out; a fault after a replica came back; two acts in a row, soon or later;
- of an event and an act: a fault right after a wait for an event.

A feature that is rarely drawn counts more, because another draw with it may be far off. Each run that shows a feature lowers its worth.
A plan of which the run would judge little is worth less (see `judged`): what it breaks is excused.

No plan is ruled out for good. A plan without new features is run if the draws before it were not worth more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from graphquake.harness.promises.judgement import JUDGED_SHARE_MIN
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step, WaitReady
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.machines.plans.judged import judged_share

Feature: TypeAlias = tuple[str, ...]

# After a run, the next `LOOK` draws are only compared. Then the first plan that is worth at least as much as each of them is run.
# After `LOOK_MAX` draws, the next plan is run, even if it is worth less.
LOOK: Final = 5
LOOK_MAX: Final = 25
# The assumed cost of a run, in seconds, without the waits of its plan, before the search has made one.
RUN_S: Final = 1.5
# Prices are rounded to powers of this. So small differences between the runs of two searches hardly ever change the choice.
PRICE_STEP: Final = 1.5
# Each run that shows a feature multiplies the worth of the feature by this factor.
AGAIN: Final = 0.25
# A feature of a single act weighs this many times as much as a feature of two acts. There are far more features of two acts.
ALONE: Final = 4.0
# A plan whose run is probably weak has this share of its worth. In simulations with .5 or 1, more runs were weak, and fewer bugs were met.
WEAK: Final = 0.25
# This mark is added to a feature of an act that happens while no path is up. `PAIRS` are the words that mark a feature of two acts, or of
# an event and an act.
HIDDEN: Final = "without a path"
PAIRS: Final = frozenset({"then", "while out", "after the return of", "when"})
# Less time than this between two acts is "soon", and more is "later".
SOON_S: Final = 0.3


def features(spec: GraphSpec, plan: Plan) -> frozenset[Feature]:
    """Return the features that a run of a plan should show, as the model predicts them."""
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
        spec: the graph.
        found: the features so far.
        at_s: the sum of the waits so far, in seconds. The other times are on the same scale.
        out: for each role with a replica that does not work, the time since when, in seconds.
        back: for each respawned replica, the time at which it came back, in seconds.
        last: the text of the latest act, and its time in seconds. None before the first act.
        event: the text of the event that was awaited right before. Empty if the step before was not a wait for an event.
    """

    spec: GraphSpec
    found: set[Feature] = field(default_factory=set)
    at_s: float = 0.0
    out: dict[str, float] = field(default_factory=dict)
    back: dict[Replica, float] = field(default_factory=dict)
    last: tuple[str, float] | None = None
    event: str = ""
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
        elif step.adds_load or step.is_own:
            act = self._load(step)
        elif isinstance(step, WaitReady):
            self.back = dict.fromkeys(self.back, self.at_s)
        elif step.plain_s:
            self.at_s += step.plain_s
        elif step.waits_s:
            self._wait(step)
        self.event = step.feature(self.spec) if step.plain_s else ""
        self._model = step.after(self._model)
        down = (one.role for one in self.spec.replicas() if not self._model.works(one))
        self.out = {role: self.out.get(role, self.at_s) for role in down}
        if act:
            if self.last is not None:
                self.found.add((self.last[0], "then", act, self._soon(self.last[1])))
            self.last = act, self.at_s

    def _hidden(self) -> tuple[str, ...]:
        """The mark `HIDDEN` if no path is up, and nothing otherwise. No request can show the effect of an act while no path is up."""
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
        shown |= {(act, "when", self.event)} if self.event else set()
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
    """Counts the features that were drawn and run, and decides which plan is run next.

    Attributes:
        spec: the graph.
        run_s: the cost of a run, in seconds, without the waits of its plan.
        score: the worth of the plan that was chosen last, for each second of its run.
    """

    spec: GraphSpec
    run_s: float = RUN_S
    score: float = 0.0
    _run: Counter[Feature] = field(default_factory=Counter)
    _drawn: Counter[Feature] = field(default_factory=Counter)
    _draws: int = 0
    _looked: int = 0
    _best: float = 0.0

    def has_turn(self, plan: Plan) -> bool:
        """Count a drawn plan, and decide whether it should be run now. Call this method once for each draw."""
        worth = self._worth_of(plan)
        self._looked += 1
        if (self._looked > LOOK and worth >= self._best) or self._looked > LOOK_MAX:
            self._looked, self._best, self.score = 0, 0.0, worth
            return True
        self._best = max(self._best, worth)
        return False

    def best(self, plans: Iterable[Plan]) -> Plan | None:
        """Return the plan whose run shows most for each second. Of equal plans, return the first. Without plans, return None."""
        worths = [(self._worth_of(plan), plan) for plan in plans]
        if not worths:
            return None
        self.score, plan = max(worths, key=lambda one: one[0])
        return plan

    def _worth_of(self, plan: Plan) -> float:
        """Count a drawn plan, and return the worth of a run of it, for each second that the run takes."""
        shown = features(self.spec, plan)
        self._draws += 1
        self._drawn.update(shown)
        worth = sum(map(self._worth, shown)) / self.price_of(plan)
        return worth * (WEAK if judged_share(self.spec, plan) < JUDGED_SHARE_MIN else 1.0)

    def _worth(self, feature: Feature) -> float:
        """The worth of one more run that shows a feature. It is higher for a rarely drawn feature, and lower after each run with it."""
        weight = ALONE if PAIRS.isdisjoint(feature) else 1.0
        rarity = 1 + math.log2(self._draws / self._drawn[feature])
        return weight * rarity * AGAIN ** self._run[feature]

    def price_of(self, plan: Plan) -> float:
        """The seconds that a run of a plan is expected to take."""
        return self.run_s + waited_s(plan)

    def price(self, run_s: float) -> None:
        """Set the cost of a run, in seconds, without the waits of its plan. It is rounded (see `PRICE_STEP`)."""
        steps = round(math.log(max(run_s, 0.1), PRICE_STEP))
        self.run_s = PRICE_STEP**steps

    def ran(self, plan: Plan) -> None:
        """Count the features of a plan that is run."""
        self._run.update(features(self.spec, plan))


def waited_s(plan: Plan) -> float:
    """The approximate time for which a run of a plan only waits, in seconds."""
    # The effect of a step may last until heal. Then `lasts_s` is infinite, and adds no time to the run.
    lasts_s = (step.lasts_s for step in plan.steps if step.lasts_s < math.inf)
    return sum(step.waits_s + step.plain_s for step in plan.steps) + sum(lasts_s) + plan.stay_s
