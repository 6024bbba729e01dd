"""Tests of replays on simulated graphs: their end, their counts, and the meaning of their result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from graphquake.harness.history.host import Host
from graphquake.harness.history.request import Outcome
from graphquake.harness.promises.signature import Signature
from graphquake.harness.run.early_verdict import Enough
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import Case, Observed, Status
from graphquake.machines.cases.replay import (
    INVALID_MAX,
    CaseReplay,
    Replay,
    Word,
    meaning_of,
    recorded,
    runs_needed,
)
from graphquake.machines.cases.replay_budgets import replay_budgets
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import PendingRun

from support.made import plan_of
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated

PLAN = plan_of("kill decode 0")
CASE = Case(
    id="abc123",
    title="recovery broken by kill decode 0",
    status="open",
    graph={"name": "made"},
    signature=Signature("recovery", "HTTP 503", "path left"),
    plan=PLAN,
    seen="all failed",
    also=(Signature("recovery", "connection refused", "path left"),),
    observed=(Observed("2026-01-01", {"dynamo": "1"}, "simulated", 10, 10),),
)
BUG = Bug(PLAN, "HTTP 503", outcome=Outcome.ERROR, after_s=8.0)


def replayed(runner: SimRunner, case: Case = CASE, runs: int | None = None) -> Replay:
    """The replay of a case on a simulated graph."""
    return CaseReplay(case, runner, RunLog(), runs=runs).finish()


def test_the_first_run_that_shows_the_signature_ends_a_replay() -> None:
    """One run with the case's signature reproduces it, also if the run shows another class of the same family."""
    for what in ("HTTP 503", "error event 503"):
        one = replayed(SimRunner([replace(BUG, detail=what)]))
        assert (one.word, one.broke, one.runs, one.line) == ("REPRODUCED", 1, 1, "REPRODUCED 1/1")


def test_the_number_of_kept_runs_follows_from_the_rate() -> None:
    """A case that always broke needs three kept runs, and one that broke in 3 of 10 runs needs nine."""
    seldom = replace(CASE, observed=(replace(CASE.observed[0], broke=3),))
    for case, runs in ((CASE, 3), (seldom, 9)):
        one = replayed(SimRunner([]), case)
        assert (one.word, one.broke, one.runs) == ("NOT REPRODUCED", 0, runs)
        assert runs_needed(case) == runs


def test_a_fixed_number_of_runs_does_not_end_early() -> None:
    """With `runs`, a replay makes exactly that many runs that prove something, and counts those that broke."""
    one = replayed(SimRunner([replace(BUG, rate=0.5)]), runs=8)
    assert one.runs == 8
    assert 0 < one.broke < 8


class Asked(SimRunner):
    """A simulated graph that keeps the last question by which a run may end early."""

    enough: Enough | None = None

    def start(self, plan: Plan, why: str, **named: Any) -> PendingRun:
        """Keep the question, and make the run."""
        self.enough = named["enough"]
        return super().start(plan, why, **named)


@pytest.mark.parametrize(("detail", "shows"), [("HTTP 503", True), ("HTTP 500", False)])
def test_a_brief_replay_ends_a_run_that_shows_the_signature(detail: str, *, shows: bool) -> None:
    """Another signature does not end a run. A replay that is not brief never ends a run early."""
    runner = Asked([replace(BUG, detail=detail)])
    replayed(runner)
    assert runner.enough is None
    one = CaseReplay(CASE, runner, RunLog(), briefly=True).finish()
    assert one.shown is not None
    assert runner.enough is not None
    assert runner.enough(one.shown.history) is shows


@dataclass(slots=True)
class Ordered(SimRunner):
    """A simulated graph that keeps the graph of each order."""

    specs: list[GraphSpec | None] = field(default_factory=list)

    def start(self, plan: Plan, why: str, **named: Any) -> PendingRun:
        """Keep the graph, and make the run."""
        self.specs.append(named["spec"])
        return SimRunner.start(self, plan, why, **named)


def test_a_first_run_is_begun_ahead() -> None:
    """The replay then waits for it, and begins the others. All have the bounds of the case, and count in the replay's own budget."""
    runner, budget = Ordered([]), Budget(100.0, 20.0)
    own = replace(runner.spec, lease_s=9.0)
    one = CaseReplay(CASE, runner, RunLog(), own, runner.spec, limit=lambda: budget)
    one.begin()
    assert (len(runner.runs), budget.begun_runs) == (1, 0)
    assert one.finish().line == "NOT REPRODUCED 0/3 (95% sure, if the rate is still at least 100%)"
    assert runner.specs == [own] * 3
    assert budget.begun_runs == 3
    spent = CaseReplay(CASE, runner, RunLog(), own, limit=lambda: Budget(100.0, 1.0))
    spent.begin()
    assert (spent.finish().line, len(runner.runs)) == ("UNDECIDED 0/1, budget", 4)


