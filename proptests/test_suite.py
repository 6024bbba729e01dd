"""The scenarios of Dynamo's fault tolerance suite: plans, clients in a closed loop, options, logs and the table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.graphs.deployments import DEPLOYMENTS
from graphquake.harness.history.events import Measured
from graphquake.harness.history.history import History
from graphquake.harness.history.host import Host
from graphquake.harness.history.request import (
    Group,
    Outcome,
)
from graphquake.harness.reports.suite_logs import ALL, join_process_logs, write_client_logs
from graphquake.harness.run.scenarios import (
    SCENARIOS,
    Clients,
    NotThereError,
    Strike,
    scenario_graph,
    scenario_names,
    scenario_plan,
)
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.harness.spec.plan import Plan

from support.child_pytest import run
from support.made import Made, plan_of, spec_of
from support.toys import in_loop, toy_file, toy_spec
from support.undisturbed import run_live

FAST = Strike(after_s=3.0)


def steps(graph: str | GraphSpec, name: str, strike: Strike = FAST) -> list[str]:
    """The lines of a scenario's plan."""
    spec = load_graph(graph) if isinstance(graph, str) else graph
    return scenario_plan(spec, name, strike).lines()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("decode_worker", ["wait 2.40 s", "kill decode 0", "heal release"]),
        ("prefill_worker", ["wait 2.40 s", "kill prefill 0", "heal release"]),
        ("frontend", ["wait 2.40 s", "kill frontend 0", "heal release"]),
        ("processor", ["wait 2.40 s", "kill processor 0", "heal release"]),
        ("vllm_worker", ["wait 2.40 s", "kill decode 0 rank", "heal release"]),
        ("none", ["heal release"]),
    ],
)
def test_a_scenario_is_a_plan(name: str, expected: list[str]) -> None:
    """A scenario's fault follows the first request after the given time. Without respawn, dead replicas stay dead."""
    assert steps("disagg-p-tp-1-dp-1-d-tp-2-dp-1", name) == expected


@pytest.mark.parametrize("graph", DEPLOYMENTS)
def test_every_deployment_has_its_scenarios(graph: str) -> None:
    """Each deployment has every scenario, but an aggregated one lacks those that kill prefill workers."""
    spec = load_graph(graph)
    there = []
    for name in scenario_names(spec):
        try:
            there.append((name, steps(spec, name)))
        except NotThereError as reason:
            assert name == "prefill_worker"
            assert str(reason) == f"{graph} has no prefill worker"
    assert len(there) == len(SCENARIOS) - graph.startswith("agg")
    if graph.startswith("agg"):
        assert dict(there)["decode_worker"][1] == "kill worker 0"


def test_the_victims_of_a_scenario() -> None:
    """The victims are the first replicas, those from an index, all of them, or drawn from a seed. One seed draws the same victims."""
    spec = load_graph("agg-tp-1-dp-4")

    def victims(strike: Strike) -> list[str]:
        return [line.split()[2] for line in steps(spec, "decode_worker", strike) if "kill" in line]

    assert victims(Strike(victims=2)) == ["0", "1"]
    assert victims(Strike(victims=2, first=3)) == ["0", "3"]
    assert victims(Strike(victims=None)) == ["0", "1", "2", "3"]
    drawn = [victims(Strike(victims=2, first=None, seed=seed)) for seed in range(8)]
    assert drawn == [victims(Strike(victims=2, first=None, seed=seed)) for seed in range(8)]
    assert len({tuple(one) for one in drawn}) > 1
    with pytest.raises(NotThereError, match="agg-tp-1-dp-4 has 4 of worker, not 5"):
        victims(Strike(victims=5))
    with pytest.raises(NotThereError, match="agg-tp-1-dp-4 has no worker 4"):
        victims(Strike(first=4))


