"""Turn the rules of the kinds of steps into rules of Hypothesis, and make the class of the machine that draws plans for one graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.steps.kind import FLAG, Rule
from graphquake.harness.spec.steps.own.own import own_rules
from graphquake.harness.spec.steps.table import rules
from graphquake.harness.spec.steps.waits.timings import timings
from graphquake.machines.plans.machine import DrawnPick, OnPlan, PlanMachine

# A fault that is timed by an event takes two steps: the wait for the event, and the fault.
TIMED_STEPS: Final = 2

# A rule of a kind of steps, and whether the kind is a fault.
Ruled: TypeAlias = tuple[Rule, bool]


def _rule_of(one: Rule, *, is_fault: bool) -> Any:
    """Turn a `Rule` of a kind of steps into a rule of Hypothesis."""

    def draw(self: PlanMachine, data: st.DataObject | None = None, **ahead: object) -> None:
        _follow(self, one, data, ahead)

    draw.__name__ = draw.__qualname__ = one.name
    # Hypothesis orders rules by the number of their arguments, so a rule without choices gets no data.
    arguments: dict[str, Any] = {"data": st.data()} if one.at or one.picks else {}
    arguments |= {name: _among(values) for name, values in one.ahead.items()}
    may = precondition(lambda self: _is_possible(self, one, is_fault=is_fault))
    return may(rule(**arguments)(draw))  # type: ignore[no-untyped-call]  # Hypothesis's rule() is not typed


def _among(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.booleans() if values is FLAG else st.sampled_from(values)


def _follow(
    machine: PlanMachine, one: Rule, data: st.DataObject | None, ahead: Mapping[str, Any]
) -> None:
    """Add the steps of a rule."""
    targets = machine.targets(one.at) if one.at else []
    machine.follow(one.make(machine, DrawnPick(data, machine.weighed(targets), targets, ahead)))


def _draw_ahead(machine: PlanMachine, one: Rule, data: st.DataObject) -> None:
    """Add the steps of a rule that was chosen among others, after a choice for each name in its `ahead`."""
    ahead = {name: data.draw(_among(values)) for name, values in one.ahead.items()}
    _follow(machine, one, data, ahead)


def _possible(machine: PlanMachine, among: Sequence[Ruled]) -> list[Rule]:
    """Those of some rules that may add steps now."""
    return [one for one, is_fault in among if _is_possible(machine, one, is_fault=is_fault)]


def _is_possible(machine: PlanMachine, one: Rule, *, is_fault: bool) -> bool:
    return machine.asked(one.name, partial(machine.may, one, is_fault=is_fault))


def _any_possible(machine: PlanMachine, among: Sequence[Ruled]) -> bool:
    return any(_is_possible(machine, one, is_fault=is_fault) for one, is_fault in among)


def _timed_fault(timed: Sequence[Ruled]) -> Any:
    """Make the rule that draws a wait for an event, and a fault right after it. `timed` has the rules of these faults."""

    def timed_fault(self: PlanMachine, data: st.DataObject) -> None:
        self.add(data.draw(st.sampled_from(timings(self))))
        # The rare rules together are one choice.
        possible = _possible(self, timed)
        seldom = [one for one in possible if one.seldom]
        choices: list[Rule | None] = [one for one in possible if not one.seldom]
        one = data.draw(st.sampled_from([*choices, None] if seldom else choices))
        _draw_ahead(self, one or data.draw(st.sampled_from(seldom)), data)

    may = precondition(
        lambda self: (
            self.room >= TIMED_STEPS
            and bool(self.asked(timings, partial(timings, self)))
            and _any_possible(self, timed)
        )
    )
    return may(rule(data=st.data())(timed_fault))


def _seldom_fault(seldom: Sequence[Ruled]) -> Any:
    """Make the rule that stands for all rare rules (see `Rule.seldom`)."""

    def seldom_fault(self: PlanMachine, data: st.DataObject) -> None:
        _draw_ahead(self, data.draw(st.sampled_from(_possible(self, seldom))), data)

    may = precondition(lambda self: _any_possible(self, seldom))
    return may(rule(data=st.data())(seldom_fault))


def rules_of(spec: GraphSpec, base: type[PlanMachine]) -> Iterator[Ruled]:
    """Yield each rule that may be drawn, and whether it draws a fault.

    Kinds that fit no role are left out, and so are faults that the graph file does not let be drawn at any role.

    Args:
        spec: the graph, which may define steps of the user's own. A built-in kind with the name of such a step is left out.
        base: the machine's class. A rule whose name it has is left out: the class has its own rule instead.
    """
    at_roles = (title for role in spec.roles for title in spec.faults_at(role.name))
    drawn = {*spec.faults, *at_roles} - spec.lacks.keys()
    fitting = ((kind, one) for kind, one in rules() if any(map(kind.fits, spec.roles)))
    for kind, one in fitting:
        replaced = hasattr(base, one.name) or kind.verb in spec.own_steps
        if not replaced and (not kind.is_fault or (kind.title or kind.verb) in drawn):
            yield one, kind.is_fault
    for own, one in own_rules(spec.own_steps):
        if not own.fault or own.name in drawn:
            yield one, own.fault


def machine_for(
    spec: GraphSpec, on_plan: OnPlan, base: type[PlanMachine] = PlanMachine
) -> type[PlanMachine]:
    """Make the state machine class that draws plans for a graph, with a rule for each `Rule` of the kinds of steps.

    Args:
        spec: the graph.
        on_plan: called with each drawn plan. It raises an error if the plan breaks a promise.
        base: `PlanMachine`, or a subclass with further rules.
    """
    members: dict[str, Any] = {"spec": spec, "on_plan": staticmethod(on_plan)}
    timed, seldom = list[Ruled](), list[Ruled]()
    for one, is_fault in rules_of(spec, base):
        if one.seldom:
            seldom.append((one, is_fault))
        else:
            members[one.name] = _rule_of(one, is_fault=is_fault)
        timed += [(one, is_fault)] if one.timed else []
    if timed and not hasattr(base, "timed_fault"):
        members["timed_fault"] = _timed_fault(timed)
    if seldom and not hasattr(base, "seldom_fault"):
        members["seldom_fault"] = _seldom_fault(seldom)
    return type(base.__name__, (base,), members)


def own_rules_for(spec: GraphSpec, on_plan: OnPlan, base: type[PlanMachine]) -> type[PlanMachine]:
    """Make a machine whose only rules are those of the user's class. The arguments are those of `machine_for`."""
    rest = rule()(lambda _: None)
    members = {"spec": spec, "on_plan": staticmethod(on_plan), "rest": rest}
    return type(base.__name__, (base,), members)
