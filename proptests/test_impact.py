"""Tests of the impact of faults in numbers, and of the tables of them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Measured, Resumed
from graphquake.harness.history.history import History
from graphquake.harness.history.host import Host
from graphquake.harness.history.percentile import percentile
from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.reports.impact import account
from graphquake.harness.reports.suite_table import (
    FORMATS,
    compare,
    flat,
    read_records,
    record_of,
    render,
)
from graphquake.harness.spec.replica import Replica

from bench import bench_clock
from support.made import Made, plan_of

pytestmark = pytest.mark.simulated


def outage(*, returns: bool = True) -> Made:
    """Build a kill at 2 s after which requests fail until 4 s, or to the end."""
    made = Made(plan=plan_of("wait 1.00 s", "kill decode 0")).steady(0.0, 2.0)
    made.step("wait 1.00 s", 2.0, begun_s=1.0).step("kill decode 0", 2.0, number=1)
    made.steady(2.0, 4.0 if returns else 10.0, outcome=Outcome.ERROR)
    if returns:
        made.steady(4.0, 10.0).spawn("decode 0", 2.5, ready_s=3.0)
    return made.phase("heal", 2.1).phase("recover", 2.1).phase("steady", 9.0).phase("drain", 10.2)


def test_an_outage_in_numbers() -> None:
    """The error window ends half-way to the first right request. Readiness and service are separate times."""
    numbers = account(outage().history())
    (impact,) = numbers.impacts
    assert (numbers.before.ok, numbers.before.failed) == (39, 0)  # one was in flight
    assert numbers.after.failed == numbers.failed == impact.failed == 40
    assert impact.window_s == pytest.approx(2.0, abs=0.05)
    assert impact.first_ok_s == pytest.approx(2.0, abs=0.2)
    assert impact.peak_s == pytest.approx(2.0, abs=0.3)
    assert impact.ready_s == pytest.approx(1.0)
    assert impact.expected == pytest.approx(20 * (impact.first_ok_s or 0), abs=1)


def test_a_graph_that_never_recovers() -> None:
    """For a service that never comes back, the times are None, not 0."""
    (impact,) = account(outage(returns=False).history()).impacts
    assert (impact.window_s, impact.first_ok_s, impact.peak_s, impact.ready_s) == (None,) * 4
    assert impact.expected is None


def test_a_fault_without_failures() -> None:
    """A fault without a failure has an error window of 0 and is served at once."""
    made = Made(plan=plan_of("kill decode 0")).steady(0.0, 6.0).step("kill decode 0", 2.0)
    (impact,) = account(made.history()).impacts
    assert (impact.failed, impact.window_s) == (0, 0.0)
    assert impact.first_ok_s is not None
    assert impact.first_ok_s < 0.3


def test_every_fault_counts_separately() -> None:
    """Each failure counts for the last fault before it."""
    made = outage()
    made.step("kill decode 1", 7.0, number=2)
    first, second = account(made.history()).impacts
    assert (first.failed, second.failed) == (40, 0)
    assert second.ready_s is None


def test_two_blows_at_once_are_told_apart_and_both_end() -> None:
    """A service that comes back after two overlapping faults counts as back for both."""
    made = Made(plan=plan_of("kill decode 0", "kill decode 1")).steady(0.0, 2.0)
    made.step("kill decode 0", 2.0).step("kill decode 1", 2.01, number=1)
    made.steady(2.02, 4.0, outcome=Outcome.ERROR).steady(4.0, 10.0)
    made.spawn("decode 0", 2.1, ready_s=3.0).spawn("decode 1", 2.1, ready_s=3.5)
    first, second = account(made.history()).impacts
    assert (first.failed, second.failed) == (0, 40)
    assert first.ready_s == pytest.approx(1.0)
    assert second.ready_s == pytest.approx(1.49)
    assert first.window_s == 0.0
    assert second.window_s == pytest.approx(2.0, abs=0.05)
    assert second.peak_s == pytest.approx(2.0, abs=0.3)
    assert flat(record_of(made.history(), Path("run")))["ready_s"] == pytest.approx(1.49)


def test_a_failed_request_counts_for_the_fault_before_its_end() -> None:
    """A failure after a second fault counts once, and does not extend the window of the first fault."""
    made = outage()
    made.step("kill decode 1", 7.0, number=2)
    hit = next(r for r in made.requests if r.sent_s < 7.0 < r.ended_s)
    made.requests[made.requests.index(hit)] = replace(hit, outcome=Outcome.ERROR)
    first, second = account(made.history()).impacts
    assert (first.failed, second.failed) == (40, 1)
    assert first.window_s == pytest.approx(2.0, abs=0.05)
    assert second.window_s == pytest.approx(0.0, abs=0.05)


def test_the_peak_is_after_the_last_failure() -> None:
    """A second of right answers before the first failure does not count as recovery."""
    made = Made(plan=plan_of("kill decode 0")).steady(0.0, 4.0).step("kill decode 0", 2.0)
    made.steady(4.0, 6.0, outcome=Outcome.ERROR).steady(6.0, 10.0)
    (impact,) = account(made.history()).impacts
    assert impact.peak_s == pytest.approx(4.0, abs=0.3)


def test_a_stall_ends_when_its_victim_goes_on() -> None:
    """A stall has a time of readiness: the end of the stall."""
    made = Made(plan=plan_of("stall decode 0 for 1.00 s")).steady(0.0, 6.0)
    made.step("stall decode 0 for 1.00 s", 2.0)
    made.events.append(Resumed(3.0, Replica("decode", 0), ""))
    (impact,) = account(made.history()).impacts
    assert impact.ready_s == pytest.approx(1.0)


def test_pending_is_over_the_samples_with_work() -> None:
    """Waiting requests are summed over the replicas. Without metrics the number is missing."""
    made = outage()
    assert account(made.history()).before.pending is None
    for at_s, in_flight, waiting in (
        (0.0, 0.0, 0.0),
        (0.5, 4.0, 2.0),
        (1.5, 4.0, 4.0),
        (5.0, 1.0, 0.0),
    ):
        made.events.append(
            Measured(at_s, Replica("decode", 0), 0.1, 1 << 20, 0, in_flight, waiting)
        )
        made.events.append(Measured(at_s, Replica("frontend", 0), 0.1, 1 << 20))
    numbers = account(made.history())
    assert (numbers.before.pending, numbers.after.pending) == (3.0, 0.0)


def test_an_answer_over_the_limit_is_slow() -> None:
    """A right answer above the threshold counts as slow, and the threshold can be set."""
    history = outage().history()
    assert account(history).before.slow == 0
    assert account(history, slow_s=0.01).before.slow == 39


def test_percentiles() -> None:
    """A percentile is one of the values, by the nearest rank."""
    assert percentile([], 0.5) is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0


def test_reported_outages_are_those_of_the_server() -> None:
    """Each outage of a live server is reported once. The median error of the window is at most a quarter of a second.

    The same bound holds for the first success. `bench_clock` measures the errors exactly.
    """
    truth, impacts = asyncio.run(bench_clock.measure(8, seed=3))
    assert len(impacts) == len(truth) == 8
    usual = bench_clock.at_percentile(bench_clock.errors(truth, impacts), 0.5)
    assert usual.window_s <= 0.25
    assert usual.first_ok_s <= 0.25


# ----------------------------------------------------------------------------------------------------------- the tables


def saved(folder: Path, made: Made, scenario: str = "") -> Path:
    """Save a run."""
    history = made.history()
    if scenario:
        history.host = Host(scenario=scenario)
    folder.mkdir(parents=True)
    history.save(folder)
    return folder


def test_the_table_of_a_folder(tmp_path: Path) -> None:
    """A folder becomes a table with one row for each run below it, and the suite's columns."""
    saved(tmp_path / "made" / "decode_worker", outage(), "decode_worker")
    saved(tmp_path / "made" / "other", outage(returns=False), "other")
    records = read_records(tmp_path)
    text = render(records, "fancy")
    head, _, first, second = text.splitlines()[1:5]
    for column in (
        "startup",
        "success",
        "failed",
        "latency b/a",
        "pending b/a",
        "violations b/a",
        "recovery",
    ):
        assert column in head
    assert first.split("│")[0].strip() == "decode_worker"
    assert "never" in second
    assert [cell.strip() for cell in second.split("│")][-1] == "broken"
    assert "made, other: broken: error_window" in text
    assert render(records, "markdown").count("|") > 40
    rows = list(csv.DictReader(io.StringIO(render(records, "csv"))))
    assert [row["failure"] for row in rows] == ["decode_worker", "other"]
    assert json.loads(render(records, "json"))["runs"][1]["impacts"][0]["window_s"] is None


@pytest.mark.parametrize("form", FORMATS)
def test_two_folders_are_compared(tmp_path: Path, form: str) -> None:
    """Two folders are compared number by number. A run that only one of them has is shown."""
    old = read_records(saved(tmp_path / "old", outage(), "frontend").parent)
    new = [record_of(outage(returns=False).history(), tmp_path), *old]
    text = compare(old, new, form)
    assert "kept" not in text.splitlines()[0]
    assert "frontend" in text
    changed = compare(old, [record_of(_later(), tmp_path, 0.1)], "fancy")
    assert "→" in changed


def _later() -> History:
    history = outage(returns=False).history()
    history.host = Host(scenario="frontend")
    return history


def test_numbers_of_several_faults_are_of_the_worst() -> None:
    """The numbers of a run are those of its worst fault."""
    made = outage()
    made.step("kill decode 1", 7.0, number=2)
    row = flat(record_of(made.history(), Path("run")))
    assert row["ready_s"] is None
    assert row["faults"] == 2


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    """A folder without runs, or a missing folder, is an error that names it."""
    with pytest.raises(InputError, match="holds no run"):
        read_records(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        read_records(tmp_path / "nowhere")
