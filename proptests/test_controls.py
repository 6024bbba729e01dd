"""Controls that earlier shrinks have made, and the values of a number that need no run."""

from __future__ import annotations

import pytest

from graphquake.harness.spec.plan import Plan, Stall
from graphquake.machines.shrinking.result import Shrunk
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.trials import Count, Trial

from support.made import plan_of
from support.simulated import SPEC

pytestmark = pytest.mark.simulated

LONG = plan_of("stall decode 0 for 11.00 s")
THRESHOLD_S = 3.0


def run(plan: Plan) -> Trial:
    """A graph that breaks its promise if a stall lasts for `THRESHOLD_S` seconds."""
    long = [s for s in plan.steps if isinstance(s, Stall) and s.for_s >= THRESHOLD_S]
    return Trial("broken", last_step=0) if long else Trial("kept")


def shrunk(kept: dict[Plan, int]) -> Shrunk:
    """Shrink a long stall. Earlier shrinks have made these controls."""
    return shrink(
        SPEC,
        LONG,
        Trial("broken", last_step=0),
        run,
        earlier={one: Count(kept=runs) for one, runs in kept.items()},
    )


def test_controls_of_earlier_findings_are_not_made_again() -> None:
    """Without faults, each plan of one step is the same plan. Its runs are evidence for each of them."""
    first, second = shrunk({}), shrunk({Plan(()): 3})
    assert (first.control_broke, first.control_runs) == (0, 3)
    assert (second.control_broke, second.control_runs) == (0, 3)
    assert sum(tried.plan == Plan(()) for tried in first.journal) == 3
    assert not any(tried.plan == Plan(()) for tried in second.journal)
    assert first.plan == second.plan


def test_a_stall_of_no_time_is_not_run() -> None:
    """If the plan without its only step was kept, the step's least value needs no run. The length is lowered by halves."""
    one = shrunk({})
    tried_s = {s.for_s for tried in one.journal for s in tried.plan.steps if isinstance(s, Stall)}
    assert min(tried_s) > 1.0
    (step,) = one.plan.steps
    assert isinstance(step, Stall)
    assert THRESHOLD_S <= step.for_s <= 2 * THRESHOLD_S
    assert (one.broke, one.runs) == (one.runs, one.runs)
