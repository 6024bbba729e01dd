"""The text of findings and summaries, to the letter."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.host import Host
from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.signature import Signature
from graphquake.harness.reports.text import telling_lines
from graphquake.harness.spec.plan import Kill
from graphquake.machines.cases.case import Case, Observed, ShrinkCost
from graphquake.machines.cases.replay import Replay, Word
from graphquake.machines.cases.wording import seen_text, title_of
from graphquake.machines.findings.finding import Finding
from graphquake.machines.reports.finding_text import counted, finding_text
from graphquake.machines.reports.summary import GraphSummary, combined, write
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.shrinking.result import Control, Needed

from support.made import Made, plan_of

pytestmark = pytest.mark.simulated

PLAN = plan_of("kill decode 0", "wait 0.50 s")
BEGAN = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


@pytest.fixture
def finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finding:
    """A finding with four seconds of failures after a kill, and the logs of two replicas."""
    monkeypatch.chdir(tmp_path)
    logs = tmp_path / ".graphquake/3f9a1c/minimal/logs"
    logs.mkdir(parents=True)
    (logs / "frontend-0.0.log").write_text(
        "2026-01-01T00:00:01.000000Z  WARN before: the fault\n"
        "2026-01-01T00:00:02.250000Z  WARN http: dynamo::pipeline: no instances left to try\n"
    )
    (logs / "prefill-0.0.log").write_text("WARNING at the start\nERROR after the fault\n")
    made = Made(plan=PLAN).steady(0.0, 2.0).step("kill decode 0", 2.0)
    made.steady(2.0, 6.0, outcome=Outcome.ERROR).steady(6.0, 9.0).step("wait 0.50 s", 2.5, number=1)
    made.phase("heal", 2.5).spawn("decode 0", 2.6, ready_s=3.0).phase("recover", 2.6)
    history = made.history()
    history.host = Host(began=BEGAN)
    case = Case(
        id="3f9a1c",
        title=title_of("error_window", PLAN, history),
        status="open",
        why="",
        graph={"name": "made", "shape": history.spec.shape},
        signature=Signature("error_window", "HTTP 503", "path left"),
        plan=PLAN,
        seen=seen_text("error_window", history),
        reach_s=4.0,
        observed=(Observed("2026-01-01", {"dynamo": "1.6.1"}, "2 cores, no GPU", 7, 10),),
        needed=(Needed(Kill("decode", 0), 0, 3),),
        control=Control(0, 3),
        load={"rate_per_s": 20},
        cost=ShrinkCost(steps=9, live_runs=14, live_s=131),
    )
    folder = Path.cwd() / ".graphquake/3f9a1c/minimal"
    outcome = RunResult(PLAN, judge(history), history, 9.0, folder)
    return Finding(
        case, outcome, outcome, (), counts=True, path=Path.cwd() / "regressions/3f9a1c.json"
    )


FINDING = """\
FINDING 3f9a1c  error_window broken by kill decode 0; wait 0.50 s: 80 of 142 requests failed
  graph       made · frontend 1, prefill 1, decode 2 · dynamo 1.6.1 · 20 requests/s
  plan        1  kill decode 0  landed: made
              2  wait 0.50 s    made
  promised    while a path is up, no request fails later than 2 s after a fault, and at most 20/s ×
              its window + 2 fail until then (W = 2 s, default; spare_failures = 2, default)
  seen        80 of 142 failed: 80 × HTTP 503; the last one sent at +4.0 s
                                 ×   +
              ok    ▄▆▆▆▆▆▆▆▆▆▆▆▆▄                          ▄▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆█
              fail               ▂▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▂
                    -2.0 s … +7.0 s, × fault, + healed, full block 27/s
  example     request 40, sent +0.00 s, HTTP 503 after 100 ms
  logs        frontend-0.0   +0.25  WARN no instances left to try
              prefill-0.0  no time  ERROR after the fault
  reproduced  7 of 10 runs (40% to 89%, 95% Wilson), all on fresh graphs
  needed      without "kill decode 0": kept in 3 of 3 runs
  control     kept in 3 of 3 runs without the faults
  cost        shrunk from 9 steps in 14 live runs, 131 s
  case        regressions/3f9a1c.json   status: open
  picture     .graphquake/3f9a1c/minimal/run.html
  replay      graphquake replay 3f9a1c      not a bug today?  graphquake mark 3f9a1c known --why URL"""


def test_a_finding(finding: Finding) -> None:
    """The text of a finding has at most 30 lines of 100 columns."""
    text = finding_text(finding)
    assert text == FINDING
    assert len(text.splitlines()) <= 30
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("stamp", "at_s"),
    [
        ("2026-01-01T00:00:02.500Z", 0.5),
        ("2026-01-01 01:00:02,500+0100", 0.5),
        ("2026/01/01 00:00:02 +0000", 0.0),
        ("[01/Jan/2026:00:00:02.500 +0000]", 0.5),
        ("[01/Abc/2026:00:00:02.500 +0000]", None),
    ],
)
def test_the_time_of_a_log_line(
    finding: Finding, tmp_path: Path, stamp: str, at_s: float | None
) -> None:
    """Servers write time stamps in several forms. A line without one has the time of the line before it."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "decode-0.0.log").write_text(
        f"{stamp} all is well\nTraceback (most recent call last):\n"
    )
    (line,) = telling_lines(finding.shown.history, tmp_path)
    assert (line.at_s, line.text) == (at_s, "Traceback (most recent call last):")


