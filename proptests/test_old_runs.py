"""Run folders that older versions wrote, and folders that are judged on another machine."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.history import History
from graphquake.harness.history.host import Host
from graphquake.harness.history.request import Outcome
from graphquake.harness.processes.layout import Layout
from graphquake.harness.promises.judgement import judge
from graphquake.machines.frontends.cli import main

from support.made import Made, plan_of, spec_of

pytestmark = pytest.mark.simulated

OLD_RUNS = Path(__file__).parent / "old_runs"
FOLDERS = sorted(path.parent for path in OLD_RUNS.rglob("events.jsonl"))


def test_there_are_old_runs() -> None:
    """The samples of old run folders come with the tests."""
    assert len(FOLDERS) == 3


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_old_run_has_the_verdict_that_it_had(folder: Path) -> None:
    """An old run folder is read, and judging it again gives the verdict and the violations that its verdict.json holds."""
    old = json.loads((folder / "verdict.json").read_text())
    verdict = judge(History.load(folder))
    assert verdict.kind == old["says"]
    assert verdict.weak == old["weak"]
    assert [(str(v.signature), v.seen, v.after) for v in verdict.violations] == [
        (v["signature"], v["seen"], v["after"]) for v in old["violations"]
    ]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_old_run_is_saved_as_it_was_read(folder: Path, tmp_path: Path) -> None:
    """Reading an old run, saving it and reading it again only changes the form on disk."""
    old = History.load(folder)
    old.save(tmp_path)
    new = History.load(tmp_path)
    assert new.events == old.events
    assert list(map(str, new.requests)) == list(map(str, old.requests))
    assert (new.plan, new.host) == (old.plan, old.host)


def test_the_old_meaning_of_must_survive_is_kept(tmp_path: Path) -> None:
    """An old run folder that says `must survive` is judged as `like others`, which it meant. A new folder means what it says."""
    made = Made(spec_of(promises={"error_window": {"in_flight": "must survive"}}))
    made.steady(0.0, 12.0).step("kill decode 0", 2.0).ask(1.95, outcome=Outcome.ERROR)
    made.history().save(tmp_path)
    assert judge(History.load(tmp_path)).kind == "broken"
    graph = json.loads((tmp_path / "graph.json").read_text())
    del graph["schema"]
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    assert judge(History.load(tmp_path)).kind == "kept"


def test_the_old_word_for_a_timeout_is_read(tmp_path: Path) -> None:
    """A request with the outcome `stalled` in an old run is read as `timed_out`."""
    folder = tmp_path / "run"
    shutil.copytree(OLD_RUNS / "reference_kept", folder)
    rows = (folder / "requests.csv").read_text()
    (folder / "requests.csv").write_text(rows.replace(",error,", ",stalled,", 1))
    outcomes = [request.outcome for request in History.load(folder).requests]
    assert outcomes.count(Outcome.TIMED_OUT) == 1


@pytest.mark.parametrize(
    ("name", "says", "status"), [("reference_kept", "kept", 0), ("disagg_broken", "broken", 1)]
)
def test_check_judges_an_old_run(
    name: str, says: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """`graphquake check` judges a run folder that an older version wrote."""
    assert main(["check", str(OLD_RUNS / name)]) == status
    assert capsys.readouterr().out.startswith(says)


def test_results_reads_old_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`graphquake results` has a row for each old run. A scenario's row has the scenario's name."""
    # The command draws a page beside each run.
    copies = shutil.copytree(OLD_RUNS, tmp_path / "old")
    assert main(["results", str(copies), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert {row["graph"]: row["verdict"] for row in rows} == {
        "dynamo-disagg-bootstrap": "broken", "reference": "kept", "dynamo-disagg": "kept",
    }  # fmt: skip
    assert "decode_worker" in {row["failure"] for row in rows}


def test_the_facts_of_an_old_run_are_told_apart_from_its_versions() -> None:
    """The old flat table of facts is read into the machine, the versions and the scenario."""
    host = History.load(OLD_RUNS / "scenario_kept").host
    assert host.began == datetime(2026, 11, 28, 0, 24, 35, 211501, UTC)
    assert (host.machine, host.gpus) == ("2 cores, no GPU", 0)
    assert (dict(host.versions), host.scenario) == ({"dynamo": "1.6.1"}, "decode_worker")


def test_a_version_may_have_the_name_of_a_fact(tmp_path: Path) -> None:
    """Versions that the user named `host`, `began` or `versions` take no fact's place."""
    history = Made().history()
    names = ("host", "began", "scenario", "python", "versions")
    versions = {name: f"my {name}" for name in names}
    history.host = Host(datetime(2026, 1, 1, tzinfo=UTC), 8, 2, "3.12.1", versions)
    history.save(tmp_path)
    assert History.load(tmp_path).host == history.host
    assert history.host.facts()[:3] == ["8 cores, 2 GPUs", "python 3.12.1", "host my host"]


def test_a_run_is_judged_where_its_environment_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run can be judged where the graph's environment variables are not set. Launching the graph there is an error."""
    monkeypatch.setenv("NOT_SET_HERE", "/models")
    spec = spec_of(env={"HF_HOME": "${NOT_SET_HERE}"})
    made = Made(spec, plan_of("kill decode 0")).steady(0.0, 2.0).step("kill decode 0", 2.0)
    made.history().save(tmp_path)
    monkeypatch.delenv("NOT_SET_HERE")
    assert judge(History.load(tmp_path)).kind == "kept"
    with pytest.raises(InputError, match=r"^made\.toml: env\.HF_HOME: asks for \$\{NOT_SET_HERE\}"):
        Layout(spec, tmp_path)
