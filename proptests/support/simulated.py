"""Simulated bugs for the shrinker: a run takes no time, and the time of each failure is known exactly.

A `Shape` is a pure predicate over the steps of a plan and their times. A `Simulated` graph runs plans against a shape: the bug shows in a
share of the runs, and the result names the last step before it. Plans are drawn from the same model as the machine draws them, but with a
plain random generator, so that one number determines a plan.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

from graphquake.harness.spec.bounds import Promises
from graphquake.harness.spec.feasible import feasible, mend
from graphquake.harness.spec.graph import GraphSpec, Restart
from graphquake.harness.spec.load import LoadSpec
from graphquake.harness.spec.plan import (
    Burst,
    Kill,
    Plan,
    Respawn,
    Step,
    Terminate,
    Wait,
    WaitReady,
)
from graphquake.harness.spec.roles.role import RoleSpec
from graphquake.harness.spec.serves import parse_serves
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.shrinking.repeats import Repeats
from graphquake.machines.shrinking.trials import Trial

# The time that a step takes on a live graph, and the time until a replica is ready.
STEP_S: Final = 0.02
START_S: Final = 0.8
REQUESTS: Final = (5, 10, 20, 30, 40, 60)
OVER_S: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
LEAVE: Final = (0.0, 0.0, 0.25, 0.5, 1.0)
WAITS_S: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.5, 2.0)
LEASE_S: Final = 10.0
# The pause between two repetitions of a plan in one run. No drawn plan has such a wait.
PAUSE_S: Final = 2.03
REPEATS: Final = Repeats(PAUSE_S)


def spec_with(*, restart: Restart = "never", **replicas: int) -> GraphSpec:
    """Return a graph with these numbers of replicas. The first role is the entry. A role named `worker` has children."""
    counts = replicas or {"frontend": 1, "prefill": 2, "decode": 3}
    children = {"engine": "ENGINE", "helper": "HELPER"}
    roles = tuple(
        RoleSpec(
            name,
            "true",
            count,
            entry="http://127.0.0.1:{port.http}" if place == 0 else "",
            children=children if name == "worker" else {},
            dies_with=("engine",) if name == "worker" else (),
        )
        for place, (name, count) in enumerate(counts.items())
    )
    serves = parse_serves(" and ".join(counts), list(counts))
    load = LoadSpec(model="tiny")
    return GraphSpec(
        "my-disagg",
        Path("my.toml"),
        {},
        serves,
        roles,
        load,
        Promises(()),
        lease_s=LEASE_S,
        restart=restart,
    )


SPEC: Final = spec_with()


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a plan that has taken effect.

    Attributes:
        place: its place in the plan, from 0.
        at_s: when it took effect, on the plan's clock.
        step: the step.
        model: the graph after the step.
    """

    place: int
    at_s: float
    step: Step
    model: GraphModel

    def dead(self, role: str) -> int:
        """Return how many replicas of a role are dead."""
        replicas = self.model.spec.role(role).replicas
        return sum(
            Terminate(role, index).possible(self.model) is not None for index in range(replicas)
        )


def timeline(spec: GraphSpec, plan: Plan) -> list[Moment]:
    """Return the steps of a plan with the times at which they take effect."""
    model, at_s, ready_s, moments = GraphModel(spec), 0.0, 0.0, []
    for place, step in enumerate(plan.steps):
        model = step.after(model)
        at_s += step.for_s if isinstance(step, Wait) else STEP_S
        if isinstance(step, WaitReady):
            at_s = max(at_s, ready_s)
        if isinstance(step, Respawn):
            ready_s = at_s + START_S
        moments.append(Moment(place, at_s, step, model))
    return moments


Violated = Callable[[list[Moment], Plan], float | None]


@dataclass(frozen=True, slots=True)
class Shape:
    """A bug.

    Attributes:
        violated: returns when the bug first shows, on the plan's clock, or None if it does not.
        steps: the length of its minimal plans.
        late_s: the delay until it is seen, such as the window W in which errors are excused.
    """

    name: str
    violated: Violated
    steps: int
    late_s: float = 0.0

    def at_s(self, plan: Plan) -> float | None:
        """Return when the bug is seen in a run of a plan, or None if it does not show."""
        shown_s = self.violated(timeline(SPEC, plan), plan)
        return None if shown_s is None else shown_s + self.late_s

    def is_step_minimal(self, plan: Plan) -> bool:
        """Return whether the bug shows with a plan, and with no plan that lacks one of its steps."""
        shorter = (
            mend(SPEC, replace(plan, steps=(*plan.steps[:place], *plan.steps[place + 1 :])))
            for place in range(len(plan.steps))
        )
        return self.at_s(plan) is not None and all(self.at_s(one) is None for one in shorter)


