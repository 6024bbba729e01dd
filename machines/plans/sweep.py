"""The sweep: plans with one disturbance each, with which a search begins.

A bug that one step shows is then found by a plan of one step, and needs little shrinking. A long plan that shows the same bug costs about
twenty runs to take apart.

The plans follow from the rules of the kinds of steps: every choice of a rule is tried on an empty plan. The rules of a user's subclass of
`PlanMachine` are Hypothesis rules, whose choices can't be listed. Their plans are drawn instead.

A **group** is a kind of step at a role, such as a stall of a worker. A group may have many plans, which differ in their numbers. Of these
the sweep takes the harshest: the longest stalls, the largest bursts.

One more plan kills all replicas of a role at once, for each role that has several. No single kill tells how a graph comes back from that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, TypeVar

from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Kill, Plan, Step, Wait
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.kind import FLAG, disturbs
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.machines.plans.machine import STEPS_MAX, PlanMachine, machine_for, rules_of
from graphquake.machines.plans.novelty import waited_s

T = TypeVar("T")
# The verbs and roles of the steps of a plan.
Group: TypeAlias = tuple[tuple[str, ...], ...]

# A role of several replicas is away for this time, in seconds: long enough that clients and health checks notice.
OUTAGE_S: Final = 3.0
# A role with more replicas is not killed as a whole.
OUTAGE_REPLICAS_MAX: Final = 4
# The number of lengths of a fault that are swept. The longest stall exceeds the lease, the second one the time that a client waits.
LENGTHS: Final = 2


def sweep(
    spec: GraphSpec, base: type[PlanMachine] = PlanMachine, drawn: Iterable[Plan] = ()
) -> list[Plan]:
    """Return the plans of the sweep, in the order in which they are run.

    The plans at the first replica of each role come before the same plans at the last one, and before variants of a burst. Between them,
    each role of several replicas is killed as a whole. Within these,
    plans that leave a path come before others, and short ones before long. So a fault that breaks a promise with a small number is met with
    that number first.

    Args:
        spec: the graph.
        base: the class of the machine that draws the plans of the search.
        drawn: plans that this machine draws. Of those with one disturbance, the groups that the rules of the kinds do not have join the
            sweep.
    """
    ruled = list(_ruled(spec, base))
    known = set(map(_group, ruled))
    others = [plan for plan in drawn if len(_acts(plan)) == 1 and _group(plan) not in known]
    groups: dict[Group, list[Plan]] = {}
    for plan in [*ruled, *others]:
        groups.setdefault(_group(plan), []).append(plan)
    firsts, variants = zip(*map(_harshest, groups.values()), strict=True) if groups else ((), ())

    def order(plan: Plan) -> tuple[bool, float]:
        return not _leaves_a_path(spec, plan), waited_s(plan)

    later = [other for plans in firsts for other in _at_last(spec, plans[0])]
    later += itertools.chain(*variants)
    plain = sorted(itertools.chain(*firsts), key=order)
    return plain + list(_outages(spec, plain)) + sorted(later, key=order)


def _outages(spec: GraphSpec, plans: Sequence[Plan]) -> Iterator[Plan]:
    """Yield, for each role of several replicas that kills hit, the plan that kills all of them. Heal comes `OUTAGE_S` later."""
    kills = {
        step.role: step for plan in plans for step in reversed(plan.steps) if isinstance(step, Kill)
    }
    for role in spec.roles:
        if role.name in kills and 1 < role.replicas <= OUTAGE_REPLICAS_MAX:
            each = (replace(kills[role.name], index=index) for index in range(role.replicas))
            plan = Plan((*each, Wait(OUTAGE_S)))
            if feasible(spec, plan):
                yield plan


def _at_last(spec: GraphSpec, plan: Plan) -> Iterator[Plan]:
    """Yield a plan at the last replicas of its roles, if that is another plan. Some bugs show at one replica only."""

    def last(one: Replica) -> Replica:
        return Replica(one.role, spec.role(one.role).replicas - 1)

    moved = replace(plan, steps=tuple(step.moved(last) for step in plan.steps))
    if moved != plan:
        yield moved


def _acts(plan: Plan) -> tuple[Step, ...]:
    return tuple(filter(disturbs, plan.steps))


def _group(plan: Plan) -> Group:
    """The verbs and roles of the steps. A plan with a wait is of another group: the graph stays disturbed for longer."""
    return tuple((step.verb, *(one.role for one in step.aims)) for step in plan.steps)


def _harshest(plans: Sequence[Plan]) -> tuple[list[Plan], list[Plan]]:
    """Return the plans of a group that are swept, the harshest first, and variants of the harshest one.

    Plans without numbers, such as the kills of a replica and of its children, are all swept. Of each of the others one is swept for each of
    the `LENGTHS` largest values of a length. Of a burst, the harshest is swept, and one more for each number that seldom matters.
    """
    plainest = {_acts(plan): plan for plan in sorted(plans, key=_size, reverse=True)}
    ordered = sorted(plainest.values(), key=lambda plan: (_mildness(plan), _size(plan)))
    often, seldom = _mildness(ordered[0])
    if seldom:
        return ordered[:1], list(_with_one_other(ordered, often, seldom))
    return ordered[:LENGTHS] if often else sorted(ordered, key=list(plainest.values()).index), []


def _with_one_other(
    ordered: Iterable[Plan], often: tuple[float, ...], seldom: tuple[float, ...]
) -> Iterator[Plan]:
    """Yield, for each number that seldom matters, the plan in which only this number differs from the harshest plan, and is the largest."""
    for place in range(len(seldom)):
        alone = {
            values[place]: plan
            for plan in ordered
            for other, values in [_mildness(plan)]
            if other == often and _without(values, place) == _without(seldom, place)
        }
        if len(alone) > 1:
            yield alone[max(alone)]


def _without(values: tuple[float, ...], place: int) -> tuple[float, ...]:
    return values[:place] + values[place + 1 :]


def _mildness(plan: Plan) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The numbers of the acts, so that the harshest plan comes first: the negative ones that often matter, and those that seldom do."""
    numbers = [
        (knob.seldom, getattr(step, knob.name)) for step in _acts(plan) for knob in step.knobs()
    ]
    return (
        tuple(-value for seldom, value in numbers if not seldom),
        tuple(value for seldom, value in numbers if seldom),
    )


