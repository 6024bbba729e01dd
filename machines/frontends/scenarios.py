"""Dynamo's fault tolerance suite as pytest parameters: each scenario on each graph is a live run with a verdict.

The options have the suite's own short names. So the plugin is not loaded unless a project asks for it:

    # conftest.py                                   # test_scenarios.py
    pytest_plugins = ["graphquake.scenarios"]       from graphquake.scenarios import test_scenario

    pytest test_scenarios.py -k "disagg and frontend" --respawn

A run that breaks a promise fails its test. A run that does not prove anything is an error of its test. The files of every run are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from graphquake.harness.errors import GraphquakeError, InputError
from graphquake.harness.graphs.deployments import DEPLOYMENTS
from graphquake.harness.picture import write_page
from graphquake.harness.reports.suite_logs import join_process_logs, write_client_logs
from graphquake.harness.reports.suite_table import (
    Record,
    flat,
    read_records,
    record_of,
    render,
)
from graphquake.harness.run.live import LiveRun, describe_host, run_live
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.run.scenarios import (
    SCENARIOS,
    Clients,
    NotThereError,
    Strike,
    scenario_graph,
    scenario_names,
    scenario_plan,
)
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.templates.environment import check_environment
from graphquake.machines.frontends.options import seed_of
from graphquake.machines.frontends.outcomes import ProvedNothing, end_session, lift_timeout
from graphquake.machines.reports.ci_folder import report_scenarios
from graphquake.machines.reports.reporter import Reporter
from graphquake.machines.runners.event_loop import new_loop
from graphquake.machines.sessions.folders import results_folder

# The graphs if none is named: the suite's deployments, and Dynamo itself.
GRAPHS: Final = (*DEPLOYMENTS, "dynamo-agg", "dynamo-disagg")
FOLDER: Final = "scenarios"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the suite's options, with its names and defaults, and some more."""
    group = parser.getgroup(
        "graphquake scenarios", "the scenarios of Dynamo's fault tolerance suite"
    )
    known = Clients()

    def number(name: str, default: int | None, text: str) -> None:
        group.addoption(name, type=int, default=default, metavar="N", help=f"{text} ({default})")

    number(
        "--clients",
        known.clients,
        "number of clients; each sends one request after the other",
    )
    number("--requests-per-client", known.requests_per_client, "number of requests of each client")
    number("--input-token-length", known.input_token_length, "length of each prompt, in tokens")
    number("--output-token-length", known.output_token_length, "length of each answer, in tokens")
    number(
        "--max-retries",
        known.max_retries,
        "attempts of each request, the first one included, 1 s apart",
    )
    group.addoption(
        "--max-num-seqs",
        type=int,
        default=None,
        metavar="N",
        help="number of requests that a worker serves at once (from the graph file)",
    )
    group.addoption(
        "--respawn",
        action="store_true",
        help="bring dead replicas back; otherwise they stay dead",
    )
    group.addoption(
        "--separate-process-logs",
        action="store_true",
        help="write one log for each process; otherwise one for all",
    )
    group.addoption(
        "--fault-after",
        type=float,
        default=Strike().after_s,
        metavar="S",
        help="seconds from the first request to the fault (30)",
    )
    group.addoption(
        "--severity",
        default="1",
        metavar="N|all",
        help="number of replicas that the fault hits (1)",
    )
    _add_common_options(group)
    group.addoption(
        "--victim",
        default="0",
        metavar="INDEX|random",
        help="index of the first replica that the fault hits, or random: drawn from --hypothesis-seed (0)",
    )


def _add_common_options(group: pytest.OptionGroup) -> None:
    """Register the options that a search has, too. The names of the search's options begin with `--chaos-`."""
    group.addoption(
        "--graph",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help="graph to run the scenarios on; may be given more than once (the suite's deployments, dynamo-agg, dynamo-disagg)",
    )
    group.addoption(
        "--share-gpus", action="store_true", help="let replicas share GPUs if there are too few"
    )
    group.addoption(
        "--results-dir",
        default=".graphquake",
        metavar="DIR",
        help="folder for the runs (.graphquake)",
    )
    group.addoption(
        "--report-dir", metavar="DIR", help="folder for a copy of tables and pages, for CI to keep"
    )
    group.addoption("--dry-run", action="store_true", help="print the plans; start nothing")


