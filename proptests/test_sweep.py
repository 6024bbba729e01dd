"""The sweep of single disturbances, and the pairs that follow it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path

import pytest
from hypothesis.stateful import precondition, rule

from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.graph import GraphSpec, load_graph, read_graph
from graphquake.harness.spec.plan import (
    Burst,
    Kill,
    Plan,
    Respawn,
    Stall,
    Terminate,
    Until,
    UntilFirstToken,
    UntilInFlight,
    Wait,
    WaitReady,
)
from graphquake.harness.spec.steps.kind import disturbs
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.network.cut import Cut
from graphquake.harness.spec.steps.network.degrade import Delay
from graphquake.machines.findings.fault_coverage import drawable
from graphquake.machines.plans.futile import FutileSteps
from graphquake.machines.plans.machine import PlanMachine
from graphquake.machines.plans.novelty import waited_s
from graphquake.machines.plans.pairs import pairs, plainest_pairs
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.plans.sweep import OUTAGE_S, sweep
from graphquake.machines.runners.patience import waits_for_lists
from graphquake.machines.sessions.search import plans_of_sweep

from support.made import Made, plan_of
from support.searched import searched
from support.sim_runner import Bug, SimRunner
from support.simulated import spec_with

pytestmark = pytest.mark.simulated

REFERENCE = load_graph("reference")


def serves_after(spec: GraphSpec, plan: Plan) -> bool:
    """True if a path is left in each moment of a plan."""
    model, serves = GraphModel(spec), True
    for step in plan.steps:
        model = step.after(model)
        serves = serves and model.serves()
    return serves


@pytest.mark.parametrize("graph", ["reference", "dynamo-disagg", "demo"])
def test_every_kind_of_fault_is_swept_at_every_role(graph: str) -> None:
    """The sweep has a plan for each kind of fault at each role. Each plan disturbs the graph once, or kills a whole role."""
    spec = load_graph(graph)
    plans = [*sweep(spec).first, *sweep(spec).second]
    swept = {
        f"{step.called} {role}" for plan in plans for step in plan.faults for role in step.roles
    }
    assert swept == set(drawable(spec))
    assert len(set(plans)) == len(plans)
    for plan in plans:
        assert feasible(spec, plan)
        assert sum(map(disturbs, plan.steps)) == 1 or plan in outages(spec)
    assert [*sweep(spec).first, *sweep(spec).second] == plans


def outages(spec: GraphSpec) -> list[Plan]:
    """For each role of several replicas, the plan that kills all of them."""
    return [
        Plan((*(Kill(role.name, index) for index in range(role.replicas)), Wait(OUTAGE_S)))
        for role in spec.roles
        if role.replicas > 1
    ]


@pytest.mark.parametrize("graph", ["reference", "sglang-router", "dynamo-disagg"])
def test_a_role_of_several_replicas_is_killed_as_a_whole(graph: str) -> None:
    """No single kill tells how a graph comes back from that."""
    spec = load_graph(graph)
    assert outages(spec)
    assert set(outages(spec)) <= set(sweep(spec).first)


def test_no_outage_is_swept_where_kills_are_not_drawn(tmp_path: Path) -> None:
    """The key `faults` of the graph file holds for the sweep, too."""
    document = {**load_graph("sglang-router").document, "faults": ["stall"]}
    spec = read_graph("some.toml", document, tmp_path / "some.toml")
    assert not set(outages(spec)) & set(sweep(spec).plain)


def test_a_stall_outlasts_a_clients_patience_and_a_lease() -> None:
    """At each role, one stall is longer than `stall_s`, and one is longer than the lease."""
    lengths_s = [
        step.for_s
        for plan in sweep(REFERENCE).plain
        for step in plan.steps
        if isinstance(step, Stall)
    ]
    beyond_s = [REFERENCE.promises.stall_s + 1.0, REFERENCE.lease_s + 1.0]
    # The longest one is swept at the last replica of a role, too.
    several = sum(role.replicas > 1 for role in REFERENCE.roles)
    assert sorted(lengths_s) == sorted(beyond_s * len(REFERENCE.roles) + [max(beyond_s)] * several)


def test_a_sweep_begins_with_cuts_and_resets_of_the_links_between_roles() -> None:
    """Each link between two roles is cut and reset early. Two roles of one replica each have one link. Other faults of links come later."""
    spec = load_graph("dynamo-disagg", network="namespaces")
    links = {
        "frontend 0 from prefill", "frontend 0 from decode", "decode 0 from frontend",
        "prefill 0 from decode", "decode 0 from prefill",
    }  # fmt: skip
    found = sweep(spec)
    early = [plan.steps[0] for plan in found.first if plan.steps[0].is_link]
    assert {str(step) for step in early} == {
        f"{verb} {link} for 4.00 s" for verb in ("cut", "reset") for link in links
    }
    assert not any(step.is_link for plan in found.later for step in plan.steps)
    rest = [step for plan in found.seldom for step in plan.steps if step.is_link]
    assert {step.called for step in rest} == {"cut", "reset", "lose", "slow", "delay", "partition"}
    assert len(set(rest)) == len(rest)


def test_the_first_fault_of_a_link_outlasts_a_clients_patience() -> None:
    """TCP bridges a shorter cut. If a lease is shorter than a client's patience, cuts beyond the lease come later."""
    spec = load_graph("reference", network="namespaces")
    assert spec.lease_s < spec.promises.stall_s
    found = sweep(spec)

    def lengths_s(plans: list[Plan]) -> set[float]:
        return {one.for_s for plan in plans for one in plan.steps if isinstance(one, Cut)}

    assert lengths_s(found.first) == {spec.promises.stall_s + 1.0}
    assert lengths_s(found.seldom) >= {spec.lease_s + 1.0}
    # Only the decode workers are two.
    cuts = [one.aims[0].role for plan in found.first for one in plan.steps if isinstance(one, Cut)]
    assert cuts.index("registry") == cuts.count("decode") > 0


