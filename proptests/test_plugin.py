"""The pytest plugin as a user runs it: pytest in another process and folder, against the toy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from graphquake.machines.frontends.cli import main
from graphquake.machines.frontends.options import add_options
from graphquake.machines.reports.finding_text import counted
from graphquake.machines.sessions.live_state import LiveState, read_state
from graphquake.machines.sessions.metrics import VERDICTS

from support.child_pytest import run, start
from support.collector import Collector, values_of
from support.metrics import free_port, scraped
from support.nested_pytest import enter, run_here
from support.toys import TOY, left_of, toy_file
from support.until import when


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project, whose folders have the same names as ours."""
    for name in ("harness", "machines", "proptests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not yours')\n")
    toy_file(tmp_path)
    return tmp_path


CHAOS = ("--chaos-graph", "toy.toml")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def panicking(project: Path) -> None:
    """Plant a bug: the front gives no answers for 0.9 s after each worker's death, which breaks only `error_window`.

    If several workers die one after the other, it panics for longer, but never until recovery is due. The workers have no children, so the
    graph file names none: a kill of one would not land, and its run would prove nothing.
    """
    toy_file(
        project, children="{}",
        front="--panic 0.9", faults='["kill"]', first_ok_s=2.0, more="blast_radius = false",
    )  # fmt: skip


@pytest.mark.simulated
def test_importing_the_plugin_costs_nothing() -> None:
    """Importing the plugin loads no heavy package: every pytest in the environment imports it."""
    heavy = "{'hypothesis', 'aiohttp', 'numpy', 'psutil', 'uvloop', 'asyncio'}"
    code = f"import sys, graphquake.machines.frontends.plugin; print({heavy} & set(sys.modules))"
    argv = [sys.executable, "-c", code]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.simulated
def test_without_chaos_nothing_changes(project: Path) -> None:
    """Without `--chaos`, a project's own tests run as before, and a chaos class is skipped."""
    (project / "test_own.py").write_text(
        "from graphquake.machines import chaos\n"
        "def test_one():\n    pass\n"
        'TestMine = chaos("toy.toml")\n'
    )
    status, out = run(project, "test_own.py")
    assert (status, "1 passed, 1 skipped" in out) == (0, True), out


def test_every_option_of_the_plugin_begins_with_chaos() -> None:
    """No option that is registered in a stranger's pytest can have the name, or the `dest`, of one of theirs."""
    found: dict[str, str] = {}

    class Group:
        def addoption(self, *names: str, dest: str, **_: object) -> None:
            found.update(dict.fromkeys(names, dest))

    add_options(cast("pytest.OptionGroup", Group()))
    assert len(found) == 21
    assert all(re.match(r"--chaos(-|$)", name) for name in found)
    assert all(dest.startswith("chaos_") for dest in found.values())


@pytest.mark.simulated
def test_a_strangers_options_keep_their_names(tmp_path: Path) -> None:
    """A project whose conftest registers options that graphquake's commands have as well runs as if graphquake were not there."""
    theirs = ("--graph", "--dry-run", "--strict-known", "--slots")
    lines = [f"    parser.addoption({name!r}, default='unset')\n" for name in theirs]
    (tmp_path / "conftest.py").write_text(f"def pytest_addoption(parser):\n{''.join(lines)}")
    (tmp_path / "test_theirs.py").write_text(
        "def test_options(pytestconfig):\n"
        f"    values = [pytestconfig.getoption(name) for name in {theirs}]\n"
        "    assert values == ['mine', 'unset', 'unset', '4']\n"
    )
    status, out = run(tmp_path, "--graph", "mine", "--slots", "4")
    assert (status, "1 passed" in out) == (0, True), out


