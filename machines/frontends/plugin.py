"""The pytest plugin: `pytest --chaos-graph my.toml`, in any repository.

Every pytest in an environment with graphquake installed loads this module. So it imports hypothesis, aiohttp and numpy only when a
search was asked for, and all of its options begin with `--chaos` (see `options`).

Without test files on the command line, pytest collects one item for each graph and nothing else. With test files and `--chaos`,
the `chaos(…)` classes in them search as well.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from graphquake.machines.frontends.options import add_options, asks_for_chaos, limit_of, options
from graphquake.machines.frontends.outcomes import (
    Findings,
    ProvedNothing,
    end_session,
    lift_timeout,
)
from graphquake.machines.runners.budget import Budgets, Limit

if TYPE_CHECKING:
    from graphquake.harness.spec.graph import GraphSpec
    from graphquake.machines.plans.machine import PlanMachine
    from graphquake.machines.reports.progress import Reporter
    from graphquake.machines.reports.summary import GraphSummary

# The graphs that are searched if none is named.
OWN_GRAPH: Final = "reference"
DYNAMO_GRAPH: Final = "dynamo-disagg"
_SUMMARIES: Final = pytest.StashKey[list["GraphSummary"]]()
_BUDGETS: Final = pytest.StashKey[Budgets]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options under one heading."""
    add_options(parser.getgroup("graphquake", "chaos testing of inference-serving graphs"))


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of searches."""
    config.addinivalue_line("markers", "chaos: a search on a live graph (graphquake)")
    config.stash[_SUMMARIES] = []


def _graph_names(config: pytest.Config) -> list[str]:
    named: list[str] = config.getoption("--chaos-graph")
    return named or [OWN_GRAPH, *([DYNAMO_GRAPH] if _has_dynamo() else [])]


def _has_dynamo() -> bool:
    try:
        metadata.version("ai-dynamo")
    except metadata.PackageNotFoundError:
        return False
    return True


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which default graph is left out."""
    if asks_for_chaos(config) and not config.getoption("--chaos-graph") and not _has_dynamo():
        return f"{DYNAMO_GRAPH} is left out; to search it: pip install 'graphquake[dynamo]'"
    return None