def test_a_link_without_packets_gets_no_more_faults() -> None:
    """Two misses of any fault on a link show that. A fault that met a packet there proves otherwise."""
    spec = load_graph("reference", network="namespaces")
    cut, reset = "cut frontend 0 from decode for 4.00 s", "reset decode 0 from frontend for 4.00 s"
    other = plan_of("wait 0.20 s", "lose 20% between frontend and decode for 1 s")
    near = plan_of("cut frontend 0 from processor for 4.00 s")
    futile = FutileSteps()
    for line in (cut, reset):
        assert not futile.any_in(other)
        futile.add(Made(spec, plan_of(line)).step(line, 2.0, landed=False).history())
    assert all(map(futile.any_in, (other, plan_of(cut), plan_of(reset))))
    assert not futile.any_in(near)
    futile.add(Made(spec, plan_of(reset)).step(reset, 2.0).history())
    assert not futile.any_in(other)


def test_only_the_harshest_bursts_are_swept() -> None:
    """The sweep has the largest burst, and the same burst with all clients leaving, early or late, or sent slowly."""
    bursts = [
        step for plan in sweep(REFERENCE).plain for step in plan.steps if isinstance(step, Burst)
    ]
    assert bursts == [
        Burst(40, 0.0),
        Burst(40, 0.0, 1.0),
        Burst(40, 0.0, leave_at_once=1.0),
        Burst(40, 1.0),
    ]


def test_what_tells_most_comes_first() -> None:
    """The first sweep has each fault once, longer than a client waits. It begins with plans that leave a path. The rest comes later.

    The deaths of a whole role end it.
    """
    first, later, _ = sweep(REFERENCE)
    whole = outages(REFERENCE)
    assert first[-len(whole) :] == whole
    first = first[: -len(whole)]
    leaves = [serves_after(REFERENCE, plan) for plan in first]
    assert leaves == sorted(leaves, reverse=True)
    assert not any(
        map(waited_s, (plan for plan in first if not any(s.lasts_s for s in plan.steps)))
    )
    assert {one.index for plan in first for step in plan.steps for one in step.aims} == {0}
    stalls = [(s.role, s.for_s) for plan in first for s in plan.steps if isinstance(s, Stall)]
    beyond_s = REFERENCE.promises.stall_s + 1.0
    assert sorted(stalls) == sorted((role.name, beyond_s) for role in REFERENCE.roles)
    others = {s.for_s for plan in later for s in plan.steps if isinstance(s, Stall)}
    assert others == {REFERENCE.lease_s + 1.0, beyond_s}
    assert Plan((Kill("decode", 1),)) in later


