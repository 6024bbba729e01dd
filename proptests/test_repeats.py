"""Several trials of a plan in one run: what is repeated, what such a run says, and what that saves at low failure rates."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.plan import (
    Burst,
    Kill,
    Plan,
    Respawn,
    Stall,
    Terminate,
    Wait,
    WaitReady,
)
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.machines.shrinking.repeats import Repeats, puts_back, repeated, repeats_of
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.trials import Count, Trial

from support.made import plan_of
from support.simulated import (
    REPEATS,
    SHAPES,
    SPEC,
    Shape,
    Simulated,
    broken,
    drawn,
    failing,
    repetitions,
    spec_with,
)

pytestmark = pytest.mark.simulated

BY_NAME = {shape.name: shape for shape in SHAPES}
PLAN = Plan((Kill("decode", 0), Burst(5)))


def test_between_two_repetitions_the_graph_comes_back() -> None:
    """What a plan leaves dead is respawned, every replica is awaited, and a pause lets violations show."""
    twice = repeated(SPEC, replace(PLAN, steps=(*PLAN.steps, Terminate("prefill", 1))), 2, 2.5)
    assert twice is not None
    unit = ("kill decode 0", "burst 5 over 0.00 s", "terminate prefill 1")
    back = ("respawn prefill 1", "respawn decode 0", "wait until ready", "wait 2.50 s")
    assert tuple(map(str, twice.plan.steps)) == (*unit, *back, *unit)
    assert (twice.place(0), twice.place(7), twice.place(9)) == ((0, 0), (1, 0), (1, 2))


def test_a_supervisor_that_restarts_needs_no_respawn() -> None:
    """If the supervisor restarts replicas, only a wait until ready comes between two repetitions. A long stay is the pause."""
    twice = repeated(spec_with(restart="always"), Plan((Kill("decode", 0),), stay_s=12.0), 2, 2.5)
    assert twice is not None
    assert twice.plan.steps[1:3] == (WaitReady(), Wait(12.0))
    assert twice.plan.stay_s == 12.0


def test_a_repetition_begins_when_the_one_before_is_over() -> None:
    """A replica is ready while it is squeezed, so a wait until ready does not tell that the squeeze is over. The pause covers it."""
    plan = plan_of("squeeze decode 0 files for 2.50 s")
    twice = repeated(SPEC, plan, 2, 1.5)
    assert twice is not None
    assert twice.plan.lines() == [*plan.lines(), "wait until ready", "wait 4.00 s", *plan.lines()]
    stalled = repeated(SPEC, plan_of("stall decode 0 for 2.50 s"), 2, 1.5)
    assert stalled is not None
    assert "wait 1.50 s" in stalled.plan.lines()
    assert not feasible(SPEC, plan_of(*plan.lines(), "wait until ready", *plan.lines()))


def test_a_plan_that_leaves_replicas_dead_is_not_repeated() -> None:
    """`heal release` is part of what the plan does. Respawns between repetitions would make it another plan."""
    assert repeated(SPEC, replace(PLAN, heal="release"), 2, 2.5) is None


@given(st.integers(0, 200), st.integers(2, 5))
def test_each_repetition_begins_like_the_first(seed: int, times: int) -> None:
    """A drawn plan can be repeated, and the model is in its first state when a repetition begins."""
    plan = drawn(seed)
    many = repeated(SPEC, plan, times, 2.5)
    assert many is not None
    assert feasible(SPEC, many.plan)
    model = GraphModel(SPEC)
    for place, step in enumerate(many.plan.steps):
        if place % many.each == 0:
            assert all(model.works(replica) for replica in SPEC.replicas())
            assert not model.ongoing
        model = step.after(model)


def test_a_long_run_is_not_made_longer() -> None:
    """A run repeats a plan for about a minute at most, and never more often than wanted."""
    repeats = Repeats(pause_s=2.0, ready_s=1.0)
    assert repeats.times_of(PLAN, 4) == 4
    assert repeats.times_of(Plan((Stall("decode", 0, 11.0), Wait(6.0))), 8) == 3
    assert repeats.times_of(Plan((Kill("decode", 0),), stay_s=40.0), 8) == 1
    assert Repeats(pause_s=2.0, ready_s=40.0).times_of(PLAN, 8) == 1


def test_only_promises_that_are_judged_at_any_time_are_repeated() -> None:
    """A repetition lasts until its violation can show. What is judged once, after the plan, is not repeated."""
    window_s, lease_s = SPEC.promises.window_s, SPEC.outage_shows_s
    found = {name: repeats_of(SPEC, name, 1.0) for name in ("error_window", "views_agree")}
    assert found == {
        "error_window": Repeats(window_s + 0.5, 1.0),
        "views_agree": Repeats(lease_s + 0.5, 1.0),
    }
    assert [repeats_of(SPEC, name, 1.0) for name in ("recovery", "no_leak", "mine")] == [None] * 3


@pytest.mark.parametrize(
    ("trial", "counted"),
    [
        (Trial("kept"), Count(first_kept=1, later_kept=3)),
        (Trial("broken", last_step=1), Count(first_broke=1)),
        (Trial("broken", last_step=4), Count(first_broke=1)),
        (Trial("broken", last_step=11), Count(first_kept=1, later_kept=1, later_broke=1)),
        (Trial("broken", last_step=-1), Count(later_broke=1)),
        (Trial("broken", last_step=0, used=True), Count(later_broke=1)),
        (Trial("kept", used=True), Count(later_kept=4)),
    ],
)
def test_a_repeated_run_counts_its_repetitions(trial: Trial, counted: Count) -> None:
    """A run of four repetitions of five steps each counts those that it kept, and where it broke. None of them is a whole run."""
    four = repeated(SPEC, PLAN, 4, 2.5)
    assert four is not None
    assert four.each == 5
    count = Count()
    count.add_repeated(trial, four)
    assert count == counted
    assert count.runs == 0


def test_kept_repetitions_do_not_speak_against_a_plan_that_a_later_one_broke() -> None:
    """An earlier repetition may be the reason of a later broken one. Then only first repetitions and whole runs speak against the plan."""
    assert Count(first_kept=2, later_kept=9).against == 11
    assert Count(first_kept=2, later_kept=9, later_broke=1).against == 2


def test_a_respawn_that_was_left_out_comes_back_between_repetitions() -> None:
    """A plan without its respawn leaves the replica dead, so the repeated plan respawns it. Without the kill it does not."""
    respawn = Respawn("decode", 0)
    assert puts_back(SPEC, Plan((Kill("decode", 0),)), [respawn])
    assert not puts_back(SPEC, Plan(()), [Kill("decode", 0), respawn])


@pytest.mark.parametrize(
    "name", ["burst after respawn", "burst 0.8 s after a kill", "third respawn"]
)
def test_what_earlier_repetitions_left_makes_no_finding(name: str) -> None:
    """If only the repeated plan breaks, because an earlier repetition respawned or waited, the plan is not confirmed as minimal."""
    shape, misled = BY_NAME[name], 0
    for seed in range(6):
        plan = failing(shape, seed)
        one = shrink(
            SPEC,
            plan,
            broken(shape, plan),
            Simulated(shape, seed, 0.4, runs_max=120),
            repeats=REPEATS,
        )
        misled += any(
            tried.trial.kind == "broken" and shape.at_s(tried.plan) is None for tried in one.journal
        )
        assert not one.confirmed or shape.at_s(one.plan) is not None
    assert misled


def test_at_a_low_rate_repetitions_halve_the_runs() -> None:
    """At a rate of .3, shrinks take at most half of the live runs, and as many plans are minimal. Confirming runs are whole runs."""
    runs: dict[bool, list[int]] = {True: [], False: []}
    minimal = {True: 0, False: 0}
    for shape in SHAPES[:8:3]:
        for seed in range(6):
            plan = failing(shape, seed)
            for repeats in (None, REPEATS):
                graph = Simulated(shape, seed, 0.3, runs_max=120)
                one = shrink(SPEC, plan, broken(shape, plan), graph, repeats=repeats)
                runs[repeats is not None].append(one.live_runs)
                minimal[repeats is not None] += one.confirmed and shape.is_step_minimal(one.plan)
                whole = [t for t in one.journal if t.plan == t.ran == one.plan]
                if one.complete and one.confirmed:
                    assert one.runs == sum(t.trial.kind != "invalid" for t in whole)
    assert statistics.median(runs[True]) <= 0.5 * statistics.median(runs[False])
    assert minimal[True] >= minimal[False]


def test_a_failure_that_shows_no_more_costs_few_runs() -> None:
    """One run, and four with four repetitions each, are 17 kept trials. Without repetitions it takes all six runs."""
    shape = BY_NAME["single kill"]
    plan = plan_of("kill decode 0")
    for repeats, runs in ((REPEATS, 5), (None, 6)):
        one = shrink(SPEC, plan, broken(shape, plan), Simulated(shape, 0, 0.0), repeats=repeats)
        assert (one.confirmed, one.live_runs) == (False, runs)


def test_plans_that_only_wait_are_tried_a_few_times() -> None:
    """Without any fault, only the load is left. At a low rate, three kept trials settle that, in two runs at most."""
    shape = BY_NAME["single kill"]
    plan = plan_of("wait until 2 in flight", "wait 0.50 s", "kill decode 0")
    for seed in range(10):
        one = shrink(
            SPEC, plan, broken(shape, plan), Simulated(shape, seed, 0.2, runs_max=120), repeats=REPEATS
        )  # fmt: skip
        waits = Counter(tried.plan for tried in one.journal if not tried.plan.disturbs)
        assert max(waits.values(), default=0) <= 3, waits
        assert all(len(tried.ran.steps) <= 15 for tried in one.journal if not tried.plan.disturbs)


def test_a_bug_that_always_shows_is_never_repeated() -> None:
    """At rate 1, no run takes longer than it has to: hardly any repeats its plan."""
    shape = BY_NAME["two kills within 2 s"]
    for seed in range(5):
        plan = failing(shape, seed)
        one = shrink(SPEC, plan, broken(shape, plan), Simulated(shape, seed), repeats=REPEATS)
        assert sum(len(repetitions(tried.ran)) > 1 for tried in one.journal) <= 1


@pytest.mark.parametrize(("rate", "least", "most"), [(1.0, 4, 4), (0.3, 4, 10)])
def test_a_plan_is_confirmed_by_three_broken_runs(rate: float, least: int, most: int) -> None:
    """Beside the run that accepted it, three broken runs confirm a plan. If some are kept, it gets ten runs at most."""
    shape = BY_NAME["single kill"]
    plan = Plan((Kill("decode", 0),))
    for seed in range(8):
        one = shrink(SPEC, plan, broken(shape, plan), Simulated(shape, seed, rate))
        if one.confirmed:
            assert least <= one.runs <= most
            assert one.broke >= 4 or one.runs == 10


def test_simulated_repetitions_have_a_chance_each() -> None:
    """A repeated plan breaks in the first repetition in which its bug shows, and its later repetitions know what came before."""
    shape = BY_NAME["single kill"]
    four = repeated(SPEC, Plan((Kill("decode", 0),)), 4, REPEATS.pause_s)
    assert four is not None
    ends = [Simulated(shape, seed, 0.4)(four.plan) for seed in range(200)]
    shares = [
        sum(e.kind == "broken" and four.place(e.last_step)[0] == number for e in ends)
        for number in range(4)
    ]
    assert shares == sorted(shares, reverse=True)
    assert 0.3 <= shares[0] / 200 <= 0.5
    assert sum(e.kind == "kept" for e in ends) <= 50
    carried = Shape("carried", BY_NAME["burst after respawn"].violated, 3)
    alone = Plan((Kill("decode", 0), Burst(5)))
    twice = repeated(SPEC, alone, 2, REPEATS.pause_s)
    assert twice is not None
    assert carried.at_s(alone) is None
    end = Simulated(carried, 0)(twice.plan)
    assert (end.kind, twice.place(end.last_step)[0]) == ("broken", 1)
