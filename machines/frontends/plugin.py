"""The pytest plugin: `pytest --chaos --graph my.toml`, in any repository.

It is loaded into every pytest of everybody who has graphquake installed, so importing it costs nothing: everything that needs hypothesis,
aiohttp or numpy is imported when `--chaos` asks for it. Without test files on the command line, pytest collects nothing but one
item for each graph; with files, their `chaos(…)` classes are collected besides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from graphquake.machines.frontends.options import add_options, limit_of, options
from graphquake.machines.runners.budget import Budgets, Limit

if TYPE_CHECKING:
    from graphquake.harness.spec.graph import GraphSpec
    from graphquake.machines.plans.machine import PlanMachine
    from graphquake.machines.reports.progress import Reporter
    from graphquake.machines.reports.summary import GraphSummary

# What is searched if no graph is named.
OWN_GRAPH: Final = "reference"
DYNAMO_GRAPH: Final = "dynamo-disagg"
# The plugin that runs named scenarios on graphs.
SCENARIOS: Final = "graphquake.machines.frontends.scenarios"
_SUMMARIES: Final = pytest.StashKey[list["GraphSummary"]]()
_BUDGETS: Final = pytest.StashKey[Budgets]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, all of them under one heading."""
    add_options(parser.getgroup("graphquake", "chaos testing of inference-serving graphs"))


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker of our items."""
    config.addinivalue_line("markers", "chaos: a search on a live graph (graphquake)")
    config.stash[_SUMMARIES] = []


def _input_error(error: Exception) -> None:
    pytest.exit(str(error), returncode=2)


def _graph_names(config: pytest.Config) -> list[str]:
    return config.getoption("graph") or [OWN_GRAPH, *([DYNAMO_GRAPH] if _has_dynamo() else [])]


def _has_dynamo() -> bool:
    try:
        metadata.version("ai-dynamo")
    except metadata.PackageNotFoundError:
        return False
    return True


def pytest_report_header(config: pytest.Config) -> str | None:
    """Says what of the default is left out."""
    if config.getoption("chaos") and not config.getoption("graph") and not _has_dynamo():
        return f"{DYNAMO_GRAPH} is left out: pip install 'graphquake[dynamo]'"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> bool | None:
    """With `--chaos` and no files named, our items are the whole collection."""
    config = session.config
    if not config.getoption("chaos"):
        if config.getoption("graph") and not config.pluginmanager.has_plugin(SCENARIOS):
            _input_error(ValueError("--graph: does nothing without --chaos"))
        return None
    given = config.args_source is pytest.Config.ArgsSource.ARGS
    if given:
        return None
    session.items = list(_items(session))
    collected = pytest.CollectReport(
        nodeid="chaos", outcome="passed", longrepr=None, result=[*session.items]
    )
    config.hook.pytest_collectreport(report=collected)
    config.hook.pytest_collection_modifyitems(session=session, config=config, items=session.items)
    config.hook.pytest_collection_finish(session=session)
    session.testscollected = len(session.items)
    return True


def _items(session: pytest.Session) -> Iterator[pytest.Item]:
    from graphquake.harness.errors import InputError  # noqa: PLC0415
    from graphquake.harness.spec.graph import load_graph  # noqa: PLC0415

    config = session.config
    try:
        share = config.getoption("share_gpus")
        specs = [load_graph(name, share_gpus=share) for name in _graph_names(config)]
        twice = [name for name, n in Counter(spec.name for spec in specs).items() if n > 1]
        if twice:
            raise InputError(
                f"--graph: found {', '.join(twice)} twice: their files would be the same"
            )
        limit = limit_of(config, "--chaos-budget")
        options(config)
    except InputError as error:
        _input_error(error)
        return
    shards = _shards(config)
    # Every process spends all of the time, and its part of the runs.
    limit = Limit(limit.seconds, limit.runs if math.isinf(limit.runs) else limit.runs // shards)
    config.stash[_BUDGETS] = Budgets(limit, len(specs))
    for shard in range(shards):
        for spec in specs:
            part = f", shard {shard + 1}" if shards > 1 else ""
            name = f"chaos[{spec.name}{part}]"
            yield ChaosItem.from_parent(session, name=name, nodeid=name, spec=spec, shard=shard)


def _shards(config: pytest.Config) -> int:
    """How many processes divide the search among them: those of pytest-xdist."""
    return int(getattr(config, "workerinput", {}).get("workercount", 1))


class Findings(Exception):
    """New findings, or cases that failed; the text is the report."""


class ProvedNothing(Exception):
    """A session whose runs say nothing about the graph."""


def run_graph(
    item: pytest.Item,
    spec: GraphSpec,
    base: type[PlanMachine] | None = None,
    shard: int = 0,
) -> None:
    """Replay a graph's cases and search, within this graph's part of the budget.

    Args:
        item: gets what JUnit is to say of the search, see `summary.properties`.
        shard: see `Options`.

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
        asked = options(config, shard)
        if config.getoption("--dry-run"):
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
        _input_error(error)
        return
    if summary.exit_status == EXIT_BROKEN:
        raise Findings("\n\n".join([*_texts(config, summary), summary.verdict_line]))
    if summary.exit_status != EXIT_KEPT:
        raise ProvedNothing(summary.verdict_line)


