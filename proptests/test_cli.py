"""The `graphquake` command. An input error is one line and status 2, before anything is started."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.errors import (
    EXIT_BROKEN,
    EXIT_INPUT,
    EXIT_KEPT,
    EXIT_PROVED_NOTHING,
    InputError,
)
from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.promises.signature import Signature
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.plan import Kill
from graphquake.machines.cases.case import Case, Observed
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.frontends.cli import main
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.sessions import folders
from graphquake.machines.sessions.checks import check_gpus
from graphquake.machines.shrinking.result import Needed

from support.made import Made, plan_of

GRAPH = """
graph = "toy"
[roles.server]
command = "{python} -c pass"
replicas = 2
entry = "http://127.0.0.1:{port.http}"
[load]
model = "toy"
"""


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A graph file in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.toml").write_text(GRAPH)
    return "toy.toml"


def case_of(**changes: Any) -> Case:
    """A known case of the graph."""
    fields: dict[str, Any] = {
        "id": "abc123", "title": "one of two dead", "status": "known", "why": "a link", "graph": {"name": "toy"},
        "signature": Signature("error_window", "HTTP 503", "path left"),
        "plan": plan_of("kill server 0"), "seen": "all failed", "reach_s": 9.0,
        "observed": (Observed("2026-01-01", {"dynamo": "1"}, "2 cores, no GPU", 10, 10),),
    }  # fmt: skip
    return Case(**(fields | changes))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command prints for an input error."""
    assert main(arguments) == EXIT_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("graphquake: ")
    assert err.count("\n") == 1
    return err.removeprefix("graphquake: ").strip()


