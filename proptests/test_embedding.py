"""Tests of embedding: it is an order among plans, and its last act has the earliest place."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
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
    UntilFirstToken,
    UntilInFlight,
    Wait,
    WaitReady,
)
from graphquake.machines.plans.subplan import embeds, last_act

from support.embedding import complete_at

pytestmark = pytest.mark.simulated

# There are few different steps, so that unrelated plans often embed, too.
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
        UntilInFlight(4),
        UntilInFlight(8),
        UntilFirstToken(),
    ]
)
steps = st.one_of(acts, waits, waits, bursts)
heals = st.sampled_from(["all", "all", "all", "release"])
stays = st.sampled_from([0.0, 0.0, 2.0, 12.0])


def plans(size: int) -> st.SearchStrategy[Plan]:
    """Plans of at most `size` steps."""
    return st.builds(Plan, st.lists(steps, max_size=size).map(tuple), heals, stays)


def covers(step: Step, wanted: Step) -> bool:
    """True if one step is at least as large as another."""
    if isinstance(step, Burst) and isinstance(wanted, Burst):
        return all(
            getattr(step, name) >= getattr(wanted, name) for name in ("requests", "over_s", "leave")
        )
    if isinstance(step, UntilInFlight) and isinstance(wanted, UntilInFlight):
        return step.requests >= wanted.requests
    return step == wanted


def hundredths(steps_between: tuple[Step, ...]) -> int:
    """Return the sum of the waits in some steps, in hundredths of a second. A wait for an event counts as its plain wait."""
    return sum(
        round((step.for_s if isinstance(step, Wait) else step.plain_s) * 100)
        for step in steps_between
    )


def by_brute_force(small: Plan, large: Plan) -> bool:
    """True if any placing of the steps fits. It tries all of them."""
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
def test_embedding_is_reflexive(plan: Plan) -> None:
    """Every plan embeds in itself."""
    assert embeds(plan, plan)


@given(data=st.data(), large=plans(8))
def test_embedding_is_transitive(data: st.DataObject, large: Plan) -> None:
    """If a plan embeds in a second one, and the second in a third, then the first embeds in the third."""
    middle = data.draw(smaller(large))
    small = data.draw(smaller(middle))
    assert embeds(middle, large)
    assert embeds(small, middle)
    assert embeds(small, large)


def smaller(plan: Plan) -> st.SearchStrategy[Plan]:
    """Plans that a shrinker may make of a plan, with fewer steps and lower numbers."""

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
    """A plan that embeds in another one still embeds after a step was added to the other one."""
    small = data.draw(smaller(large))
    place = data.draw(st.integers(0, len(large.steps)))
    grown = replace(large, steps=(*large.steps[:place], extra, *large.steps[place:]))
    assert embeds(small, grown)


@given(small=plans(4), large=plans(6))
def test_it_embeds_if_and_only_if_some_placing_of_its_steps_does(small: Plan, large: Plan) -> None:
    """A plan embeds exactly if some placing of its steps fits, as a search through all placings shows."""
    assert embeds(small, large) == by_brute_force(small, large)


@given(small=plans(4), large=plans(6))
def test_the_last_act_ends_the_shortest_prefix_that_does_all_acts(small: Plan, large: Plan) -> None:
    """The last act ends the shortest prefix with all acts. Waits after it do not count, and without any act the place is -1."""
    acts = [place for place, step in enumerate(small.steps) if not step.is_wait]
    until_the_last = replace(small, steps=small.steps[: max(acts, default=-1) + 1])
    expected = complete_at(until_the_last, large) if embeds(small, large) else None
    assert last_act(small, large) == expected


def test_waits_are_summed_over_each_gap() -> None:
    """Three waits of 0.1 s contain a wait of 0.3 s, also with other steps between them, and in spite of rounding."""
    large = Plan((Wait(0.1), Burst(5), Wait(0.1), WaitReady(), Wait(0.1), Kill("a", 0)))
    assert last_act(Plan((Wait(0.3), Kill("a", 0))), large) == 5
    assert not embeds(Plan((Wait(0.31), Kill("a", 0))), large)


def test_a_burst_that_is_spread_less_embeds_in_one_that_is_spread_more() -> None:
    """A burst embeds in one that is larger in each number, and does not if its spread is longer."""
    assert embeds(Plan((Burst(10, 0.0, 0.0),)), Plan((Burst(40, 0.5, 0.25),)))
    assert not embeds(Plan((Burst(10, 0.5, 0.0),)), Plan((Burst(40, 0.0, 0.25),)))


def test_another_heal_or_a_longer_stay_does_not_embed() -> None:
    """A plan with another heal, or with a longer stay, does not embed."""
    plan = Plan((Kill("a", 0),), stay_s=2.0)
    assert not embeds(replace(plan, heal="release"), plan)
    assert not embeds(replace(plan, stay_s=3.0), plan)
    assert embeds(replace(plan, stay_s=1.0), plan)
