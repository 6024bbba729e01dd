"""The mistakes that beginners make. Each of them ends with one clear line and status 2, and leaves no process running.

Status 1 means that a promise was broken, and only that. `test_truth` holds mistakes in promises and rules of one's own, `test_statuses`
folders that can't be written, and the ends of a search.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from graphquake.harness.errors import EXIT_INPUT, EXIT_KEPT, EXIT_PROVED_NOTHING
from graphquake.harness.processes import supervisor
from graphquake.harness.run import first_answer
from graphquake.harness.spec.graph import load_graph
from graphquake.machines.frontends.cli import main
from graphquake.machines.frontends.model_names import ModelNames

from support.nested_pytest import enter, run_here
from support.toys import left_of

pytestmark = pytest.mark.roomy

SERVER: Final = Path(__file__).parent / "support" / "own_server.py"
PYTHON: Final = "{python} -S"
SERVE: Final = f"{PYTHON} {SERVER} --port {{port.http}}"
GRAPH = """
graph = "own"
<top>

[roles.server]
command = "<command>"
replicas = <replicas>
<role>

[load]
model = "tiny"
rate_per_s = 20
prompt_tokens = 8
max_tokens = 8
stream = 0
<load>

[promises]
answers = { oracle = "<oracle>" }
no_leak = { grace_s = 0.1 }
<promises>
"""
ENTRY = 'entry = "http://127.0.0.1:{port.http}"\n'
READY = ENTRY + 'ready = { get = "{entry}/health", within_s = 5 }\n'
MINE = '''
def right(prompt, max_tokens):
    return prompt[:max_tokens]

def wrong(prompt, max_tokens):
    return "x" * max_tokens

def raises(prompt, max_tokens):
    raise KeyError(max_tokens)

def returns_none(prompt, max_tokens):
    pass

def one_argument(prompt):
    return prompt

def promise_raises(history, up):
    """No request is slow."""
    return [1 / 0]

def yields_text(history, up):
    yield "slow"
'''


def graph_text(**changes: str) -> str:
    """The text of a graph file with one server, and a few changes."""
    words = {
        "top": "", "command": SERVE, "replicas": "1", "role": READY, "load": "",
        "oracle": "mine:right", "promises": "",
    }  # fmt: skip
    text = GRAPH
    for name, value in (words | changes).items():
        text = text.replace(f"<{name}>", value)
    return text


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project in the working folder. A graph gets little time to answer right, and nothing of it is left after the test."""
    enter(tmp_path, monkeypatch)
    monkeypatch.setattr(first_answer, "FIRST_ANSWER_S", 5.0)
    monkeypatch.setattr(supervisor, "LISTED_WITHIN_S", 0.3)
    (tmp_path / "mine.py").write_text(MINE)
    yield tmp_path
    assert left_of(os.getpid()) == []


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message with which a command ends, with status 2 and nothing else."""
    assert main(arguments) == EXIT_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    # The end of a replica's log follows the line, indented.
    first, *log = err.removeprefix("graphquake: ").splitlines()
    assert all(line.startswith("    ") for line in log), err
    assert "Traceback" not in first
    return err


# ---------------------------------------------------------------------------------------------- before anything starts

FILES = {
    "a role with a typing error": ({"top": 'serves = "servers"'}, 'serves: names "servers", which is not a role; did you mean "server"?'),
    "an unknown key": ({"load": "max_token = 3"}, 'load.max_token: is not a known key; did you mean "max_tokens"?'),
    "a wrong type": ({"top": 'lease_s = "10"'}, 'lease_s: found "10", expected a number'),
    "out of range": ({"replicas": "0"}, "roles.server.replicas: found 0, expected a whole number of at least 1"),
    "not TOML": ({"top": "serves ="}, "is not valid TOML"),
    "an unknown word": ({"command": "serve {prot.http}"}, "roles.server.command: "),
    "no entry": ({"role": ""}, "roles: found 0 roles with an entry, expected one that clients talk to"),
    "no module": ({"oracle": "nowhere:expected"}, "promises.answers.oracle: nowhere:expected: No module named 'nowhere'; looked in"),
    "no function": ({"oracle": "mine:nothing"}, "has no attribute 'nothing'"),
    "an oracle with one argument": ({"oracle": "mine:one_argument"}, "found the arguments (prompt), expected (prompt, max_tokens)"),
}  # fmt: skip


@pytest.mark.simulated
@pytest.mark.parametrize("mistake", FILES)
def test_a_mistake_in_a_graph_file(
    mistake: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`try` and a dry run of a plan report it in the same words, before anything starts. So does a dry run of a search."""
    changes, text = FILES[mistake]
    (project / "own.toml").write_text(graph_text(**changes))
    assert text in told(capsys, "try", "own.toml")
    assert text in told(capsys, "run", "kill server 0", "--graph", "own.toml", "--dry-run")
    # One mistake that is found when the file is read, and one that is found when the code is imported: a pytest takes a second.
    if mistake in ("an unknown key", "no module"):
        status, out = run_here(capsys, "--chaos-graph=own.toml", "--chaos-dry-run")
        assert (status, text in out, "Traceback" in out) == (2, True, False), out


