"""The searches of a pytest session. A search is an item for a graph, or the test of a `chaos(…)` class. `run_graph` carries out both.

The always-loaded plugin imports this module. So hypothesis, aiohttp and numpy are imported only when a search begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from graphquake.machines.frontends.options import (
    asks_for_chaos,
    limit_of,
    on_ray_of,
    options,
    slots_of,
)
from graphquake.machines.frontends.outcomes import Findings, ProvedNothing, end_session
from graphquake.machines.frontends.tracing import traced
from graphquake.machines.runners.budget import Budgets

if TYPE_CHECKING:
    from graphquake.harness.spec.graph import GraphSpec
    from graphquake.machines.plans.machine import PlanMachine
    from graphquake.machines.reports.reporter import Reporter
    from graphquake.machines.reports.summary import GraphSummary

SUMMARIES: Final = pytest.StashKey[list["GraphSummary"]]()
BUDGETS: Final = pytest.StashKey[Budgets]()


class ChaosCollector(pytest.Collector):
    """The searches of a session: one item for each graph and shard."""

    def __init__(self, *, specs: list[GraphSpec], shards: int, **rest: Any) -> None:
        super().__init__(**rest)
        self._specs, self._shards = specs, shards

    def collect(self) -> Iterator[ChaosItem]:
        """Yield the items shard by shard. Within a shard, the graphs are in the order in which they were named."""
        for shard in range(self._shards):
            for spec in self._specs:
                part = f", shard {shard + 1}" if self._shards > 1 else ""
                name = f"chaos[{spec.name}{part}]"
                yield ChaosItem.from_parent(self, name=name, nodeid=name, spec=spec, shard=shard)


class ChaosItem(pytest.Item):
    """A pytest item: the search on one graph, or one shard of that search."""

    def __init__(self, *, spec: GraphSpec, shard: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.spec, self.shard = spec, shard
        self._found: Findings | None = None
        self.add_marker("chaos")

    def setup(self) -> None:
        """Run the search. Pytest reports an exception in `setup` as an error, which a search that proved nothing must be, not a failure."""
        try:
            run_graph(self, self.spec, shard=self.shard)
        except Findings as found:
            self._found = found

    def runtest(self) -> None:
        """Fail if the search had new findings, or if the replay of a case failed."""
        if self._found is not None:
            raise self._found

    def reportinfo(self) -> tuple[Path, int, str]:
        """Give pytest the graph file as the location of this item."""
        return self.spec.path, 0, self.name


# -------------------------------------------------------------------------------------------------------------- search


def run_graph(
    item: pytest.Item,
    spec: GraphSpec,
    base: type[PlanMachine] | None = None,
    shard: int = 0,
    folder: str = "",
) -> None:
    """Replay a graph's cases and search, within this graph's part of the session's budget.

    Args:
        item: the pytest item. It gets the properties that JUnit shows (see `summary.properties`).
        spec: the graph.
        base: the class of the machine that draws plans. None means `PlanMachine`.
        shard: the part of the search that this process does, from 0.
        folder: the name of the search's folder in the results folder. If it is empty, it is the graph's name.

    Raises:
        Findings: if there is a new finding, or the replay of a case failed.
        ProvedNothing: if the runs do not prove anything about the graph.
    """
    from graphquake.harness.errors import EXIT_BROKEN, EXIT_KEPT, GraphquakeError  # noqa: PLC0415
    from graphquake.machines.plans.machine import PlanMachine  # noqa: PLC0415
    from graphquake.machines.reports.summary import failed_text, properties  # noqa: PLC0415
    from graphquake.machines.sessions.session import Session, dry_run  # noqa: PLC0415

    config = item.config
    reporter = _reporter(config)
    session: Session | None = None
    try:
        asked = replace(options(config, shard), folder=folder)
        if config.getoption("--chaos-dry-run"):
            dry_run(spec, asked, reporter.line, base or PlanMachine)
            return
        budget = config.stash[BUDGETS].next()
        with traced(config, folder or spec.name, shard, reporter.line) as observers:
            session = Session(spec, asked, budget, reporter, base or PlanMachine, observers)
            config.stash[SUMMARIES].append(session.summary)
            try:
                session.run()
            finally:
                item.user_properties += properties(session.summary)
    except GraphquakeError as error:
        # A finding fails the search, also if an error ended it afterwards. The verdict's line tells of both.
        if session is None or session.summary.exit_status != EXIT_BROKEN:
            end_session(error)
    summary = session.summary
    if summary.exit_status == EXIT_BROKEN:
        raise Findings(summary.verdict_line, failed_text(summary))
    if summary.exit_status != EXIT_KEPT:
        raise ProvedNothing(summary.verdict_line)


def _reporter(config: pytest.Config) -> Reporter:
    from graphquake.machines.reports.reporter import Reporter  # noqa: PLC0415

    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    return Reporter()


# ------------------------------------------------------------------------------------------------------- chaos classes


def chaos_class(graph: str, promises: tuple[str, ...], machine: type[PlanMachine] | None) -> type:
    """Make the test class of `graphquake.chaos`."""

    class TestChaos:
        """A search on one graph. It is skipped without `--chaos`."""

        is_graphquake_search: Final = True

        @pytest.fixture
        def found(self, request: pytest.FixtureRequest) -> Findings | None:
            """The findings of the search. A search that proved nothing is an error here, and not a failure of the test."""
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
    from graphquake.machines.sessions.checks import check_room_of  # noqa: PLC0415

    config = request.config
    try:
        share = config.getoption("--chaos-share-gpus")
        spec = load_graph(graph, share_gpus=share, network=config.getoption("--chaos-network"))
        if not config.getoption("--chaos-dry-run"):
            check_room_of(spec, on_ray_of(config), slots_of(config) or 1)
        if BUDGETS not in config.stash:
            searches = sum(map(is_search, request.session.items))
            config.stash[BUDGETS] = Budgets(limit_of(config, "--chaos-budget"), searches)
    except InputError as error:
        end_session(error)
    return spec


def _folder_of_class(spec: GraphSpec, node: pytest.Item) -> str:
    """The name of the results folder of one chaos class. Two classes that search the same graph have different folders.

    The name consists of the graph's name and the node id of the class (`toy.tests.test_own.TestMine`). So a later session uses the same
    folder.
    """
    path, _, names = node.nodeid.partition("::")
    where = f"{spec.name}.{path.removesuffix('.py')}.{names.rpartition('::')[0]}"
    return re.sub(r"[^\w-]+", ".", where)


def is_search(item: pytest.Item) -> bool:
    """True if a pytest item is a search: a `ChaosItem`, or the test of a `chaos(…)` class."""
    owner = getattr(item, "cls", None)
    return isinstance(item, ChaosItem) or getattr(owner, "is_graphquake_search", False)
