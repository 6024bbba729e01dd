"""An open graph that can outlive a run, so that later runs need not wait for a slow start.

A run leaves the graph as its plan left it. Before the next run the graph is healed: dead replicas are started again and stalled
ones go on. It is used again only if no trace of the earlier run remains. That means: every replica is ready, the graph's lists are
right, no resource leaked, and an answer is right. A graph is closed instead if a dead replica took more than half of the graph's start time
to become ready. A fresh graph is then nearly as fast.

A graph can also be opened ahead, while another run goes on. The run that takes it finds a fresh graph: nothing was done to it but waiting.

A `ReusableGraph` owns its target. Exactly one of these ends it: a run that does not keep it, an error, a failed heal, or `close`.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import BecameReady, Spawned
from graphquake.harness.run.first_answer import first_answer
from graphquake.harness.run.healing import bring_back_all, replicas_down
from graphquake.harness.run.noise.contention import cpu_time_s
from graphquake.harness.run.open_target import OpenTarget
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Target

# The largest number of runs that share one graph. In simulations, more runs for each graph saved almost no time.
USES_MAX: Final = 6
# If a graph usually starts in less time than this, every run gets a fresh graph.
SLOW_START_S: Final = 5.0
# The share of a graph's start time that one of its dead replicas may take to become ready again.
WORTH_HEALING: Final = 0.5
POLL_S: Final = 0.05


class ReusableGraph:
    """An open graph that can serve one run after another. Made by `open`.

    Attributes:
        target: the graph.
        work: the folder of the graph's own files.
        start_s: seconds from opening it to its first right answer.
        start_cores: the mean number of cores that its processes used in that time. Processes that have ended do not count.
        uses: the number of runs that it has served.
    """

    def __init__(
        self, target: Target, work: Path, opened: AbstractAsyncContextManager[Target]
    ) -> None:
        self.target = target
        self.work = work
        self.start_s = 0.0
        self.start_cores = 0.0
        self.uses = 0
        self._opened = opened

    @classmethod
    async def open(cls, spec: GraphSpec, work: Path, open_target: OpenTarget) -> ReusableGraph:
        """Open a graph and wait for its first right answer.

        Raises:
            GraphError: if the graph does not become ready, or gives no right answer in time.
        """
        begun_s = time.monotonic()
        opened = open_target(spec, work)
        graph = cls(await opened.__aenter__(), work, opened)
        async with graph._ended_on_error():
            await first_answer(graph.target)
        graph.start_s = time.monotonic() - begun_s
        graph.start_cores = sum(map(cpu_time_s, graph.target.pids())) / graph.start_s
        return graph

    @asynccontextmanager
    async def lent(self, *, keep: bool) -> AsyncIterator[Target]:
        """Lend the target to one run.

        Args:
            keep: if true, leave the graph open, unless the run raises an error. Otherwise end the graph and leave its folder.
        """
        async with self._ended_on_error():
            yield self.target
        self.uses += 1
        if not keep:
            await self._end(None)

    async def close(self) -> None:
        """End the graph and remove its folder."""
        try:
            await self._end(None)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)

    async def heal_or_close(self) -> bool:
        """Undo the changes that a run made to the graph. If that fails, end the graph and remove its folder. True if it was healed.

        A graph that was opened ahead needs no healing. It ends if one of its replicas died while it waited.
        """
        healed = False
        try:
            with suppress(GraphError):
                async with self._ended_on_error():
                    healed = await self._heal() if self.uses else self._is_untouched()
                if not healed:
                    await self._end(None)
        finally:
            if not healed:
                shutil.rmtree(self.work, ignore_errors=True)
        return healed

    def is_worth_healing(self) -> bool:
        """False if a replica runs another command than at first, or takes so long to come back that a fresh graph is nearly as fast."""
        if self.target.varied():
            return False
        limit_s = WORTH_HEALING * self.start_s
        return all(self._took_s(one) <= limit_s for one in replicas_down(self.target))

    @asynccontextmanager
    async def _ended_on_error(self) -> AsyncIterator[None]:
        """End the graph if the block raises an error. The target gets the error, and may replace a cancellation by its cause."""
        try:
            yield
        except BaseException as error:
            await self._end(error)
            raise

    async def _end(self, error: BaseException | None) -> None:
        trace = error.__traceback__ if error is not None else None
        await self._opened.__aexit__(type(error) if error is not None else None, error, trace)

    async def _heal(self) -> bool:
        """Undo the changes that a run made to the graph. True if no trace of that run remains.

        Raises:
            GraphError: if the graph can no longer be used at all.
        """
        target, spec = self.target, self.target.spec
        # The next run's log does not show the lives that have ended, so this is asked before it begins.
        if not self.is_worth_healing():
            return False
        target.begin_run()
        down = replicas_down(target)
        await asyncio.gather(*(target.resume(one) for one in spec.replicas()))
        await bring_back_all(target, down)
        until_s = time.monotonic() + max(self.start_s, spec.promises.grace_s)
        if not await target.wait_ready(self.start_s):
            return False
        # Lists may be wrong for as long as a lease. An orphan of a dead replica never ends by itself, so leaks get less time.
        leaks_until_s = time.monotonic() + spec.promises.grace_s
        while (leaks := await target.leaks()) or not await self._is_whole():
            if time.monotonic() >= (leaks_until_s if leaks else until_s):
                return False
            await asyncio.sleep(POLL_S)
        try:
            await first_answer(target)
        except GraphError:
            return False
        target.begin_run()
        return True

    def _is_untouched(self) -> bool:
        if replicas_down(self.target):
            return False
        self.target.begin_run()
        return True

    async def _is_whole(self) -> bool:
        target = self.target
        return all(target.ready(one) for one in target.spec.replicas()) and all(
            view.says == view.holds for view in await target.views()
        )

    def _took_s(self, replica: Replica) -> float:
        """The longest time that an incarnation of this replica took to become ready, in seconds, or 0 if none became ready."""
        spawned = {
            e.incarnation: e.at_s
            for e in self.target.log
            if isinstance(e, Spawned) and e.replica == replica
        }
        ready = (e for e in self.target.log if isinstance(e, BecameReady) and e.replica == replica)
        return max((e.at_s - spawned[e.incarnation] for e in ready), default=0.0)
