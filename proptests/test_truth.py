"""Mistakes in the user's own promises, oracles and rules.

Pytest runs in another process against the toy. `test_statuses` holds what a search says of each of its ends.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from graphquake.harness.clients.answers import find_oracle
from graphquake.harness.errors import EXIT_BROKEN, EXIT_INPUT, InputError
from graphquake.harness.promises.builtin import promises_of
from graphquake.harness.promises.judgement import judge
from graphquake.harness.run.live import run_live
from graphquake.harness.spec.graph import load_graph
from graphquake.machines.frontends.cli import main

from support.child_pytest import run
from support.fake_target import FakeTargets, fake_spec
from support.made import Made, plan_of
from support.nested_pytest import enter, run_here
from support.toys import toy_file

pytestmark = pytest.mark.roomy

PROMISES = '''
from dataclasses import replace
from graphquake import violation_in

def raises(history, up):
    """No request is slow."""
    return [1 / 0]

def yields_text(history, up):
    yield "slow"

def returns_none(history, up):
    pass

def misnamed(history, up):
    yield violation_in(history, "other", "slow", 1.0, "a request was slow")

def timeless(history, up):
    yield replace(violation_in(history, "timeless", "slow", 0.0, "slow"), at_s=None)

def one_argument(history):
    return []

def slow(history, up):
    """No request takes a minute."""
    return []

def breaks(history, up):
    """Nothing is ever steady."""
    at_s = history.phase_began_s("steady")
    if at_s is not None:
        yield violation_in(history, "breaks", "steady", at_s, "it was steady")
'''
SEARCH = ("--chaos-graph", "toy.toml", "--chaos-budget", "2runs", "--hypothesis-seed", "1")


def project(folder: Path, **changes: str) -> Path:
    """Write a project whose promises stand beside its graph file."""
    toy_file(folder, children="{}", **changes)
    (folder / "mine.py").write_text(PROMISES)
    return folder


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("raises", "mine:raises raised ZeroDivisionError: division by zero (mine.py, line 7), in a run of"),
        ("yields_text", 'mine:yields_text yielded "slow", expected a Violation: use violation_in'),
        ("returns_none", "mine:returns_none raised TypeError: 'NoneType' object is not iterable"),
        ("misnamed", 'mine:misnamed yielded a violation of "other", expected "misnamed", the name of the function, in a run of'),
        ("timeless", "mine:timeless yielded a violation with at_s = None, expected a time in seconds, in a run of"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_promise_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, text: str
) -> None:
    """The error names the promise, the cause and the plan."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    project(tmp_path, more=f'extra = ["mine:{function}"]')
    history = Made(load_graph(str(tmp_path / "toy.toml")), plan_of("kill worker 0")).history()
    with pytest.raises(InputError, match=re.escape(text)):
        judge(history)