def _size(plan: Plan) -> tuple[int, float]:
    return len(plan.steps), waited_s(plan)


def _leaves_a_path(spec: GraphSpec, plan: Plan) -> bool:
    model = GraphModel(spec)
    for step in plan.steps:
        model = step.after(model)
        if not model.serves():
            return False
    return True


# ------------------------------------------------------------------------------------------ every choice of each rule


def _ruled(spec: GraphSpec, base: type[PlanMachine]) -> Iterator[Plan]:
    """Yield the plans with one disturbance that the rules of the kinds make, at the first replica of each role.

    A plan that repairs what it has disturbed is left out. Heal does that as well.
    """
    machine = machine_for(spec, _ignore, base)
    for verb, one, is_fault in rules_of(spec, base):
        for role in spec.roles if one.at else (None,):
            aim = Replica(role.name, 0) if role else None
            for values in itertools.product(*one.ahead.values()):
                each = _Each(aim, dict(zip(one.ahead, values, strict=True)))
                while not each.ended:
                    draft = machine()
                    draft.length = STEPS_MAX
                    aims = draft.targets(one.at) if one.at else [None]
                    if not draft.may(verb, one, is_fault=is_fault) or aim not in aims:
                        break
                    draft.follow(one.make(draft, each))
                    repairs = any(step.repairs for step in draft.steps)
                    plan = draft.plan()
                    if len(_acts(plan)) == 1 and not repairs:
                        yield plan
                    each.next()


def _ignore(_: Plan) -> None:
    """A machine of the sweep draws no plan."""


@dataclass(slots=True)
class _Each:
    """A `Pick` that goes through every combination of choices, one after the other.

    Attributes:
        aim: the replica that each combination hits, if the rule hits one.
        ahead: the values that were chosen before the rule ran.
        ended: true when every combination was made.
    """

    aim: Replica | None
    ahead: Mapping[str, Any]
    ended: bool = False
    # The index of each choice, and the number of its values. `_place` is the place of the next choice.
    _chosen: list[tuple[int, int]] = field(default_factory=list)
    _place: int = 0

    @property
    def replica(self) -> Replica:
        """The replica that the rule hits."""
        assert self.aim is not None, "a rule that hits a replica says so, see Rule.at"
        return self.aim

    def one_of(self, values: Sequence[T]) -> T:
        """The value of this combination."""
        if self._place == len(self._chosen):
            self._chosen.append((0, len(values)))
        self._place += 1
        return values[self._chosen[self._place - 1][0]]

    def flag(self) -> bool:
        """The value of this combination, True or False."""
        return self.one_of(FLAG)

    def next(self) -> None:
        """Go on to the next combination: the last choice that has another value takes it, and the choices after it begin again."""
        while self._chosen and self._chosen[-1][0] + 1 == self._chosen[-1][1]:
            self._chosen.pop()
        self._place, self.ended = 0, not self._chosen
        if self._chosen:
            index, number = self._chosen.pop()
            self._chosen.append((index + 1, number))