@dataclass(frozen=True, slots=True)
class Asked:
    """The values of the options.

    Attributes:
        clients: the load: how many clients, requests, tokens and attempts.
        strike: when the fault comes, and which replicas it hits.
        max_num_seqs: the requests that a worker serves at once, or None to keep the value of the graph file.
        separate_logs: if true, each process gets a log file of its own.
        results_dir: the folder for the runs.
        graphs: names of ready-made graphs, or graph files.
        share_gpus: if true, replicas share GPUs if there are too few.
    """

    clients: Clients
    strike: Strike
    max_num_seqs: int | None
    separate_logs: bool
    results_dir: Path
    graphs: tuple[str, ...]
    share_gpus: bool


def read_options(config: pytest.Config) -> Asked:
    """Read and check the options.

    Raises:
        InputError: if a value is not allowed. The message names the option, the value found and the values expected.
    """

    def whole(name: str) -> int:
        value: int = config.getoption(name)
        if value < 1:
            raise InputError(f"{name}: found {value}, expected at least 1")
        return value

    after_s: float = config.getoption("--fault-after")
    if not 0 <= after_s <= 600:  # noqa: PLR2004 - what a plan may wait
        raise InputError(f"--fault-after: found {after_s:g}, expected seconds from 0 to 600")
    severity, victim = config.getoption("--severity"), config.getoption("--victim")
    return Asked(
        clients=Clients(
            clients=whole("--clients"),
            requests_per_client=whole("--requests-per-client"),
            input_token_length=whole("--input-token-length"),
            output_token_length=whole("--output-token-length"),
            max_retries=whole("--max-retries"),
        ),
        strike=Strike(
            after_s=after_s,
            victims=_number("--severity", severity, "all", at_least=1),
            first=_number("--victim", victim, "random", at_least=0),
            respawn=config.getoption("--respawn"),
            seed=seed_of(config) or 0,
        ),
        max_num_seqs=whole("--max-num-seqs")
        if config.getoption("--max-num-seqs") is not None
        else None,
        separate_logs=config.getoption("--separate-process-logs"),
        results_dir=Path(config.getoption("--results-dir")),
        graphs=tuple(config.getoption("--graph")) or GRAPHS,
        share_gpus=config.getoption("--share-gpus"),
    )


