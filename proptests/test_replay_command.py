"""`graphquake replay` and `mark`: whose bounds a replay uses, exit statuses, and folders that can't be written. Nothing is started."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.errors import (
    EXIT_BROKEN,
    EXIT_INPUT,
    EXIT_KEPT,
    EXIT_PROVED_NOTHING,
)
from graphquake.harness.history.request import Outcome
from graphquake.harness.promises.signature import Signature
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.machines.cases.case import Case, Status
from graphquake.machines.cases.conditions import bounds_of, load_of
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.frontends import cli_cases
from graphquake.machines.frontends.cli import main
from graphquake.machines.runners.runner import last_number
from graphquake.machines.sessions import folders

from support.made import plan_of
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated

GRAPH = """
graph = "made"
lease_s = 10

[roles.frontend]
command = "frontend"
entry = "http://127.0.0.1:{port.http}"

[roles.decode]
command = "decode"
replicas = 2

[load]
model = "tiny"
rate_per_s = 20
"""
# A request fails 3 s after the kill: too late for a window of 2 s, not for one of 5 s.
LATE = Bug(plan_of("kill decode 0"), "HTTP 503", outcome=Outcome.ERROR, after_s=3.0)


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A graph file in an empty working folder. A run of it is simulated, and `LATE` shows in each."""
    monkeypatch.chdir(tmp_path)

    def runner(spec: GraphSpec, *_: object, **__: object) -> AbstractContextManager[SimRunner]:
        return nullcontext(SimRunner([LATE], spec=spec))

    monkeypatch.setattr(cli_cases, "LiveRunner", runner)
    path = tmp_path / "made.toml"
    path.write_text(GRAPH)
    return path


def save(graph: Path, id_: str = "abc123", status: Status = "open", **changes: Any) -> Case:
    """Save a case of the bug, found under the bounds and the load of the graph file."""
    spec = load_graph(str(graph))
    fields: dict[str, Any] = {
        "id": id_, "title": "late", "status": status, "why": "a link", "graph": {"name": "made"},
        "signature": Signature("error_window", "HTTP 503", "path left"),
        "plan": plan_of("kill decode 0"), "seen": "a late failure", "reach_s": 9.0,
        "bounds": bounds_of(spec), "load": load_of(spec),
    }  # fmt: skip
    case = Case(**(fields | changes))
    Corpus(graph.parent / "regressions").save(case)
    return case


def replayed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """The exit status of `graphquake replay`, and the lines that it prints."""
    status = main(["replay", *arguments])
    return status, capsys.readouterr().out.splitlines()