# ---------------------------------------------------------------------------------------------------------- collection


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Without files on the command line, let pytest collect one item for each graph and nothing else."""
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
    # Checked here, and not while pytest collects: what is wrong shall be one line, also from the controller of pytest-xdist.
    searches = _Searches(_specs(config), _shards(config))
    config.pluginmanager.register(searches, "graphquake-searches")
    config.args = []


def _specs(config: pytest.Config) -> list[GraphSpec]:
    """Read and check all that the user gave, and set up the budget."""
    from graphquake.harness.errors import InputError  # noqa: PLC0415
    from graphquake.harness.spec.graph import load_graph  # noqa: PLC0415
    from graphquake.machines.sessions.session import check_machine  # noqa: PLC0415

    try:
        share = config.getoption("--chaos-share-gpus")
        specs = [load_graph(name, share_gpus=share) for name in _graph_names(config)]
        twice = [name for name, n in Counter(spec.name for spec in specs).items() if n > 1]
        if twice:
            raise InputError(
                f"--chaos-graph: found two graphs with the name {', '.join(twice)}, expected different names: "
                "their results would share a folder"
            )
        limit = limit_of(config, "--chaos-budget")
        asked = options(config)
        if not config.getoption("--chaos-dry-run"):
            for spec in specs:
                check_machine(spec, graphs=asked.slots * _processes(config))
    except InputError as error:
        end_session(error)
    shards = _shards(config)
    # Each process spends the whole time, and its part of the runs.
    limit = Limit(limit.seconds, limit.runs if math.isinf(limit.runs) else limit.runs // shards)
    config.stash[_BUDGETS] = Budgets(limit, len(specs))
    return specs


def _shards(config: pytest.Config) -> int:
    """The number of pytest-xdist processes that divide the search among them."""
    return int(getattr(config, "workerinput", {}).get("workercount", 1))


def _processes(config: pytest.Config) -> int:
    """The number of processes that will search, as the controller of pytest-xdist knows it as well."""
    return (
        _shards(config)
        if hasattr(config, "workerinput")
        else len(getattr(config.option, "tx", None) or [0])
    )


class _Searches:
    """A plugin that adds the searches to the session. It is registered only in a session that consists of them."""

    def __init__(self, specs: list[GraphSpec], shards: int) -> None:
        self._specs, self._shards = specs, shards

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Put our collector beside what pytest's session collects, which is nothing."""
        report = yield
        if isinstance(collector, pytest.Session):
            report.result.append(
                ChaosCollector.from_parent(
                    collector, name="chaos", nodeid="chaos", specs=self._specs, shards=self._shards
                )
            )
        return report


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let nothing but its budget limit a search."""
    if _is_search(item):
        lift_timeout(item)


class ChaosCollector(pytest.Collector):
    """The searches of a session: one item for each graph and shard."""

    def __init__(self, *, specs: list[GraphSpec], shards: int, **rest: Any) -> None:
        super().__init__(**rest)
        self._specs, self._shards = specs, shards

    def collect(self) -> Iterator[ChaosItem]:
        """The items, in the order in which the graphs were named."""
        for shard in range(self._shards):
            for spec in self._specs:
                part = f", shard {shard + 1}" if self._shards > 1 else ""
                name = f"chaos[{spec.name}{part}]"
                yield ChaosItem.from_parent(self, name=name, nodeid=name, spec=spec, shard=shard)


class ChaosItem(pytest.Item):
    """The search on one graph, or a part of it."""

    def __init__(self, *, spec: GraphSpec, shard: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.spec, self.shard = spec, shard
        self._found: Findings | None = None
        self.add_marker("chaos")

    def setup(self) -> None:
        """Search. It happens here because pytest calls an exception in `setup` an error: a search that proves nothing is not a failure."""
        try:
            run_graph(self, self.spec, shard=self.shard)
        except Findings as found:
            self._found = found

    def runtest(self) -> None:
        """Fail if the search found something."""
        if self._found is not None:
            raise self._found

    def reportinfo(self) -> tuple[Path, int, str]:
        """The graph file, as the place that the item comes from."""
        return self.spec.path, 0, self.name


# -------------------------------------------------------------------------------------------------------------- search


def run_graph(
    item: pytest.Item,
    spec: GraphSpec,
    base: type[PlanMachine] | None = None,
    shard: int = 0,
    folder: str = "",
) -> None:
    """Replay a graph's cases and search, within this graph's part of the budget.

    Args:
        item: gets the properties that JUnit shows (see `summary.properties`).
        spec: the graph.
        base: the machine that draws plans; None for the one that graphquake brings.
        shard: the part of the search that this process does, from 0.
        folder: the name of the folder in the results folder; the graph's name if it is empty.

    Raises:
        Findings: if there is a new one, or a case failed.
        ProvedNothing: if the runs say nothing about the graph.
    """
    from graphquake.harness.errors import EXIT_BROKEN, EXIT_KEPT, GraphquakeError  # noqa: PLC0415
    from graphquake.machines.plans.machine import PlanMachine  # noqa: PLC0415
    from graphquake.machines.reports.summary import properties  # noqa: PLC0415
    from graphquake.machines.sessions.session import Session, dry_run  # noqa: PLC0415

    config = item.config
    reporter = _reporter(config)
    try:
        asked = replace(options(config, shard), folder=folder)
        if config.getoption("--chaos-dry-run"):
            dry_run(spec, asked, reporter.line, base or PlanMachine)
            return
        budget = config.stash[_BUDGETS].next()
        session = Session(spec, asked, budget, reporter, base or PlanMachine)
        config.stash[_SUMMARIES].append(session.summary)
        try:
            summary = session.go()
        finally:
            item.user_properties += properties(session.summary)
    except GraphquakeError as error:
        end_session(error)
    if summary.exit_status == EXIT_BROKEN:
        raise Findings("\n\n".join([*_texts(config, summary), summary.verdict_line]))
    if summary.exit_status != EXIT_KEPT:
        raise ProvedNothing(summary.verdict_line)


def _texts(config: pytest.Config, summary: GraphSummary) -> list[str]:
    """The findings' reports, for a pytest-xdist worker: what it printed when it made them is lost."""
    if not hasattr(config, "workerinput"):
        return []
    from graphquake.machines.reports.finding_text import finding_text  # noqa: PLC0415

    return [finding_text(finding) for finding in summary.findings]