@pytest.mark.parametrize(
    ("strict", "shares"),
    [
        (False, [("open", 50.0, 10), ("fixed", 50.0, 10), ("known", 20.0, 4), ("known", 15.0, 4)]),
        (True, [("known", 50.0, 10), ("open", 50.0, 10), ("known", 50.0, 10), ("fixed", 50.0, 10)]),
    ],
)
def test_known_cases_share_a_small_budget(
    *, strict: bool, shares: list[tuple[str, float, int]]
) -> None:
    """Known cases come last and take a fifth together, unless a known case that is fixed fails the search."""
    cases = [replace(CASE, status=status) for status in ("known", "open", "known", "fixed")]
    whole = Budget(100.0, 20.0)
    found = []
    for case, share in replay_budgets(cases, whole, strict_known=strict):
        budget = share()
        found.append((case.status, round(budget.left_s), budget.left_runs))
        if len(found) == 3 and not strict:
            # The third replay takes five seconds.
            assert budget.whole is not None
            budget.whole.begun_s -= 5.0
    assert found == [(status, round(left_s), runs) for status, left_s, runs in shares]


def test_each_known_case_gets_a_run() -> None:
    """A fifth of a few runs may be less than a run for each known case. Then each gets one, if the search has so many."""
    cases = [replace(CASE, status="known")] * 3
    for whole, runs in ((5.0, 3), (2.0, 2)):
        shares = [share() for _, share in replay_budgets(cases, Budget(100.0, whole))]
        assert [one.left_runs for one in shares] == [runs] * 3
        # They share these runs.
        for _ in range(runs):
            assert shares[0].has_room(0.0)
            shares[0].begin_run()
        assert not any(one.has_room(0.0) for one in shares)


def test_a_spent_budget_decides_nothing() -> None:
    """A budget that ends before enough runs kept the promise leaves the case undecided."""
    one = replayed(SimRunner([], runs_max=2))
    assert (one.word, one.line) == ("UNDECIDED", "UNDECIDED 0/2, budget")


def test_invalid_runs_end_a_replay() -> None:
    """Three invalid runs end a replay, and are not counted among its runs."""
    one = replayed(SimRunner([], invalid=1.0))
    assert (one.word, one.runs, one.invalid) == ("INVALID", 0, INVALID_MAX)
    assert one.line == "INVALID 3 runs proved nothing"


def test_other_violations_are_listed_and_do_not_reproduce_a_case() -> None:
    """A run with another status shows another bug. A signature that the case names in `also` is not listed as another one."""
    other = replayed(SimRunner([replace(BUG, detail="HTTP 500")]))
    assert other.word == "NOT REPRODUCED"
    assert [str(one) for one in other.others] == ["recovery / HTTP 500 / path left"]
    refused = SimRunner([replace(BUG, detail="connection refused")])
    assert replayed(refused).others == ()


def test_a_replay_tells_which_versions_changed() -> None:
    """A replay compares the versions and the host with those of the last observation."""
    runner = SimRunner([BUG], host=Host(cores=8, versions={"dynamo": "2", "extra": "1"}))
    one = CaseReplay(CASE, runner, RunLog()).finish()
    assert one.differs == ("dynamo 1 -> 2", "extra none -> 1", "simulated -> 8 cores, no GPU")
    case = recorded(CASE, one.observed("2026-02-02", runner.host))
    assert case.observed[1:] == (
        Observed("2026-02-02", {"dynamo": "2", "extra": "1"}, "8 cores, no GPU", 1, 1),
    )


@pytest.mark.parametrize(
    ("status", "word", "meaning"),
    [
        ("open", "REPRODUCED", (True, "still there")),
        ("open", "NOT REPRODUCED", (False, "not seen again")),
        ("fixed", "REPRODUCED", (True, "it is back")),
        ("fixed", "NOT REPRODUCED", (False, "still fixed")),
        ("known", "REPRODUCED", (False, "known, broke again")),
        ("known", "NOT REPRODUCED", (False, "perhaps fixed")),
        ("unconfirmed", "REPRODUCED", (False, "unconfirmed: seen again")),
        ("open", "UNDECIDED", (False, "UNDECIDED 1/1, budget")),
    ],
)
def test_the_meaning_of_a_replay_depends_on_the_status(
    status: Status, word: Word, meaning: tuple[bool, str]
) -> None:
    """An open or fixed case that is reproduced fails the session. A known or an unconfirmed case never does."""
    one = Replay(replace(CASE, status=status), word, 1, 1, 0, (), (), None)
    assert meaning_of(one) == meaning