COMMANDS = {
    "a replica that is not there": (["run", "kill server 7", "--graph", "own.toml"], 'step 1, "kill server 7": own has server 0'),
    "a misspelt step": (["run", "kil server 0", "--graph", "own.toml"], 'is not a step; did you mean "kill"?'),
    "a misspelt word": (["run", "kill_server", "--graph", "own.toml"], '"kill_server": found neither a file nor a step'),
    "an empty plan": (["run", "", "--graph", "own.toml"], '"": found neither a file nor a step'),
    "no graph file": (["try", "no.toml"], "no.toml: no such file"),
    "an environment variable that is not set": (["try", "env.toml"], "NOT_SET_HERE"),
    "a results folder that can't be written": (["try", "own.toml", "--results-dir", "mine.py/inside"], "cannot write to"),
    "a budget that is not one": (["run", "kill server 0", "--graph", "own.toml", "--chaos-budget", "soon"], 'found "soon", expected'),
}  # fmt: skip


@pytest.mark.simulated
@pytest.mark.parametrize("mistake", COMMANDS)
def test_a_mistake_on_the_command_line(
    mistake: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command says what was found and what would be right, before anything starts."""
    (project / "own.toml").write_text(graph_text())
    (project / "env.toml").write_text(graph_text(top='env = { HOME = "${NOT_SET_HERE}" }'))
    arguments, text = COMMANDS[mistake]
    assert text in told(capsys, *arguments)


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--chaos-graph=own.toml"], "--chaos-graph: found two graphs with the name own"),
        (["--chaos-graph=nowhere.toml"], "nowhere.toml: no such file"),
        (["--chaos-graph=dynamo-dissag"], 'did you mean "dynamo-disagg"?'),
        (["--chaos-budget=soon"], '--chaos-budget: found "soon", expected a duration such as 90s'),
        (["--chaos-shrink-budget=few"], '--chaos-shrink-budget: found "few", expected a duration such as 90s'),
        (["--chaos-replay-budget=x"], '--chaos-replay-budget: found "x", expected a duration such as 90s'),
        (["--chaos-max-findings=0"], "--chaos-max-findings: found 0, expected at least 1"),
        (["--chaos-slots=0"], '--chaos-slots: found "0", expected auto, 1 to 64, or ray:K'),
        (["--chaos-slots=ray:0"], '--chaos-slots: found "ray:0", expected ray:K or ray:K@ADDRESS'),
        (["--chaos-slots=ray:2", "--chaos-slot-cores=0"], "--chaos-slot-cores: found 0, expected more than 0"),
        (["--chaos-slots=ray:2", "--chaos-share-gpus"], "--chaos-share-gpus: found with --chaos-slots ray:2"),
        (["--hypothesis-seed=x"], '--hypothesis-seed: found "x", expected a whole number'),
        (["mine.py"], "--chaos-graph: found together with mine.py, expected no test files"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_options_of_pytest(
    options: list[str], text: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pytest ends with status 2 and the line of the mistake."""
    (project / "own.toml").write_text(graph_text())
    status, out = run_here(capsys, "--chaos-graph=own.toml", *options)
    assert (status, text in out, "Traceback" in out) == (2, True, False), out


def test_a_second_graph_of_a_plan(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run` has one graph. A second one is refused."""
    with pytest.raises(SystemExit, match="2"):
        main(["run", "kill server 0", "--graph", "a", "--graph", "b"])
    assert "argument --graph: found it twice, expected it once" in capsys.readouterr().err


@pytest.mark.simulated
def test_a_budget_of_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not a mistake of the input. `run` ends with status 3, and pytest with a short error."""
    (project / "own.toml").write_text(graph_text())
    plan = ["run", "kill server 0", "--graph", "own.toml"]
    for budget in ("0", "0s", "0runs"):
        assert main([*plan, "--chaos-budget", budget]) == EXIT_PROVED_NOTHING
        assert capsys.readouterr().out == "no run fits into the budget\n"
    status = pytest.main(
        ["-p", "no:cacheprovider", "-s", "--chaos-graph=own.toml", "--chaos-budget=0"]
    )
    out = capsys.readouterr().out
    assert status == 1
    assert "proved nothing: no run fitted into the budget" in out
    assert out.count("\n") < 30, out


# ------------------------------------------------------------------------------------------------------ with processes


def _fixed_port(role: str = "") -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "command": f"{PYTHON} {SERVER} --port {port} --pause 0.{{index}}",
        "replicas": "2",
        "role": f'entry = "http://127.0.0.1:{port}"\n{role}'.replace("PORT", str(port)),
    }


LIVE: dict[str, tuple[Callable[[], dict[str, str]], str]] = {
    "exits at once": (lambda: {"command": f"{PYTHON} -c 'raise SystemExit(3)'"}, "server 0: ended with exit status 3 before it was ready"),
    "a bad option": (lambda: {"command": f"{SERVE} --prot 1"}, "unrecognized arguments: --prot 1"),
    "not executable": (lambda: {"command": "{graph_dir}/mine.py"}, "Permission denied"),
    "not found": (lambda: {"command": "no-such-server"}, "No such file or directory"),
    "never ready": (
        # A busy machine takes a second until the server answers at all.
        lambda: {"role": ENTRY + 'ready = { get = "{entry}/healthy", within_s = 5 }'},
        "/healthy: HTTP 404: Not Found",
    ),
    "never listed": (
        lambda: {"role": READY + 'listed = { get = "{entry}/health", item = "up", roles = ["server"] }'},
        "Check roles.server.listed.\n    server 0: http://127.0.0.1:",
    ),
    "a wrong oracle": (lambda: {"oracle": "mine:wrong"}, "no right answer within 0.3 s: wrong tokens: differs from token 0 on"),
    "no server behind it": (lambda: {"command": f"{SERVE} --status 503"}, "no right answer within 0.3 s: HTTP 503: no server is available"),
    "an unknown model": (lambda: {"command": f"{SERVE} --only other"}, 'right answer within 0.3 s: HTTP 404: {"error": "the model tiny'),
    "an oracle that raises": (lambda: {"oracle": "mine:raises"}, "raised KeyError: 8 (mine.py, line 9)"),
    "an oracle that returns nothing": (lambda: {"oracle": "mine:returns_none"}, "returned NoneType, expected str, the right answer"),
    "a promise that raises": (
        lambda: {"promises": 'extra = ["mine:promise_raises"]'},
        "mine:promise_raises raised ZeroDivisionError: division by zero (mine.py, line 19), in a run of",
    ),
    "two replicas on one port, both ready": (
        _fixed_port,
        "ended because its port is taken: the command has no {port.NAME}, so all 2 replicas use one port",
    ),
    "two replicas on one port, one ready": (
        lambda: _fixed_port('ready = { get = "http://127.0.0.1:PORT/health", within_s = 5 }'),
        "Address already in use",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", LIVE)
def test_a_mistake_that_shows_when_the_graph_starts(
    mistake: str,
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`try` ends with one line, and with the end of the log of a replica that ended."""
    changes, text = LIVE[mistake]
    if "right answer within" in text:
        monkeypatch.setattr(first_answer, "FIRST_ANSWER_S", 0.3)
    (project / "own.toml").write_text(graph_text(**changes()))
    assert text in told(capsys, "try", "own.toml")


@pytest.mark.parametrize("mistake", ["a wrong oracle", "exits at once"])
def test_a_mistake_that_shows_when_a_run_or_a_search_starts(
    mistake: str,
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`run` and pytest report it as `try` does."""
    changes, text = LIVE[mistake]
    monkeypatch.setattr(first_answer, "FIRST_ANSWER_S", 0.3)
    (project / "own.toml").write_text(graph_text(**changes()))
    assert text in told(capsys, "run", "kill server 0", "--graph", "own.toml")
    status, out = run_here(capsys, "--chaos-graph=own.toml", "--chaos-budget=3runs")
    assert (status, text in out, "Traceback" in out) == (2, True, False), out


def test_a_port_of_another_program(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error shows what the server says of the port."""
    changes = _fixed_port() | {"replicas": "1"}
    (project / "own.toml").write_text(graph_text(**changes))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(changes["role"].rpartition(":")[2].strip('"\n'))))
        taken.listen()
        assert "Address already in use" in told(capsys, "try", "own.toml")


def test_a_model_name_that_the_server_ignores(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers are right, so the verdict is kept. `try` warns that the server has another model."""
    (project / "own.toml").write_text(graph_text(command=f"{SERVE} --says other"))
    assert main(["try", "own.toml"]) == EXIT_KEPT
    out = capsys.readouterr().out
    assert 'warning   own.toml: load.model: found "tiny", but /v1/models lists other' in out
    assert (
        'warning   own.toml: load.model: found "tiny", but an answer names the model "other"' in out
    )
    spec = load_graph("own.toml")
    assert list(ModelNames(("other", "tiny"), "tiny").warnings(spec)) == []
    assert list(ModelNames().warnings(spec)) == []