def test_a_file_has_scenarios_of_its_own() -> None:
    """A graph file may have scenarios with several steps. One with the name of a built-in scenario replaces it."""
    own = {
        "twice": ["wait 1 s", "kill decode 0", "wait 1 s", "kill decode 1"],
        "frontend": ["kill frontend 0"],
    }
    spec = spec_of(scenarios=own)
    assert scenario_names(spec) == [*SCENARIOS, "twice"]
    assert steps(spec, "twice") == [
        "wait 1.00 s",
        "kill decode 0",
        "wait 1.00 s",
        "kill decode 1",
        "heal release",
    ]
    assert steps(spec, "frontend", Strike(respawn=True)) == ["kill frontend 0"]
    with pytest.raises(InputError, match='no scenario "twise"; did you mean "twice"'):
        steps(spec, "twise")
    with pytest.raises(InputError, match=r"made.toml: scenarios.bad: step 1: .* is not a step"):
        spec_of(scenarios={"bad": ["bite decode 0"]})


def test_the_clients_of_the_suite() -> None:
    """The options set the clients' load. The run's own graph file has them, so that the run can be judged again."""
    clients = Clients(
        clients=3, requests_per_client=5, input_token_length=7, output_token_length=9, max_retries=2
    )
    spec = scenario_graph(load_graph("agg-tp-1-dp-4"), clients, respawn=True, max_num_seqs=2)
    load = spec.load
    assert (load.clients, load.requests_per_client, load.prompt_tokens, load.max_tokens) == (
        3,
        5,
        7,
        9,
    )
    assert (load.max_retries, load.deadline_s, spec.restart) == (2, 30.0, "always")
    assert {role.capacity for role in spec.roles if role.name == "worker"} == {2}
    assert spec.document["load"]["clients"] == 3
    with pytest.raises(
        NotThereError, match=r"--max-num-seqs: no command of made contains \{capacity\}"
    ):
        scenario_graph(spec_of(), clients, respawn=False, max_num_seqs=2)


def test_without_clients_a_scenario_has_the_load_of_its_file() -> None:
    """A plan of the graph file runs under the load of the file if no option asks for other clients."""
    spec = spec_of()
    assert scenario_graph(spec, None, respawn=False).load == spec.load


# -------------------------------------------------------------------------------------------------------------- live


def closed(
    folder: Path, *, respawn: bool = False, clients: int = 3, requests: int = 30, **toy: str
) -> GraphSpec:
    """The toy with clients in a closed loop."""
    asked = Clients(clients, requests, input_token_length=16, output_token_length=16, max_retries=2)
    return scenario_graph(toy_spec(folder, **toy), asked, respawn=respawn)


@in_loop
async def test_each_client_sends_all_its_requests(tmp_path: Path) -> None:
    """Each client sends its requests one after the other, the run lasts until all have ended, and memory and CPU are sampled."""
    spec = closed(tmp_path, respawn=True)
    plan = scenario_plan(spec, "decode_worker", Strike(1.0, respawn=True))
    run = await run_live(spec, plan, tmp_path / "run", to_the_end=True)
    history = History.load(tmp_path / "run")
    assert run.verdict.kind == "kept"
    asked = Counter(str(request.group) for request in history.requests if not request.attempt)
    assert asked == {f"client {index}": 30 for index in range(3)}
    assert all(request.outcome == Outcome.OK for request in history.requests)
    for index in range(3):
        own = [request for request in history.requests if request.group == Group("client", index)]
        assert all(b.sent_s >= a.ended_s for a, b in pairwise(own))
    usage = list(history.of(Measured))
    assert {one.replica for one in usage} == set(spec.replicas())
    # One that was killed a moment ago does not hold any.
    for name in spec.replicas():
        assert max(one.rss_bytes for one in usage if one.replica == name) > 1 << 20
    assert any(one.cores > 0 for one in usage)


@in_loop
async def test_a_search_waits_for_no_client(tmp_path: Path) -> None:
    """Clients with requests left stop when the run ends, and their in-flight requests still end normally."""
    spec = closed(tmp_path, respawn=True, requests=1000)
    run = await run_live(spec, plan_of("kill worker 0"), tmp_path / "run")
    assert run.verdict.kind == "kept"
    assert run.live_s < 20
    assert all(request.outcome for request in run.history.requests)


