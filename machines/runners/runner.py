"""Where plans are run: within a budget, on as many graphs side by side as there are slots.

The judge and the shrinker ask a `Runner` for runs and know nothing of processes or event loops; in tests a simulated graph takes its
place. A run is begun and its outcome taken later; with one slot the one follows the other (`run`). The budget is in seconds of wall
time; a run is begun only if it is likely to end within it.

Live runs go on in an event loop of their own, in a thread beside the one that draws and shrinks: those who draw never make a client late
by more than the interpreter's switch interval. Whatever ends the runner ends the runs that still go on, and their graphs with them.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from graphquake.harness.errors import GraphError
from graphquake.harness.history.history import History
from graphquake.harness.history.host import Host
from graphquake.harness.processes.gpus import visible_gpus
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.early_verdict import Enough
from graphquake.harness.run.execute import RunStatus
from graphquake.harness.run.live import LiveRun, describe_host, run_live
from graphquake.harness.run.reuse import SLOW_START_S, USES_MAX, ReusableGraph
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import Budget, BudgetSpent

# Until a run was timed: a start, the phases, and a plan of a few seconds.
RUN_GUESS_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class RunResult:
    """A plan was run once.

    Attributes:
        folder: where the run's files are; None if nothing was kept (a simulated run).
        used: whether the graph had been used by a run before.
    """

    plan: Plan
    verdict: Verdict
    history: History
    live_s: float
    folder: Path | None = None
    used: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PendingRun:
    """A run that was begun.

    Attributes:
        done: its outcome, as soon as there is one.
        folder: where its files go; None for a simulated run.
    """

    plan: Plan
    done: Future[Any]
    folder: Path | None = None


class Runner(Protocol):
    """Runs plans.

    Attributes:
        slots: how many runs may go on side by side.
        gpus: how many GPUs a run takes.
        reuses: whether it pays to use a graph for several runs: it starts slowly, and there is one slot.
    """

    spec: GraphSpec
    host: Host
    slots: int
    gpus: int

    @property
    def reuses(self) -> bool:
        """See above."""
        ...

    def start(
        self, plan: Plan, why: str, *, enough: Enough | None = None, may_reuse: bool = False
    ) -> PendingRun:
        """Begin to run a plan once, on a fresh graph; at once if a slot is free.

        Args:
            why: what this run is for, in a word or two.
            enough: asked while it runs whether the history so far is enough.
            may_reuse: a graph that was used before will do, where it `reuses` any.

        Raises:
            BudgetSpent: if no run fits into the budget any more.
        """
        ...

    def result(self, pending: PendingRun) -> RunResult:
        """Wait until a run is over."""
        ...

    def run(self, plan: Plan, why: str, *, enough: Enough | None = None) -> RunResult:
        """Begin a run and wait until it is over."""
        ...

    def cancel(self, pending: PendingRun) -> None:
        """Nobody wants the outcome of that run any more: end it, and leave nothing of it."""
        ...

    def discard(self, outcome: RunResult) -> None:
        """Nobody needs the files of that run."""
        ...


_T = TypeVar("_T")


class LiveRunner:
    """The runner that launches real graphs.

    Args:
        spec: the graph.
        folder: where the folders of the runs go.
        budget: how long it may go on.
        watch: is told how the oldest of the runs stands, several times a second, in the thread of the runs.
        put_away: is given every run that nobody needs any more; without it, such a run's folder is removed.
        slots: how many graphs may run side by side.
    """

    def __init__(
        self,
        spec: GraphSpec,
        folder: Path,
        budget: Budget,
        *,
        watch: Callable[[Plan, str, RunStatus], None] | None = None,
        put_away: Callable[[RunResult], None] | None = None,
        slots: int = 1,
    ) -> None:
        self.spec = spec
        self.budget = budget
        self.slots = slots
        self.gpus = min(spec.gpus, len(visible_gpus()))
        self.host = Host()
        self.live_s: list[float] = []
        self.starts_s: list[float] = []
        self._folder = folder
        self._watch = watch
        self._put_away = put_away or _remove
        self._number = 0
        self._running: list[int] = []
        self._reusable: ReusableGraph | None = None
        self._is_open = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="graphquake-runs", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._closing: asyncio.Event
        self._free: asyncio.Semaphore

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_open.wait()
        try:
            self.host = self._begin(describe_host(self.spec)).result()
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

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=new_loop) as main:
            main.run(self._until_closed())

    async def _until_closed(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._free = asyncio.Semaphore(self.slots)
        self._is_open.set()
        # What still runs when this ends is cancelled, and waited for, by `asyncio.Runner`.
        await self._closing.wait()
        await self._end_reusable()

    def _begin(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    async def _end_reusable(self) -> None:
        graph, self._reusable = self._reusable, None
        if graph is not None:
            await graph.close()

    async def _live(
        self,
        number: int,
        plan: Plan,
        why: str,
        folder: Path,
        enough: Enough | None,
        *,
        may_reuse: bool,
    ) -> LiveRun:
        def tell(status: RunStatus) -> None:
            if self._watch is not None and number == min(self._running):
                self._watch(plan, why, status)

        async with self._free:
            self._running.append(number)
            if not may_reuse:
                await self._end_reusable()
            graph, self._reusable = self._reusable, None
            keep = may_reuse and self.reuses and (graph is None or graph.uses + 1 < USES_MAX)
            try:
                run = await run_live(
                    self.spec, plan, folder, watch=tell, enough=enough, host=self.host, graph=graph, keep=keep
                )  # fmt: skip
            except asyncio.CancelledError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            finally:
                self._running.remove(number)
            self._reusable = run.reusable
            if self._closing.is_set():
                await self._end_reusable()
            return run

    # ---- the runner

    @property
    def run_s(self) -> float:
        """What a run is likely to take."""
        return statistics.median(self.live_s) if self.live_s else RUN_GUESS_S

    @property
    def reuses(self) -> bool:
        """See `Runner.reuses`."""
        return (
            self.slots == 1
            and bool(self.starts_s)
            and statistics.median(self.starts_s) > SLOW_START_S
        )

    def start(
        self, plan: Plan, why: str, *, enough: Enough | None = None, may_reuse: bool = False
    ) -> PendingRun:
        """See `Runner.start`."""
        if not self.budget.has_room(self.run_s if self.live_s else 0.0):
            raise BudgetSpent
        self.budget.begin_run()
        self._number += 1
        folder = self._folder / f"{self._number:04}"
        run = self._live(self._number, plan, why, folder, enough, may_reuse=may_reuse)
        return PendingRun(plan, self._begin(run), folder)

    def result(self, pending: PendingRun) -> RunResult:
        """See `Runner.result`.

        A graph that does not come to serve makes the run invalid, unless none ever did: then the `GraphError` is the user's.
        """
        begun_s = time.monotonic()
        try:
            run: LiveRun = pending.done.result()
        except GraphError as error:
            if not self.live_s:
                raise
            verdict = Verdict("invalid", causes=(str(error).splitlines()[0],))
            spent_s = time.monotonic() - begun_s
            history = History(self.spec, pending.plan)
            return RunResult(pending.plan, verdict, history, spent_s, pending.folder)
        self.live_s.append(run.live_s)
        if not run.used:
            self.starts_s.append(run.start_s)
        return RunResult(
            pending.plan, run.verdict, run.history, run.live_s, pending.folder, run.used
        )

    def run(self, plan: Plan, why: str, *, enough: Enough | None = None) -> RunResult:
        """Run a plan once and wait for it; see `Runner.start` and `Runner.result`."""
        return self.result(self.start(plan, why, enough=enough))

    def cancel(self, pending: PendingRun) -> None:
        """See `Runner.cancel`."""
        if not pending.done.cancel() and pending.folder is not None:
            shutil.rmtree(pending.folder, ignore_errors=True)

    def discard(self, outcome: RunResult) -> None:
        """See `Runner.discard`."""
        self._put_away(outcome)


def _remove(outcome: RunResult) -> None:
    if outcome.folder is not None:
        shutil.rmtree(outcome.folder, ignore_errors=True)


def new_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where there is one: it costs the clients a sixth less CPU a request."""
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
