"""The progress line of a search."""

from __future__ import annotations

import io

import pytest

from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.status import RunStatus
from graphquake.machines.reports.reporter import Reporter
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.run_log import RunLog

from support.made import plan_of

pytestmark = pytest.mark.simulated

PLAN = plan_of("kill decode 0", "wait 1.00 s")
NOW = RunStatus("plan", 2.0, 1, 30, 4)


@pytest.mark.parametrize(("gpus", "cost"), [(0, ""), (4, ", 26 GPU-seconds")])
def test_the_progress_of_a_run_and_the_cost_of_all_runs(gpus: int, cost: str) -> None:
    """Without a terminal a plain line shows the run's status, and the GPU-seconds if runs take GPUs."""
    stream, journal = io.StringIO(), RunLog()
    journal.run(PLAN, "search", Verdict("kept"), 6.5, "")
    reporter = Reporter(stream)
    reporter.begin("g", journal, Budget(3600.5), gpus)
    reporter(PLAN, "search", NOW)
    assert stream.getvalue() == (
        f"g · 60m00s left · 1 run{cost}, 0 findings · search: plan 2/2 · 15 requests/s, 4 failed · {PLAN.one_line()}\n"
    )
