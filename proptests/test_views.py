"""Tests of the graph's answers about itself: the differences that break a promise, and those for which a run waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphquake.harness.history.events import Resumed, Seen, ViewKind
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.views import Views
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import View

from support.made import Made, plan_of, spec_of
from support.toys import in_loop, toy_spec
from support.undisturbed import run_live

# within_s is 5 s by default, the lease of `spec_of` 10 s.


def signatures(*seen: Seen | Resumed, end_s: float = 30.0) -> tuple[str, ...]:
    """Return the signatures of a run with these looks and no other violation."""
    made = Made(spec_of()).steady(0.0, end_s)
    made.events += sorted(seen, key=lambda event: event.at_s)
    return tuple(map(str, judge(made.phase("drain", end_s).history()).signatures))


def listing(at_s: float, says: int, holds: int) -> Seen:
    """Return a look at the frontend's list."""
    return Seen(at_s, Replica("frontend", 0), "listing", says, holds)


def wrong(from_s: float, until_s: float, says: int, holds: int) -> list[Seen]:
    """Return two looks with the same list, and one every half second between them."""
    count = int((until_s - from_s) / 0.5)
    return [
        listing(at_s, says, holds)
        for at_s in (*(from_s + n / 2 for n in range(count + 1)), until_s)
    ]


@pytest.mark.parametrize(
    ("until_s", "says", "holds", "expected"),
    [
        (8.9, 1, 2, ()),
        (9.1, 1, 2, ("views_agree / frontend lists too few",)),
        (9.1, -1, 2, ("views_agree / frontend lists too few",)),
        (18.9, 3, 2, ()),
        (19.1, 3, 2, ("views_agree / frontend lists too many",)),
    ],
)
def test_a_list_may_be_wrong_for_as_long_as_it_takes_to_learn(
    until_s: float, says: int, holds: int, expected: tuple[str, ...]
) -> None:
    """A list may be wrong for five seconds, and for one lease longer if it names a dead replica."""
    assert signatures(*wrong(4.0, until_s, says, holds), listing(until_s + 0.1, 2, 2)) == expected


def test_a_difference_ends_with_the_first_right_look() -> None:
    """A wrong list counts up to the last look that saw it, because the next look may come late."""
    assert signatures(*wrong(4.0, 8.9, 1, 2), listing(9.4, 2, 2)) == ()
    assert signatures(*wrong(4.0, 8.9, 1, 2)) == ()


def test_a_difference_that_changes_begins_anew() -> None:
    """A change of the right answer restarts the clock, and a change of the wrong answer does not."""
    assert signatures(*wrong(4.0, 7.5, 1, 2), *wrong(8.0, 12.0, 1, 3), listing(12.5, 3, 3)) == ()
    assert signatures(*wrong(4.0, 7.5, 1, 2), *wrong(8.0, 12.0, 0, 2), listing(12.5, 2, 2)) != ()


def test_a_moment_of_truth_between_two_looks_begins_anew() -> None:
    """A resumed replica restarts the clock, although no look saw the list right in between."""
    apart = wrong(4.0, 20.0, 3, 2)
    assert signatures(*apart) == ("views_agree / frontend lists too many",)
    assert signatures(*apart, Resumed(10.0, Replica("decode", 1), "")) == ()
    long = wrong(4.0, 26.0, 3, 2)
    assert signatures(*long, Resumed(10.0, Replica("decode", 1), "")) == (
        "views_agree / frontend lists too many",
    )


def test_a_run_that_ends_has_shown_as_much_as_it_lasted() -> None:
    """A list that is wrong to the end breaks the promise if its time is over by then."""
    assert signatures(*wrong(4.0, 8.0, 1, 2), end_s=8.5) == ()
    assert signatures(*wrong(4.0, 10.0, 1, 2), end_s=10.5) != ()


@pytest.mark.parametrize(
    ("says", "expected"), [(1, "frontend ready without a path"), (0, "frontend not ready")]
)
def test_readiness_that_lies(says: int, expected: str) -> None:
    """A readiness probe that is wrong in either direction breaks the promise."""
    looks = [
        Seen(at_s, Replica("frontend", 0), "readiness", says, 1 - says) for at_s in (4.0, 24.0)
    ]
    assert signatures(*looks) == (f"views_agree / {expected}",)


@pytest.mark.parametrize(
    ("what", "says", "expected"),
    [
        ("pod", 1, "frontend pod ready but does not serve"),
        ("pod", 0, "frontend pod not ready but serves"),
        ("endpoint", 1, "frontend listed but does not serve"),
        ("endpoint", 0, "frontend not listed but serves"),
    ],
)
def test_a_cluster_that_lies(what: ViewKind, says: int, expected: str) -> None:
    """What a cluster says about a pod is judged by the rules of time of the graph's own answers."""

    def looks(until_s: float) -> list[Seen]:
        replica = Replica("frontend", 0)
        wrong = [Seen(at_s, replica, what, says, 1 - says) for at_s in (4.0, until_s)]
        return [*wrong, Seen(until_s + 0.1, replica, what, says, says)]

    assert signatures(*looks(19.1 if says else 9.1)) == (f"views_agree / {expected}",)
    assert signatures(*looks(18.9 if says else 8.9)) == ()


def test_views_return_only_changes() -> None:
    """The first look, each change and each wrong answer are recorded. An observer that can't be asked is not wrong."""
    views = Views()
    look = View(Replica("frontend", 0), "listing", 2, 2)
    assert views.changes([look], 0.5) == [listing(0.5, 2, 2)]
    assert views.changes([look], 1.0) == []
    apart = View(Replica("frontend", 0), "listing", 3, 2)
    assert not views.differ
    assert views.changes([apart], 1.5) == [listing(1.5, 3, 2)]
    assert views.differ
    assert views.changes([apart], 2.0) == [listing(2.0, 3, 2)]
    assert views.changes([], 2.5) == [listing(2.5, 0, 0)]
    assert not views.differ


def test_a_run_waits_for_the_look_that_decides() -> None:
    """A run waits until the bound is over since the first wrong look, and a look was taken after that."""
    views, made = Views(), Made(spec_of())
    assert views.undecided_until_s(made.history()) is None
    apart = View(Replica("frontend", 0), "listing", 3, 2)
    for at_s in (1.5, 9.0, 16.4):
        made.events += views.changes([apart], at_s)
        assert views.undecided_until_s(made.history()) == 16.5
    assert signatures(*made.history().of(Seen)) == ()
    made.events += views.changes([apart], 16.5)
    assert views.undecided_until_s(made.history()) is None
    assert signatures(*made.history().of(Seen)) == ("views_agree / frontend lists too many",)


@in_loop
async def test_a_frontend_that_is_never_told_is_found_out(tmp_path: Path) -> None:
    """A frontend that lists one worker too few breaks the promise, in a live run that waits for the deciding look."""
    spec = toy_spec(tmp_path, front="--overlook", more="[promises.views_agree]\nwithin_s = 1.0")
    plan = plan_of("kill worker 0", "wait 0.7 s")
    run = await run_live(spec, plan, tmp_path / "run")
    assert tuple(map(str, run.verdict.signatures)) == ("views_agree / front lists too few",)
    assert any(seen.says < seen.holds for seen in run.history.of(Seen))