@pytest.mark.simulated
def test_two_classes_for_one_graph_have_a_folder_each(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder is named for the graph and the class, so that the next session finds it again."""
    enter(project, monkeypatch)
    (project / "test_own.py").write_text(
        'from graphquake import chaos\nTestOne = chaos("toy.toml")\nTestTwo = chaos("toy.toml")\n'
    )
    run_here(capsys, "--chaos", "test_own.py", "--chaos-budget", "0runs")
    found = {path.parent.name for path in (project / ".graphquake").glob("*/index.html")}
    assert found == {"toy.test_own.TestOne", "toy.test_own.TestTwo"}
    summary = json.loads((project / ".graphquake" / "summary.json").read_text())
    assert {graph["folder"] for graph in summary["graphs"]} == found
    assert [summary["verdict"], summary["exit_status"]] == ["proved nothing", 3]


@pytest.mark.simulated
def test_too_few_gpus_end_the_session_before_it_begins(project: Path) -> None:
    """A graph that needs more GPUs than there are ends pytest with one line that has both numbers."""
    status, out = run(project, "--chaos-graph", "reference-gpu", CUDA_VISIBLE_DEVICES="0")
    assert (status, "needs 3 GPUs, but CUDA_VISIBLE_DEVICES or /dev shows 1" in out) == (2, True), (
        out
    )
    assert not (project / ".graphquake").exists()


@pytest.mark.simulated
def test_the_same_seed_draws_the_same_plans(project: Path) -> None:
    """One seed draws the same plans each time, also under CI, where Hypothesis's profile ignores seeds.

    A dry run does not start a graph.
    """
    args = (*CHAOS, "--chaos-dry-run", "--hypothesis-seed")
    outs = [run(project, *args, "5"), run(project, *args, "5", CI="true"), run(project, *args, "6")]
    plans = [re.findall(r"^ .*(?:kill|terminate) .*$", out, re.MULTILINE) for _, out in outs]
    assert [status for status, _ in outs] == [0, 0, 0], outs[0][1]
    assert len(plans[0]) >= 5
    assert plans[0] == plans[1] != plans[2]


def test_a_correct_graph(project: Path) -> None:
    """The search of a correct graph breaks no run, and writes its summary for people and for programs."""
    file = project / "toy.toml"
    # This toy does not start children, so a kill of a child could not land. Its front waits for a frozen worker, so nothing is stalled.
    whole = file.read_text()
    kept = "".join(x for x in whole.splitlines(keepends=True) if "toy-engine" not in x)
    file.write_text(kept.replace('"terminate", "stall"', '"terminate"'))
    assert file.read_text() != whole
    args = (*CHAOS, "--chaos-budget", "4runs", "--hypothesis-seed", "1", "--junit-xml", "junit.xml")
    status, out = run(project, *args, "--chaos-report-dir", "report")
    assert status == 0, out
    assert "kept: nothing new" in out
    assert not re.search(r"exit \d", out)
    assert '<property name="verdict" value="kept"' in (project / "junit.xml").read_text()
    for root in (project / ".graphquake", project / "report"):
        index = root / "toy" / "index.html"
        links = re.findall(r'href="([^"]+)"', index.read_text())
        assert len(links) >= 3
        assert all((index.parent / link).is_file() for link in links)
    summary = json.loads((project / ".graphquake" / "summary.json").read_text())
    (graph,) = summary["graphs"]
    assert graph["runs"]["broken"] == 0
    assert graph["runs"]["kept"] >= 3
    price = json.loads((project / ".graphquake" / "toy" / "price.json").read_text())
    assert price["run_s"] > 0
    assert (project / ".graphquake" / ".gitignore").read_text() == "*\n"


@pytest.mark.simulated
def test_a_class_that_proves_nothing_is_an_error(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chaos class without proof is an error and not a failure, also in JUnit. `test_statuses` shows it for a search without a class."""
    enter(project, monkeypatch)
    own = 'from graphquake.machines import chaos\nTestMine = chaos("toy.toml")\n'
    (project / "test_own.py").write_text(own)
    options = ("--chaos", "test_own.py", "--chaos-budget", "0runs", "--junit-xml", "junit.xml")
    status, out = run_here(capsys, *options)
    assert (status, "1 error" in out) == (1, True), out
    assert "proved nothing: no run fitted into the budget" in out
    assert not re.search(r"exit \d", out)
    assert 'errors="1" failures="0"' in (project / "junit.xml").read_text()
    assert "run_graph" not in out


@contextmanager
def killed_on_error(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill a process if a check fails. The test would wait for its end."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def ended_runs(project: Path) -> list[dict[str, Any]]:
    """The runs of a search so far, from its journal. Its last line may be half written."""
    journal = project / ".graphquake" / "toy" / "journal.jsonl"
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    return [row for row in map(json.loads, lines) if "run" in row]


def kept_plans(rows: list[dict[str, Any]]) -> list[str]:
    """The plans of the search's own runs that have kept all promises."""
    return [row["plan"] for row in rows if (row["why"], row["says"]) == ("search", "kept")]


def watch(project: Path, capsys: pytest.CaptureFixture[str], command: str) -> tuple[int, str]:
    """Run `graphquake status` or `abort`, and return its exit status and its output."""
    status = main([command, "--results-dir", str(project / ".graphquake")])
    return status, capsys.readouterr().out


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of traces."""
    one = Collector()
    yield one
    one.close()


def test_control_c(project: Path, capsys: pytest.CaptureFixture[str], collector: Collector) -> None:
    """Ctrl-C ends the search at once, and so does `graphquake abort`. There is a summary, and no process is left.

    Until then, `graphquake status` and the metrics show it. The traces of its runs were sent.
    """
    port, began = free_port(), time.time()
    options = ("--chaos-budget", "5m", "--chaos-metrics", str(port), "--chaos-traces")
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with start(project, *CHAOS, *options, **env) as process, killed_on_error(process):
        when(lambda: ended_runs(project), len)
        url = f"http://127.0.0.1:{port}/metrics"
        ended = [f"runs_total{{graph=toy,verdict={kind}}}" for kind in VERDICTS]
        metrics = when(lambda: scraped(url), lambda found: sum(found[key] for key in ended) and "fault_begin_" in str(found))  # fmt: skip
        assert metrics["search_running{graph=toy}"] == 1
        sent, good = (metrics[f"requests_{name}_total{{graph=toy}}"] for name in ("sent", "ok"))
        assert sent >= good > 0
        begins = [at for key, at in metrics.items() if key.startswith("fault_begin_timestamp_")]
        assert all(began < at < time.time() for at in begins)
        now = r"now +\w+: .*, \d+ sent, \d+ failed"
        status, said = when(lambda: watch(project, capsys, "status"), lambda found: re.search(now, found[1]))  # fmt: skip
        assert status == 0
        assert re.search(rf"toy · seed \d+ · pid {process.pid} · \d+s of 5m00s", said), said
        begun_s = time.monotonic()
        status, said = watch(project, capsys, "abort")
        assert (status, "ended     interrupted" in said) == (0, True), said
        out, _ = process.communicate(timeout=30)
    assert time.monotonic() - begun_s < 5
    assert left_of(process.pid) == []
    runs = [values_of(span.attributes) for span in collector.spans() if span.name == "run"]
    verdicts = [one["graphquake.verdict"] for one in runs]
    # A run that was interrupted has none.
    assert set() < set(verdicts) - {"none"} <= set(VERDICTS)
    assert {one["graphquake.graph"] for one in runs} == {"toy"}
    assert process.returncode == 2, out
    assert "= graphquake =" in out
    assert "KeyboardInterrupt" in out
    # Whatever the runs had shown: a search that was interrupted proves nothing, in every output.
    assert "proved nothing: interrupted" in out
    summary = json.loads((project / ".graphquake" / "summary.json").read_text())
    assert (summary["verdict"], summary["graphs"][0]["error"]) == ("proved nothing", "interrupted")
    assert "proved nothing: interrupted" in (project / ".graphquake" / "summary.md").read_text()


def test_a_killed_search_goes_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--chaos-resume` it keeps its seed, its runs and its budget. The plans that were kept are not run again."""
    options = ("--chaos-budget", "5m", "--hypothesis-seed", "3")
    with start(project, *CHAOS, *options) as process, killed_on_error(process):
        when(lambda: ended_runs(project), kept_plans)
        time.sleep(1)  # so that the next run goes on
        process.kill()
    status, said = watch(project, capsys, "status")
    assert (status, "ended     killed" in said) == (3, True), said
    before = ended_runs(project)
    total = len(before) + 1
    status, out = run(project, *CHAOS, "--chaos-resume", "--chaos-budget", f"{total}runs")
    assert f"toy: goes on after {counted(len(before), 'run')}, with seed 3" in out
    (graph,) = json.loads((project / ".graphquake" / "summary.json").read_text())["graphs"]
    assert (graph["seed"], sum(graph["runs"].values())) == (3, total), out
    rows, kept = ended_runs(project), kept_plans(before)
    assert rows[: len(before)] == before
    assert not any(row["plan"] in kept for row in rows[len(before) :])
    assert len(list((project / ".graphquake" / "toy" / "runs").iterdir())) >= 1


def test_a_search_that_goes_on_keeps_its_seed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another seed is an error, and so is a search that still runs. Where no search began, it begins."""
    enter(project, monkeypatch)
    folder = project / ".graphquake" / "toy"
    resume = (*CHAOS, "--chaos-resume", "--chaos-budget", "0runs")
    assert "no run fitted into the budget" in run_here(capsys, *resume)[1]
    begun = read_state(folder)
    assert begun is not None
    assert begun.ended == "budget"
    LiveState("toy", 3, pid=2**22 + 1, start=1).write(folder)
    status, out = run_here(capsys, *resume, "--hypothesis-seed", "4")
    assert status == 2
    assert "--hypothesis-seed: found 4, but the search in .graphquake/toy has seed 3" in out
    LiveState("toy", 3).write(folder)
    status, out = run_here(capsys, *resume)
    assert (status, "still runs, as pid" in out) == (2, True), out


@pytest.mark.timeout(600)
def test_two_processes_search_one_graph(project: Path) -> None:
    """With `-n 2` both processes search with different plans, under one seed and one budget, and there is one summary of both."""
    panicking(project)
    status, out = run(
        project, *CHAOS, "-n", "2", "--chaos-budget", "16runs", "--chaos-max-findings", "1"
    )  # fmt: skip
    assert status == 1, out
    (graph,) = json.loads((project / ".graphquake" / "summary.json").read_text())["graphs"]
    assert graph["shards"] == 2
    assert sum(graph["runs"].values()) <= 16
    journals = [project / ".graphquake/toy" / name for name in (".", "shard-2")]
    rows = (rows_of(folder / "journal.jsonl") for folder in journals)
    one, two = ([row["plan"] for row in each if "drawn" in row] for each in rows)
    assert one[:50] != two[:50]
    states = [state for folder in journals if (state := read_state(folder)) is not None]
    # The endpoint of the controller shows the searches of its workers.
    assert len({state.controller for state in states} - {0}) == 1
    assert len({state.pid for state in states}) == len(states) == 2
    assert out.count(f"seed {graph['seed']} · 2 shards") == 1
    # A process whose budget ends before the second run of a finding reports it as UNCONFIRMED, and saves no case.
    saved = [finding for finding in graph["findings"] if finding["path"]]
    assert len(list((project / "regressions").glob("*.json"))) == len(saved) >= 1
    heads = [
        f"{'FINDING' if finding['counts'] else finding['status'].upper()} {finding['id']}"
        for finding in graph["findings"]
    ]
    assert all(head in out for head in heads), f"{heads}\n{out}"
    page = (project / ".graphquake/toy/index.html").read_text()
    assert "<h2>runs of shard-2</h2>" in page
    for head, finding in zip(heads, graph["findings"], strict=True):
        text = page.partition(head)[2].partition("</pre>")[0]
        # It came with the run from the process that found it.
        assert "full block" in text
        assert f"{finding['id']}/minimal/run.html" in page


@pytest.mark.timeout(600)
def test_a_bug_from_search_to_replay(project: Path) -> None:
    """With two slots, a bug is found, shrunk, confirmed and saved beside the graph file, and no unfinished run is left.

    The next search replays a case. After it is marked as known, it is excused.
    """
    panicking(project)
    args = (*CHAOS, "--chaos-max-findings", "1", "--hypothesis-seed", "3", "--chaos-slots", "2")
    status, out = run(project, *args, "--chaos-budget", "3m,14runs")
    assert status == 1, out
    (path,) = (project / "regressions").glob("*.json")
    case = json.loads(path.read_text())
    assert (case["status"], case["promise"]) == ("open", "error_window")
    assert len(case["steps"]) == 1
    assert re.match(r"kill worker [01]", case["steps"][0])
    assert case["observed"][0]["broke"] >= 3
    assert f"FINDING {case['id']}  error_window broken" in out
    pages = project / ".graphquake" / case["id"]
    # The first broken run may be that of the minimal plan. Then there is one page.
    original, page = pages / "original/run.html", (pages / "minimal/run.html").read_text()
    assert ("original/run.html" in page) == original.exists()
    assert not original.exists() or "minimal/run.html" in original.read_text()
    runs = list((project / ".graphquake" / "toy" / "runs").iterdir())
    assert runs
    assert all((run / "verdict.json").exists() for run in runs)
    graphquake = [sys.executable, "-m", "graphquake.machines.frontends.cli"]
    env = {**os.environ, "PYTHONPATH": str(TOY.parent.parent)}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*graphquake, *arguments],
            cwd=project, env=env, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    replayed = command("replay", str(path), "--graph", "toy.toml")
    assert replayed.returncode == 1, replayed.stdout + replayed.stderr
    assert replayed.stdout.startswith("REPRODUCED")
    marked = command("mark", str(path), "known", "--why", "planted")
    assert marked.returncode == 0, marked.stderr
    status, out = run(project, *CHAOS, "--hypothesis-seed", "3", "--chaos-budget", "2runs")
    assert f"case        {case['id']} known, broke again" in out
    # The front panics at other kills than this one, too (a worker's main process, say): those are other cases.
    cases = [json.loads(one.read_text()) for one in (project / "regressions").glob("*.json")]
    assert [one["status"] for one in cases if one["steps"] == case["steps"]] == ["known"]
    assert status == int(any(one["status"] in ("open", "unshrunk") for one in cases)), out
