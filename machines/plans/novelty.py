"""Which of the drawn plans is worth a live run: the one that shows the most that no run has shown yet.

A draw costs milliseconds and a run seconds. So of some draws in a row only one is run, and which one follows from the model and from
earlier draws alone, so that the same seed still runs the same plans. What a plan shows are its **sights**: a kind of fault on a role, a
replica that is hit, how many lives and deaths a role has had, an outage that outlasts what hides it; and of two acts, a fault while
another role is out or soon after somebody's return, which act follows which and how soon, a burst of some kind while somebody is out. A
sight that is rarely drawn counts more (its chance will not come soon again), and one that was run before counts less, each time.

Nothing is ruled out by it: a plan that shows nothing new is run as soon as none of its neighbours shows more.
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

Sight: TypeAlias = tuple[str, ...]

# So many draws are looked at before one is run, and after so many in vain any is good enough.
LOOK: Final = 5
LOOK_MAX: Final = 25
# What a run is taken to cost besides what its plan waits for, in seconds. It costs about twice as much: what waits long has to show a lot.
RUN_S: Final = 1.5
# What a sight that was run is worth, against one that was not.
AGAIN: Final = 0.25
# One act by itself comes before what two of them make together: that is by far the larger number, and would outweigh it.
ALONE: Final = 4.0
HIDDEN: Final = "without a path"
PAIRS: Final = frozenset({"then", "while out", "after the return of"})
# Two acts with less between them are one blow.
SOON_S: Final = 0.3


def sights(spec: GraphSpec, plan: Plan) -> frozenset[Sight]:
    """What a run of that plan would show, by the model."""
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
    """A plan as it would go by.

    Attributes:
        out: roles of which a replica is out, and since when.
        back: respawned replicas, and when they came.
        last: the act before, and when it was.
    """

    spec: GraphSpec
    found: set[Sight] = field(default_factory=set)
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
        """The next step."""
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
        """What is done while nothing can be served is another sight: of what it does to requests nothing is seen."""
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
        shown = {(act, "while out", role) for role in self.out or ("nobody",)}
        self.found |= {(*sight, *self._hidden()) for sight in shown}
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
        self.found |= {(*sight, *self._hidden()) for sight in shown}
        for one in step.aims:
            self.back.pop(one, None)
            if not step.lasts_s:
                self._deaths[one.role] += 1
                self.found.add(("dies", one.role, str(self._deaths[one.role])))
        return act


@dataclass(slots=True)
class Novelty:
    """The sights that were run, and whose turn it is."""

    spec: GraphSpec
    _run: Counter[Sight] = field(default_factory=Counter)
    _drawn: Counter[Sight] = field(default_factory=Counter)
    _draws: int = 0
    _looked: int = 0
    _best: float = 0.0

    def has_turn(self, plan: Plan) -> bool:
        """Whether a plan is to be run now; to be asked once for each draw."""
        shown = sights(self.spec, plan)
        self._draws += 1
        self._drawn.update(shown)
        worth = sum(map(self._news, shown)) / _takes_s(plan)
        self._looked += 1
        if (self._looked > LOOK and worth >= self._best) or self._looked > LOOK_MAX:
            self._looked, self._best = 0, 0.0
            return True
        self._best = max(self._best, worth)
        return False

    def _news(self, sight: Sight) -> float:
        """How much one more run of a sight is worth: the rarer it is drawn the more, and less each time that it was run."""
        weight = ALONE if PAIRS.isdisjoint(sight) else 1.0
        rarity = 1 + math.log2(self._draws / self._drawn[sight])
        return weight * rarity * AGAIN ** self._run[sight]

    def ran(self, plan: Plan) -> None:
        """A plan was run."""
        self._run.update(sights(self.spec, plan))


def _takes_s(plan: Plan) -> float:
    """About what a run of a plan takes."""
    waited_s = sum(step.waits_s + step.lasts_s for step in plan.steps)
    return RUN_S + waited_s + plan.stay_s
