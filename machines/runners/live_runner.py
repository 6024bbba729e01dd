"""Runs plans on real graphs, in an event loop in a separate thread.

The thread that calls the runner draws and shrinks plans. Each time that the thread of the runs asks the kernel something, it may have to
wait for the interpreter's switch interval. So this interval is short while a runner is open. A run is begun only if it will probably end
within the budget. When the runner ends, for any reason, it ends all runs in progress and their graphs.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

from graphquake.harness.errors import GraphError
from graphquake.harness.history.history import History
from graphquake.harness.history.host import Host
from graphquake.harness.processes.resources.gpus import visible_gpus
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.early_verdict import Enough
from graphquake.harness.run.live import LiveRun, describe_host, run_live
from graphquake.harness.run.noise.undisturbed import undisturbed
from graphquake.harness.run.open_target import open_target
from graphquake.harness.run.reuse import SLOW_START_S, ReusableGraph
from graphquake.harness.run.status import RunStatus, Watch
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import Budget, BudgetSpent
from graphquake.machines.runners.event_loop import new_loop
from graphquake.machines.runners.graph_pool import GraphPool
from graphquake.machines.runners.patience import waits_for_lists
from graphquake.machines.runners.run_observer import Observation, RunObserver, observed
from graphquake.machines.runners.runner import (
    SEARCH,
    DisturbedRun,
    PendingRun,
    RunOrder,
    RunResult,
    last_number,
)
from graphquake.machines.runners.slot_queue import SlotQueue
from graphquake.machines.runners.slots import (
    CORES_SHARE,
    Machine,
    SideBySide,
    Usage,
    cores_here,
    cpu_spent_s,
    graphs_for,
    slots_for,
)

_T = TypeVar("_T")
# The interpreter's switch interval while a runner is open, in seconds. With the usual 5 ms, a look at the processes of a graph took up to
# 0.6 s while another thread drew plans, and clients were late.
SWITCH_S: Final = 0.0005


class _Loop(NamedTuple):
    """The event loop of the runs.

    Attributes:
        loop: the loop.
        closing: set when the runner ends.
        slots: the slots of the runs.
    """

    loop: asyncio.AbstractEventLoop
    closing: asyncio.Event
    slots: SlotQueue


class LiveRunner:
    """Launches real graphs. Use it as a context manager.

    Args:
        spec: the graph.
        folder: the parent of the runs' folders. The numbers of the runs follow the highest number that is there.
        budget: the budget of all runs together.
        watch: called several times a second, in the thread of the runs, with the plan, the purpose and the status of the oldest run.
        observers: observe each run, also those that are repeated.
        put_away: called with every run that is discarded. If None, the folder of such a run is removed.
        slots: the number of graphs that may run side by side. None means as many as this machine carries, which the first run shows.
        say: receives a line of text about the number of slots, if that was measured.
        ahead: if true, a graph may be opened ahead of the run that needs it.

    Attributes:
        spec, host, slots, gpus: as in `Runner`.
        budget: the budget of all runs together.
        starts_s: the seconds that each fresh graph took to start.
    """

    def __init__(
        self,
        spec: GraphSpec,
        folder: Path,
        budget: Budget,
        *,
        watch: Callable[[Plan, str, RunStatus], None] | None = None,
        observers: Sequence[RunObserver] = (),
        put_away: Callable[[RunResult], None] | None = None,
        slots: int | None = 1,
        say: Callable[[str], None] = lambda _: None,
        ahead: bool = True,
    ) -> None:
        self.spec = spec
        self.budget = budget
        self.slots = 1 if spec.is_shared else slots or 1
        self.gpus = min(spec.gpus, len(visible_gpus()))
        self.host = Host()
        self.starts_s: list[float] = []
        self._folder = folder
        self._watch = watch
        self._observers = observers
        self._say = say
        self._measures = slots is None and not spec.is_shared  # the first run tells their number
        self._usage: Usage | None = None  # the resources that it used
        self._start_cores = 0.0  # of the latest start
        self._opens_ahead = ahead and not spec.is_shared  # until a start may have disturbed a run
        self._aheads = itertools.count(1)
        self._beside = SideBySide()
        self._put_away = put_away or _remove
        self._took_s: list[float] = []
        # Runs of an earlier command stay.
        self._number = last_number(folder)
        self._running: list[int] = []
        self._ordered: set[Future[RunResult]] = set()  # the runs that go on or wait for a slot
        self._pool = GraphPool(self.slots, open_max=self.slots)
        self._opened: Future[_Loop] = Future()
        self._switch_s = sys.getswitchinterval()
        self._thread = threading.Thread(target=self._serve, name="graphquake-runs", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._opened.result()
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            self.host = self._begin(self._describe()).result()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    # ---- the thread of the runs

    async def _describe(self) -> Host:
        return await describe_host(self.spec)

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as main:
                main.run(self._until_closed())
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            raise

    async def _until_closed(self) -> None:
        loop = _Loop(asyncio.get_running_loop(), asyncio.Event(), SlotQueue(self.slots))
        self._opened.set_result(loop)
        # When this coroutine ends, `asyncio.Runner` cancels the runs in progress, and waits until they have ended.
        await loop.closing.wait()
        await self._pool.close()

    def _begin(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self._opened.result().loop)

    def _close(self) -> None:
        loop = self._opened.result()
        loop.loop.call_soon_threadsafe(loop.closing.set)
        self._thread.join()
        sys.setswitchinterval(self._switch_s)

    async def _live(self, number: int, order: RunOrder, folder: Path) -> RunResult:
        def tell(seen: Observation, status: RunStatus) -> None:
            seen.show(status)
            if self._watch is not None and number == min(self._running):
                self._watch(order.plan, order.why, status)

        async def once() -> LiveRun:
            with observed(self._observers, order.plan, order.why) as seen:
                seen.run = await self._make(order, folder, partial(tell, seen))
                return seen.run

        async with self._opened.result().slots.one(urgent=order.why != SEARCH):
            if order.why == SEARCH and not self.budget.left_s:
                # Runs that confirm or shrink a finding went first, until the time was over.
                raise BudgetSpent
            self._running.append(number)
            try:
                run, disturbed = await self._undisturbed(order, once)
            except asyncio.CancelledError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            finally:
                self._running.remove(number)
        return RunResult(
            order.plan, run.verdict, run.history, run.live_s, run.folder, run.used, run.start_s, disturbed
        )  # fmt: skip

    async def _make(self, order: RunOrder, folder: Path, watch: Watch) -> LiveRun:
        """Make one run, on a graph of the pool or on a fresh one."""
        own = order.spec is not None
        graph = await self._pool.take(
            may_reuse=order.may_reuse and not own,
            may_claim=not own,
            decided=(lambda: None) if own else self._open_ahead,
        )
        keep, left = self.reuses and not own and self._pool.decide_to_keep(graph), None
        try:
            run = await run_live(
                order.spec or self.spec, order.plan, folder, watch=watch, enough=order.enough, host=self.host, graph=graph,
                keep=keep, patient=order.patient,
            )  # fmt: skip
            left = run.reusable
            if left is not None and order.why == SEARCH and run.verdict.kind == "broken":
                # The cause of the violation may still be in this graph.
                await left.close()
                left = None
        finally:
            await self._pool.give_back(left, kept=keep)
        return run

    async def _undisturbed(
        self, order: RunOrder, once: Callable[[], Awaitable[LiveRun]]
    ) -> tuple[LiveRun, tuple[DisturbedRun, ...]]:
        """Make a run, and repeat it alone while other work disturbs it. Learn the number of slots from the first run.

        Returns:
            The last run, and the runs before it that were disturbed.
        """
        loop = self._opened.result()
        disturbed: list[DisturbedRun] = []

        def may_repeat(run: LiveRun) -> bool:
            self._note_end(loop, disturbed=True)
            # If a run of a search is disturbed on its own, the search goes on with another plan, and comes back to this one later.
            was_alone = self.slots == 1 or disturbed
            if order.why == SEARCH and was_alone:
                return False
            if loop.closing.is_set() or not self.budget.has_room(run.live_s):
                return False
            disturbed.append(DisturbedRun(run.verdict, run.live_s))
            self.budget.begin_run()
            return True

        cpu_s = cpu_spent_s()
        run = await undisturbed(once, may_repeat, loop.slots.alone)
        self._start_cores = run.start_cores
        if run.verdict.kind != "invalid":
            self._note_end(loop, disturbed=False)
        if self._usage is None and not disturbed:
            self._learn_usage(loop, run, cpu_spent_s() - cpu_s, is_own=order.spec is not None)
        return run, tuple(disturbed)

    # ---- slots

    def _learn_usage(self, loop: _Loop, run: LiveRun, cpu_s: float, *, is_own: bool) -> None:
        """If the user chose no number of slots, open as many as there is room for. Learn how many graphs may be open at once.

        A run under a load of its own may need more than others. So if there is room for one only, the next run is measured, too.
        """
        usage, machine = Usage.of(run.history, cpu_s, run.live_s, self.gpus), Machine.here()
        slots, why = slots_for(usage, machine)
        if self._measures and is_own and slots == 1:
            return
        self._usage = usage
        if self._measures:
            self.slots = loop.slots.slots = slots
            self._say(f"slots: {self.slots} ({why})")
        others = len(self._running) - 1
        self._pool.fit(self.slots, graphs_for(usage, machine, others))

    def _open_ahead(self) -> None:
        """Begin to open the graph of a later run, if graphs start slowly, and if the start leaves the runs in progress enough cores."""
        if self._usage is None or not (self._opens_ahead and self.reuses):
            return
        cores = self._usage.cores * len(self._running) + self._start_cores
        if cores <= CORES_SHARE * cores_here() and self.budget.has_room(self._likely_s()):
            self._pool.open_ahead(self._fresh_graph)

    async def _fresh_graph(self) -> ReusableGraph:
        work = self._folder / f"ahead-{next(self._aheads)}-graph"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            return await ReusableGraph.open(self.spec, work, open_target)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def _note_end(self, loop: _Loop, *, disturbed: bool) -> None:
        """Note that a run has ended. Use one slot less if too many runs disturb each other. A number of slots that the user chose stays.

        If a graph was being opened ahead, that may be the reason. Then no graph is opened ahead any more.
        """
        if disturbed and self._pool.is_ahead:
            self._opens_ahead = False
        elif self._measures and len(self._running) > 1:
            self._beside.add(disturbed=disturbed)
        if self.slots > 1 and self._beside.too_many:
            self._beside = SideBySide()
            self.slots -= 1
            self._pool.slots = loop.slots.slots = self.slots
            self._say(f"slots: {self.slots} (runs disturbed each other)")

    # ---- the runner

    def _likely_s(self) -> float:
        """The seconds that the next run will probably take: the median of the runs so far, or 0 before the first."""
        return statistics.median(self._took_s) if self._took_s else 0.0

    @property
    def reuses(self) -> bool:
        """See `Runner.reuses`."""
        return bool(self.starts_s) and statistics.median(self.starts_s) > SLOW_START_S

    def start(
        self,
        plan: Plan,
        why: str,
        *,
        enough: Enough | None = None,
        may_reuse: bool = False,
        patient: bool = True,
        spec: GraphSpec | None = None,
    ) -> PendingRun:
        """See `Runner.start`."""
        # So many runs have to end before this one can begin. Those of a search let all others go first.
        pending = sum(not one.done() for one in list(self._ordered))
        before = pending if why == SEARCH else min(pending, self.slots)
        queued = max(0, before - self.slots + 1)
        if not self.budget.has_room(self._likely_s() * (1 + queued / self.slots)):
            raise BudgetSpent
        self.budget.begin_run()
        self._number += 1
        folder = self._folder / f"{self._number:04}"
        patient = patient and (why != SEARCH or waits_for_lists(plan, self.spec.lease_s))
        order = RunOrder(plan, why, enough, may_reuse, patient, spec)
        done = self._begin(self._live(self._number, order, folder))
        self._ordered.add(done)
        done.add_done_callback(self._ordered.discard)
        return PendingRun(plan, done, folder)

    def result(self, pending: PendingRun) -> RunResult:
        """See `Runner.result`.

        A graph that does not start makes the run invalid. If no run has finished before, the graph file is probably wrong, so the error is
        raised.
        """
        begun_s = time.monotonic()
        try:
            result = pending.done.result()
        except GraphError as error:
            if not self._took_s:
                raise
            verdict = Verdict("invalid", causes=(str(error).splitlines()[0],))
            spent_s = time.monotonic() - begun_s
            history = History(self.spec, pending.plan)
            return RunResult(pending.plan, verdict, history, spent_s, pending.folder)
        self._took_s.append(result.live_s)
        if not result.used:
            self.starts_s.append(result.start_s)
        return result

    def run(self, plan: Plan, why: str, *, enough: Enough | None = None) -> RunResult:
        """See `Runner.run`."""
        return self.result(self.start(plan, why, enough=enough))

    def cancel(self, pending: PendingRun) -> None:
        """See `Runner.cancel`."""
        if not pending.done.cancel() and pending.folder is not None:
            shutil.rmtree(pending.folder, ignore_errors=True)

    def discard(self, result: RunResult) -> None:
        """See `Runner.discard`."""
        self._put_away(result)


def _remove(result: RunResult) -> None:
    if result.folder is not None:
        shutil.rmtree(result.folder, ignore_errors=True)
