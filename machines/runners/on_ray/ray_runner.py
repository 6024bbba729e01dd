"""Runs plans on slots that lie on the nodes of a cluster. Plans, budgets, numbers of runs and verdicts are as with slots on one machine.

A run is ordered from a free slot. Its folder comes back and takes the place of a local run's folder. The history is judged here, so a
finding does not depend on where its runs were made.

A slot that is lost makes its run invalid. The run is noted, and made again on another slot. A new slot takes the place of the lost one if a
node has room. If there is no room, the search goes on with one slot less. If there is no slot any more, it ends.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from graphquake.harness.errors import GraphError, GraphquakeError, InputError
from graphquake.harness.history.host import Host
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.live import LiveRun
from graphquake.harness.run.status import RunStatus, Watch
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.on_ray.parcels import unpack
from graphquake.machines.runners.on_ray.places import (
    Delivery,
    Failed,
    NoPlace,
    Order,
    Places,
    Slot,
    SlotLost,
)
from graphquake.machines.runners.run_observer import RunObserver
from graphquake.machines.runners.runner import DisturbedRun, RunOrder, RunResult

HEARTBEAT_EVERY_S: Final = 0.5
# A slot that does not answer for this long is lost. By then it has ended itself (see `node.LEASE_S`).
LOST_AFTER_S: Final = 6.0
# A cluster offers a node for a while after it is lost, and soon after its start. So a slot that is lost while it opens is tried again.
OPEN_TRIES: Final = 3
OPEN_AGAIN_AFTER_S: Final = 2.0
# The longest wait for the end of a run that is not needed, or of a slot.
STOP_WITHIN_S: Final = 20.0


class _Held:
    """A slot that this runner has opened, with the task that sends its heartbeats.

    Attributes:
        slot: the slot.
        lost: the reason why the slot is lost. It is pending as long as the slot lives.
        watch: receives the state of the run in progress.
    """

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.watch: Watch | None = None
        self.heartbeats = asyncio.ensure_future(self._heartbeat())

    async def _heartbeat(self) -> None:
        while not self.lost.done():
            try:
                status = await asyncio.wait_for(self.slot.heartbeat(), LOST_AFTER_S)
            except TimeoutError:
                self.lose(f"no answer for {LOST_AFTER_S:g} s")
            except SlotLost as error:
                self.lose(str(error))
            else:
                self._show(status)
            await asyncio.sleep(HEARTBEAT_EVERY_S)

    def _show(self, status: RunStatus | None) -> None:
        if status is not None and self.watch is not None:
            self.watch(status)

    def lose(self, why: str) -> None:
        """Note that the slot is lost."""
        if not self.lost.done():
            self.lost.set_result(why)

    async def run(self, order: Order, watch: Watch) -> Delivery | None:
        """Make a run on this slot.

        Raises:
            SlotLost: if the slot is lost before the run has come back.
        """
        if self.lost.done():
            raise SlotLost(self.lost.result())
        self.watch = watch
        run = asyncio.ensure_future(self.slot.run(order))
        ends: list[asyncio.Future[Any]] = [run, self.lost]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                return run.result()
            raise SlotLost(self.lost.result())
        except SlotLost as error:
            self.lose(str(error))
            raise
        finally:
            self.watch = None
            if not run.done():
                run.cancel()

    async def end(self) -> None:
        """End the slot, then stop the heartbeats: without them, it would end itself before it has removed its files."""
        with suppress(SlotLost, TimeoutError):
            await asyncio.wait_for(self.slot.leave(), STOP_WITHIN_S)
        self.heartbeats.cancel()
        await asyncio.wait([self.heartbeats])


class RayRunner(LiveRunner):
    """A `LiveRunner` whose runs are made on the nodes of a cluster. Use it as a context manager.

    Args:
        places: opens slots on the nodes.
        slots: the number of slots.
        spec, folder, budget, watch, observers, put_away, say: as for `LiveRunner`.
    """

    def __init__(
        self,
        spec: GraphSpec,
        folder: Path,
        budget: Budget,
        places: Places,
        *,
        slots: int,
        gpus: int = 0,
        watch: Callable[[Plan, str, RunStatus], None] | None = None,
        observers: Sequence[RunObserver] = (),
        put_away: Callable[[RunResult], None] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(
            spec, folder, budget, watch=watch, observers=observers, put_away=put_away, slots=slots, say=say
        )  # fmt: skip
        self.gpus = gpus
        self._places = places
        self._held: list[_Held] = []
        self._idle: list[_Held] = []
        # The slots that are being opened, and the error after which none can be.
        self._opening: set[asyncio.Task[None] | None] = set()
        self._failed: GraphquakeError | None = None
        # Set when a slot has become free, or was lost.
        self._freed = asyncio.Event()
        self._disturbed: defaultdict[Path, list[DisturbedRun]] = defaultdict(list)

    async def _describe(self) -> Host:
        """Open the first slot, so that an error shows now. The others open when runs wait for them."""
        held = await self._open()
        self._idle.append(held)
        return replace(held.slot.host, node="")

    async def _open(self) -> _Held:
        for tries_left in reversed(range(OPEN_TRIES)):
            try:
                held = _Held(await self._places.open())
                break
            except SlotLost as error:
                if not tries_left:
                    raise NoPlace(f"a node could not open a slot: {error}") from None
                self._say(f"a slot was lost while it opened ({error}); it is tried again")
                await asyncio.sleep(OPEN_AGAIN_AFTER_S)
        self._held.append(held)
        self._say(f"slot {len(self._held)} of {self.slots}: node {held.slot.host.node}")
        return held

    async def _open_more(self) -> None:
        """Open one more slot while runs go on. If no node has room for it, go on with one slot less."""
        try:
            self._idle.append(await self._open())
        except NoPlace as error:
            if self._held or len(self._opening) > 1:
                self.slots -= 1
                self._say(f"slots: {self.slots} ({error})")
            else:
                self._failed = error
        except GraphquakeError as error:
            self._failed = error
        finally:
            self._opening.discard(asyncio.current_task())
            self._freed.set()

    async def _take(self) -> _Held:
        """Return a slot that no run has. Open one if there are too few, and take the first one that is free.

        Raises:
            NoPlace: if there is no slot any more.
            InputError: if the graph can't run on a node.
        """
        while True:
            while self._idle:
                held = self._idle.pop()
                if not held.lost.done():
                    return held
                self._forget(held)
            if self._failed is not None:
                raise self._failed
            if len(self._held) + len(self._opening) < self.slots:
                self._opening.add(asyncio.ensure_future(self._open_more()))
            self._freed.clear()
            await self._freed.wait()

    def _put_back(self, held: _Held) -> None:
        self._idle.append(held)
        self._freed.set()

    def _forget(self, held: _Held) -> None:
        """Note that a slot is lost."""
        held.heartbeats.cancel()
        self._held.remove(held)
        self._freed.set()

    async def _until_closed(self) -> None:
        try:
            await super()._until_closed()
        finally:
            opening = [one for one in self._opening if one is not None]
            for one in opening:
                one.cancel()
            await asyncio.gather(*opening, return_exceptions=True)
            await asyncio.gather(*(one.end() for one in self._held))

    async def _make(self, order: RunOrder, folder: Path, watch: Watch) -> LiveRun:
        while True:
            held = await self._take()
            begun_s = time.monotonic()
            try:
                delivery = await held.run(
                    Order(order, self.budget.left_s, self.budget.left_runs), watch
                )
            except SlotLost as lost:
                cause = f"the slot on node {held.slot.host.node} was lost: {lost}"
                self._disturbed[folder].append(
                    DisturbedRun(Verdict("invalid", causes=(cause,)), time.monotonic() - begun_s)
                )
                self.budget.begin_run()
                self._say(f"run {folder.name}: {cause}; the run begins again")
                self._forget(held)
                continue
            except asyncio.CancelledError:
                await self._stop(held)
                raise
            self._put_back(held)
            if delivery is None:
                raise asyncio.CancelledError
            return await self._arrived(delivery, folder, order.spec or self.spec)

    async def _stop(self, held: _Held) -> None:
        """End the run in progress, because it is not needed. Its slot is free then."""
        if self._opened.result().closing.is_set():
            return
        try:
            await asyncio.wait_for(held.slot.stop(), STOP_WITHIN_S)
        except (SlotLost, TimeoutError) as error:
            held.lose(str(error) or "the run did not end")
        self._put_back(held)

    async def _arrived(self, delivery: Delivery, folder: Path, spec: GraphSpec) -> LiveRun:
        """Write the files of a run where those of a local run are, and judge its history."""
        await asyncio.to_thread(unpack, delivery.files, folder)
        result = delivery.result
        if isinstance(result, Failed):
            text = result.text.replace(result.folder, str(folder))
            raise GraphError(text) if result.of_graph else InputError(text)
        history = result.history
        # The folder names the graph file by its place here, so that the run can be judged again here.
        history.spec = spec
        verdict = await asyncio.to_thread(judge, history)
        await asyncio.to_thread(history.save, folder)
        (folder / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=1) + "\n")
        self._disturbed[folder] += result.disturbed
        for _ in result.disturbed:
            self.budget.begin_run()
        return LiveRun(history, verdict, folder, result.live_s, result.start_s, used=result.used)

    async def _undisturbed(
        self, order: RunOrder, once: Callable[[], Awaitable[LiveRun]]
    ) -> tuple[LiveRun, tuple[DisturbedRun, ...]]:
        """Make a run. Its node has repeated it already if other work there disturbed it."""
        del order
        run = await once()
        return run, tuple(self._disturbed.pop(run.folder, ()))