@in_loop
async def test_without_respawn_the_dead_stay_dead(tmp_path: Path) -> None:
    """Without the only frontend each request fails in both attempts, and that breaks no promise."""
    spec = closed(tmp_path, clients=2, requests=15)
    plan = scenario_plan(spec, "frontend", Strike(1.0))
    run = await run_live(spec, plan, tmp_path / "run", to_the_end=True)
    assert run.verdict.kind == "kept"
    failed = [request for request in run.history.requests if request.failed]
    assert {request.attempt for request in failed} == {0, 1}
    again = [request for request in failed if request.attempt]
    firsts = {(request.group, request.number): request for request in failed if not request.attempt}
    assert all(one.sent_s - firsts[one.group, one.number].ended_s >= 0.99 for one in again)


@in_loop
async def test_a_fault_after_the_last_request_proves_nothing(tmp_path: Path) -> None:
    """A run whose clients ended before the fault is invalid, and says why."""
    spec = closed(tmp_path, requests=2)
    run = await run_live(spec, scenario_plan(spec, "decode_worker", Strike(2.0)), tmp_path / "run")
    assert run.verdict.kind == "invalid"
    said = 'the clients had ended before "kill worker 0": they need more requests'
    assert said in run.verdict.causes


# -------------------------------------------------------------------------------------------------------------- logs


def test_a_log_for_each_client(tmp_path: Path) -> None:
    """A client's log has one line for each request, with all attempts, in the suite's form."""
    made = Made(plan=Plan(()))
    for number, attempt, outcome, detail in (
        (0, 0, Outcome.OK, ""),
        (2, 0, Outcome.ERROR, "HTTP 503"),
        (2, 1, Outcome.OK, ""),
    ):
        made.ask(number + attempt, number + attempt + 0.25, outcome, detail, group="client 0")
        made.requests[-1].number, made.requests[-1].attempt = number, attempt
    made.ask(1.0, 1.5, Outcome.ERROR, "connection refused", group="client 1")
    history = made.history()
    history.host = Host(began=datetime(2026, 1, 1, tzinfo=UTC))
    write_client_logs(history, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "client_0.log.txt").read_text().splitlines()]
    assert [[one["status"] for one in line["results"]] for line in lines] == [[200], [503, 200]]
    assert lines[1]["total_time"] == pytest.approx(1.25)
    assert lines[0]["time"] == "2026-01-01T00:00:00.250+00:00"
    (line,) = map(json.loads, (tmp_path / "client_1.log.txt").read_text().splitlines())
    assert line["results"][0] == {
        "status": None, "result": "connection refused: ", "request_elapsed_time": 0.5,
    }  # fmt: skip


def test_one_log_of_all_processes(tmp_path: Path) -> None:
    """Each line of the joined log begins with the replica that wrote it."""
    (tmp_path / "decode-0.0.log").write_text("one\ntwo\n")
    (tmp_path / "frontend-0.0.log").write_text("three")
    join_process_logs(tmp_path)
    assert (
        tmp_path / ALL
    ).read_text() == "decode-0.0 | one\ndecode-0.0 | two\nfrontend-0.0 | three\n"
    assert [path.name for path in tmp_path.iterdir()] == [ALL]


