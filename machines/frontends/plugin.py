"""The pytest plugin: `pytest --chaos-graph my.toml`, in any repository.

Every pytest in an environment with graphquake installed loads this module. So it imports hypothesis, aiohttp and numpy only when a
search was asked for, and all of its options begin with `--chaos` (see `options`).

Without test files on the command line, pytest collects only one item for each graph. With test files and `--chaos`,
the `chaos(…)` classes in them search as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from graphquake.machines.frontends.options import (
    METRICS,
    TRACES,
    add_options,
    asks_for_chaos,
    limit_of,
    options,
    shards_of,
)
from graphquake.machines.frontends.outcomes import (
    Findings,
    FindingsText,
    ProvedNothing,
    end_session,
    lift_timeout,
)
from graphquake.machines.frontends.searches import (
    BUDGETS,
    SUMMARIES,
    ChaosCollector,
    is_search,
)
from graphquake.machines.frontends.tracing import open_traces
from graphquake.machines.runners.budget import Budgets, Limit

if TYPE_CHECKING:
    from graphquake.harness.spec.graph import GraphSpec

# The graphs that are searched if none is named.
OWN_GRAPH: Final = "reference"
DYNAMO_GRAPH: Final = "dynamo-disagg"
# The line of the header that names the address of the metrics.
METRICS_LINES: Final = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options under one heading."""
    add_options(parser.getgroup("graphquake", "chaos testing of inference-serving graphs"))


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of searches."""
    config.addinivalue_line("markers", "chaos: a search on a live graph (graphquake)")
    config.stash[SUMMARIES] = []
    config.stash[METRICS_LINES] = []


def _graph_names(config: pytest.Config) -> list[str]:
    named: list[str] = config.getoption("--chaos-graph")
    return named or [OWN_GRAPH, *([DYNAMO_GRAPH] if _has_dynamo() else [])]


def _has_dynamo() -> bool:
    try:
        metadata.version("ai-dynamo")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Serve the metrics of the searches until pytest ends, and check that traces can be sent, if that was asked for."""
    config = session.config
    # A worker of pytest-xdist leaves this to its controller.
    if not asks_for_chaos(config) or hasattr(config, "workerinput"):
        return
    from graphquake.harness.errors import InputError  # noqa: PLC0415

    try:
        if config.getoption(TRACES):
            open_traces().close()
        if asked := config.getoption(METRICS):
            _serve_metrics(config, asked)
    except InputError as error:
        end_session(error)


