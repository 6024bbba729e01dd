"""Statistics of counts and rates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.machines.shrinking.stats import (
    cautious,
    chance_of_fewer,
    passes_to_reject,
    rate_of_accepted,
    wilson,
)

pytestmark = pytest.mark.simulated

counts = st.integers(0, 200).flatmap(lambda runs: st.tuples(st.integers(0, runs), st.just(runs)))


@pytest.mark.parametrize(
    ("broke", "runs", "low", "high"),
    [(10, 10, 0.7225, 1.0), (4, 11, 0.1517, 0.6462), (0, 5, 0.0, 0.4345)],
)
def test_wilson_gives_the_published_interval(
    broke: int, runs: int, low: float, high: float
) -> None:
    """`wilson` gives the published values of the score interval without continuity correction."""
    assert wilson(broke, runs) == pytest.approx((low, high), abs=2e-4)


@given(counts)
def test_wilson_holds_the_share_that_was_seen(count: tuple[int, int]) -> None:
    """The Wilson interval contains the share that was seen, stays within 0 to 1, and is (0, 1) without runs."""
    broke, runs = count
    low, high = wilson(broke, runs)
    share = broke / runs if runs else 0.5
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    if not runs:
        assert (low, high) == (0, 1)


@pytest.mark.parametrize(("broke", "runs"), [(-1, 5), (6, 5)])
def test_counts_that_are_none_are_turned_down(broke: int, runs: int) -> None:
    """More broken runs than runs, or fewer than none, is a ValueError."""
    with pytest.raises(ValueError, match="found"):
        wilson(broke, runs)


@pytest.mark.parametrize(("rate", "passes"), [(1.0, 1), (0.9, 2), (0.6, 4), (0.3, 9)])
def test_passes_follow_the_rate(rate: float, passes: int) -> None:
    """`passes_to_reject` gives 1, 2, 4 and 9 kept runs at rates of 1, .9, .6 and .3."""
    assert passes_to_reject(rate) == passes


@given(st.floats(0.05, 0.99))
def test_so_many_passes_come_by_chance_in_one_case_in_twenty(rate: float) -> None:
    """So many kept runs in a row have a probability of at most 5%, and one run less has more."""
    passes = passes_to_reject(rate)
    assert (1 - rate) ** passes <= 0.05 + 1e-9
    assert passes == 1 or (1 - rate) ** (passes - 1) > 0.05 - 1e-9


@given(counts)
def test_the_cautious_estimate_is_never_above_what_was_seen(count: tuple[int, int]) -> None:
    """The cautious estimate is below 1 and never above the share that was seen."""
    broke, runs = count
    assert 0.05 <= cautious(broke, runs) < 1
    if runs:
        assert cautious(broke, runs) <= max(0.05, broke / runs)


@given(st.integers(0, 100))
def test_a_series_without_a_kept_run_is_believed(runs: int) -> None:
    """A series without a kept run has a rate of at least .9, from the first run on."""
    assert rate_of_accepted(runs, runs) >= 0.9


def test_the_chance_of_fewer_is_fishers() -> None:
    """`chance_of_fewer` gives the value of Fisher's tea example: 1 of 4 against 3 of 4."""
    assert chance_of_fewer(1, 4, 3, 4) == pytest.approx(17 / 70)


@given(counts, counts)
def test_a_chance_is_one(one: tuple[int, int], other: tuple[int, int]) -> None:
    """The probability lies between 0 and 1, and is 1 if every run broke."""
    chance = chance_of_fewer(*one, *other)
    assert 0 < chance <= 1 + 1e-9
    if one[0] == one[1]:
        assert math.isclose(chance, 1.0)