def test_colours_are_left_out_of_log_lines(finding: Finding, tmp_path: Path) -> None:
    """A log may have control sequences for colours. A finding shows the text alone."""
    (tmp_path / "logs").mkdir()
    log = (
        "2026-01-01T00:00:02.500Z \x1b[2m \x1b[0m\x1b[33m WARN\x1b[0m \x1b[2mrouter:\x1b[0m retry\n"
    )
    (tmp_path / "logs" / "decode-0.0.log").write_text(log)
    (line,) = telling_lines(finding.shown.history, tmp_path)
    assert (line.at_s, line.text) == (0.5, "WARN retry")


def test_a_long_proof_goes_on_below_its_step(finding: Finding) -> None:
    """A proof that does not fit beside its step is wrapped, never cut."""
    proof = "pid 5195 gone 9.8 ms after SIGKILL, 9 requests in flight; 48% of the traffic of decode"
    history = finding.shown.history
    events = [
        replace(one, proof=proof) if isinstance(one, StepDone) else one for one in history.events
    ]
    shown = replace(finding.shown, history=replace(history, events=events))
    text = finding_text(replace(finding, shown=shown))
    assert proof in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100


def test_an_undecided_replay_is_named_once(finding: Finding) -> None:
    """Its word means the same for every status, so the summary does not repeat it."""
    summary = GraphSummary("made", 7, replays=[replayed(finding.case, "UNDECIDED", 0, 0)])
    assert summary.text().count("UNDECIDED 0/0, budget") == 1


def test_a_finding_with_a_long_plan_stays_short(finding: Finding) -> None:
    """A finding with a plan of 60 steps keeps to 30 lines of 100 columns, and still ends with what to do next."""
    steps = plan_of(*["kill decode 0", "respawn decode 0"] * 30)
    long = replace(
        finding,
        case=replace(
            finding.case, plan=steps, needed=tuple(Needed(step, 0, 3) for step in steps.steps)
        ),
    )
    lines = finding_text(long).splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 100
    assert lines[-1] == FINDING.splitlines()[-1]


def test_a_case_that_lies_elsewhere_is_named_by_its_file(finding: Finding) -> None:
    """A case outside the folder `regressions` is named by its path, because `replay` would not find its id from here."""
    said = " ".join(finding_text(replace(finding, path=Path("/cases/3f9a1c.json"))).split())
    assert "graphquake replay /cases/3f9a1c.json not a bug today?" in said
    assert "graphquake mark /cases/3f9a1c.json known" in said


def replayed(case: Case, word: Word, broke: int, runs: int) -> Replay:
    """A replay with this result, which saw no other signature."""
    return Replay(case, word, broke, runs, 0, (), (), None)