class Rolling(PlanMachine):
    """Rolls a worker: an orderly end, a new start, and a wait."""

    @precondition(lambda self: self.room >= 3 and self.can(Terminate("decode", 0)))
    @rule()
    def roll(self) -> None:
        """Add the three steps."""
        for step in (Terminate("decode", 0), Respawn("decode", 0), WaitReady()):
            self.add(step)


def test_the_rules_of_a_users_class_are_swept() -> None:
    """A sequence that only the user's class makes joins the sweep."""
    roll = Plan((Terminate("decode", 0), Respawn("decode", 0), WaitReady()))
    assert roll in plans_of_sweep(REFERENCE, 1, Rolling).first
    assert roll not in plans_of_sweep(REFERENCE, 1).first


def test_the_plainest_pairs_are_kills() -> None:
    """Each two roles lose a replica at once, and a replica of each role dies in its second life, too. The seed decides only the order."""
    singles = sweep(REFERENCE).plain
    found = plainest_pairs(REFERENCE, singles, 1)
    names = [role.name for role in REFERENCE.roles]
    once = [[step.aims[0].role for step in plan.steps] for plan in found if len(plan.steps) == 2]
    assert sorted(map(sorted, once)) == sorted(map(sorted, combinations(names, 2)))
    twice = [plan.lines() for plan in found if len(plan.steps) == 4]
    assert sorted(twice) == sorted(
        [f"kill {name} 0", f"respawn {name} 0", "wait until ready", f"kill {name} 0"]
        for name in names
    )
    assert len(found) == len(once) + len(twice)
    # The only role with several replicas comes first.
    assert [step.aims[0].role for step in found[0].faults] == ["decode", "decode"]
    assert all("kill decode 0" in plan.lines() for plan in found[1:5])
    again = plainest_pairs(REFERENCE, singles, 2)
    assert (set(again), again == found) == (set(found), False)
    stalls = [plan for plan in singles if isinstance(plan.steps[0], Stall)]
    assert plainest_pairs(REFERENCE, stalls, 1) == []


def test_pairs_differ_in_order_closeness_and_replica() -> None:
    """Pairs are different and possible. Their second disturbance comes at once, later, after a repair, within a start, or at an event."""
    singles = sweep(REFERENCE).plain
    found = list(islice(pairs(REFERENCE, singles, 1), 400))
    assert len(set(found)) == len(found)
    for plan in found:
        assert feasible(REFERENCE, plan)
        assert sum(map(disturbs, plan.steps)) == 2
    between = {tuple(type(step) for step in plan.steps[1:-1]) for plan in found}
    plain = {(), (Wait,), (Respawn, WaitReady), (WaitReady,), (Respawn,)}
    assert between == plain | {(UntilInFlight,), (UntilFirstToken,)}
    timed = [plan for plan in found if isinstance(plan.steps[1], Until)]
    assert all(plan.steps[2].is_fault for plan in timed)
    assert len(timed) < len(found) / 4
    assert found == list(islice(pairs(REFERENCE, singles, 1), 400))
    assert found != list(islice(pairs(REFERENCE, singles, 2), 400))
    indexes = {one.index for plan in found for one in plan.steps[-1].aims if one.role == "decode"}
    assert indexes == set(range(REFERENCE.role("decode").replicas))


def test_a_second_fault_may_follow_a_first_one_that_is_over() -> None:
    """A stall or a cut leaves its replica alive. The second fault of a pair can come when it is ready again, without a respawn."""
    spaced = load_graph("reference", network="namespaces")
    first = ("stall decode 0 for 1.20 s", "cut decode 0 from processor for 1.20 s")
    found = set(pairs(spaced, [plan_of(one) for one in (*first, "kill frontend 0")], 1))
    for one in first:
        assert plan_of(one, "wait until ready", "kill frontend 0") in found


