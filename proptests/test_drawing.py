"""The plans that a seed draws, held against those that it drew before."""

from __future__ import annotations

import hashlib
import itertools
import json

import hypothesis
import pytest
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.harness.spec.plan import Until, WaitReady
from graphquake.harness.spec.steps.cluster.delete import OWN_GRACE, Delete
from graphquake.harness.spec.steps.kind import Step
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.processes.kill import Kill
from graphquake.harness.spec.steps.processes.roll import Roll
from graphquake.machines.plans.drawn_rules import machine_for
from graphquake.machines.plans.machine import PlanMachine
from graphquake.machines.sessions.search import draw_plans

from support.made import spec_of

pytestmark = pytest.mark.simulated

PLANS = 40
# Another version of Hypothesis may draw other plans from the same seed.
DRAWN_BY = "6.170.17"


def _workers(count: int) -> GraphSpec:
    """A graph of one frontend and some workers."""
    roles = {
        "frontend": {"command": "frontend", "entry": "http://127.0.0.1:{port.http}"},
        "worker": {"command": "worker", "replicas": count},
    }
    return spec_of(serves="frontend and worker", roles=roles)


def _digest(spec: GraphSpec, seed: int) -> str:
    lines = [plan.lines() for plan in draw_plans(spec, seed, PLANS)]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]


@pytest.mark.skipif(
    hypothesis.__version__ != DRAWN_BY, reason=f"recorded with hypothesis {DRAWN_BY}"
)
@pytest.mark.parametrize(
    ("graph", "seed", "digest"),
    [
        ("reference", 1, "270f06d26b4d04aa"),
        ("reference", 2, "f13df753a314ef5e"),
        ("reference", 3, "f13ba48080ba1997"),
        ("dynamo-disagg", 1, "cbbd1d3750e8ddcc"),
        ("dynamo-disagg", 2, "216c478a6e773df7"),
        ("dynamo-disagg", 3, "4ecd0b74b671233d"),
    ],
)
def test_a_seed_draws_the_plans_that_it_drew_before(graph: str, seed: int, digest: str) -> None:
    """The rules, their order, and the order of their choices stay the same, so that a seed draws the same plans."""
    assert _digest(load_graph(graph), seed) == digest


@pytest.mark.skipif(
    hypothesis.__version__ != DRAWN_BY, reason=f"recorded with hypothesis {DRAWN_BY}"
)
def test_a_seed_draws_the_plans_of_a_large_graph_that_it_drew_before() -> None:
    """The plans for 64 workers are those that a question for each replica gave."""
    assert _digest(_workers(64), 1) == "79e38ee67d019ce1"


def test_whether_a_step_may_hit_any_replica_is_asked_of_the_first_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before each step, every rule is asked for a target. The answer for 64 workers takes no more questions than that for one."""
    asked = list[Step]()
    can = PlanMachine.can

    def counted(self: PlanMachine, step: Step) -> bool:
        asked.append(step)
        return can(self, step)

    monkeypatch.setattr(PlanMachine, "can", counted)
    machine = machine_for(_workers(64), lambda _: None)()
    assert machine.has_target(Kill.at)
    assert asked == [Kill("frontend", 0)]
    machine.focus = "worker"
    assert machine.has_target(Kill.at)
    assert asked[1:] == [Kill("worker", 0)]
    assert len(machine.targets(Kill.at)) == 64


def test_a_step_at_a_whole_role_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A roll is the same step at each replica of its role. So the model is asked about it once, even if the answer is no."""
    asked = list[Step]()
    monkeypatch.setattr(PlanMachine, "can", lambda _, step: asked.append(step))
    machine = machine_for(_workers(64), lambda _: None)()
    assert not machine.has_target(lambda one: Roll(one.role))
    assert asked == [Roll("frontend"), Roll("worker")]


def test_a_delete_is_timed_by_an_event_with_each_grace() -> None:
    """A fault right after a wait for an event has all choices that it has elsewhere."""
    spec = load_graph("dynamo-agg-kube")
    plans = itertools.chain(*(draw_plans(spec, seed, 120) for seed in (1, 2)))
    pairs = [pair for plan in plans for pair in itertools.pairwise(plan.steps)]
    graces = {after.grace_s for before, after in pairs if isinstance(before, Until) and isinstance(after, Delete)}  # fmt: skip
    assert graces == {OWN_GRACE, 0}


@pytest.mark.parametrize("graph", ["reference", "sglang-router"])
def test_a_wait_until_ready_is_drawn_only_if_a_path_is_up_then(graph: str) -> None:
    """Without a path, a frontend may never become ready, and the wait lasts until its time is over."""
    spec = load_graph(graph)
    seen = 0
    for plan in draw_plans(spec, 1, 150):
        model = GraphModel(spec)
        for step in plan.steps:
            model = step.after(model)
            if isinstance(step, WaitReady):
                seen += 1
                assert model.serves(), plan.one_line()
    assert seen > 10


@pytest.mark.skipif(
    hypothesis.__version__ != DRAWN_BY, reason=f"recorded with hypothesis {DRAWN_BY}"
)
def test_the_first_plans_of_a_seed_are_these() -> None:
    """A few plans in full, so that a change can be read."""
    drawn = [plan.lines() for plan in draw_plans(load_graph("reference"), 1, 4)]
    assert drawn[0] == ["kill registry 0"]
    assert drawn[1] == ["kill registry 0", "kill decode 0", "respawn registry 0"]
    assert drawn[2] == [
        "kill registry 0",
        "kill decode 0",
        "respawn registry 0",
        "wait until ready",
        "kill registry 0",
        "respawn registry 0",
        "wait until ready",
        "kill registry 0",
    ]
    assert drawn[3] == [
        "stall registry 0 for 0.20 s",
        "burst 5 over 0.25 s",
        "kill prefill 0",
        "respawn prefill 0",
        "wait until ready",
        "kill prefill 0",
        "stall registry 0 for 4.00 s",
        "wait 1.00 s",
    ]


def test_the_source_of_loaded_modules_does_not_change_what_a_seed_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loaded module with many numbers, as Hypothesis would find them, leaves the plans of a seed as they are."""
    spec = load_graph("reference")
    before = draw_plans(spec, 3, PLANS)
    found = Constants(integers=set(range(40)))
    monkeypatch.setattr(providers, "_get_local_constants", lambda: found)
    monkeypatch.setattr(providers, "CONSTANTS_CACHE", type(providers.CONSTANTS_CACHE)(1024))
    assert draw_plans(spec, 3, PLANS) == before