def test_a_replay_says_whose_bounds_and_load_it_used(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are the case's. If the graph file has others now, each key is named with both values. `--today` uses the file's."""
    save(graph)
    status, lines = replayed(capsys, "abc123")
    assert status == EXIT_BROKEN
    assert lines[:2] == [
        "REPRODUCED 1/1",
        "bounds and load: the case's own; the graph file and the case agree",
    ]
    now = "promises.error_window.window_s = 5 (case: 2), load.stream = 0 (case: 0.5), promises.throughput is off (case: on)"
    graph.write_text(
        GRAPH + "stream = 0\n[promises]\nthroughput = false\nerror_window = { window_s = 5 }\n"
    )
    status, lines = replayed(capsys, "abc123")
    assert (status, lines[0]) == (EXIT_BROKEN, "REPRODUCED 1/1")
    assert lines[1] == (
        f"bounds and load: the case's own; the graph file now says {now}; --today uses the graph file's"
    )
    status, lines = replayed(capsys, "abc123", "--today")
    assert (status, lines[0].partition(" (")[0]) == (EXIT_KEPT, "NOT REPRODUCED 0/3")
    assert lines[1] == f"bounds and load: the graph file's; the graph file now says {now}"
    _, lines = replayed(capsys, "--all", "--graph", str(graph))
    assert lines[-2:] == [
        "bounds and load: each case's own",
        f"  abc123: the graph file now says {now}",
    ]


def test_a_promise_that_is_switched_off_cannot_be_kept(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under a graph file that no longer makes the promise, a replay proves nothing: it does not say that the bug is gone."""
    save(graph)
    graph.write_text(GRAPH + "[promises]\nerror_window = false\n")
    status, lines = replayed(capsys, "abc123", "--today")
    assert status == EXIT_PROVED_NOTHING
    assert lines[0].startswith(
        "INVALID made.toml: promises: error_window is switched off, so it cannot be broken"
    )


def test_a_replay_by_other_bounds_is_not_recorded(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The counts of a case belong to its own bounds and load."""
    save(graph)
    assert main(["replay", "abc123", "--today", "--record"]) == EXIT_INPUT
    assert "found --today and --record, expected one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cases", "named", "status"),
    [
        ({}, ["--all"], EXIT_KEPT),
        ({"a": "known"}, ["--all"], EXIT_KEPT),
        ({"a": "known", "b": "known"}, ["--all"], EXIT_KEPT),
        ({"a": "unconfirmed", "b": "unshrunk", "c": "known"}, ["--all"], EXIT_KEPT),
        ({"a": "open"}, ["--all"], EXIT_BROKEN),
        ({"a": "known", "b": "fixed"}, ["--all"], EXIT_BROKEN),
        ({"a": "known", "b": "known", "c": "open"}, ["--all"], EXIT_BROKEN),
        ({"a": "known"}, ["a"], EXIT_BROKEN),
        ({"a": "known"}, ["a", "a"], EXIT_BROKEN),
        ({"a": "known"}, ["a", "regressions/a.json"], EXIT_BROKEN),
        ({"a": "known", "b": "known"}, ["a", "b"], EXIT_KEPT),
        ({"a": "known", "b": "open"}, ["a", "b"], EXIT_BROKEN),
    ],
)
def test_the_exit_status_for_cases_that_still_break(
    graph: Path,
    capsys: pytest.CaptureFixture[str],
    cases: dict[str, Status],
    named: Sequence[str],
    status: int,
) -> None:
    """A single case that is named fails whatever its status. Otherwise the status of each case says whether it fails."""
    for id_, one in cases.items():
        save(graph, id_, one)
    assert replayed(capsys, *named, "--graph", str(graph))[0] == status


def test_a_case_that_the_graph_cannot_do_any_more(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The replay of a case that the graph cannot do any more is invalid, and gives the reason."""
    save(graph, plan=plan_of("kill decode 2"))
    status, lines = replayed(capsys, "abc123")
    assert status == EXIT_PROVED_NOTHING
    why = 'step 1, "kill decode 2": made has decode 0 and decode 1'
    assert lines[0] == f"INVALID cannot be done any more: {why}"


def test_a_case_that_cannot_be_saved_is_one_error(
    graph: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mark` and `replay --record` end with one line. The result of the replay is printed first."""
    save(graph)

    def full(corpus: Corpus, _: Case) -> Path:
        raise OSError(28, "No space left on device", str(corpus.folder))

    monkeypatch.setattr(Corpus, "save", full)
    line = f"graphquake: {graph.parent}/regressions: case abc123 could not be saved: No space left on device\n"
    assert main(["mark", "abc123", "fixed"]) == EXIT_INPUT
    assert capsys.readouterr() == ("", line)
    for how in ((), ("--all", "--graph", str(graph))):
        assert main(["replay", *(how or ("abc123",)), "--record"]) == EXIT_INPUT
        out, err = capsys.readouterr()
        assert ("5/5" in out, err) == (True, line)


def test_runs_of_earlier_commands_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command takes the next numbers. Only the oldest runs beyond a bound are removed."""
    monkeypatch.setattr(folders, "RUNS_KEPT", 2)
    for name in ("0001", "0002", "0007", "notes"):
        (tmp_path / "made" / "run" / name).mkdir(parents=True)
    folder = folders.runs_folder(tmp_path, "made", "run")
    assert sorted(one.name for one in folder.iterdir()) == ["0002", "0007", "notes"]
    assert last_number(folder) == 7
    assert last_number(tmp_path / "none") == 0


def test_a_recorded_replay_keeps_whole_numbers(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recorded replay adds an entry to the file, and leaves everything else as it was."""
    save(graph)
    path = graph.parent / "regressions" / "abc123.json"
    before = json.loads(path.read_text())
    assert main(["replay", "abc123", "--record"]) == EXIT_BROKEN
    after = json.loads(path.read_text())
    assert [(one["broke"], one["runs"]) for one in after.pop("observed")] == [(5, 5)]
    assert json.dumps(before | {"observed": []}) == json.dumps(after | {"observed": []})


def test_a_replay_without_cases_names_the_folder(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If there is no case to replay, the command says in which folder it has looked."""
    assert main(["replay", "--all", "--graph", str(graph)]) == EXIT_KEPT
    assert f"no cases of these graphs in {graph.parent / 'regressions'}" in capsys.readouterr().out
