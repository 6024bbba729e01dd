"""A script that shows a case without this project."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.promises.signature import Signature
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import Case, Observed
from graphquake.machines.cases.case_file import read_case
from graphquake.machines.frontends.cli import main
from graphquake.machines.reports import export as module
from graphquake.machines.reports.export import SCRIPT, export

from support.made import plan_of
from support.toys import toy_spec

pytestmark = pytest.mark.roomy

SHIPPED = Path(__file__).parent / "regressions/dbe043.json"


def case_with(spec: GraphSpec, plan: Plan, promise: str = "ends") -> Case:
    """Return a case of a graph."""
    return Case(
        id="abc123",
        title="ends broken by a stall",
        status="open",
        graph={"name": spec.name},
        signature=Signature(promise, "no byte", "path left"),
        plan=plan,
        seen="a request got no byte",
        observed=(Observed("2026-11-28", {"toy": "1.0"}, "here", 3, 3),),
    )


def test_a_script_needs_nothing_of_this_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes a script with the commands, the steps and the files of a case."""
    folder = tmp_path / "out"
    command = ["export", str(SHIPPED), "--graph", "dynamo-disagg-bootstrap", "--to", str(folder)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"python {folder / SCRIPT}" in said
    assert "warning" not in said
    code = (folder / SCRIPT).read_text()
    compile(code, SCRIPT, "exec")
    assert "import graphquake" not in code
    assert "from graphquake" not in code
    assert "['kill', 'decode 0']" in code
    assert (folder / "files/tiny/config.json").is_file()
    assert main(command) == 2
    assert f"--to: {folder} exists, expected a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("promise", "plan", "says"),
    [
        ("no_leak", plan_of("kill worker 0"), "found the promise no_leak, expected one of ends"),
        ("ends", plan_of("kill worker 0 process"), 'found the step "kill worker 0 process"'),
        ("ends", plan_of("burst 5 over 0.00 s, 100% malformed"), 'found the step "burst 5 over'),
    ],
)
def test_what_a_script_cannot_show_is_refused(
    tmp_path: Path, promise: str, plan: Plan, says: str
) -> None:
    """The error names the promise or the step."""
    spec = toy_spec(tmp_path)
    with pytest.raises(InputError, match=says):
        export(case_with(spec, plan, promise), spec, tmp_path / "out")


def test_a_script_keeps_the_order_of_the_start() -> None:
    """A role starts after the roles that it needs, and the steps of the shipped case are those of its plan."""
    spec = load_graph("sglang-router")
    assert module._start_order(spec)[-1] == ["router 0"]
    case = read_case(str(SHIPPED), SHIPPED.read_text())
    assert [module._step(step, spec) for step in case.plan.steps] == [["kill", "decode 0"]]


def test_a_worker_of_our_own_comes_along(tmp_path: Path) -> None:
    """A maintainer has no graphquake. So the script brings the modules of the worker, and these import nothing else of it."""
    spec = load_graph("dynamo-agg")
    assert export(case_with(spec, plan_of("kill worker 0")), spec, tmp_path) == []
    assert "'PYTHONPATH': '@HERE@/files'" in (tmp_path / SCRIPT).read_text()
    worker = "graphquake.harness.graphs.dynamo_worker"
    asked = f"import sys, importlib; sys.path.insert(0, {str(tmp_path / 'files')!r}); importlib.import_module({worker!r});"
    asked += "print(*(one.__file__ for name, one in sys.modules.items() if name.startswith('graphquake')))"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split()
    assert all(one.startswith(str(tmp_path)) for one in done.stdout.split())


@pytest.mark.parametrize(("graph", "exact"), [("dynamo-agg", True), ("dynamo-agg-mocker", False)])
def test_texts_are_compared_where_an_oracle_knows_them(
    tmp_path: Path, graph: str, *, exact: bool
) -> None:
    """The mocker answers at random. Its answers differ, and no fault is the reason."""
    spec = load_graph(graph)
    export(case_with(spec, plan_of("kill worker 0")), spec, tmp_path)
    assert f"'exact': {exact}" in (tmp_path / SCRIPT).read_text()


@pytest.mark.parametrize(
    ("step", "network", "said"),
    [
        ("stall worker 0 for 2.00 s", "host", "stall worker 0 2.5"),
        ("cut worker 0 from front for 2.00 s", "namespaces", "cut [['worker 0', 'front 0'], "),
    ],
)
def test_a_script_shows_the_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, network: str, said: str
) -> None:
    """The script starts the graph, does the steps, names the silent requests, and leaves no process. Its Python has no graphquake."""
    monkeypatch.setattr(module, "STAY_S", 1.0)
    spec = toy_spec(tmp_path, network=network)
    spec = replace(spec, promises=replace(spec.promises, stall_s=1.0, agree_s=0.0))
    folder = tmp_path / "out"
    assert export(case_with(spec, plan_of(step)), spec, folder) == []
    done = subprocess.run(
        [sys.executable, str(folder / SCRIPT)],
        capture_output=True, text=True, check=False, timeout=60, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
    assert "THE BUG SHOWS" in done.stdout
    assert "s without a byte" in done.stdout
    left = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, check=False)
    assert left.stdout == b""
