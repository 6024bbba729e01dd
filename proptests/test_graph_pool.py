"""The graphs that wait for the next run: no run lacks room because of them, and none is left open."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.errors import GraphError
from graphquake.harness.run.reuse import USES_MAX, ReusableGraph
from graphquake.machines.runners.graph_pool import GraphPool
from graphquake.machines.runners.slots import Machine, Usage, graphs_for

pytestmark = pytest.mark.simulated

GIB = 2**30


@dataclass(slots=True, eq=False)
class Open:
    """Stands for an open graph.

    Attributes:
        there: all graphs that are open.
        uses: the number of runs that it has served.
        heals: whether it is worth healing.
    """

    there: set[Open]
    uses: int = 0
    heals: bool = True

    def __post_init__(self) -> None:
        self.there.add(self)

    def is_worth_healing(self) -> bool:
        """See `ReusableGraph`."""
        return self.heals

    async def close(self) -> None:
        """End it."""
        await asyncio.sleep(0)
        self.there.remove(self)


@dataclass(slots=True)
class Runs:
    """Runs that take graphs from a pool and give them back.

    Attributes:
        there: all graphs that are open.
        used: for each run, whether its graph was a used one.
        ahead: for each run, whether its graph was opened ahead.
    """

    pool: GraphPool
    there: set[Open] = field(default_factory=set)
    used: list[bool] = field(default_factory=list)
    ahead: list[bool] = field(default_factory=list)

    async def begin(self, *, may_reuse: bool) -> tuple[Open, bool]:
        """Take a graph, or open one."""
        taken = await self.pool.take(may_reuse=may_reuse)
        keeps = self.pool.decide_to_keep(taken)
        self.used.append(taken is not None and taken.uses > 0)
        self.ahead.append(taken is not None and taken.uses == 0)
        graph = cast("Open", taken) if taken is not None else Open(self.there)
        assert len(self.there) <= self.pool.open_max
        return graph, keeps

    async def opens(self) -> ReusableGraph:
        """Open a graph ahead. It takes a moment."""
        graph = Open(self.there)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        except BaseException:
            await graph.close()
            raise
        return cast("ReusableGraph", graph)

    async def end(self, graph: Open, *, keeps: bool) -> None:
        """End a run."""
        graph.uses += 1
        if not keeps:
            await graph.close()
        left = cast("ReusableGraph", graph) if keeps else None
        await self.pool.give_back(left, kept=keeps)

    async def one(self, *, may_reuse: bool, heals: bool = True) -> None:
        """Make one run alone."""
        graph, keeps = await self.begin(may_reuse=may_reuse)
        graph.heals = heals
        await self.end(graph, keeps=keeps)


def test_a_run_that_may_takes_a_waiting_graph_up_to_its_last_use() -> None:
    """A graph serves `USES_MAX` runs. Then the next run gets a fresh one."""
    runs = Runs(GraphPool(1, 1))
    for _ in range(USES_MAX + 1):
        asyncio.run(runs.one(may_reuse=True))
    assert runs.used == [False, *[True] * (USES_MAX - 1), False]


@pytest.mark.parametrize(("room", "used"), [(2, True), (1, False)])
def test_a_fresh_run_ends_a_waiting_graph_only_for_room(room: int, *, used: bool) -> None:
    """With room for two graphs, a fresh run leaves the waiting graph. With room for one, that graph ends first."""
    runs = Runs(GraphPool(1, room))
    asyncio.run(runs.one(may_reuse=True))
    (first,) = runs.there
    asyncio.run(runs.one(may_reuse=False))
    assert (first in runs.there) == used


def test_a_graph_that_heals_slowly_does_not_wait() -> None:
    """A graph whose dead replica would take too long is closed at the end of its run."""
    runs = Runs(GraphPool(1, 2))
    asyncio.run(runs.one(may_reuse=True, heals=False))
    assert not runs.there


def test_a_closed_pool_keeps_nothing() -> None:
    """A graph that comes back after the end of the runner ends at once."""

    async def late() -> Runs:
        runs = Runs(GraphPool(2, 4))
        graph, keeps = await runs.begin(may_reuse=True)
        await runs.one(may_reuse=True)
        await runs.pool.close()
        assert keeps
        await runs.end(graph, keeps=keeps)
        return runs

    assert not asyncio.run(late()).there


def test_a_run_takes_the_graph_that_is_opened_ahead() -> None:
    """It takes it while it still starts. A run that may take a used graph takes that one, and leaves the graph ahead for a fresh run."""

    async def go() -> Runs:
        runs = Runs(GraphPool(1, 3))
        await runs.one(may_reuse=True)
        runs.pool.open_ahead(runs.opens)
        runs.pool.open_ahead(runs.opens)
        await runs.one(may_reuse=True)
        await runs.one(may_reuse=False)
        await runs.pool.close()
        return runs

    runs = asyncio.run(go())
    assert runs.used == [False, True, False]
    assert runs.ahead == [False, False, True]
    assert not runs.there


def test_the_next_graph_is_opened_while_a_run_waits_for_one() -> None:
    """As soon as a run waits for the graph ahead, another one may be opened. So starts go on beside those of the runs."""

    async def go() -> list[int]:
        runs, counts = Runs(GraphPool(1, 3)), list[int]()

        def decided() -> None:
            runs.pool.open_ahead(runs.opens)
            counts.append(len(runs.there))

        for _ in range(3):
            graph = await runs.pool.take(may_reuse=False, decided=decided)
            await asyncio.sleep(0)
            counts.append(len(runs.there))
            if graph is not None:
                await graph.close()
            await runs.pool.give_back(None, kept=False)
        await runs.pool.close()
        assert not runs.there
        return counts

    # At the first run nothing is open but the graph ahead. Then the run has that graph, and the next one is being opened.
    assert asyncio.run(go()) == [0, 1, 1, 2, 1, 2]


@pytest.mark.parametrize(("room", "left"), [(2, 1), (1, 0)])
def test_a_graph_of_its_own_kind_ends_one_opened_ahead_only_for_room(room: int, left: int) -> None:
    """A run that can't use the graph that was opened ahead leaves it for another run, if there is room for both."""

    async def use() -> None:
        runs = Runs(GraphPool(1, room))
        runs.pool.open_ahead(runs.opens)
        for _ in range(5):
            await asyncio.sleep(0)
        assert await runs.pool.take(may_reuse=False, may_claim=False) is None
        assert len(runs.there) == left
        await runs.pool.give_back(None, kept=False)
        await runs.pool.close()
        assert not runs.there

    asyncio.run(use())


