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
from graphquake.harness.spec.plan import (
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
# Requests from where on a burst is a large one.
MANY: Final = 25
# A stall that somebody with patience takes for a death.
LONG_S: Final = 1.0
# Two acts with less between them are one blow.
SOON_S: Final = 0.3


def outlast_s(spec: GraphSpec) -> float:
    """What is out for so long has to show in all that the graph says of itself."""
    return spec.lease_s + spec.promises.agree_s


def sights(spec: GraphSpec, plan: Plan) -> frozenset[Sight]:
    """What a run of that plan would show, by the model."""
    look = _Look(spec)
    for step in plan.steps:
        look.at(step)
    if plan.stay_s:
        look.found |= {("stays", role) for role in {step.role for step in plan.faults}}
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
    back: dict[tuple[str, int], float] = field(default_factory=dict)
    last: tuple[str, float] | None = None
    _model: Model = field(init=False)
    _lives: Counter[str] = field(default_factory=Counter)
    _deaths: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._model = Model(self.spec)

    def at(self, step: Step) -> None:
        """The next step."""
        act = ""
        match step:
            case Wait():
                self._wait(step)
            case WaitReady():
                self.back = dict.fromkeys(self.back, self.at_s)
            case Burst():
                act = self._burst(step)
            case Respawn():
                act = self._respawn(step)
            case Kill() | Terminate() | Stall():
                act = self._fault(step)
        self._model = self._model.after(step)
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

    def _wait(self, step: Wait) -> None:
        self.at_s += step.for_s
        long = (
            role for role, since_s in self.out.items() if self.at_s - since_s > outlast_s(self.spec)
        )
        self.found |= {("out for long", role) for role in long}

    def _burst(self, step: Burst) -> str:
        words = ["burst", "many" if step.requests >= MANY else "few"]
        words += ["at once"] * (step.over_s <= SOON_S) + ["leave"] * (step.leave > 0)
        act = " ".join(words)
        shown = {(act, "while out", role) for role in self.out or ("nobody",)}
        self.found |= {(*sight, *self._hidden()) for sight in shown}
        return act

    def _respawn(self, step: Respawn) -> str:
        self._lives[step.role] += 1
        self.back[step.role, step.index] = self.at_s
        self.found.add(("respawn", step.role, str(self._lives[step.role])))
        return f"respawn {step.role}"

    def _fault(self, step: Fault) -> str:
        act = _act(self.spec, step)
        own = step.role, step.index
        shown = {(act,), ("hits", step.role, str(step.index))}
        shown |= {(act, "while out", role) for role in self.out}
        shown |= {
            (act, "after the return of", "itself" if who == own else who[0], self._soon(since_s))
            for who, since_s in self.back.items()
        }
        self.found |= {(*sight, *self._hidden()) for sight in shown}
        self.back.pop(own, None)
        if not isinstance(step, Stall):
            self._deaths[step.role] += 1
            self.found.add(("dies", step.role, str(self._deaths[step.role])))
        return act


def _act(spec: GraphSpec, step: Fault) -> str:
    """A fault without its number, but for how long it takes."""
    kind = f"{type(step).__name__.lower()} {step.role}"
    if isinstance(step, Kill):
        return f"{kind} {step.scope}"
    if isinstance(step, Stall):
        beyond = spec.lease_s and step.for_s > spec.lease_s
        return (
            f"{kind} {'beyond a lease' if beyond else 'long' if step.for_s >= LONG_S else 'short'}"
        )
    return kind


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
    waited_s = sum(step.for_s for step in plan.steps if isinstance(step, Wait | Stall))
    return RUN_S + waited_s + plan.stay_s
