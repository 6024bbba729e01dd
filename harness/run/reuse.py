"""A launched graph that may outlive a run: used again where it starts slowly, once nothing of the run before is left in it.

Between two runs it is left as the first one left it. Whoever wants it next heals it: what is dead is brought back, what is stalled let go
on, and then every replica has to be ready, what the graph says about itself right, nothing left behind, and an answer right. A graph
that does not get there in about the time in which a fresh one starts is not worth waiting for.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import BecameReady, Spawned
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.run.execute import first_answer
from graphquake.harness.run.steps import bring_back
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.targets.target import replica_name

# So many runs at most have the same graph, one after the other: simulated, more of them saved next to nothing.
USES_MAX: Final = 6
# Where a start takes less than this, every run has a fresh graph.
SLOW_START_S: Final = 5.0
# Of the time in which a fresh graph starts: what may be spent on waiting for those that were dead.
WORTH_HEALING: Final = 0.5
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Warm:
    """A launched graph.

    Attributes:
        work: its own folder.
        start_s: from launching it to its first right answer.
        uses: how many runs it was used for.
    """

    target: Supervisor
    work: Path
    start_s: float
    lifetime: AsyncExitStack
    uses: int = 0

    @classmethod
    async def launch(cls, spec: GraphSpec, work: Path) -> Self:
        """Start a graph and wait for its first right answer.

        Raises:
            GraphError: if it does not come to serve.
        """
        begun_s = time.monotonic()
        async with AsyncExitStack() as lifetime:
            target = await lifetime.enter_async_context(Supervisor.launch(spec, work))
            await first_answer(target)
            return cls(target, work, time.monotonic() - begun_s, lifetime.pop_all())

    def held_on(self) -> Self:
        """The same graph, past the end of whoever holds it now."""
        return replace(self, lifetime=self.lifetime.pop_all())

    async def close(self) -> None:
        """End it."""
        await self.lifetime.aclose()
        shutil.rmtree(self.work, ignore_errors=True)

    async def heal(self) -> bool:
        """Undo what a run did to it. Whether nothing of that is left.

        Raises:
            GraphError: if its guard was lost.
        """
        target, spec = self.target, self.target.spec
        target.begin_anew()
        names = [(role, index, replica_name(role, index)) for role, index in spec.replicas()]
        down = [
            (role, index, name)
            for role, index, name in names
            if target.ending(name) or not target.alive(name)
        ]
        if any(self._took_s(name) > WORTH_HEALING * self.start_s for _, _, name in down):
            return False
        await asyncio.gather(*(target.resume(name) for _, _, name in names))
        await asyncio.gather(*(bring_back(target, role, index) for role, index, _ in down))
        until_s = time.monotonic() + max(self.start_s, spec.promises.grace_s)
        if not await target.wait_ready(self.start_s):
            return False
        while not await self._is_whole():
            if time.monotonic() >= until_s:
                return False
            await asyncio.sleep(POLL_S)
        try:
            await first_answer(target)
        except GraphError:
            return False
        target.begin_anew()
        return True

    async def _is_whole(self) -> bool:
        target = self.target
        names = [replica_name(role, index) for role, index in target.spec.replicas()]
        return (
            all(map(target.ready, names))
            and all(view.says == view.holds for view in await target.views())
            and not await target.leaks()
        )

    def _took_s(self, name: str) -> float:
        """What a replica took to be ready, the longest of its incarnations; 0 if none was."""
        spawned = {
            e.incarnation: e.at_s
            for e in self.target.log
            if isinstance(e, Spawned) and e.replica == name
        }
        ready = (e for e in self.target.log if isinstance(e, BecameReady) and e.replica == name)
        return max((e.at_s - spawned[e.incarnation] for e in ready), default=0.0)
