"""The shrinker on simulated bugs: the size of its plans, their evidence, and their cost in live runs."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.plan import Burst, Kill, Plan, Respawn, Step, Wait
from graphquake.harness.spec.steps.table import KINDS
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.shrinking.parameters import smallest
from graphquake.machines.shrinking.probdd import prior
from graphquake.machines.shrinking.repeats import Repeats
from graphquake.machines.shrinking.result import Shrunk
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.trials import Trial

from support.simulated import REPEATS, SHAPES, SPEC, Shape, Simulated, broken, failing

pytestmark = pytest.mark.simulated

SEEDS = range(10)
CAP = 120
BY_NAME = {shape.name: shape for shape in SHAPES}


def shrunk(shape: Shape, graph: Simulated, plan: Plan, blame: tuple[float, ...] = ()) -> Shrunk:
    """Shrink a plan in which a bug shows."""
    return shrink(SPEC, plan, replace(broken(shape, plan), blame=blame), graph)


@cache
def all_shrunk(rate: float) -> list[tuple[Shape, Plan, Shrunk]]:
    """Shrink ten plans of each bug."""
    found = []
    for shape in SHAPES:
        for seed in SEEDS:
            plan = failing(shape, seed)
            found.append(
                (shape, plan, shrunk(shape, Simulated(shape, seed, rate, runs_max=CAP), plan))
            )
    return found


def until_held(one: Shrunk) -> int:
    """The number of live runs until a plan with the final number of steps first broke."""
    size = len(one.plan.steps)
    held = (t.trial.kind == "broken" and len(t.plan.steps) == size for t in one.journal)
    return next(number for number, is_held in enumerate(held, start=1) if is_held)


def share_minimal(rate: float) -> float:
    """The share of shrinks that end with a confirmed plan without a step too many."""
    found = all_shrunk(rate)
    return sum(one.confirmed and shape.is_step_minimal(one.plan) for shape, _, one in found) / len(
        found
    )


def test_a_bug_that_shows_every_time_becomes_step_minimal() -> None:
    """At rate 1, every plan becomes step-minimal, in 12 live runs until it first breaks and 22 with confirming runs (medians)."""
    assert share_minimal(1.0) == 1.0
    every = [one for _, _, one in all_shrunk(1.0)]
    assert all(one.complete and one.confirmed for one in every)
    assert statistics.median(map(until_held, every)) <= 12
    confirmed = [
        sum(not t.reason.startswith(("control", "is it", "with other")) for t in one.journal)
        for one in every
    ]
    assert statistics.median(confirmed) <= 22


def test_reported_thresholds_are_true() -> None:
    """For each reported threshold, the plan breaks the promise, and the plan with the lower value keeps it."""
    told = 0
    for shape, _, one in all_shrunk(1.0):
        for threshold in one.thresholds:
            below = _with(one.plan, threshold.step, threshold.name, threshold.below)
            assert shape.at_s(one.plan) is not None
            assert shape.at_s(below) is None
            assert (threshold.broke, threshold.kept > 0) == (0, True)
            told += 1
    assert told >= 10


def test_numbers_that_do_not_matter_are_not_reported() -> None:
    """A minimal plan without numbers has no thresholds."""
    without_numbers = [one for shape, _, one in all_shrunk(1.0) if shape is BY_NAME["single kill"]]
    assert without_numbers
    assert all(one.thresholds == () for one in without_numbers)


def _with(plan: Plan, step: Step | None, name: str, value: float) -> Plan:
    if step is None:
        return replace(plan, stay_s=value)
    changes: dict[str, Any] = {name: round(value) if name == "requests" else value}
    other = replace(step, **changes)
    return replace(plan, steps=tuple(other if one is step else one for one in plan.steps))


def test_all_evidence_of_a_pair_takes_few_runs() -> None:
    """At rate 1, a bug of two kills costs at most 26 live runs (median), with controls, removals and other replicas."""
    pairs = [one for shape, _, one in all_shrunk(1.0) if shape.steps == 2]
    assert statistics.median(one.live_runs for one in pairs) <= 26


@pytest.mark.parametrize(("rate", "least"), [(0.9, 0.95), (0.6, 0.95), (0.3, 0.80)])
def test_a_bug_that_shows_now_and_then_becomes_step_minimal(rate: float, least: float) -> None:
    """At lower rates, nearly every plan becomes step-minimal within 120 live runs. An unconfirmed plan counts as a miss."""
    assert share_minimal(rate) >= least


@pytest.mark.parametrize("rate", [1.0, 0.9, 0.6, 0.3])
def test_the_minimal_plan_embeds_in_the_original(rate: float) -> None:
    """A minimal plan embeds in the drawn plan, and every plan that was run is possible in the graph's model."""
    for _, plan, one in all_shrunk(rate):
        assert embeds(one.plan, plan)
        assert all(feasible(SPEC, tried.plan) for tried in one.journal)