def _serve_metrics(config: pytest.Config, asked: str) -> None:
    from graphquake.machines.frontends.metrics_server import MetricsServer  # noqa: PLC0415

    server = MetricsServer(asked, Path(config.getoption("--chaos-results-dir")))
    config.add_cleanup(server.close)
    config.stash[METRICS_LINES].append(f"metrics: {server.url}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the address of the metrics. Say that the default graph `dynamo-disagg` is left out, if Dynamo is not installed."""
    if not asks_for_chaos(config):
        return []
    lines = []
    if not config.getoption("--chaos-graph") and not _has_dynamo():
        lines = [f"{DYNAMO_GRAPH} is left out; to search it: pip install 'graphquake[dynamo]'"]
    return [*lines, *config.stash[METRICS_LINES]]


# ---------------------------------------------------------------------------------------------------------- collection


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Without files on the command line, let pytest collect only one item for each graph."""
    config = session.config
    if not asks_for_chaos(config):
        return
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        if config.getoption("--chaos-graph"):
            end_session(
                ValueError(
                    f"--chaos-graph: found together with {' '.join(config.args)}, expected no test files: "
                    "a chaos() class in a test file names its own graph"
                )
            )
        return
    # The input is checked here, and not while pytest collects. So an error is one line, also from the controller of pytest-xdist.
    searches = _Searches(_specs(config), shards_of(config))
    config.pluginmanager.register(searches, "graphquake-searches")
    config.args = []


def _specs(config: pytest.Config) -> list[GraphSpec]:
    """Read the graph files, check the options and this machine, and set up the budget of the session."""
    from graphquake.harness.errors import InputError  # noqa: PLC0415
    from graphquake.harness.spec.graph import load_graph  # noqa: PLC0415
    from graphquake.machines.sessions.checks import check_room_of  # noqa: PLC0415
    from graphquake.machines.sessions.folders import check_writable  # noqa: PLC0415

    try:
        share = config.getoption("--chaos-share-gpus")
        network = config.getoption("--chaos-network")
        specs = [
            load_graph(name, share_gpus=share, network=network) for name in _graph_names(config)
        ]
        twice = [name for name, n in Counter(spec.name for spec in specs).items() if n > 1]
        if twice:
            raise InputError(
                f"--chaos-graph: found two graphs with the name {', '.join(twice)}, expected different names: "
                "their results would share a folder"
            )
        limit = limit_of(config, "--chaos-budget")
        asked = options(config)
        if config.getoption("--chaos-report-dir"):
            check_writable(Path(config.getoption("--chaos-report-dir")), "--chaos-report-dir")
        if not config.getoption("--chaos-dry-run"):
            for spec in specs:
                check_room_of(spec, asked.on_ray, (asked.slots or 1) * _processes(config))
    except InputError as error:
        end_session(error)
    shards = shards_of(config)
    # All processes search at the same time. So each may use the whole limit in seconds, but only its part of the limit in runs.
    limit = Limit(limit.seconds, limit.runs if math.isinf(limit.runs) else limit.runs // shards)
    config.stash[BUDGETS] = Budgets(limit, len(specs))
    return specs


def _processes(config: pytest.Config) -> int:
    """The number of processes that will search. The controller of pytest-xdist knows this number too, unlike `shards_of`."""
    return (
        shards_of(config)
        if hasattr(config, "workerinput")
        else len(getattr(config.option, "tx", None) or [0])
    )


class _Searches:
    """A plugin that adds the searches to the pytest session. It is registered only if the session consists of searches."""

    def __init__(self, specs: list[GraphSpec], shards: int) -> None:
        self._specs, self._shards = specs, shards

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Add our collector to pytest's session, which does not collect any other item here."""
        report = yield
        if isinstance(collector, pytest.Session):
            report.result.append(
                ChaosCollector.from_parent(
                    collector, name="chaos", nodeid="chaos", specs=self._specs, shards=self._shards
                )
            )
        return report


def pytest_itemcollected(item: pytest.Item) -> None:
    """Switch off pytest-timeout's general limit for searches. The budget limits them."""
    if is_search(item):
        lift_timeout(item)


# ------------------------------------------------------------------------------------------------------------- summary


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the summaries of a pytest-xdist worker to the controller, which prints them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None and (summaries := session.config.stash.get(SUMMARIES, [])):
        from graphquake.machines.sessions.shards import packed  # noqa: PLC0415

        output["graphquake"] = packed(summaries)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Add the summaries of a pytest-xdist worker to the summaries of the controller."""
    del error
    if data := getattr(node, "workeroutput", {}).get("graphquake"):
        from graphquake.machines.sessions.shards import unpacked  # noqa: PLC0415

        node.config.stash[SUMMARIES] += unpacked(data)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the summary of each graph, and write the summary files and the pages."""
    config = terminalreporter.config
    summaries = config.stash.get(SUMMARIES, [])
    if not summaries:
        return
    from graphquake.machines.reports.index_page import write_index  # noqa: PLC0415
    from graphquake.machines.reports.summary import write  # noqa: PLC0415
    from graphquake.machines.sessions.shards import merged  # noqa: PLC0415

    summaries = merged(summaries)
    results = Path(config.getoption("--chaos-results-dir"))
    write(summaries, results)
    for summary in summaries:
        if summary.parts != (0,):
            # Each shard has written a page about itself. This page is about all shards.
            write_index(summary, results / summary.folder)
    if config.getoption("--chaos-report-dir"):
        from graphquake.machines.reports.ci_folder import report_search  # noqa: PLC0415

        report_search(summaries, results, Path(config.getoption("--chaos-report-dir")))
    terminalreporter.section("graphquake")
    for summary in summaries:
        terminalreporter.write_line(summary.text())
    terminalreporter.write_line(
        f"files: {results}/summary.json, summary.md, GRAPH/index.html, GRAPH/journal.jsonl"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report the text of a finding, or of a search that proved nothing. A traceback through graphquake would hide that text."""
    report = yield
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, Findings):
        report.longrepr = cast("Any", FindingsText(error, item.path))
    elif isinstance(error, ProvedNothing):
        report.longrepr = str(error)
    return report