def test_bad_links_are_swept_with_both_lengths() -> None:
    """A fault of a link has two numbers. Each of the two longest lengths is swept, at the harshest other number."""
    spaced = load_graph("reference", network="namespaces")
    swept = {plan.one_line() for plan in sweep(spaced).seldom}
    longest_s = spaced.lease_s + 1
    lengths_s = sorted(
        {
            step.for_s
            for plan in sweep(spaced).seldom
            for step in plan.steps
            if isinstance(step, Delay)
        }
    )
    assert lengths_s[-1] == max(4.0, longest_s)
    assert len(lengths_s) == 2
    for length_s in lengths_s:
        assert f"delay between decode 0 and processor by 400 ms for {length_s:.2f} s" in swept


def test_a_second_fault_strikes_while_the_supervisor_restarts_the_first() -> None:
    """If the supervisor restarts replicas, a pair waits for the start of the one that it has killed. Nothing else restarts it."""
    restarting = spec_with(restart="always")
    singles = [plan_of("kill decode 0"), plan_of("kill prefill 0")]
    found = {plan.one_line() for plan in pairs(restarting, singles, 1)}
    assert "kill decode 0; wait until decode 0 starts; kill decode 0" in found
    assert "kill decode 0; wait until decode 0 starts; kill prefill 1" in found
    assert not any("respawn" in line for line in found)


def test_pairs_end(tmp_path: Path) -> None:
    """A graph with one possible disturbance has few pairs, and the search goes on with drawn plans."""
    assert list(pairs(REFERENCE, [], 1)) == []
    single = [plan_of("kill frontend 0")]
    assert [plan.one_line() for plan in pairs(REFERENCE, single, 1)] == [
        "kill frontend 0; respawn frontend 0; kill frontend 0",
        "kill frontend 0; respawn frontend 0; wait until ready; kill frontend 0",
    ]
    runner = SimRunner([], runs_max=110)
    searched(runner, tmp_path)
    assert sum(sum(map(disturbs, plan.steps)) > 2 for plan in runner.runs) > 10


def test_a_bug_of_one_step_is_met_by_one_step(tmp_path: Path) -> None:
    """The search begins with the sweep, so the failing plan is minimal from the start."""
    runner = SimRunner([Bug(plan_of("terminate prefill 0"), "wrong tokens")])
    rounds, _ = searched(runner, tmp_path)
    (finding,) = rounds.pipeline.findings
    assert finding.case.cost.steps == 1
    assert finding.case.plan == plan_of("terminate prefill 0")


def test_what_a_case_does_not_explain_is_looked_for_again(tmp_path: Path) -> None:
    """A long stall shows two bugs. The case of the first one has a short stall, so the long one is run again for the second."""
    short = Bug(plan_of("stall decode 0 for 0.20 s"), "wrong tokens")
    long = Bug(plan_of("stall decode 0 for 4.00 s"), "tokens lost")
    runner = SimRunner([short, long])
    rounds, _ = searched(runner, tmp_path, findings_max=2)
    first, second = (finding.case for finding in rounds.pipeline.findings)
    assert str(first.signature) == "answers / wrong tokens"
    assert not embeds(long.needs, first.plan)
    assert str(second.signature) == "answers / tokens lost"
    assert embeds(long.needs, second.plan)


@pytest.mark.parametrize(
    ("lines", "stay_s", "lease_s", "waits"),
    [
        (["kill decode 0"], 0.0, 10.0, True),
        (["wait 1.00 s", "kill decode 0", "wait 1.00 s"], 0.0, 10.0, True),
        (["kill decode 0", "burst 5 over 0.00 s"], 0.0, 10.0, False),
        (["kill decode 0", "burst 5 over 0.00 s"], 12.0, 10.0, True),
        (["kill decode 0", "burst 5 over 0.00 s"], 0.0, 2.0, True),
        (["kill decode 0", "kill prefill 0", "kill decode 1"], 0.0, 2.0, False),
    ],
)
def test_a_search_waits_for_lists_where_a_plan_asks_for_it(
    lines: list[str],
    stay_s: float,
    lease_s: float,
    waits: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """One disturbance or a long stay is enough, since a lease takes most of a run. With a short lease, two disturbances are."""
    assert waits_for_lists(replace(plan_of(*lines), stay_s=stay_s), lease_s) == waits