def _first(times_s: Iterator[float]) -> float | None:
    return min(times_s, default=None)


def _pair_in_order(moments: list[Moment], _plan: Plan) -> float | None:
    first = _first(m.at_s for m in moments if m.step == Kill("prefill", 0))
    return _first(
        m.at_s
        for m in moments
        if m.step == Kill("decode", 1) and first is not None and m.at_s > first
    )


def _burst_on_one(moments: list[Moment], _plan: Plan) -> float | None:
    return _first(
        m.at_s
        for m in moments
        if isinstance(m.step, Burst) and m.step.requests > 37 and m.dead("decode") == 2
    )


def _two_in_two_seconds(moments: list[Moment], _plan: Plan) -> float | None:
    kills = [m.at_s for m in moments if isinstance(m.step, Kill)]
    return _first(b for a, b in pairwise(kills) if b - a <= 2.0)


def _burst_after_respawn(moments: list[Moment], _plan: Plan) -> float | None:
    back = _first(
        m.at_s for m in moments if isinstance(m.step, Respawn) and m.step.role == "decode"
    )
    return _first(
        m.at_s for m in moments if isinstance(m.step, Burst) and back is not None and m.at_s > back
    )


def _third_respawn(moments: list[Moment], _plan: Plan) -> float | None:
    respawns = [m.at_s for m in moments if isinstance(m.step, Respawn)]
    return respawns[2] if len(respawns) > 2 else None


def _single_kill(moments: list[Moment], _plan: Plan) -> float | None:
    return _first(m.at_s for m in moments if m.step == Kill("decode", 0))


def _kill_in_start(moments: list[Moment], _plan: Plan) -> float | None:
    respawns = [m.at_s for m in moments if isinstance(m.step, Respawn)]
    kills = [m.at_s for m in moments if m.step.is_fault]
    return _first(k for k in kills for r in respawns if 0 < k - r <= 0.3)


def _all_of_a_role(moments: list[Moment], _plan: Plan) -> float | None:
    return _first(m.at_s for m in moments if m.step.is_fault and m.dead("decode") == 3)


def _burst_late_after_kill(moments: list[Moment], _plan: Plan) -> float | None:
    killed = [m.at_s for m in moments if isinstance(m.step, Kill) and m.step.role == "prefill"]
    bursts = [m.at_s for m in moments if isinstance(m.step, Burst) and m.step.requests >= 12]
    return _first(b for b in bursts for k in killed if b - k >= 0.8)


def _stale_lease(moments: list[Moment], plan: Plan) -> float | None:
    killed = _first(m.at_s for m in moments if isinstance(m.step, Kill) and m.step.role == "decode")
    end_s = moments[-1].at_s if moments else 0.0
    return None if killed is None or plan.stay_s < 7.0 else end_s + 7.0


SHAPES: Final = (
    Shape("pair of kills in order", _pair_in_order, 2, 2.1),
    Shape("burst > 37 with one alive", _burst_on_one, 3, 0.1),
    Shape("two kills within 2 s", _two_in_two_seconds, 2, 2.1),
    Shape("burst after respawn", _burst_after_respawn, 3, 0.1),
    Shape("third respawn", _third_respawn, 6, 0.5),
    Shape("single kill", _single_kill, 1, 2.1),
    Shape("kill within 0.3 s of a respawn", _kill_in_start, 3, 0.5),
    Shape("all of a role dead", _all_of_a_role, 3, 2.1),
    Shape("burst 0.8 s after a kill", _burst_late_after_kill, 3, 0.1),
    Shape("stale lease", _stale_lease, 1, 0.0),
)


@dataclass(slots=True)
class Simulated:
    """A graph with one bug.

    Attributes:
        rate: the share of the runs in which the bug shows, for each plan that triggers it.
        invalid: the share of invalid runs.
        runs_max: the budget, in runs.
        ran: all plans that were run.
    """

    shape: Shape
    seed: int
    rate: float | Callable[[Plan], float] = 1.0
    invalid: float = 0.0
    runs_max: int = 10_000
    ran: list[Plan] = field(default_factory=list)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.shape.name}/{self.seed}")

    def __call__(self, plan: Plan) -> Trial:
        """Make one fresh run of a plan."""
        assert feasible(SPEC, plan), (
            f"the shrinker asked for a plan that is not possible: {plan.one_line()}"
        )
        if len(self.ran) >= self.runs_max:
            raise BudgetSpent
        self.ran.append(plan)
        if self._random.random() < self.invalid:
            return Trial("invalid")
        parts = repetitions(plan)
        rate = self.rate(parts[0]) if callable(self.rate) else self.rate
        for number in range(len(parts)):
            if self._random.random() < rate:
                trial = broken(self.shape, plan, number)
                if trial.kind == "broken":
                    return trial
        return Trial("kept")