@pytest.mark.parametrize("early", [False, True])
def test_the_history_that_a_promise_failed_with_is_saved(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    early: bool,  # noqa: FBT001
) -> None:
    """The error names the run's folder, also if the promise fails while the run still goes on. `check` fails in the same way."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(PROMISES)
    fake_spec(tmp_path)
    file = tmp_path / "fake.toml"
    file.write_text(f'{file.read_text()}extra = ["mine:raises"]\n')
    targets, folder = FakeTargets(), tmp_path / "run"
    enough = (lambda history: bool(judge(history).violations)) if early else None
    run = run_live(
        load_graph(str(file)), plan_of("kill worker 0", "wait 1.00 s"), folder,
        opener=targets, enough=enough, keep=True,
    )  # fmt: skip
    with pytest.raises(InputError) as failed:
        asyncio.run(run)
    mistake = "mine:raises raised ZeroDivisionError: division by zero (mine.py, line 7)"
    assert mistake in str(failed.value)
    assert str(failed.value).endswith(
        f'in a run of "kill worker 0; wait 1.00 s"; call it again: graphquake check {folder}'
    )
    assert targets.open_now == 0
    assert main(["check", str(folder)]) == EXIT_INPUT
    assert mistake in capsys.readouterr().err


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"more": 'extra = ["mine:one_argument"]'}, "mine:one_argument: found the arguments (history), expected (history, up)"),
        ({"more": 'extra = ["mine:nothing"]'}, "has no attribute 'nothing'"),
        ({"more": 'extra = ["nowhere:slow"]'}, "nowhere:slow: No module named 'nowhere'; looked in"),
        ({"more": 'extra = ["mine:slow", "mine:slow"]'}, 'found more than one promise with the name "slow"'),
    ],
)  # fmt: skip
def test_a_promise_that_cannot_be_called_is_found_by_a_dry_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    text: str,
) -> None:
    """An import, a name or arguments that are wrong are found before anything is started, also by a dry run."""
    enter(project(tmp_path, **changes), monkeypatch)
    status, out = run_here(capsys, *SEARCH, "--chaos-dry-run")
    assert (status, text in out) == (2, True), out
    assert not (tmp_path / ".graphquake").exists()


def test_own_functions_are_found_beside_the_graph_file(tmp_path: Path) -> None:
    """A promise beside the graph file is judged and named, whatever the working folder is."""
    folder = project(tmp_path, more='extra = ["mine:slow"]')
    (folder / "elsewhere").mkdir()
    status, out = run(
        folder / "elsewhere", "--chaos-graph", "../toy.toml", "--chaos-budget", "1runs",
        "--hypothesis-seed", "1", "--chaos-keep-failed",
    )  # fmt: skip
    assert status == 0, out
    page = next((folder / "elsewhere/.graphquake/toy/runs").glob("*/run.html")).read_text()
    assert "<th>slow</th><td>kept</td>" in page


def test_a_trial_that_breaks_a_promise_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`try` ends with status 1 if the graph breaks a promise without any fault. It lists the user's own promises, too."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.chdir(project(tmp_path, more='extra = ["mine:breaks"]'))
    assert main(["try", "toy.toml"]) == EXIT_BROKEN
    out = capsys.readouterr().out
    assert "breaks: Nothing is ever steady." in out
    assert "breaks / steady: it was steady" in out


@pytest.mark.simulated
def test_modules_of_two_graphs_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second module with the name of the first is an error: it would be judged by the wrong code. Other folders hide no module."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    for folder in (one, two):
        project(folder, more='extra = ["mine:slow"]')
    promises_of(load_graph(str(one / "toy.toml")))
    with pytest.raises(InputError, match="rename one of them"):
        promises_of(load_graph(str(two / "toy.toml")))
    find_oracle(load_graph("reference"))
    assert str(load_graph("reference").path.parent) not in sys.path


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("Kill('worker', 7)", 'a rule added "kill worker 7", which is impossible now: '),
        ("Respawn('front', 0)", 'a rule added "respawn front 0", which is impossible now: front 0 lives'),
        ("'kill worker 0'", "a rule added 'kill worker 0', expected a step such as Kill"),
    ],
)  # fmt: skip
def test_a_rule_that_adds_an_impossible_step_is_one_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: str,
    text: str,
) -> None:
    """The error names the machine, the step and the reason. Nothing is started, and a dry run finds it, too."""
    enter(project(tmp_path), monkeypatch)
    (tmp_path / "test_own.py").write_text(
        "from hypothesis.stateful import rule\n"
        "from graphquake import PlanMachine, chaos\n"
        "from graphquake.harness.spec.plan import Kill, Respawn\n"
        "class Mine(PlanMachine):\n"
        f"    @rule()\n    def odd(self):\n        self.add({step})\n"
        "TestMine = chaos('toy.toml', machine=Mine)\n"
    )
    for more in ((), ("--chaos-dry-run",)):
        status, out = run_here(capsys, "--chaos", "test_own.py", *SEARCH[2:], *more)
        assert (status, f"Mine: {text}" in out) == (2, True), out
        assert "Traceback" not in out
