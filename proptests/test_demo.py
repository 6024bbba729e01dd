"""`graphquake demo`: finds its planted bug live, and says honestly how far it came."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.frontends import demo
from graphquake.machines.frontends.cli import main
from graphquake.machines.reports.summary import GraphSummary

from support.toys import left_of


@pytest.mark.timeout(240)
def test_the_demo_finds_its_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It shrinks the bug to one step, confirms it, writes the picture that it names, and leaves no process behind."""
    # The machine that runs the tests may be busy. The demo's time on a quiet machine is measured elsewhere.
    monkeypatch.setattr(demo, "BUDGET_S", 180.0)
    status = main(["demo", "--results-dir", str(tmp_path / "results")])
    text = capsys.readouterr().out
    assert status == 0, text
    (case,) = Corpus(tmp_path / "results" / "demo" / "cases")
    assert (case.promise, case.status) == ("answers", "open")
    assert case.plan.one_line() in ("kill worker 0", "kill worker 1")
    picture = next(line for line in text.splitlines() if line.startswith("Open the picture"))
    assert Path(picture.partition(": ")[2]).is_file()
    assert "graphquake try my-graph.toml" in text
    assert left_of(os.getpid()) == []


def test_the_demo_empties_no_folder_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder named demo that no demo wrote is an input error, and its files stay."""
    mine = tmp_path / "demo" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert main(["demo", "--results-dir", str(tmp_path)]) == 2
    assert "exists, and the demo did not make it. Choose another folder." in capsys.readouterr().err
    assert mine.read_text() == "mine"


def test_a_demo_that_found_nothing_says_so() -> None:
    """If the time ends before a plan breaks a promise, the text does not claim a finding."""
    text = demo.result_text(GraphSummary("demo", 1, spent_s=45.0, live={"kept": 3}))
    assert text.startswith("The time ended before a plan broke a promise: 3 live runs in 45 s.")
