"""Decide which steps of a plan are possible: by the model of the graph, and by what its target can do on this machine.

`left_out` lists the kinds of steps that a graph can't do here, with the reasons. The draw and the check of a plan use the same list: each
step looks itself up in `Graph.lacks`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from graphquake.harness.errors import InputError
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.steps.model import Graph, GraphModel
from graphquake.harness.spec.steps.table import fits, titles


def impossible(spec: Graph, plan: Plan, without: Collection[int] = ()) -> frozenset[int]:
    """Return the places of the steps in `without`, and of the steps that are not possible after the steps before them.

    Args:
        spec: the graph.
        plan: the plan.
        without: the places of the steps that are left out. Later steps may become impossible, e.g. a respawn without its kill.

    Returns:
        Places in the plan, from 0. They include `without`.
    """
    gone = set(without)
    model = GraphModel(spec)
    for place, step in enumerate(plan.steps):
        if place in gone:
            continue
        if step.possible(model) is None:
            model = step.after(model)
        else:
            gone.add(place)
    return frozenset(gone)


def mend(spec: Graph, plan: Plan) -> Plan:
    """Return the plan without the steps that are not possible after the steps before them."""
    gone = impossible(spec, plan)
    left = (step for place, step in enumerate(plan.steps) if place not in gone)
    return replace(plan, steps=tuple(left))


def feasible(spec: Graph, plan: Plan) -> bool:
    """True if every step of the plan is possible after the steps before it."""
    return not impossible(spec, plan)


def check_plan(spec: Graph, plan: Plan, source: str) -> None:
    """Check that every step of a plan from a user is possible.

    Args:
        spec: the graph.
        plan: the plan.
        source: the start of the error message, usually a file name.

    Raises:
        InputError: for the first step that is not possible, e.g. `plan: step 3, "kill decode 2": my-disagg has decode 0`.
    """
    model = GraphModel(spec)
    for number, step in enumerate(plan.steps, 1):
        if (reason := step.possible(model)) is not None:
            raise InputError(f'{source}: step {number}, "{step}": {reason}')
        model = step.after(model)


def drawn_at(spec: GraphSpec, role: str) -> tuple[str, ...]:
    """Return the titles of the faults that a search may draw at a role, and that may be possible there."""
    return tuple(title for title in spec.faults_at(role) if fits(title, spec.role(role)))


def left_out(spec: Graph) -> dict[str, str]:
    """Return the kinds of steps that a graph can't do on this machine: the title of each, and the reason.

    Args:
        spec: the graph, as `on_this_machine` returns it.
    """
    known = [*titles(), *spec.own_steps]
    return {title: spec.lacks[title] for title in known if title in spec.lacks}


def left_out_by_reason(spec: Graph) -> list[str]:
    """Return what `left_out` returns as texts. Kinds with the same reason are named together."""
    by_reason: dict[str, list[str]] = {}
    for title, reason in left_out(spec).items():
        by_reason.setdefault(reason, []).append(title)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def left_out_text(spec: Graph) -> str:
    """Return what `left_out` returns in one line. Empty if nothing is left out."""
    return "; ".join(left_out_by_reason(spec))
