"""Tests of where faults are drawn: at which roles the graph file allows them, and mostly where a path is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis.stateful import initialize, precondition, rule

from graphquake.harness.errors import InputError
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.graph import GraphSpec, read_graph
from graphquake.harness.spec.plan import Kill, Plan, Wait
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.machines.findings.fault_coverage import drawable
from graphquake.machines.frontends.commands.try_command import steps_texts
from graphquake.machines.plans.judged import judged_share
from graphquake.machines.plans.machine import PlanMachine
from graphquake.machines.plans.novelty import LOOK, Novelty
from graphquake.machines.plans.plainest import plainest
from graphquake.machines.sessions.search import draw_plans

from support.made import plan_of, spec_of

pytestmark = pytest.mark.simulated

PLANS = 30


def graph(serves: str, *, faults: dict[str, list[str]] | None = None, **replicas: int) -> GraphSpec:
    """Return a graph with these numbers of replicas and the lists `faults` of some roles. The first role is the entry."""
    roles: dict[str, dict[str, Any]] = {
        name: {"command": name, "replicas": count} for name, count in replicas.items()
    }
    next(iter(roles.values()))["entry"] = "http://127.0.0.1:{port.http}"
    for name, verbs in (faults or {}).items():
        roles[name]["faults"] = verbs
    document = {"graph": "made", "serves": serves, "roles": roles, "load": {"model": "tiny"}}
    return read_graph("made.toml", document, Path("/made.toml"))


PROXY = graph("proxy and server", proxy=1, server=2)


def leaves_a_path(spec: GraphSpec, plan: Plan) -> bool:
    """Whether a path is left after the first fault of a plan."""
    model = GraphModel(spec)
    for step in plan.steps:
        model = step.after(model)
        if step.is_fault:
            break
    return model.serves()


# ------------------------------------------------------------------------------------------------- the lists of roles


def test_a_role_has_its_own_list_of_faults() -> None:
    """No fault is drawn at a role with an empty list. A list of a role decides for it, the list of the graph for the others."""
    spec = graph("proxy and server", faults={"proxy": []}, proxy=1, server=2)
    spec = replace(spec, faults=("kill", "stall"))
    hit = {
        (step.verb, one.role)
        for plan in draw_plans(spec, 1, PLANS)
        for step in plan.faults
        for one in step.aims
    }
    assert hit == {("kill", "server"), ("stall", "server")}
    assert drawable(spec) == ["kill server", "stall server"]
    assert [plan.lines()[0] for plan in plainest(spec)][:1] == ["kill server 0"]
    assert list(steps_texts(spec))[:2] == [
        "no fault at proxy: its list faults is empty",
        "kill, stall, respawn: server",
    ]


def test_a_list_of_a_role_may_allow_what_the_graph_leaves_out() -> None:
    """The list of the graph may even be empty, if a role has one."""
    spec = graph("proxy and server", faults={"server": ["terminate"]}, proxy=1, server=2)
    document = dict(spec.document) | {"faults": []}
    assert drawable(read_graph("made.toml", document, spec.path)) == ["terminate server"]


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (
            ["kil"],
            'roles.proxy.faults: names "kil", which is not a kind of fault; did you mean "kill"',
        ),
        ("kill", 'roles.proxy.faults: found "kill", expected a list of texts'),
    ],
)
def test_a_wrong_list_is_one_clear_error(faults: Any, error: str) -> None:
    """The error names the role and the key."""
    with pytest.raises(InputError, match=r"made\.toml: ") as raised:
        graph("proxy and server", faults={"proxy": faults}, proxy=1, server=2)
    assert error in str(raised.value)


def test_an_empty_list_of_the_graph_needs_a_list_of_a_role() -> None:
    """A file that allows no fault anywhere is an error, as before."""
    with pytest.raises(InputError, match="faults: is empty, and so is the list of every role"):
        spec_of(faults=[])


def test_a_plan_of_a_user_may_use_every_fault() -> None:
    """The lists limit what is drawn, not what a user may ask for."""
    spec = graph("proxy and server", faults={"proxy": []}, proxy=1, server=2)
    check_plan(spec, plan_of("kill proxy 0"), "plan")


def test_a_rule_of_a_user_respects_the_lists() -> None:
    """`can` is false for a fault that the file leaves out, and `add` turns it down."""

    class Careless(PlanMachine):
        @initialize()
        def first(self) -> None:
            assert not self.can(Kill("proxy", 0))
            assert self.can(Kill("server", 0))

        @precondition(lambda self: self.has_room)
        @rule()
        def again(self) -> None:
            self.add(Kill("proxy", 0))

    spec = graph("proxy and server", faults={"proxy": []}, proxy=1, server=2)
    with pytest.raises(InputError, match='"kill proxy 0", which the lists "faults"'):
        draw_plans(spec, 1, PLANS, Careless)


def test_a_rule_of_a_user_never_exceeds_the_length_of_a_plan() -> None:
    """The eleventh step is an error that says how to ask for room."""

    class Endless(PlanMachine):
        @rule()
        def more(self) -> None:
            for _ in range(6):
                self.add(Wait(0.1))

    with pytest.raises(InputError, match=r"as step 11, expected at most 10 steps. Ask self.room"):
        draw_plans(PROXY, 1, PLANS, Endless)


# ----------------------------------------------------------------------------------------------------- the last paths


@pytest.mark.parametrize(
    "spec",
    [PROXY, graph("front and prefill and decode", front=1, prefill=1, decode=2)],
    ids=["a proxy", "disaggregated"],
)
def test_most_plans_leave_a_path_at_their_first_fault(spec: GraphSpec) -> None:
    """The roles without a spare replica are hit less often, but they are hit: the recovery is judged, too."""
    plans = [plan for plan in draw_plans(spec, 1, PLANS) if plan.faults]
    leave = sum(leaves_a_path(spec, plan) for plan in plans)
    assert 0.7 * len(plans) <= leave < len(plans)
    hit = {one.role for plan in plans for step in plan.faults for one in step.aims}
    assert hit == {role.name for role in spec.roles}


def test_a_graph_without_spare_replicas_is_hit_everywhere() -> None:
    """Where no fault leaves a path, every role is drawn."""
    spec = graph("front and worker", front=1, worker=1)
    plans = draw_plans(spec, 1, PLANS)
    hit = {one.role for plan in plans for step in plan.faults for one in step.aims}
    assert hit == {"front", "worker"}


@pytest.mark.parametrize(
    ("lines", "least", "most"),
    [
        (["burst 5 over 0.00 s"], 1.0, 1.0),
        (["kill server 0"], 0.3, 0.45),
        (["kill proxy 0"], 0.1, 0.25),
        (["stall server 0 for 1.20 s"], 0.2, 0.3),
        (["kill server 0", "wait 4.00 s", "kill server 1"], 0.2, 0.6),
        (["kill server 0", "heal release", "stay 60.00 s"], 0.9, 1.0),
    ],
)
def test_the_judged_share_of_a_plan(lines: list[str], least: float, most: float) -> None:
    """The windows of faults, outages and the time after them are not judged."""
    assert least <= judged_share(PROXY, plan_of(*lines)) <= most


def test_a_plan_that_judges_little_waits_for_a_better_one() -> None:
    """A kill of the only proxy shows as much as a kill of a server, and its run is weak. It has no turn while the other is drawn."""
    novelty = Novelty(PROXY)
    weak, good = plan_of("kill proxy 0"), plan_of("kill server 0")
    turns = [novelty.has_turn(plan) for plan in [good, weak] * LOOK]
    assert any(turns[::2])
    assert not any(turns[1::2])