def test_the_counts_are_those_of_the_journal() -> None:
    """The reported counts are those of the runs in the journal."""
    for _, _, one in all_shrunk(0.6):
        own = [tried.trial.kind for tried in one.journal if tried.plan == one.plan]
        assert (one.broke, one.runs) == (own.count("broken"), len(own))
        assert one.live_runs == len(one.journal)
        assert len(one.needed) == len(one.plan.steps)


def test_a_single_kill_takes_few_runs() -> None:
    """If the history blames the right step, a bug of one kill breaks alone within 3 live runs, and the shrink ends within 12."""
    shape = BY_NAME["single kill"]
    for seed in SEEDS:
        plan = failing(shape, seed)
        blame = tuple(20.0 if step == Kill("decode", 0) else 0.2 for step in plan.steps)
        one = shrunk(shape, Simulated(shape, seed), plan, blame)
        assert one.plan.steps == (Kill("decode", 0),)
        assert until_held(one) <= 3
        assert one.live_runs <= 12
        assert (one.broke, one.runs, one.control_broke, one.control_runs) == (4, 4, 0, 3)
        assert one.any_replica is False


def test_a_wrong_prior_costs_at_most_twice_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the priors in reverse order, a shrink takes at most twice the live runs, and its plan is still step-minimal."""

    def median_until_held() -> float:
        costs = []
        for shape in SHAPES[:8]:
            for seed in SEEDS:
                plan = failing(shape, seed)
                one = shrunk(shape, Simulated(shape, seed), plan)
                assert shape.is_step_minimal(one.plan)
                costs.append(until_held(one))
        return statistics.median(costs)

    right = median_until_held()
    turned = dict(zip(KINDS, sorted(kind.prior for kind in KINDS), strict=True))
    for kind, share in turned.items():
        monkeypatch.setattr(kind, "prior", share)
    assert median_until_held() <= 2 * right


def test_wrong_blame_costs_at_most_twice_the_runs() -> None:
    """Blame on an innocent fault costs at most twice the live runs, and the plan is still step-minimal."""
    shape = BY_NAME["pair of kills in order"]
    guilty = (Kill("prefill", 0), Kill("decode", 1))
    right: list[int] = []
    wrong: list[int] = []
    for seed in SEEDS:
        plan = failing(shape, seed)
        innocent = next((step for step in plan.faults if step not in guilty), None)
        blame = tuple(20.0 if step == innocent else 1.0 for step in plan.steps)
        for costs, given_blame in ((right, ()), (wrong, blame)):
            one = shrunk(shape, Simulated(shape, seed), plan, given_blame)
            assert shape.is_step_minimal(one.plan)
            costs.append(until_held(one))
    assert statistics.median(wrong) <= 2 * statistics.median(right)


def test_numbers_end_near_their_threshold() -> None:
    """At rate 1, a burst that must be over 37 ends at 38 to 42. Numbers that do not matter end at their least value."""
    for shape, _, one in all_shrunk(1.0):
        if shape.name == "burst > 37 with one alive":
            (burst,) = (step for step in one.plan.steps if isinstance(step, Burst))
            assert 38 <= burst.requests <= 42
            assert (burst.over_s, burst.leave) == (0.0, 0.0)
        assert one.plan.stay_s == 0 or shape.name == "stale lease"


def test_a_lower_number_that_breaks_far_less_often_is_not_taken() -> None:
    """If the rate falls from .7 to .1 below 20 requests, 95% of the minimal plans have at least 20."""
    shape = BY_NAME["burst after respawn"]

    def rate(plan: Plan) -> float:
        return (
            0.7
            if max((s.requests for s in plan.steps if isinstance(s, Burst)), default=0) >= 20
            else 0.1
        )

    start = Plan((Kill("decode", 0), Wait(0.5), Respawn("decode", 0), Burst(60, 0.5)))
    ends = [shrunk(shape, Simulated(shape, seed, rate, runs_max=200), start) for seed in range(60)]
    good = [one for one in ends if one.confirmed and rate(one.plan) == 0.7]
    assert len(good) >= 0.95 * sum(one.confirmed for one in ends)
    assert (
        statistics.median(
            step.requests for one in good for step in one.plan.steps if isinstance(step, Burst)
        )
        <= 30
    )


def test_a_step_without_which_it_breaks_far_less_often_stays() -> None:
    """If the rate falls from .9 to .1 without one of two kills, the minimal plan has both."""
    shape = BY_NAME["single kill"]
    start = Plan((Kill("prefill", 0), Wait(1.0), Kill("decode", 0)))
    both = 0
    for seed in range(40):
        graph = Simulated(shape, seed, lambda plan: 0.9 if len(plan.faults) == 2 else 0.1)
        both += len(shrunk(shape, graph, start).plan.faults) == 2
    assert both >= 38


@settings(deadline=None, max_examples=150)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 5),
    rate=st.sampled_from([1.0, 0.6]),
    invalid=st.sampled_from([0.0, 0.3]),
    runs_max=st.integers(0, 60),
    repeats=st.sampled_from([None, REPEATS]),
)
def test_a_budget_that_ends_anywhere_leaves_the_best_so_far(
    shape: Shape, seed: int, rate: float, invalid: float, runs_max: int, repeats: Repeats | None
) -> None:
    """Wherever the budget ends, the plan that is returned was seen to break and embeds in the original plan."""
    plan = failing(shape, seed)
    graph = Simulated(shape, seed, rate, invalid, runs_max)
    one = shrink(SPEC, plan, broken(shape, plan), graph, repeats=repeats)
    assert one.live_runs == len(graph.ran) <= runs_max
    assert embeds(one.plan, plan)
    assert shape.at_s(one.plan) is not None
    assert one.confirmed == (one.broke > 0)
    if not one.complete:
        assert one.live_runs == runs_max or one.runs < 10


def test_more_budget_never_leaves_a_longer_plan() -> None:
    """At rate 1, a larger budget never leaves a longer plan."""
    shape = BY_NAME["burst > 37 with one alive"]
    plan = failing(shape, 3)
    sizes = [
        len(shrunk(shape, Simulated(shape, 3, runs_max=runs), plan).plan.steps)
        for runs in range(60)
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_the_same_runs_give_the_same_journal() -> None:
    """Two shrinks with the same answers have the same journal."""
    for shape in SHAPES:
        plan = failing(shape, 1)
        one, other = (shrunk(shape, Simulated(shape, 1, 0.6), plan) for _ in range(2))
        assert one == other


def test_a_failure_not_seen_again_in_six_runs_is_unconfirmed() -> None:
    """A failure that six fresh runs do not show again is unconfirmed. Half of these runs were of the whole plan."""
    shape = BY_NAME["single kill"]
    plan = Plan((Kill("decode", 0), Wait(3.0), Wait(0.5), Kill("prefill", 0)))
    one = shrunk(shape, Simulated(shape, 0, rate=0.0), plan)
    assert not one.confirmed
    assert (one.plan, one.broke, one.live_runs) == (plan, 0, 6)
    assert [len(tried.plan.steps) for tried in one.journal] == [2, 2, 2, 3, 3, 3]


def test_the_plan_as_drawn_gets_its_chance() -> None:
    """If the plan was cut too early, the whole plan reproduces the failure."""
    shape = BY_NAME["pair of kills in order"]
    plan = Plan((Kill("prefill", 0), Kill("decode", 1), Burst(5)))
    one = shrink(SPEC, plan, Trial("broken", last_step=0), Simulated(shape, 0))
    assert one.plan.steps == plan.steps[:2]


def test_load_alone_is_said() -> None:
    """A failure that needs no fault is reported as one of load alone."""
    load = Shape(
        "load alone",
        lambda _moments, plan: 0.0 if any(isinstance(s, Burst) for s in plan.steps) else None,
        1,
    )
    one = shrunk(load, Simulated(load, 0), Plan((Kill("decode", 0), Burst(20), Kill("prefill", 0))))
    assert one.plan.steps == (Burst(1),)
    assert (one.plan.faults, one.control_broke) == ((), one.broke)


def test_a_candidate_that_proves_nothing_is_set_aside() -> None:
    """A candidate with three invalid runs is set aside, its step counts as untested, and the shrink goes on."""
    shape = BY_NAME["pair of kills in order"]
    graph = Simulated(shape, 0)
    bad = (Kill("prefill", 0),)

    def run(plan: Plan) -> Trial:
        return Trial("invalid") if plan.steps == bad else graph(plan)

    plan = Plan((Kill("prefill", 0), Kill("decode", 1)))
    one = shrink(SPEC, plan, broken(shape, plan), run)
    assert one.plan == plan
    assert [n.untested for n in one.needed if str(n.step) == "kill decode 1"] == [True]
    assert sum(tried.plan.steps == bad for tried in one.journal) == 3
    assert one.complete


def test_nothing_but_invalid_runs_leaves_it_unconfirmed() -> None:
    """A shrink with only invalid runs ends unconfirmed, with at most three runs of each plan."""
    shape = BY_NAME["single kill"]
    plan = failing(shape, 0)
    one = shrunk(shape, Simulated(shape, 0, invalid=1.0), plan)
    assert (one.confirmed, one.broke, one.runs) == (False, 0, 0)
    assert one.live_runs <= 6


def test_other_replicas_are_tried() -> None:
    """A bug of any replica is reported as one. A role with one replica has no others to try."""
    anyone = Shape(
        "any decode",
        lambda _moments, plan: (
            0.0 if any(f.aims[0].role == "decode" for f in plan.faults) else None
        ),
        1,
    )
    plan = Plan((Kill("decode", 2), Kill("frontend", 0)))
    assert shrunk(anyone, Simulated(anyone, 0), plan).any_replica is True
    front = Shape(
        "frontend",
        lambda _moments, plan: (
            0.0 if any(f.aims[0].role == "frontend" for f in plan.faults) else None
        ),
        1,
    )
    assert shrunk(front, Simulated(front, 0), plan).any_replica is None


def test_a_long_stay_is_given_up_first_and_kept_where_it_matters() -> None:
    """Only the plan of the stale lease keeps its long stay, of about 7 s. The plans of all other bugs lose theirs."""
    lease = BY_NAME["stale lease"]
    needed_s = [one.plan.stay_s for shape, _, one in all_shrunk(1.0) if shape is lease]
    assert needed_s
    assert all(7.0 <= stay_s <= 7.9 for stay_s in needed_s)
    others = [(plan, one.plan) for shape, plan, one in all_shrunk(1.0) if shape is not lease]
    assert any(plan.stay_s for plan, _ in others)
    assert all(minimal.stay_s == 0.0 for _, minimal in others)


def test_errors_of_the_one_who_runs_are_not_swallowed() -> None:
    """An error of the runner ends the shrink, and only a spent budget returns the plan so far."""
    shape = BY_NAME["single kill"]
    plan = failing(shape, 0)

    def fails(_plan: Plan) -> Trial:
        raise RuntimeError("the harness broke")

    def spent(_plan: Plan) -> Trial:
        raise BudgetSpent

    with pytest.raises(RuntimeError):
        shrink(SPEC, plan, broken(shape, plan), fails)
    one = shrink(SPEC, plan, broken(shape, plan), spent)
    assert (one.complete, one.confirmed, one.live_runs) == (False, False, 0)


def test_waits_side_by_side_become_one() -> None:
    """Waits that come to stand side by side become one wait."""
    plan = Plan((Wait(0.5), Kill("decode", 0), Wait(0.25), Burst(5), Wait(0.5)))
    left = prior(SPEC, plan).without(frozenset([3])).plan
    assert left == replace(plan, steps=(Wait(0.5), Kill("decode", 0), Wait(0.75)))


@given(threshold=st.integers(1, 400), value=st.integers(1, 400))
def test_bisection_ends_within_a_quarter_above_the_threshold(threshold: int, value: int) -> None:
    """Bisection ends at most a quarter above the threshold, and asks about no value twice."""
    assume(value >= threshold)
    asked: list[float] = []

    def accepts(number: float) -> bool:
        asked.append(number)
        return number >= threshold

    end = smallest(value, 1, 1, accepts)
    assert threshold <= end <= max(threshold + 1, threshold * 1.25)
    assert len(asked) == len(set(asked)) <= 12
