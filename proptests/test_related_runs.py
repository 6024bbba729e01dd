"""Kept runs of related plans count as evidence when a plan is shrunk."""

from __future__ import annotations

import pytest

from graphquake.harness.spec.plan import Burst, Kill, Plan, Step, Wait
from graphquake.machines.shrinking.trials import Trial, TrialLog

pytestmark = pytest.mark.simulated

COUNTED = Plan((Kill("decode", 0), Wait(0.5)))


@pytest.mark.parametrize(
    ("steps", "passes", "counted"),
    [
        ((Kill("decode", 0), Wait(0.5)), 3, 5),
        ((Kill("decode", 0), Wait(2.0)), 3, 2),
        ((Kill("decode", 0), Wait(2.0)), 1, 0),
        ((Kill("decode", 0), Wait(0.5), Burst(5)), 3, 0),
        ((Kill("decode", 0), Wait(0.5), Burst(5)), 2, 1),
        ((Kill("decode", 1), Wait(0.5)), 3, 0),
    ],
    ids=[
        "its own runs all count",
        "longer waits leave one run to the plan itself",
        "longer waits alone do not reject if one run does",
        "more steps do not count where accidents are common",
        "more steps count once where two runs reject",
        "a plan that does not contain it does not count",
    ],
)
def test_kept_runs_of_related_plans_count_against_a_plan(
    steps: tuple[Step, ...], passes: int, counted: int
) -> None:
    """Five kept runs of one plan count against another as its row of the table says."""
    log = TrialLog(lambda _: Trial("kept"))
    for _ in range(5):
        log.once_more(Plan(steps), "", 0.5)
    assert log.kept_with_more(COUNTED, passes) == (counted, steps[0] == COUNTED.steps[0])


def test_a_burst_with_more_requests_counts_in_full() -> None:
    """A kept run with more requests counts in full against a plan with fewer."""
    log = TrialLog(lambda _: Trial("kept"))
    log.once_more(Plan((Burst(40, 0.5),)), "", 0.5)
    assert log.kept_with_more(Plan((Burst(10, 0.5),)), 3) == (1, True)


def test_a_plan_that_ever_broke_counts_as_no_evidence() -> None:
    """The kept runs of a plan that ever broke count against no plan."""
    trials = iter([Trial("kept"), Trial("broken")])
    log = TrialLog(lambda _: next(trials))
    for _ in range(2):
        log.once_more(COUNTED, "", 0.5)
    assert log.kept_with_more(COUNTED, 3) == (0, False)


def test_longer_waits_and_more_steps_together_leave_one_run_to_the_plan() -> None:
    """However many related plans were kept, the plan itself is run at least once before it is rejected."""
    log = TrialLog(lambda _: Trial("kept"))
    for plan in (
        Plan((Kill("decode", 0), Wait(2.0))),
        Plan((Kill("decode", 0), Wait(0.5), Burst(5))),
    ):
        log.once_more(plan, "", 0.5)
    assert log.kept_with_more(COUNTED, 2) == (1, True)