def _number(option: str, text: str, word: str, *, at_least: int) -> int | None:
    """The value of an option: a whole number, or None if its text is `word`.

    Raises:
        InputError: if the text is neither `word` nor a whole number of at least `at_least`.
    """
    if text == word:
        return None
    with suppress(ValueError):
        if int(text) >= at_least:
            return int(text)
    raise InputError(
        f'{option}: found "{text}", expected a whole number of at least {at_least}, or {word}'
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one `test_scenario` for each scenario of each graph."""
    if metafunc.function is not test_scenario:
        return
    try:
        asked = read_options(metafunc.config)
        pairs = []
        for name in asked.graphs:
            own: Sequence[str] = SCENARIOS
            if name not in GRAPHS:
                spec = on_this_machine(load_graph(name))
                own = scenario_names(spec)
                for one, plan in spec.scenarios.items():
                    check_plan(spec, plan, f"{spec.path.name}: scenarios.{one}")
            pairs += [pytest.param((name, one), id=f"{name}-{one}") for one in own]
    except InputError as error:
        end_session(error)
    metafunc.parametrize("scenario_run", pairs, indirect=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Switch off pytest-timeout's general limit for scenarios. Their plan and their clients limit them."""
    if getattr(item, "function", None) is test_scenario:
        lift_timeout(item)


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """The run of a scenario, and its record: the row of the run in the table of results."""

    run: LiveRun
    record: Record


@pytest.fixture
def scenario_run(request: pytest.FixtureRequest) -> ScenarioRun:
    """Run one scenario on one graph.

    Raises:
        ProvedNothing: if the run is invalid, or the graph does not start.
    """
    name, scenario = request.param
    config = request.config
    try:
        asked = read_options(config)
        spec = load_graph(name, share_gpus=asked.share_gpus)
        # A plan of the file runs under the load of the file, unless an option asks for other clients.
        own = scenario in spec.scenarios and asked.clients == Clients()
        spec = scenario_graph(
            spec,
            None if own else asked.clients,
            respawn=asked.strike.respawn,
            max_num_seqs=asked.max_num_seqs,
        )
        plan = scenario_plan(spec, scenario, asked.strike)
        if not config.getoption("--dry-run"):
            check_environment(spec)
    except InputError as error:
        end_session(error)
    except NotThereError as reason:
        pytest.skip(str(reason))
    if config.getoption("--dry-run"):
        pytest.skip(f"dry run: {plan.one_line()}")
    folder = results_folder(asked.results_dir, FOLDER, spec.name, scenario)
    try:
        with _uncaptured(config):
            run = _run(spec, plan, folder, scenario)
    except GraphquakeError as error:
        raise ProvedNothing(str(error)) from None
    write_client_logs(run.history, folder / "clients")
    if not asked.separate_logs:
        join_process_logs(folder / "logs")
    write_page(run.history, folder)
    record = record_of(run.history, folder)
    request.node.user_properties += list(_properties(record))
    if run.verdict.kind == "invalid":
        raise ProvedNothing(f"{'; '.join(run.verdict.causes)}\nfiles: {folder}")
    return ScenarioRun(run, record)


def _uncaptured(config: pytest.Config) -> AbstractContextManager[None]:
    """Switch pytest's capturing off, so that progress shows on the terminal at once."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        return nullcontext()
    uncaptured: AbstractContextManager[None] = capture.global_and_fixture_disabled()
    return uncaptured


def _run(spec: GraphSpec, plan: Plan, folder: Path, scenario: str) -> LiveRun:
    reporter = Reporter()
    reporter.graph = spec.name

    async def live() -> LiveRun:
        host = replace(await describe_host(spec), scenario=scenario)
        return await run_live(
            spec,
            plan,
            folder,
            watch=lambda now: reporter(plan, scenario, now),
            to_the_end=True,
            host=host,
        )

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(live())
    finally:
        reporter.clear()


def _properties(record: Record) -> Iterator[tuple[str, object]]:
    """The properties for JUnit. They also bring the results from pytest-xdist workers to the controller."""
    row = flat(record)
    yield from ((name, str(row[name])) for name in ("verdict", "failed", "folder"))
    if record.numbers.impacts:
        yield "error_window_s", _seconds(row["window_s"])
        yield "recovery_s", _seconds(row["first_ok_s"])
        yield "ready_s", _seconds(row["ready_s"])


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.3f}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of all runs, those of pytest-xdist workers included."""
    reports = [report for of in terminalreporter.stats.values() for report in of]
    said = (dict(getattr(report, "user_properties", ())) for report in reports)
    folders = [str(one["folder"]) for one in said if {"folder", "verdict"} <= one.keys()]
    records = [record for folder in dict.fromkeys(folders) for record in read_records(Path(folder))]
    if records:
        terminalreporter.section("scenarios")
        terminalreporter.write_line(render(records, "fancy"))
        report = terminalreporter.config.getoption("--report-dir")
        if report:
            results = Path(terminalreporter.config.getoption("--results-dir"))
            report_scenarios(records, results, Path(report))


def test_scenario(scenario_run: ScenarioRun) -> None:
    """The graph keeps its promises in this scenario."""
    verdict = scenario_run.run.verdict
    if verdict.kind == "broken":
        seen = [f"{v.signature}, at {v.at_s:.2f} s: {v.seen}" for v in verdict.violations[:3]]
        if len(verdict.violations) > len(seen):
            seen.append(f"and {len(verdict.violations) - len(seen)} more")
        pytest.fail("\n".join([*seen, f"files: {scenario_run.run.folder}"]), pytrace=False)