def summary_of(finding: Finding) -> GraphSummary:
    """The summary of a session that has something to say in each of its lines."""
    known = replace(finding.case, id="aa0001", status="known", why="URL")
    fixed = replace(finding.case, id="aa0002", status="fixed")
    return GraphSummary(
        "made", 7, 600.0, 600.0, {"dynamo": "1.6.1"},
        live={"kept": 24, "broken": 12, "invalid": 2},
        causes={"client late": 2},
        drawn={"run": 31, "only waits": 20, "seen before": 6, "after the budget": 4},
        tried={"kill decode": 31, "kill frontend": 9},
        not_tried=["terminate prefill"],
        hidden={"aa0001": 5}, hidden_text={"aa0001": 'error_window after "kill decode 0" (known aa0001)'},
        run_s=[float(n) for n in range(1, 11)],
        replays=[
            replayed(known, "REPRODUCED", 1, 1),
            replayed(fixed, "NOT REPRODUCED", 0, 5),
        ],
        findings=[finding], ended="budget",
    )  # fmt: skip


SUMMARY = """\
made · seed 7 · 10m00s of 10m00s · dynamo 1.6.1
  runs        38 live: 24 kept, 12 broken, 2 invalid (2 client late); median 5.5 s, p90 9.0 s
  plans       61 drawn: 31 run, 20 only waits, 6 seen before, 4 after the budget
  tried       kill decode × 31 · kill frontend × 9
  not tried   terminate prefill
  hidden      error_window after "kill decode 0" (known aa0001): in 5 runs; everything else was
              judged there
  case        aa0001 known, broke again: REPRODUCED 1/1
  case        aa0002 still fixed: NOT REPRODUCED 0/5 (95% sure, if the rate is still at least 70%)
  FINDING     3f9a1c  error_window  2 steps  7 of 10 runs   regressions/3f9a1c.json
broken: 1 new finding"""


def test_a_summary(finding: Finding, tmp_path: Path) -> None:
    """A summary is written as text, as JSON with the same numbers, and as Markdown with the same text."""
    summary = summary_of(finding)
    text = summary.text()
    assert text == SUMMARY
    write([summary], tmp_path / "out")
    data = json.loads((tmp_path / "out/summary.json").read_text())
    assert (data["schema"], data["exit_status"]) == (1, 1)
    (graph,) = data["graphs"]
    assert graph["runs"] == {"kept": 24, "broken": 12, "invalid": 2}
    assert graph["findings"][0]["steps"] == ["kill decode 0", "wait 0.50 s"]
    assert text in (tmp_path / "out/summary.md").read_text()


def test_a_replay_says_how_sure_it_is(finding: Finding) -> None:
    """A replay that did not reproduce its case claims only the certainty that its number of kept runs gives."""
    case = replace(finding.case, status="known", why="URL")
    assert (
        f"NOT REPRODUCED 0/1 ({case.rate:.0%} sure" in replayed(case, "NOT REPRODUCED", 0, 1).line
    )
    assert "NOT REPRODUCED 0/9 (95% sure" in replayed(case, "NOT REPRODUCED", 0, 9).line


def test_the_findings_that_decide_the_exit_status(finding: Finding) -> None:
    """A session fails with a finding or a case that is back.

    A session proves nothing if too many runs were invalid, or if it made no runs.
    """
    clean = GraphSummary("made", 7, live={"kept": 5})
    assert (clean.exit_status, clean.verdict_line) == (0, "kept: nothing new")
    assert replace(clean, findings=[replace(finding, counts=False)]).exit_status == 0
    assert replace(clean, findings=[finding]).exit_status == 1
    open_case = replayed(finding.case, "REPRODUCED", 3, 3)
    assert replace(clean, replays=[open_case]).verdict_line == "broken: 1 case failed"
    known = replace(finding.case, status="known", why="URL")
    gone = replayed(known, "NOT REPRODUCED", 0, 5)
    assert replace(clean, replays=[gone]).exit_status == 0
    assert replace(clean, replays=[gone], strict_known=True).exit_status == 1
    assert replace(clean, live={}).exit_status == 3
    assert replace(clean, live={"kept": 7, "invalid": 2}).exit_status == 3
    assert replace(clean, live={"kept": 8, "invalid": 2}).exit_status == 0
    nothing = replace(clean, live={"invalid": 1})
    assert combined([clean, nothing]) == 3
    assert combined([clean, nothing, replace(clean, findings=[finding])]) == 1


def test_counting() -> None:
    """A count of one takes the singular, every other count the plural."""
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