def repetitions(plan: Plan) -> list[Plan]:
    """Return the repetitions of a plan that `repeats.repeated` has made, each with the steps that bring the graph back after it."""
    steps, parts, begun = plan.steps, list[Plan](), 0
    for place in range(1, len(steps)):
        if steps[place - 1 : place + 1] == (WaitReady(), Wait(max(PAUSE_S, plan.stay_s))):
            parts.append(replace(plan, steps=steps[begun : place + 1]))
            begun = place + 1
    return [*parts, replace(plan, steps=steps[begun:])]


def broken(shape: Shape, plan: Plan, repetition: int = 0) -> Trial:
    """Return the result of a run in which the bug shows in a repetition of a plan, if that repetition triggers it."""
    at_s = shown_s(shape, plan, repetition)
    if at_s is None:
        return Trial("kept")
    begun_s = [0.0, *(m.at_s for m in timeline(SPEC, plan))][:-1]
    return Trial(
        "broken", last_step=max((p for p, s in enumerate(begun_s) if s <= at_s), default=-1)
    )


def shown_s(shape: Shape, plan: Plan, repetition: int) -> float | None:
    """Return when the bug is seen in a repetition, on the clock of the whole run, or None if the repetition does not trigger it.

    What earlier repetitions did is still there: a trigger may have begun in one of them, and ends in this one. So a plan that does not
    trigger the bug alone may trigger it when it is repeated.
    """
    parts, moments = repetitions(plan), timeline(SPEC, plan)
    begins = [0]
    for part in parts:
        begins.append(begins[-1] + len(part.steps))
    begun_s = moments[begins[repetition] - 1].at_s if repetition else 0.0
    single = replace(plan, steps=parts[-1].steps)
    for first in range(repetition, -1, -1):
        last = begins[repetition] + len(single.steps)
        at_s = shape.violated(moments[begins[first] : last], single)
        if at_s is not None and at_s >= begun_s:
            return at_s + shape.late_s
    return None


def drawn(seed: int | str, *, steps: tuple[int, int] = (6, 20), faults_max: int = 6) -> Plan:
    """Draw a plan as the machine would: each kind of step equally often, only possible steps, a role before a replica."""
    rng = random.Random(f"plan/{seed}")
    model, plan, length = GraphModel(SPEC), list[Step](), rng.randint(*steps)
    while len(plan) < length:
        step = _drawn_step(rng, model)
        if step is None or (step.is_fault and sum(one.is_fault for one in plan) >= faults_max):
            continue
        plan.append(step)
        model = step.after(model)
    return Plan(tuple(plan), stay_s=LEASE_S + 2.0 if rng.random() < 0.2 else 0.0)


def _drawn_step(rng: random.Random, model: GraphModel) -> Step | None:
    kind = rng.choice((Kill, Terminate, Respawn, Burst, Wait, WaitReady))
    if kind is Burst:
        return Burst(rng.choice(REQUESTS), rng.choice(OVER_S), rng.choice(LEAVE))
    if kind is Wait:
        return Wait(rng.choice(WAITS_S))
    if kind is WaitReady:
        return WaitReady()
    make: Callable[[str, int], Step] = {"Kill": Kill, "Terminate": Terminate, "Respawn": Respawn}[
        kind.__name__
    ]
    aims = [who for who in SPEC.replicas() if make(who.role, who.index).possible(model) is None]
    if not aims:
        return None
    role = rng.choice(list(dict.fromkeys(one.role for one in aims)))
    return make(role, rng.choice([one.index for one in aims if one.role == role]))


def failing(shape: Shape, seed: int, *, steps: tuple[int, int] = (6, 20)) -> Plan:
    """Return the first drawn plan in which a bug shows."""
    return next(
        plan
        for number in range(1_000_000)
        if shape.at_s(plan := drawn(f"{shape.name}/{seed}/{number}", steps=steps)) is not None
    )
