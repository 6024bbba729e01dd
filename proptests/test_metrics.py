"""The metrics of a search: what they count, and how they are served."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Event, Resumed, StepDone, Undone
from graphquake.harness.history.faults import Fault, FaultTrail, faults_of
from graphquake.harness.history.request import Outcome
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.live import LiveRun
from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.plan import parse_step
from graphquake.harness.spec.replica import Replica
from graphquake.machines.frontends.metrics_server import MetricsServer, address_of
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.run_observer import observed
from graphquake.machines.runners.run_tally import (
    OTHERS,
    TARGETS_MAX,
    FaultCount,
    RunTally,
    without_old_targets,
)
from graphquake.machines.sessions.live_state import LiveState, Sources, StateWriter, read_state

from support.made import Made, plan_of
from support.metrics import free_port, scraped
from support.nested_pytest import enter, run_here
from support.pages import DOCS

pytestmark = pytest.mark.simulated

PLAN = plan_of("kill decode 0", "stall decode 1 for 2 s")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ZERO = BEGAN.timestamp()
DECODE_1 = Replica("decode", 1)


def done(text: str, at_s: float, number: int = 0, *, landed: bool = True) -> StepDone:
    """The end of a step that began 0.1 s before."""
    return StepDone(at_s, at_s - 0.1, number, parse_step(text), landed, "seen")


def live_run(made: Made) -> LiveRun:
    """A run with this history."""
    return LiveRun(made.history(), Verdict("kept"), Path(), 1.0, 0.5)


def counted(tally: RunTally) -> dict[str, tuple[int, int, int, int]]:
    """Kind and target of the faults -> how many have begun, landed, missed and ended."""
    return {
        f"{one.kind} {one.target}": (one.begun, one.landed, one.missed, one.ended)
        for one in tally.counts().faults
    }


# ----------------------------------------------------------------------------------------------------------- faults


def test_a_fault_ends_with_its_own_event() -> None:
    """A kill ends when it lands. Of two faults of one replica, the one that was due first ends first. A link is undone by its number."""
    events: list[Event] = [
        done("kill decode 0", 1.0),
        done("squeeze decode 1 cpu to 5% for 9 s", 2.0, 1),
        done("stall decode 1 for 2 s", 3.0, 2),
        done("cut decode 0 from frontend for 1 s", 4.0, 3),
        done("terminate decode 0", 4.5, 4, landed=False),
        Resumed(5.0, DECODE_1, "runs"),
        Undone(5.5, 3, parse_step("cut decode 0 from frontend for 1 s"), "whole"),
    ]
    kill, squeeze, stall, cut, missed = faults_of(events)
    assert (kill.begun_s, kill.landed_s, kill.ended_s) == (0.9, 1.0, 1.0)
    assert (squeeze.in_force, stall.in_force) == (True, False)
    assert (stall.ended_s, stall.end_proof, cut.ended_s) == (5.0, "runs", 5.5)
    assert (missed.missed, missed.in_force) == (True, False)
    assert [one.target for one in (kill, stall, cut)] == [
        "decode 0",
        "decode 1",
        "decode 0, frontend",
    ]
    assert faults_of([*events, Resumed(11.0, DECODE_1, "")])[1].ended_s == 11.0
    # Followed event by event, it is the same.
    seen: list[Event] = []
    trail = FaultTrail(seen)
    for event in events:
        seen.append(event)
        assert trail.faults() == faults_of(seen)


# ------------------------------------------------------------------------------------------------------------ tally


def test_a_run_counts_while_it_goes_on_and_once_when_it_is_over() -> None:
    """The counts of a run follow its state, and its history takes their place at its end."""
    tally, changes = RunTally(), []
    tally.on_change = lambda: changes.append(tally.going_on)
    stall = Fault(1, PLAN.steps[1], 2.0, landed_s=2.1)
    with observed([tally], PLAN, "search") as seen:
        seen.show(RunStatus("plan", 2.5, 1, 30, 4, 20, (stall,), BEGAN))
        assert (tally.going_on, tally.counts().sent, tally.counts().ok) == (1, 30, 20)
        (fault,) = tally.counts().faults
        assert fault == FaultCount("stall", "decode 1", 1, 1, 0, 0, ZERO + 2.0, 0.0)
        made = Made(plan=PLAN).step("kill decode 0", 1.5).step("stall decode 1 for 2 s", 2.1)
        made.events.append(Resumed(4.1, DECODE_1, "runs"))
        made.ask(1.0).ask(2.0, outcome=Outcome.ERROR).ask(3.0, outcome=Outcome.WRONG)
        seen.run = live_run(made)
    counts = tally.counts()
    assert (tally.going_on, counts.sent, counts.ok, counts.failed) == (0, 3, 1, 1)
    assert counted(tally) == {"kill decode 0": (1, 1, 0, 1), "stall decode 1": (1, 1, 0, 1)}
    assert [one.end - ZERO for one in counts.faults] == pytest.approx([1.5, 4.1])
    assert changes == [1, 0]


def test_a_run_that_was_cancelled_counts_with_its_last_state() -> None:
    """Nothing that was counted gets lost, and no fault stays in force."""
    tally = RunTally()
    faults = (Fault(0, PLAN.steps[1], 2.0, landed_s=2.1), Fault(1, PLAN.steps[0], 2.4))
    begun = time.time()
    with observed([tally], PLAN, "search") as seen:
        seen.show(RunStatus("plan", 2.5, 1, 30, 4, 20, faults, BEGAN))
    assert counted(tally) == {"stall decode 1": (1, 1, 0, 1), "kill decode 0": (1, 0, 0, 0)}
    assert (tally.going_on, tally.counts().sent) == (0, 30)
    assert tally.counts().faults[0].end >= begun


def test_a_long_search_tells_a_bounded_number_of_targets_apart() -> None:
    """The newest targets keep their rows. The counts of each kind stay complete."""
    rows = [
        FaultCount(kind, f"decode {n}", 1, 1, 0, 1, ZERO + n, ZERO + n)
        for n in range(TARGETS_MAX)
        for kind in ("kill", "stall")
    ]
    kept = without_old_targets(without_old_targets(rows))
    assert len(kept) == TARGETS_MAX + 2
    assert sum(one.landed for one in kept if one.kind == "kill") == TARGETS_MAX
    others = [one for one in kept if one.target == OTHERS]
    assert [(one.ended, one.begin, one.end) for one in others] == [(TARGETS_MAX // 2, 0.0, 0.0)] * 2
    assert min(one.begin for one in kept if one.target != OTHERS) == ZERO + TARGETS_MAX // 2


# ------------------------------------------------------------------------------------------------------------ serving


@contextmanager
def served(results: Path) -> Iterator[str]:
    """Serve the metrics of a results folder, and yield their address."""
    server = MetricsServer(str(free_port()), results)
    try:
        yield server.url
    finally:
        server.close()


def part(results: Path, folder: str, **fields: Any) -> None:
    """Write the state of one process."""
    made: dict[str, Any] = {"budget_s": 60.0, "spent_s": 10.0, "slots": 2} | fields
    LiveState("toy", 3, **made).write(results / folder)


def test_the_metrics_of_a_search(tmp_path: Path) -> None:
    """The endpoint shows what the search has written: runs, requests, faults, budget and slots."""
    log, tally = RunLog(), RunTally()
    log.run(PLAN, "search", Verdict("kept"), 2.5, "")
    log.draw(PLAN, "run")
    log.draw(PLAN, "seen before")
    budget = Budget(60.0)
    with served(tmp_path) as url, observed([tally], PLAN, "search") as seen:
        assert scraped(url) == {}
        writer = StateWriter(
            tmp_path / 'to"y', LiveState("toy", 3, budget_s=60.0), Sources(budget, log, tally)
        )
        stall = Fault(1, PLAN.steps[1], 2.0, landed_s=2.1)
        kill = Fault(0, PLAN.steps[0], 1.0, landed_s=1.2, ended_s=1.2)
        status = RunStatus("plan", 2.5, 1, 30, 4, 20, (kill, stall), BEGAN)
        seen.show(status)
        writer.write()
        said = scraped(url)
        of = 'graph=to"y'
        assert said[f"runs_total{{{of},verdict=kept}}"] == 1
        assert said[f"runs_total{{{of},verdict=broken}}"] == 0
        assert said[f"live_seconds_total{{{of}}}"] == 2.5
        assert (said[f"plans_drawn_total{{{of}}}"], said[f"plans_run_total{{{of}}}"]) == (2, 1)
        assert [said[f"requests_{name}_total{{{of}}}"] for name in ("sent", "ok", "failed")] == [
            30,
            20,
            4,
        ]
        assert said[f"faults_in_force{{{of},kind=stall,target=decode 1}}"] == 1
        assert said[f"faults_in_force{{{of},kind=kill,target=decode 0}}"] == 0
        assert said[f"faults_ended_total{{{of},kind=kill}}"] == 1
        begin, end = "fault_begin_timestamp_seconds", "fault_end_timestamp_seconds"
        assert said[f"{begin}{{{of},kind=stall,target=decode 1}}"] == ZERO + 2.0
        assert f"{end}{{{of},kind=stall,target=decode 1}}" not in said
        assert said[f"{end}{{{of},kind=kill,target=decode 0}}"] == ZERO + 1.2
        assert (said[f"budget_seconds{{{of}}}"], said[f"budget_runs{{{of}}}"]) == (60, float("inf"))
        assert 0 <= said[f"budget_spent_seconds{{{of}}}"] < 60
        assert (said[f"slots{{{of}}}"], said[f"slots_in_use{{{of}}}"]) == (1, 1)
        assert said[f"search_info{{{of},seed=3}}"] == said[f"search_running{{{of}}}"] == 1
        writer.end("budget")
        said = scraped(url)
        assert said[f"search_running{{{of}}}"] == said[f"slots_in_use{{{of}}}"] == 0
        assert said[f"faults_in_force{{{of},kind=stall,target=decode 1}}"] == 0


def test_processes_that_divide_a_search_are_shown_together(tmp_path: Path) -> None:
    """Their counts add up, their time does not. A process that was killed has no fault in force any more."""
    row = {"kind": "kill", "target": "decode 0", "begun": 2, "landed": 2, "missed": 0}
    mine, killed = {"controller": os.getpid(), "pid": 2**22 + 1}, {"pid": 2**22 + 2}
    with served(tmp_path) as url:
        time.sleep(0.01)
        now = time.time()
        faults = [row | {"ended": 1, "begin": 5.0, "end": 4.0}]
        part(
            tmp_path,
            "toy",
            faults=faults,
            live={"kept": 2},
            findings={"a": ""},
            statuses={"open": 1},
        )
        later = [row | {"ended": 1, "begin": 7.0, "end": 6.0}]
        part(
            tmp_path, "toy/shard-2", **(mine | killed), began=now, faults=later, live={"kept": 3}, spent_s=12.0,
            statuses={"unshrunk": 1},
        )  # fmt: skip
        part(tmp_path, "toy/shard-3", pid=2**22 + 3, began=now, live={"kept": 100})
        part(tmp_path, "old", pid=os.getpid(), began=now - 60, live={"kept": 100})
        said = scraped(url)
    assert said["runs_total{graph=toy,verdict=kept}"] == 5
    assert said["faults_landed_total{graph=toy,kind=kill}"] == 4
    assert said["faults_in_force{graph=toy,kind=kill,target=decode 0}"] == 1
    assert said["fault_begin_timestamp_seconds{graph=toy,kind=kill,target=decode 0}"] == 7.0
    assert (said["findings{graph=toy}"], said["findings_confirmed{graph=toy}"]) == (2, 1)
    assert (said["budget_seconds{graph=toy}"], said["slots{graph=toy}"]) == (60, 4)
    assert 12 <= said["budget_spent_seconds{graph=toy}"] < 13
    assert not any("graph=old" in key for key in said)


def test_an_old_state_can_be_read(tmp_path: Path) -> None:
    """A state without the fields of the metrics is one without runs."""
    text = '{"graph": "toy", "seed": 3, "pid": 1, "start": 1, "live": {"kept": 2}}'
    (tmp_path / "state.json").write_text(text)
    state = read_state(tmp_path)
    assert state is not None
    assert (state.runs, state.slots, state.faults) == (2, 1, [])


# ------------------------------------------------------------------------------------------------------------ address


def test_the_address_of_the_endpoint() -> None:
    """Without a host, only programs on this machine reach it."""
    assert address_of("9100") == ("127.0.0.1", 9100)
    assert address_of("0.0.0.0:9100") == ("0.0.0.0", 9100)
    assert address_of("[::1]:9100") == ("::1", 9100)


@pytest.mark.parametrize("text", ["x", "0", "65536", "a b:9100", ":9100", "::1:9100", "9100 "])
def test_a_wrong_address_is_an_error(text: str) -> None:
    """The error says what was found and what would be right."""
    with pytest.raises(InputError, match="expected a port from 1 to 65535, or HOST:PORT") as error:
        address_of(text)
    assert f'--chaos-metrics: found "{text}"' in str(error.value)


def test_a_port_in_use_ends_pytest_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is one line that names the port, and no results folder."""
    enter(tmp_path, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out = run_here(capsys, "--chaos-graph", "reference", "--chaos-metrics", str(port))
    assert status == 2
    assert f"--chaos-metrics: 127.0.0.1 port {port} can't be used: Address already in use" in out
    assert "Traceback" not in out
    assert not (tmp_path / ".graphquake").exists()


def test_the_endpoint_ends_with_pytest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The header names its address. A second session may use the same port."""
    enter(tmp_path, monkeypatch)
    port = str(free_port())
    options = ("--chaos-graph", "reference", "--collect-only", "--chaos-metrics", port)
    for _ in range(2):
        status, out = run_here(capsys, *options)
        assert (status, f"metrics: http://127.0.0.1:{port}/metrics" in out) == (0, True), out


# ------------------------------------------------------------------------------------------------------------ docs


def served_names(results: Path) -> set[str]:
    """The names that the endpoint shows for a search with a fault."""
    row = {"kind": "stall", "target": "decode 0", "begun": 1, "landed": 1, "missed": 0, "ended": 1}
    with served(results) as url:
        part(results, "toy", faults=[row | {"begin": 5.0, "end": 6.0}])
        return {f"graphquake_{key.partition('{')[0]}" for key in scraped(url)}


def test_the_docs_name_the_metrics_that_are_served(tmp_path: Path) -> None:
    """The table of metrics.md names each metric once. The dashboard and the examples of the page name no other ones."""
    page = (DOCS / "how-to/metrics.md").read_text(encoding="utf-8")
    names = served_names(tmp_path)
    assert sorted(re.findall(r"^\| `(graphquake_\w+)` \|", page, re.MULTILINE)) == sorted(names)
    assert set(re.findall(r"graphquake_\w+", page)) == names
    dashboard = json.loads((DOCS / "how-to/grafana-dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    notes = [note["expr"] for note in dashboard["annotations"]["list"]]
    used = set(
        re.findall(
            r"graphquake_\w+",
            "\n".join([*queries, *notes, dashboard["templating"]["list"][1]["definition"]]),
        )
    )
    assert used <= names
    assert {f"graphquake_fault_{end}_timestamp_seconds" for end in ("begin", "end")} <= used