def test_no_graph_is_opened_ahead_without_room() -> None:
    """A used graph that waits does not end for a graph that is opened ahead."""

    async def go() -> None:
        runs = Runs(GraphPool(1, 1))
        await runs.one(may_reuse=True)
        runs.pool.open_ahead(runs.opens)
        assert not runs.pool.is_ahead

    asyncio.run(go())


@pytest.mark.parametrize("ends", ["the runner", "the run"])
def test_a_start_ahead_ends_with_the_runner_and_not_with_a_run(ends: str) -> None:
    """A run that is cancelled while it waits for the start leaves it to the next run. The end of the runner ends it."""

    async def go() -> Runs:
        runs = Runs(GraphPool(1, 2))
        runs.pool.open_ahead(runs.opens)
        waits = asyncio.ensure_future(runs.begin(may_reuse=False))
        await asyncio.sleep(0)
        if ends == "the run":
            waits.cancel()
            await asyncio.wait([waits])
            await runs.one(may_reuse=False)
            assert runs.ahead == [True]
        else:
            await runs.pool.close()
            graph, keeps = await waits
            assert not keeps
            await runs.end(graph, keeps=keeps)
        await runs.pool.close()
        return runs

    assert not asyncio.run(go()).there


def test_a_start_ahead_that_fails_is_not_missed() -> None:
    """The run that would have taken the graph opens one itself."""

    async def fails() -> ReusableGraph:
        raise GraphError("no port is free")

    async def go() -> Runs:
        runs = Runs(GraphPool(1, 2))
        runs.pool.open_ahead(fails)
        await runs.one(may_reuse=False)
        await runs.pool.close()
        return runs

    runs = asyncio.run(go())
    assert runs.ahead == [False]
    assert not runs.there


@given(
    slots=st.integers(1, 4),
    room=st.integers(1, 9),
    kinds=st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.booleans()), max_size=40),
)
def test_there_is_always_room_for_the_next_run(
    slots: int, room: int, kinds: list[tuple[bool, int, bool]]
) -> None:
    """However runs begin and end, no more graphs are open than the machine holds, and none is lost."""

    async def go() -> None:
        pool = GraphPool(slots, slots)
        pool.fit(slots, room)
        runs, going = Runs(pool), list[tuple[Open, bool]]()
        for may_reuse, which, opens_ahead in kinds:
            if len(going) == slots:
                graph, keeps = going.pop(which % slots)
                await runs.end(graph, keeps=keeps)
            going.append(await runs.begin(may_reuse=may_reuse))
            if opens_ahead:
                pool.open_ahead(runs.opens)
                await asyncio.sleep(0)
            assert len(runs.there) <= max(slots, min(room, 2 * slots + 1))
        for graph, keeps in going:
            await runs.end(graph, keeps=keeps)
        assert len(runs.there) <= slots + pool.is_ahead
        await pool.close()
        assert not runs.there

    asyncio.run(go())


@pytest.mark.parametrize(
    ("run", "machine", "others", "graphs"),
    [
        (Usage(1.0, GIB), Machine(2, 10 * GIB), 0, 7),
        (Usage(1.0, GIB), Machine(2, 10 * GIB), 2, 9),
        (Usage(1.0, 8 * GIB), Machine(2, 10 * GIB), 1, 1),
        (Usage(1.0, GIB, gpus=2), Machine(16, 99 * GIB, gpus=8), 0, 4),
        (
            Usage(1.0, GIB, gpu_memory_bytes=10 * GIB, shares_gpus=True),
            Machine(16, 99 * GIB, gpus=1, gpu_memory_bytes=50 * GIB),
            1,
            4,
        ),
        (Usage(1.0, GIB, shares_gpus=True), Machine(16, 99 * GIB, gpus=1), 0, 1),
    ],
)
def test_memory_and_gpus_limit_the_open_graphs(
    run: Usage, machine: Machine, others: int, graphs: int
) -> None:
    """The free memory counts for graphs to come. GPUs count for all of them. Cores do not matter to a graph that waits."""
    assert graphs_for(run, machine, others) == graphs