def _texts(config: pytest.Config, summary: GraphSummary) -> list[str]:
    """The findings, where what was printed when they were made went nowhere: in a process that does not print."""
    if not hasattr(config, "workerinput"):
        return []
    from graphquake.machines.reports.finding_text import finding_text  # noqa: PLC0415

    return [finding_text(finding) for finding in summary.findings]


class ChaosItem(pytest.Item):
    """The search on one graph, or a part of it."""

    def __init__(self, *, spec: GraphSpec, shard: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.spec, self.shard = spec, shard
        self._found: Findings | None = None
        self.add_marker("chaos")

    def setup(self) -> None:
        """The search itself: one that proves nothing is an error of the item, and no failure."""
        try:
            run_graph(self, self.spec, shard=self.shard)
        except Findings as found:
            self._found = found

    def runtest(self) -> None:
        """What was found fails the item."""
        if self._found is not None:
            raise self._found

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A finding was printed when it was made: here stands which."""
        if isinstance(excinfo.value, Findings | ProvedNothing):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the item comes from: its graph file."""
        return self.spec.path, 0, self.name


def _reporter(config: pytest.Config) -> Reporter:
    from graphquake.machines.reports.progress import Reporter  # noqa: PLC0415

    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    return Reporter()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of pytest-xdist hands its summaries to the one that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None and (summaries := session.config.stash.get(_SUMMARIES, [])):
        from graphquake.machines.sessions.shards import packed  # noqa: PLC0415

        output["graphquake"] = packed(summaries)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Takes them over."""
    del error
    if data := getattr(node, "workeroutput", {}).get("graphquake"):
        from graphquake.machines.sessions.shards import unpacked  # noqa: PLC0415

        node.config.stash[_SUMMARIES] += unpacked(data)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The summary of each graph, and its files."""
    config = terminalreporter.config
    summaries = config.stash.get(_SUMMARIES, [])
    if not summaries:
        return
    from graphquake.machines.reports.index_page import write_index  # noqa: PLC0415
    from graphquake.machines.reports.summary import write  # noqa: PLC0415
    from graphquake.machines.sessions.shards import merged  # noqa: PLC0415

    summaries = merged(summaries)
    folder = Path(config.getoption("--results-dir"))
    write(summaries, folder)
    for summary in summaries:
        if summary.parts != (0,):
            # Each part has written a page of its own; this one is of them all.
            write_index(summary, folder / summary.graph)
    if config.getoption("--report-dir"):
        from graphquake.machines.reports.ci_folder import report_search  # noqa: PLC0415

        report_search(summaries, folder, Path(config.getoption("--report-dir")))
    terminalreporter.section("graphquake")
    for summary in summaries:
        terminalreporter.write_line(summary.text())
    terminalreporter.write_line(
        f"files: {folder}/summary.json, summary.md, GRAPH/index.html, GRAPH/journal.jsonl"
    )


def chaos_class(graph: str, promises: tuple[str, ...], machine: type[PlanMachine] | None) -> type:
    """See `graphquake.machines.chaos`."""

    class TestChaos:
        """A search on one graph; skipped unless `--chaos` is given."""

        @pytest.fixture
        def found(self, request: pytest.FixtureRequest) -> Findings | None:
            """What the search found: one that proves nothing is an error of the test, and no failure."""
            config = request.config
            if not config.getoption("chaos"):
                pytest.skip("needs --chaos")
            from graphquake.harness.errors import InputError  # noqa: PLC0415
            from graphquake.harness.spec.graph import load_graph  # noqa: PLC0415

            try:
                spec = load_graph(graph, share_gpus=request.config.getoption("share_gpus"))
                if _BUDGETS not in config.stash:
                    limit = limit_of(config, "--chaos-budget")
                    config.stash[_BUDGETS] = Budgets(limit, _chaos_tests(request))
            except InputError as error:
                _input_error(error)
            extra = (*spec.promises.extra, *promises)
            spec = replace(spec, promises=replace(spec.promises, extra=extra))
            try:
                run_graph(request.node, spec, machine)
            except Findings as found:
                return found
            return None

        @pytest.mark.chaos
        def test_promises(self, found: Findings | None) -> None:
            """No drawn plan breaks a promise of the graph."""
            if found is not None:
                raise found

    return TestChaos


def _chaos_tests(request: pytest.FixtureRequest) -> int:
    return sum(item.get_closest_marker("chaos") is not None for item in request.session.items)