def _reporter(config: pytest.Config) -> Reporter:
    from graphquake.machines.reports.progress import Reporter  # noqa: PLC0415

    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    return Reporter()


# ------------------------------------------------------------------------------------------------------------- summary


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the summaries of a pytest-xdist worker to the controller, which prints them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None and (summaries := session.config.stash.get(_SUMMARIES, [])):
        from graphquake.machines.sessions.shards import packed  # noqa: PLC0415

        output["graphquake"] = packed(summaries)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take the summaries of a pytest-xdist worker over."""
    del error
    if data := getattr(node, "workeroutput", {}).get("graphquake"):
        from graphquake.machines.sessions.shards import unpacked  # noqa: PLC0415

        node.config.stash[_SUMMARIES] += unpacked(data)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the summary of each graph, and write its files."""
    config = terminalreporter.config
    summaries = config.stash.get(_SUMMARIES, [])
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
            # Each part has written a page about itself. This one is about them all.
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
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a finding, or that nothing was proved, as its text: a traceback through graphquake would hide it."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, Findings | ProvedNothing):
        report.longrepr = str(call.excinfo.value)
    return report


# ------------------------------------------------------------------------------------------------------- chaos classes


def chaos_class(graph: str, promises: tuple[str, ...], machine: type[PlanMachine] | None) -> type:
    """Make the test class of `graphquake.chaos`."""

    class TestChaos:
        """A search on one graph. It is skipped without `--chaos`."""

        is_graphquake_search: Final = True

        @pytest.fixture
        def found(self, request: pytest.FixtureRequest) -> Findings | None:
            """The findings of the search. One that proves nothing is an error here, and not a failure of the test."""
            config = request.config
            if not asks_for_chaos(config):
                pytest.skip("needs --chaos")
            spec = _spec_of_class(request, graph)
            extra = (*spec.promises.extra, *promises)
            spec = replace(spec, promises=replace(spec.promises, extra=extra))
            try:
                run_graph(request.node, spec, machine, folder=_folder_of_class(spec, request.node))
            except Findings as found:
                return found
            return None

        @pytest.mark.chaos
        def test_promises(self, found: Findings | None) -> None:
            """No drawn plan breaks a promise of the graph."""
            if found is not None:
                raise found

    return TestChaos


def _spec_of_class(request: pytest.FixtureRequest, graph: str) -> GraphSpec:
    """The graph of a chaos class. The first class of a session sets up the budget."""
    from graphquake.harness.errors import InputError  # noqa: PLC0415
    from graphquake.harness.spec.graph import load_graph  # noqa: PLC0415
    from graphquake.machines.sessions.session import check_machine  # noqa: PLC0415

    config = request.config
    try:
        spec = load_graph(graph, share_gpus=config.getoption("--chaos-share-gpus"))
        if not config.getoption("--chaos-dry-run"):
            check_machine(spec, graphs=config.getoption("--chaos-slots"))
        if _BUDGETS not in config.stash:
            searches = sum(map(_is_search, request.session.items))
            config.stash[_BUDGETS] = Budgets(limit_of(config, "--chaos-budget"), searches)
    except InputError as error:
        end_session(error)
    return spec


def _folder_of_class(spec: GraphSpec, node: pytest.Item) -> str:
    """A folder's name for one chaos class: two classes may search one graph.

    It is made of the graph's name and the class's node id (`toy.tests.test_own.TestMine`), so a later session uses it again.
    """
    path, _, names = node.nodeid.partition("::")
    where = f"{spec.name}.{path.removesuffix('.py')}.{names.rpartition('::')[0]}"
    return re.sub(r"[^\w-]+", ".", where)


def _is_search(item: pytest.Item) -> bool:
    owner = getattr(item, "cls", None)
    return isinstance(item, ChaosItem) or getattr(owner, "is_graphquake_search", False)
