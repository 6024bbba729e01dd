"""The open graphs of a runner that no run has at the moment. They wait for the next run that may use them.

There are two kinds: used graphs, and one graph at most that is opened ahead.

A graph that starts slowly is left open after a run, one for each slot at most. The next run that may take a used graph takes one. A run
that needs a fresh graph leaves the waiting graphs as they are, unless the machine has no room for one more. Then the graph that has waited
for the longest time ends first. So a fresh graph never lacks GPUs that only a waiting graph holds.

While runs go on, the pool opens one fresh graph ahead, if the caller asks for it and there is room. The next run that needs a fresh graph
takes it, also if its start still goes on. Then another one may be opened ahead. A waiting used graph never ends for the sake of a graph
that is opened ahead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from graphquake.harness.run.reuse import USES_MAX, ReusableGraph


@dataclass(slots=True)
class GraphPool:
    """The waiting graphs of one runner, and the number of graphs that its runs have.

    Attributes:
        slots: the number of runs that go on side by side.
        open_max: the most graphs that may be open at once, with those of the runs. At least `slots`.
        is_closed: true from the end of the runner on. Then no graph is left open.
    """

    slots: int
    open_max: int
    is_closed: bool = False
    _waiting: list[ReusableGraph] = field(default_factory=list)
    _lent: int = 0
    # The number of lent graphs that stay open after their runs.
    _kept: int = 0
    # The starts of graphs that are opened ahead, and those for which a run waits. There is more than one of the first kind only if a run
    # was cancelled while it waited.
    _ahead: list[asyncio.Task[ReusableGraph]] = field(default_factory=list)
    _claimed: set[asyncio.Task[ReusableGraph]] = field(default_factory=set)

    @property
    def is_ahead(self) -> bool:
        """True if a graph was opened ahead, or is being opened, and no run has taken it."""
        return bool(self._ahead)

    def fit(self, slots: int, graphs: int) -> None:
        """Set the number of slots, and let up to `graphs` graphs be open at once.

        Each slot needs one, and may leave another one. One more may be opened ahead.
        """
        self.slots = slots
        self.open_max = max(slots, min(graphs, 2 * slots + 1))

    async def take(
        self,
        *,
        may_reuse: bool,
        may_claim: bool = True,
        decided: Callable[[], None] = lambda: None,
    ) -> ReusableGraph | None:
        """Return a graph for a run, or None if the run has to open a fresh one. There is room for that graph then.

        Each call that returns is followed by one call of `give_back`.

        Args:
            may_reuse: if true, the graph may be a used one. Otherwise it was opened ahead, and no run has had it.
            may_claim: if true, the graph may be one that was opened ahead.
            decided: called as soon as it is known where the graph comes from. The graph may still start then.
        """
        self._lent += 1
        try:
            if may_reuse and self._waiting:
                graph = self._waiting.pop()
                decided()
                return graph
            if may_claim and self._ahead:
                return await self._claim(self._ahead.pop(0), decided)
            while self._waiting and self._open() > self.open_max:
                await self._waiting.pop(0).close()
            while self._ahead and self._open() > self.open_max:
                await _end(self._ahead.pop())
            decided()
        except BaseException:
            self._lent -= 1
            raise
        return None

    def _open(self) -> int:
        """The number of graphs that are open, with those that are being opened."""
        return self._lent + len(self._waiting) + len(self._ahead)

    def open_ahead(self, opens: Callable[[], Coroutine[Any, Any, ReusableGraph]]) -> None:
        """Begin to open a fresh graph for a later run, unless there is one already, or no room.

        Args:
            opens: opens a graph. Its errors are dropped: the run that needed the graph opens another one, and reports the error.
        """
        if not self.is_closed and not self.is_ahead and self._open() < self.open_max:
            self._ahead.append(asyncio.ensure_future(opens()))

    async def _claim(
        self, start: asyncio.Task[ReusableGraph], decided: Callable[[], None]
    ) -> ReusableGraph | None:
        """Wait for a graph that is opened ahead. Return None if it did not start."""
        self._claimed.add(start)
        decided()
        try:
            await asyncio.wait([start])
        except asyncio.CancelledError:
            # This run is not needed any more. The start goes on for another run, unless there is none to come.
            if self.is_closed:
                await _end(start)
            else:
                self._ahead.insert(0, start)
            raise
        finally:
            self._claimed.discard(start)
        return _opened(start)

    def decide_to_keep(self, graph: ReusableGraph | None) -> bool:
        """Tell a run whether to leave its graph open, and remember that it comes back.

        Args:
            graph: the used graph of the run, or None if the run opens a fresh one.
        """
        has_place = len(self._waiting) + self._kept < self.slots
        has_uses = graph is None or graph.uses + 1 < USES_MAX
        keeps = has_place and has_uses and not self.is_closed
        self._kept += keeps
        return keeps

    async def give_back(self, graph: ReusableGraph | None, *, kept: bool) -> None:
        """Note that a run is over, and keep its graph if it is worth that.

        Args:
            graph: the graph of the run if it was left open, otherwise None.
            kept: the answer of `decide_to_keep` for this run.
        """
        self._lent -= 1
        self._kept -= kept
        if graph is None:
            return
        if self.is_closed or not graph.is_worth_healing():
            await graph.close()
        else:
            self._waiting.append(graph)

    async def close(self) -> None:
        """End all waiting graphs, and the starts of those that are opened ahead. Graphs that come back later end, too."""
        self.is_closed = True
        for start in self._claimed:
            start.cancel()
        while self._ahead:
            await _end(self._ahead.pop())
        while self._waiting:
            await self._waiting.pop().close()


def _opened(start: asyncio.Task[ReusableGraph]) -> ReusableGraph | None:
    """The graph that a start has opened, or None if the start has failed or was cancelled."""
    if start.cancelled() or start.exception() is not None:
        return None
    return start.result()


async def _end(start: asyncio.Task[ReusableGraph]) -> None:
    """End a start, or the graph that it has opened."""
    start.cancel()
    await asyncio.wait([start])
    if (graph := _opened(start)) is not None:
        await graph.close()