def test_a_graph_file_that_is_not_there(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`try`, `run`, `replay` and `mark` report a missing graph file in the same words."""
    for arguments in (
        ["try", "no.toml"],
        ["run", "p", "--graph", "no.toml"],
        ["replay", "abc123", "--graph", "no.toml"],
        ["mark", "abc123", "open", "--graph", "no.toml"],
    ):
        assert said(capsys, *arguments) == "no.toml: no such file"


def test_an_unknown_key_and_a_wrong_type(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An error in a graph file names the file, the key, the value found and what would be right."""
    Path("bad.toml").write_text(GRAPH + "max_token = 3\n")
    assert (
        said(capsys, "try", "bad.toml")
        == 'bad.toml: load.max_token: is not a known key; did you mean "max_tokens"?'
    )
    Path("bad.toml").write_text(GRAPH + 'max_tokens = "3"\n')
    assert said(capsys, "try", "bad.toml").startswith(
        'bad.toml: load.max_tokens: found "3", expected a whole number'
    )


@pytest.mark.parametrize(
    ("step", "right"),
    [
        (
            "kill serve 0",
            'my.plan: step 2, "kill serve 0": toy has no role "serve"; did you mean "server"?',
        ),
        ("kill server 2", 'my.plan: step 2, "kill server 2": toy has server 0 and server 1'),
        (
            "kill server 0 engine",
            'my.plan: step 2, "kill server 0 engine": server has no child "engine"',
        ),
        ("respawn server 0", 'my.plan: step 2, "respawn server 0": '),
        ("kil server 0", 'my.plan: step 2: "kil server 0" is not a step; did you mean "kill"?'),
    ],
)
def test_a_plan_that_is_not_possible(
    graph: str, capsys: pytest.CaptureFixture[str], step: str, right: str
) -> None:
    """An impossible plan is an error that names the step and the replicas of the graph."""
    Path("my.plan").write_text(f"wait 1 s\n{step}\n")
    assert said(capsys, "run", "my.plan", "--graph", graph).startswith(right)


def test_a_plan_that_is_not_there(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan file that cannot be read is an error in the operating system's words."""
    assert said(capsys, "run", "kill_server", "--graph", graph) == (
        '"kill_server": found neither a file nor a step; did you mean "kill"? A plan is a file, or steps such as "kill worker 0; wait 1 s"'
    )
    for plan in ("no.plan", ""):
        assert said(capsys, "run", plan, "--graph", graph) == (
            f'"{plan}": found neither a file nor a step, expected a plan file or steps such as "kill worker 0; wait 1 s"'
        )
    with pytest.raises(SystemExit, match="2"):
        main(["run", "kill server 0", "--graph", graph, "--graph", "reference"])
    assert "argument --graph: found it twice, expected it once" in capsys.readouterr().err


def test_a_damaged_case_and_one_of_a_newer_schema(
    graph: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither is guessed at."""
    Corpus(Path("regressions")).save(case_of())
    path = Path("regressions/abc123.json")
    text = path.read_text()
    path.write_text(text[:-20])
    assert "abc123.json: is damaged: the text is not valid JSON" in said(
        capsys, "replay", "abc123", "--graph", graph
    )
    path.write_text(json.dumps(json.loads(text) | {"schema": 9}))
    assert "schema: found 9, this graphquake reads up to 3" in said(
        capsys, "replay", "abc123", "--graph", graph
    )
    path.write_text(json.dumps(json.loads(text) | {"steps": ["kill"]}))
    assert "steps: step 1" in said(capsys, "replay", "abc123", "--graph", graph)


def test_an_unknown_case_is_an_error(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown case is an error that lists the known ones."""
    Corpus(Path("regressions")).save(case_of())
    assert 'no case "abc124"' in said(capsys, "replay", "abc124", "--graph", graph)


def test_a_case_of_another_graph(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A case whose graph is not known here is an error that names the graph and the option."""
    path = Corpus(Path("regressions")).save(case_of(graph={"name": "other"}))
    right = "case abc123 is for the graph other, which was not found here. Name its file with --graph FILE."
    assert said(capsys, "replay", str(path), "--graph", graph) == right


def test_a_known_case_needs_a_reason(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A case can be marked as known only with a reason, which is saved."""
    Corpus(Path("regressions")).save(case_of(status="open", why=""))
    assert "give --why: a known case needs a reason" in said(
        capsys, "mark", "abc123", "known", "--graph", graph
    )
    assert main(["mark", "abc123", "known", "--why", "a link", "--graph", graph]) == EXIT_KEPT
    case = Corpus(Path("regressions")).get("abc123")
    assert (case.status, case.why) == ("known", "a link")


def test_a_case_is_read_by_its_file_alone(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A case is read from its own file, beside unrelated files. A damaged file, or one with impossible counts, is an error."""
    Corpus(Path("cases")).save(case_of())
    Path("cases/package.json").write_text("{}")
    args = ["replay", "cases/abc123.json", "--graph", graph]
    assert main([*args, "--dry-run"]) == EXIT_KEPT
    assert "kill server 0" in capsys.readouterr().out
    path = Path("cases/abc123.json")
    path.write_text(path.read_text().replace('"broke": 10', '"broke": 11'))
    assert "observed[0].broke: found 11, expected at most its 10 runs" in said(capsys, *args)
    path.write_bytes(b"\xff")
    assert "abc123.json: is damaged" in said(capsys, *args)


def test_a_budget_without_room_for_a_run(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With a budget without room for a run, the result is `proved nothing`, also as JSON."""
    Path("my.plan").write_text("kill server 0\n")
    args = ["run", "my.plan", "--graph", graph, "--chaos-budget", "0runs"]
    assert main(args) == EXIT_PROVED_NOTHING
    assert capsys.readouterr().out == "no run fits into the budget\n"
    assert main([*args, "--json"]) == EXIT_PROVED_NOTHING
    assert json.loads(capsys.readouterr().out)["runs"] == []


def test_the_cases_that_came_with_it_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cases that graphquake brings are found where it is installed, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "_is_installed", lambda: True)
    assert main(["replay", "--all", "--graph", "dynamo-disagg-bootstrap", "--dry-run"]) == EXIT_KEPT
    assert "dbe043  dynamo-disagg-bootstrap" in capsys.readouterr().out


def test_a_case_survives_its_file(tmp_path: Path) -> None:
    """A case that is saved and read again is equal."""
    case = case_of(
        also=(Signature("ends", "deadline", "path left"),),
        any_replica=True,
        needed=(Needed(Kill("server", 0), 0, 3),),
    )
    Corpus(tmp_path).save(case)
    assert Corpus(tmp_path).get("abc123") == case


def test_a_dry_run_prints_the_plan_and_starts_nothing(
    graph: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run prints the plan, and makes no folder."""
    Path("my.plan").write_text("kill server 1\n")
    assert main(["run", "my.plan", "--graph", graph, "--dry-run"]) == EXIT_KEPT
    assert "kill server 1" in capsys.readouterr().out
    assert not Path(".graphquake").exists()


def test_an_old_history_is_judged_again(
    graph: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` reads a run's folder and judges it by the promises of today."""
    folder = tmp_path / "run"
    folder.mkdir()
    made = (
        Made(plan=plan_of("kill decode 0"))
        .steady(0.0, 9.0)
        .step("kill decode 0", 2.0)
        .ask(6.0, outcome=Outcome.ERROR)
    )
    history = made.history()
    history.save(folder)
    loaded = History.load(folder)
    assert (loaded.plan, loaded.events) == (history.plan, history.events)
    assert [r.outcome for r in loaded.requests] == [r.outcome for r in history.requests]
    assert main(["check", str(folder)]) == EXIT_BROKEN
    assert "1 × error_window / HTTP 503 / path left" in capsys.readouterr().out
    assert said(capsys, "check", str(tmp_path)).endswith(
        "is not the folder of a run: it has no events.jsonl"
    )
    (folder / "requests.csv").write_text("number\n1\n")
    assert "is damaged" in said(capsys, "check", str(folder))


def test_a_check_says_what_it_excused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A kept run counts the failures that clients saw, in words and as JSON."""
    made = Made(plan=plan_of("kill decode 0")).steady(0.0, 9.0).step("kill decode 0", 2.0)
    made.ask(2.1, outcome=Outcome.ERROR).history().save(tmp_path)
    assert main(["check", str(tmp_path)]) == EXIT_KEPT
    assert capsys.readouterr().out.startswith("kept, 1 failed request excused\n")
    assert main(["check", str(tmp_path), "--json"]) == EXIT_KEPT
    assert json.loads(capsys.readouterr().out)["excused"] == 1


@pytest.mark.parametrize("broken", [GRAPH + "max_token = 3\n", GRAPH + "[load\n"])
@pytest.mark.parametrize("command", [("replay", "abc123"), ("mark", "abc123", "open"), ("replay", "--all")])  # fmt: skip
def test_a_broken_graph_file_in_the_working_folder_is_an_error(
    graph: str, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], broken: str
) -> None:
    """A graph file that cannot be read is named: it is not passed over as if its cases did not exist."""
    Corpus(Path("regressions")).save(case_of())
    Path(graph).write_text(broken)
    assert said(capsys, *command).startswith("toy.toml: ")


def test_other_tools_files_are_passed_over(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A TOML file that is not a graph file may hold anything, also text that is not valid TOML."""
    Path("pyproject.toml").write_text('[tool.other]\ngraph = "yes"\n')
    Path("damaged.toml").write_text("[tool.other\ngraph = 1\n")
    Corpus(Path("regressions")).save(case_of())
    assert main(["replay", "abc123", "--dry-run"]) == EXIT_KEPT
    assert capsys.readouterr().out.startswith("abc123  toy  kill server 0")


@pytest.mark.parametrize(
    ("visible", "share", "graphs", "text"),
    [
        ("0", False, 1, "reference-gpu needs 3 GPUs, but CUDA_VISIBLE_DEVICES or /dev shows 1. Use --share-gpus"),
        ("0,1,2", False, 2, "2 of reference-gpu side by side need 6 GPUs, but CUDA_VISIBLE_DEVICES or /dev shows 3. Use "),
        ("0,1,2", False, 1, ""),
        ("0", True, 2, ""),
        ("", False, 1, ""),
    ],
)  # fmt: skip
def test_too_few_gpus_are_an_error_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, visible: str, share: object, graphs: int, text: str
) -> None:
    """The error says how many GPUs are needed and how many there are. This graph can do without on a machine that has none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    spec = load_graph("reference-gpu", share_gpus=bool(share))
    with pytest.raises(InputError, match=re.escape(text)) if text else nullcontext():
        check_gpus(spec, graphs)


def test_sharing_is_advised_only_if_it_helps(
    graph: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error advises to share GPUs only if the machine has enough of them for one replica."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    text = GRAPH.replace("replicas = 2", "replicas = 2\ngpus = 2")
    Path(graph).write_text(text)
    needs = "toy needs 4 GPUs, but CUDA_VISIBLE_DEVICES or /dev shows"
    assert said(capsys, "try", graph) == f"{needs} 0."
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert said(capsys, "try", graph).startswith(f"{needs} 2. Use --share-gpus ")


def test_a_trial_has_no_budget(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`try` makes one run. It does not accept an option that would have no effect."""
    with pytest.raises(SystemExit):
        main(["try", graph, "--chaos-budget", "10m"])
    assert "unrecognized arguments: --chaos-budget 10m" in capsys.readouterr().err


def test_too_few_gpus_end_a_command(
    graph: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too few GPUs end `try` and `run` before anything is started. A dry run needs none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(LiveRunner, "run", NotImplemented)
    for command in (["try"], ["run", "kill decode 0", "--graph"]):
        assert "needs 3 GPUs" in said(capsys, *command, "reference-gpu")
    dry = ["run", "kill decode 0", "--graph", "reference-gpu", "--dry-run"]
    assert main(dry) == EXIT_KEPT
