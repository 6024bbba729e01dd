"""Budgets in seconds and in live runs: their text form, and whether a run may still begin."""

from __future__ import annotations

import pytest

from graphquake.machines.runners.budget import Budget, Budgets, Limit, parse_duration, parse_limit

pytestmark = pytest.mark.simulated


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("90", Limit(90)),
        ("1h30m", Limit(5400)),
        ("60runs", Limit(runs=60)),
        ("1run", Limit(runs=1)),
        ("20m, 60runs", Limit(1200, 60)),
    ],
)
def test_limits_are_time_or_runs_or_both(text: str, limit: Limit) -> None:
    """A limit is a duration, a number of runs, or both in any order."""
    assert parse_limit(text) == limit


@pytest.mark.parametrize("text", ["soon", "²", "20runss", "runs", "", "20m,,3runs"])
def test_a_text_that_is_not_a_limit_is_an_error_with_an_example(text: str) -> None:
    """Text that is not a limit is an error that shows both forms."""
    with pytest.raises(ValueError, match=r"expected a duration such as .* runs such as 60runs"):
        parse_limit(text)


def test_durations() -> None:
    """A duration has hours, minutes and seconds, or is a number of seconds."""
    assert [parse_duration(one) for one in ("5", "5s", "2m5s", "1h")] == [5, 5, 125, 3600]


def test_a_budget_of_runs() -> None:
    """Runs that a share begins count for the whole budget as well."""
    budget = Budget(1e9, 4)
    share = budget.share(0.5)
    for _ in range(2):
        assert share.has_room(10.0)
        share.begin_run()
    assert not share.has_room(10.0)
    assert budget.left_runs == 2
    assert not Budget(5.0).has_room(10.0)


def test_graphs_share_the_rest_of_the_budget() -> None:
    """The next graph gets the rest of the budget that the first one did not use. Without a limit on runs only time counts."""
    timed = Budgets(Limit(600), 2)
    assert [one.has_room(100.0) for one in (timed.next(), timed.next())] == [True, True]
    budgets = Budgets(Limit(1e9, 10), 2)
    first = budgets.next()
    assert first.total_runs == 5
    first.begin_run()
    assert budgets.next().total_runs == 9
