"""One plan within another: an order among plans, and the earliest place where it is complete."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.spec.plan import (
    PROCESS,
    Burst,
    Kill,
    Plan,
    Respawn,
    Step,
    Terminate,
    Wait,
    WaitReady,
)
from graphquake.machines.plans.subplan import embeds, last_act

from support.embedding import complete_at

# Few different steps, so that plans that have nothing to do with one another often embed all the same.
waits = st.sampled_from([Wait(0.0), Wait(0.1), Wait(0.2), Wait(0.3), Wait(1.0)])
bursts = st.builds(
    Burst, st.sampled_from([1, 5, 40]), st.sampled_from([0.0, 0.5]), st.sampled_from([0.0, 0.25])
)
acts = st.sampled_from(
    [
        Kill("a", 0),
        Kill("a", 0, PROCESS),
        Kill("a", 1),
        Terminate("a", 0),
        Respawn("a", 0),
        WaitReady(),
    ]
)
steps = st.one_of(acts, waits, waits, bursts)
heals = st.sampled_from(["all", "all", "all", "release"])
stays = st.sampled_from([0.0, 0.0, 2.0, 12.0])


def plans(size: int) -> st.SearchStrategy[Plan]:
    """Plans of at most so many steps."""
    return st.builds(Plan, st.lists(steps, max_size=size).map(tuple), heals, stays)


def covers(step: Step, wanted: Step) -> bool:
    """What "at least as large" means for one step."""
    if isinstance(step, Burst) and isinstance(wanted, Burst):
        return all(
            getattr(step, name) >= getattr(wanted, name) for name in ("requests", "over_s", "leave")
        )
    return step == wanted


def hundredths(steps_between: tuple[Step, ...]) -> int:
    """What is waited in a stretch of steps."""
    return sum(round(step.for_s * 100) for step in steps_between if isinstance(step, Wait))


def by_brute_force(small: Plan, large: Plan) -> bool:
    """Try every way to place the steps."""
    wanted = [place for place, step in enumerate(small.steps) if not isinstance(step, Wait)]
    at = [place for place, step in enumerate(large.steps) if not isinstance(step, Wait)]
    gaps = list(zip([-1, *wanted], [*wanted, len(small.steps)], strict=True))
    for chosen in combinations(at, len(wanted)):
        places = list(zip([-1, *chosen], [*chosen, len(large.steps)], strict=True))
        if all(
            covers(large.steps[b], small.steps[a]) for a, b in zip(wanted, chosen, strict=True)
        ) and all(
            hundredths(small.steps[a + 1 : b]) <= hundredths(large.steps[c + 1 : d])
            for (a, b), (c, d) in zip(gaps, places, strict=True)
        ):
            return small.heal == large.heal and small.stay_s <= large.stay_s
    return False


@given(plan=plans(8))
def test_every_plan_embeds_in_itself(plan: Plan) -> None:
    """The order is reflexive."""
    assert embeds(plan, plan)


@given(data=st.data(), large=plans(8))
def test_what_embeds_in_what_embeds_embeds(data: st.DataObject, large: Plan) -> None:
    """The order is transitive."""
    middle = data.draw(smaller(large))
    small = data.draw(smaller(middle))
    assert embeds(middle, large)
    assert embeds(small, middle)
    assert embeds(small, large)


def smaller(plan: Plan) -> st.SearchStrategy[Plan]:
    """What a shrinker may make of a plan: steps left out, numbers lowered."""

    def lowered(step: Step) -> st.SearchStrategy[tuple[Step, ...]]:
        match step:
            case Wait(for_s):
                return st.sampled_from([(), (Wait(round(for_s / 2, 2)),), (step,)])
            case Burst(requests):
                return st.sampled_from([(), (Burst(max(1, requests // 2)),), (step,)])
        return st.sampled_from([(), (step,), (step,)])

    kept = st.tuples(*map(lowered, plan.steps)).map(
        lambda parts: tuple(s for part in parts for s in part)
    )
    stay = st.sampled_from([0.0, plan.stay_s])
    return st.builds(lambda steps, stay_s: Plan(steps, plan.heal, stay_s), kept, stay)


@given(data=st.data(), large=plans(8), extra=steps)
def test_adding_a_step_loses_no_embedding(data: st.DataObject, large: Plan, extra: Step) -> None:
    """The larger plan may only grow."""
    small = data.draw(smaller(large))
    place = data.draw(st.integers(0, len(large.steps)))
    grown = replace(large, steps=(*large.steps[:place], extra, *large.steps[place:]))
    assert embeds(small, grown)


@given(small=plans(4), large=plans(6))
def test_it_embeds_if_and_only_if_some_placing_of_its_steps_does(small: Plan, large: Plan) -> None:
    """Taking each step as early as possible misses none; trying every placing is the oracle."""
    assert embeds(small, large) == by_brute_force(small, large)


@given(small=plans(4), large=plans(6))
def test_the_last_act_ends_the_shortest_prefix_that_does_all_acts(small: Plan, large: Plan) -> None:
    """Waits after the last act do not count. Without any act, the place is -1."""
    acts = [place for place, step in enumerate(small.steps) if not step.is_wait]
    until_the_last = replace(small, steps=small.steps[: max(acts, default=-1) + 1])
    expected = complete_at(until_the_last, large) if embeds(small, large) else None
    assert last_act(small, large) == expected


def test_waits_are_summed_over_each_gap() -> None:
    """Three waits of 0.1 s hold one of 0.3 s, whatever stands between; floats that miss by a hair do no harm."""
    large = Plan((Wait(0.1), Burst(5), Wait(0.1), WaitReady(), Wait(0.1), Kill("a", 0)))
    assert last_act(Plan((Wait(0.3), Kill("a", 0))), large) == 5
    assert not embeds(Plan((Wait(0.31), Kill("a", 0))), large)


def test_a_burst_that_is_spread_less_embeds_in_one_that_is_spread_more() -> None:
    """Every number that the shrinker lowers is compared the same way, or the minimal plan might not embed in its original."""
    assert embeds(Plan((Burst(10, 0.0, 0.0),)), Plan((Burst(40, 0.5, 0.25),)))
    assert not embeds(Plan((Burst(10, 0.5, 0.0),)), Plan((Burst(40, 0.0, 0.25),)))


def test_another_heal_or_a_longer_stay_does_not_embed() -> None:
    """They are part of what a plan does."""
    plan = Plan((Kill("a", 0),), stay_s=2.0)
    assert not embeds(replace(plan, heal="release"), plan)
    assert not embeds(replace(plan, stay_s=3.0), plan)
    assert embeds(replace(plan, stay_s=1.0), plan)
