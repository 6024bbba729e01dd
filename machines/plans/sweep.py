"""The sweep: plans with one disturbance each, with which a search begins.

A bug that one step shows is then found by a plan of one step, and needs little shrinking. A long plan that shows the same bug costs about
twenty runs to take apart.

The plans follow from the rules of the kinds of steps: every choice of a rule is tried on an empty plan. The rules of a user's subclass of
`PlanMachine` are Hypothesis rules, whose choices can't be listed. Their plans are drawn instead.

A **group** is a kind of step at a role, such as a stall of a worker. A group may have many plans, which differ in their numbers. Of these
the sweep takes the harshest: the longest stalls, the largest bursts.

Of the rare plans, the last ones kill one replica many times, for the promise `no_growth`.

One more plan kills all replicas of a role at once, for each role that has several. No single kill shows the recovery from that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Kill, Plan, Step, Wait
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.kind import FLAG, disturbs
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.processes.crash import Crash
from graphquake.harness.spec.steps.scope import TREE
from graphquake.machines.plans.drawn_rules import machine_for, rules_of
from graphquake.machines.plans.machine import STEPS_MAX, PlanMachine
from graphquake.machines.plans.novelty import waited_s

T = TypeVar("T")
# The deaths that `no_growth` is judged by: their number, the time from a start to the next death, and the time after the last death.
CHURN_DEATHS: Final = 8
CHURN_LIFE_MS: Final = 2000
CHURN_STAY_S: Final = 5.0
# The titles and roles of the steps of a plan.
Group: TypeAlias = tuple[tuple[str, ...], ...]

# A role of several replicas is away for this time, in seconds: long enough that clients and health checks notice.
OUTAGE_S: Final = 3.0
# A role with more replicas is not killed as a whole.
OUTAGE_REPLICAS_MAX: Final = 4
# The number of lengths of a fault that are swept. The longest stall exceeds the lease, the second one the time that a client waits.
LENGTHS: Final = 2


class Sweep(NamedTuple):
    """The plans of one disturbance.

    Attributes:
        first: the plans with which a search begins: each fault at the first replica of each role, or at its link to each other role, and
            the bursts. A fault lasts longer than a client waits, if one of its lengths does: clients notice no shorter one.
            Replicas that others can replace come first, and roles that are killed as a whole come last.
        later: the same faults with other lengths or at the last replica, and outages.
        seldom: the plans of the rare rules (see `Rule.seldom`), and the other faults of links. The kinds of faults take turns.
    """

    first: list[Plan]
    later: list[Plan]
    seldom: list[Plan]

    @property
    def plain(self) -> list[Plan]:
        """The plans without those of the rare rules."""
        return [*self.first, *self.later]

    @property
    def second(self) -> list[Plan]:
        """The plans that come between drawn ones: by turns one of `later` and two of `seldom`, of which there are more."""
        return _by_turns([self.later, self.seldom[::2], self.seldom[1::2]])


def sweep(
    spec: GraphSpec, base: type[PlanMachine] = PlanMachine, drawn: Iterable[Plan] = ()
) -> Sweep:
    """Return the plans of one disturbance, in the order in which they are run.

    In each part, plans that leave a path come before others, and short ones before long. So a fault that breaks a promise with a small
    number is met with that number first.

    Args:
        spec: the graph.
        base: the class of the machine that draws the plans of the search.
        drawn: plans that this machine draws. Of those with one disturbance, the groups that the rules of the kinds do not have join the
            sweep.
    """
    ruled, seldom = (list(_ruled(spec, base, seldom=seldom)) for seldom in (False, True))
    known = {_group(plan) for plan in (*ruled, *seldom)}
    others = [plan for plan in drawn if len(_acts(plan)) == 1 and _group(plan) not in known]

    def order(plan: Plan) -> tuple[bool, float]:
        return not _leaves_a_path(spec, plan), waited_s(plan)

    first: list[Plan] = []
    later: list[Plan] = []
    last: list[Plan] = []
    rare: dict[str, list[Sequence[Plan]]] = {}
    for plans, variants in _groups([*ruled, *others]):
        # A plan of a kind that waits is an outage.
        is_late = bool(waited_s(plans[0])) and plans[0] not in others and not _lasts(plans[0])
        act = _acts(plans[0])[0]
        # A graph has many links. Only those between two roles come early: a replica that has no link at all leaves little to judge.
        if is_late or (act.is_link and len(act.roles) == 1):
            rest = plans
        else:
            early, rest = _by_length(plans, spec.promises.stall_s)
            first += (*early, *variants)
        if act.is_link:
            rare.setdefault(act.called, []).append([*rest, *_at_last(spec, plans[0])])
        else:
            later += rest
            last += _at_last(spec, plans[0])
    for plans, variants in _groups(seldom):
        kind = rare.setdefault(_acts(plans[0])[0].called, [])
        kind.append((*plans, *variants, *_at_last(spec, plans[0])))
    return Sweep(
        [
            *sorted(first, key=lambda plan: (*order(plan), _cuts_a_single(spec, plan))),
            *_outages(spec, first),
        ],
        [*sorted(later, key=order), *sorted(last, key=order)],
        _rare_by_turns(spec, rare, order),
    )


def _rare_by_turns(
    spec: GraphSpec,
    groups: Mapping[str, Sequence[Sequence[Plan]]],
    order: Callable[[Plan], tuple[bool, float]],
) -> list[Plan]:
    """The rare plans, one of each kind after the other.

    A kind strikes at every role before it strikes one again in another way. Roles with several replicas come first, because a path is left.

    Args:
        spec: the graph.
        groups: for each kind, the plans of its groups.
        order: tells which plans come first.
    """

    def tells_most(plan: Plan) -> tuple[tuple[bool, float], int]:
        replicas = [spec.role(name).replicas for step in plan.steps for name in step.roles]
        return order(plan), -max(replicas, default=0)

    kinds = [
        list(itertools.chain(*(sorted(rank, key=tells_most) for rank in _ranks(of_kind))))
        for of_kind in groups.values()
    ]
    # Bursts come first: they are short, and any of their failures is judged.
    return _by_turns([*sorted(kinds, key=_is_quiet), [*_churns(spec)]])


def _ranks(groups: Sequence[Sequence[T]]) -> Iterator[list[T]]:
    """Yield the first items of all groups, then the second ones, and so on."""
    for rank in itertools.zip_longest(*groups):
        yield [one for one in rank if one is not None]


def _is_quiet(plans: Sequence[Plan]) -> bool:
    return not plans[0].adds_load


def _by_turns(lists: Sequence[Sequence[T]]) -> list[T]:
    """One item of each list after the other, until all lists have ended."""
    return list(itertools.chain(*_ranks(lists)))


def _groups(plans: Iterable[Plan]) -> Iterator[tuple[list[Plan], list[Plan]]]:
    """Yield, for each group, the plans that are swept, the harshest first, and variants of it."""
    groups: dict[Group, list[Plan]] = {}
    for plan in plans:
        groups.setdefault(_group(plan), []).append(plan)
    return map(_harshest, groups.values())


def _lasts(plan: Plan) -> bool:
    """True if a step of a plan acts on the graph for a time that the step gives."""
    return any(step.lasts_s for step in plan.steps)


def _by_length(plans: list[Plan], beyond_s: float) -> tuple[list[Plan], list[Plan]]:
    """Return the plans of a group that come first, and the others.

    Of plans that differ in their lengths, the shortest beyond the time `beyond_s`, in seconds, comes first. If none is beyond it, that is
    the shortest of all, or the longest for faults of links, because TCP bridges shorter ones.
    """
    if not _lasts(plans[0]):
        return plans, []
    by_length = sorted(plans, key=_lasted_s)
    else_ = by_length[-1] if any(step.is_link for step in plans[0].steps) else by_length[0]
    chosen = next((plan for plan in by_length if _lasted_s(plan) > beyond_s), else_)
    return [chosen], [plan for plan in plans if plan != chosen]


def _cuts_a_single(spec: GraphSpec, plan: Plan) -> bool:
    """True if a plan disturbs the links of a replica that is the only one of its role: then no other one can take over."""
    return any(
        step.is_link and all(spec.role(one.role).replicas == 1 for one in step.aims)
        for step in plan.steps
    )


def _lasted_s(plan: Plan) -> float:
    return sum(step.lasts_s for step in plan.steps)


def _outages(spec: GraphSpec, plans: Sequence[Plan]) -> Iterator[Plan]:
    """Yield, for each role of several replicas that kills hit, the plan that kills all of them. Heal comes `OUTAGE_S` later."""
    kills: dict[str, Kill] = {}
    for step in itertools.chain(*(plan.steps for plan in plans)):
        if isinstance(step, Kill) and step.scope == TREE:
            kills.setdefault(step.role, step)
    for role in spec.roles:
        if role.name in kills and 1 < role.replicas <= OUTAGE_REPLICAS_MAX:
            each = (replace(kills[role.name], index=index) for index in range(role.replicas))
            plan = Plan((*each, Wait(OUTAGE_S)))
            if feasible(spec, plan):
                yield plan


def _churns(spec: GraphSpec) -> Iterator[Plan]:
    """Yield, for each role of several replicas, a plan with as many deaths of its last replica as `no_growth` needs."""
    for role in spec.roles:
        step = Crash(role.name, role.replicas - 1, CHURN_DEATHS, CHURN_LIFE_MS)
        plan = Plan((step,), stay_s=CHURN_STAY_S)
        wanted = "no_growth" in spec.promises.made and step.called in spec.faults_at(role.name)
        if wanted and role.replicas > 1 and feasible(spec, plan):
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
    """The titles and roles of the steps. A plan with a wait is of another group: the graph stays disturbed for longer."""
    return tuple((step.called, *step.roles) for step in plan.steps)


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
    if often:
        return _of_lengths(ordered), []
    return sorted(ordered, key=list(plainest.values()).index), []


def _of_lengths(ordered: Sequence[Plan]) -> list[Plan]:
    """Return `LENGTHS` plans, the harshest first. One that differs from a harsher one in its second number alone comes last."""
    chosen: list[Plan] = []
    harsher: set[float] = set()
    for (length, *_), of_numbers in itertools.groupby(ordered, lambda plan: _mildness(plan)[0]):
        if length not in harsher:
            harsher.add(length)
            chosen += of_numbers
    return list(dict.fromkeys([*chosen, *ordered]))[:LENGTHS]


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


def _ruled(spec: GraphSpec, base: type[PlanMachine], *, seldom: bool) -> Iterator[Plan]:
    """Yield the plans with one disturbance that the rules of the kinds make, at the first replica of each role.

    A plan that repairs its own disturbance is left out. Heal does that as well.
    """
    machine = machine_for(spec, _ignore, base)
    used = [one for one in rules_of(spec, base) if one[0].seldom == seldom]
    for one, is_fault in used:
        for role in spec.roles if one.at else (None,):
            aim = Replica(role.name, 0) if role else None
            for values in itertools.product(*one.ahead.values()):
                each = _Each(aim, dict(zip(one.ahead, values, strict=True)))
                while not each.ended:
                    draft = machine()
                    draft.length = STEPS_MAX
                    aims = draft.targets(one.at) if one.at else [None]
                    if not draft.may(one, is_fault=is_fault) or aim not in aims:
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