# ----------------------------------------------------------------------------------------------------- as a user runs it


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project: the toy, and the two files that the scenarios need."""
    toy_file(tmp_path)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["graphquake.scenarios"]\n')
    (tmp_path / "test_mine.py").write_text("from graphquake.scenarios import test_scenario\n")
    return tmp_path


SMALL = (
    "--clients",
    "2",
    "--requests-per-client",
    "25",
    "--input-token-length",
    "16",
    "--output-token-length",
    "16",
)


def test_scenarios_as_a_user_runs_them(project: Path) -> None:
    """Scenarios that are selected by name have a verdict, a row in the table, JUnit properties and files."""
    args = (
        "test_mine.py",
        "--graph",
        "toy.toml",
        *SMALL,
        "--respawn",
        "--fault-after",
        "1",
        "--junit-xml",
        "junit.xml",
    )
    status, out = run(project, *args, "-k", "decode_worker or processor", "--report-dir", "report")
    assert status == 0, out
    assert "1 passed, 1 skipped" in out
    assert "toy · decode_worker: baseline" in out  # as it went on, and not only where it fails
    assert re.search(r"^decode_worker +│ .*│ kept$", out, re.MULTILINE), out
    folder = project / ".graphquake/scenarios/toy/decode_worker"
    assert sorted(path.name for path in (folder / "clients").iterdir()) == [
        "client_0.log.txt",
        "client_1.log.txt",
    ]
    assert {path.name for path in (folder / "logs").iterdir()} == {ALL, "clients.jsonl"}
    (of_test,) = ET.parse(project / "junit.xml").iterfind(".//properties")  # noqa: S314 - our own file
    found = {one.get("name"): one.get("value") for one in of_test}
    assert found["verdict"] == "kept"
    assert float(found["error_window_s"] or "nan") < 0.5
    assert float(found["recovery_s"] or "nan") < 2
    report = project / "report"
    assert (report / "scenarios/toy/decode_worker/run.html").is_file()
    assert "| decode_worker |" in (report / "scenarios.md").read_text()
    assert json.loads((report / "scenarios.json").read_text())["schema"] == 1


def test_a_scenario_that_breaks_a_promise_fails(project: Path) -> None:
    """A broken promise fails the test with the violations. A fault that comes too late is an error."""
    toy_file(project, front="--panic 5")
    args = (
        "test_mine.py",
        "--graph",
        "toy.toml",
        *SMALL,
        "--requests-per-client",
        "16",
        "--separate-process-logs",
        "-k",
        "decode_worker",
    )
    status, out = run(project, *args, "--fault-after", "0.7")
    assert status == 1, out
    assert "1 failed" in out
    assert "error_window / HTTP 503 / path left" in out
    logs = {
        path.name for path in (project / ".graphquake/scenarios/toy/decode_worker/logs").iterdir()
    }
    assert {"front-0.0.log", "worker-0.0.log", "worker-1.0.log"} <= logs
    status, out = run(project, *args, "--fault-after", "3")
    assert "1 error" in out, out
    assert "they need more requests" in out


BAD = {
    "--clients: found 0, expected at least 1": ["--clients", "0"],
    '--severity: found "some", expected a whole number of at least 1, or all': ["--severity", "some"],
    '--severity: found "²", expected a whole number of at least 1, or all': ["--severity", "²"],
    '--severity: found "0", expected a whole number of at least 1, or all': ["--severity", "0"],
    '--victim: found "-1", expected a whole number of at least 0, or random': ["--victim", "-1"],
    '--victim: found "²", expected a whole number of at least 0, or random': ["--victim", "²"],
    "--fault-after: found 700, expected seconds from 0 to 600": ["--fault-after", "700"],
    '--hypothesis-seed: found "x", expected a whole number': ["--hypothesis-seed", "x"],
    '--hypothesis-seed: found "²", expected a whole number': ["--hypothesis-seed", "²"],
    "--max-num-seqs: found 0, expected at least 1": ["--max-num-seqs", "0"],
}  # fmt: skip
# One process for all of them, since most of the time goes into imports.
EACH = """
import contextlib, io, json, sys, pytest
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        status = pytest.main(["test_mine.py", "--graph", "toy.toml", *arguments])
    print(json.dumps([int(status), out.getvalue()]))
"""


@pytest.mark.simulated
def test_bad_input_is_one_error(project: Path) -> None:
    """A wrong option ends pytest with one line and status 2, before anything is started."""
    command = [sys.executable, "-c", EACH, json.dumps([*BAD.values()])]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    for says, line in zip(BAD, done.stdout.splitlines(), strict=True):
        status, out = json.loads(line)
        assert (status, says in out) == (2, True), out
    assert not (project / ".graphquake").exists()


@pytest.mark.simulated
@pytest.mark.parametrize("seed", ["0", "-1"])
def test_a_dry_run_starts_nothing(project: Path, seed: str) -> None:
    """A dry run shows the plan as the reason of a skipped test, and does not start a graph. A seed may be negative, as in a search."""
    more = ("--dry-run", "-rs", f"--hypothesis-seed={seed}")
    status, out = run(project, "test_mine.py", "--graph", "toy.toml", *more)
    assert status == 0, out
    assert "dry run: wait 29.40 s; kill worker 0; heal release" in out
    assert not (project / ".graphquake/scenarios").exists()


def test_plans_of_scenarios_read_as_any(tmp_path: Path) -> None:
    """A scenario gives the same plan as a plan file with its steps."""
    assert scenario_plan(spec_of(), "frontend", Strike(2.0, respawn=True)) == plan_of(
        "wait 1.40 s", "kill frontend 0"
    )
