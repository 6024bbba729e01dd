"""Execute one plan against one live graph, and record the history of the run. No other module carries out plans.

A run goes through its phases (baseline, plan, heal, recover, steady, drain) and records events and requests. It does not judge them.
A run lasts only as long as the promises need. `recover` ends as soon as every replica is ready and the clients have been calm for a while.
It ends at the latest when the promise `recovery` is due. `steady` lasts until errors are no longer excused by the last fault.

If a run ends early (an early verdict, Ctrl-C, an error), its clients are stopped here. The caller ends the graph.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from graphquake.harness.clients.load import Load
from graphquake.harness.history.events import (
    Event,
    Invalidated,
    Leaked,
    Measured,
    Phase,
    PhaseBegan,
    StepDone,
)
from graphquake.harness.history.faults import Fault, FaultTrail
from graphquake.harness.history.history import History
from graphquake.harness.history.host import Host
from graphquake.harness.history.request import Outcome, Request
from graphquake.harness.promises.availability import whole_s
from graphquake.harness.promises.clients.collapse import is_undecided
from graphquake.harness.promises.views import Views
from graphquake.harness.run.early_verdict import EarlyVerdict, Enough
from graphquake.harness.run.healing import bring_back_all, replicas_down
from graphquake.harness.run.noise.contention import ContentionMonitor
from graphquake.harness.run.request_trail import CALM_S, RequestTrail
from graphquake.harness.run.status import RunStatus, Watch
from graphquake.harness.run.steps import carry_out, end_events, undone_on_error
from graphquake.harness.run.traffic import TrafficWatch
from graphquake.harness.spec.plan import Plan, Step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.targets.target import Target

# The least length of the phase `baseline`, in which the load runs before the plan begins: nine requests at 15/s. The first request already
# shows a graph that does not work. Bounds that use a percentile of the baseline have a lower limit, so few requests are enough for them.
# The baseline is longer if a replica has not served yet (see `traffic`).
BASELINE_S: Final = 0.6
# The least length of `steady`, and the time by which `steady` outlasts the interval in which the last fault excuses errors.
STEADY_S: Final = 0.5
BEYOND_WINDOW_S: Final = 0.5
# The interval at which the state of the run is reported, and at which the run may end early.
TICK_S: Final = 0.25
POLL_S: Final = 0.05
# The interval at which the graph's listings and readiness probes are read.
LOOK_EVERY_S: Final = 0.5
# The interval at which CPU contention is measured.
CONTENTION_EVERY_S: Final = 0.5
# The interval at which the resources of the replicas are sampled.
MEASURE_EVERY_S: Final = 1.0


async def execute(
    target: Target,
    plan: Plan,
    *,
    watch: Watch | None = None,
    enough: Enough | None = None,
    to_the_end: bool = False,
    patient: bool = True,
) -> History:
    """Run a plan against a graph that is ready.

    Args:
        target: the graph. It stays open, in the state in which the run leaves it.
        plan: the steps to carry out on the graph.
        watch: receives the state of the run, several times a second.
        enough: returns true if the history so far is enough. The run then ends early. It is called repeatedly, in a worker thread.
        to_the_end: if true, clients of a closed loop send all of their requests, however long that takes. Otherwise they end with the run.
        patient: if true, the run goes on until every wrong list is decided, which may take a lease. Otherwise such a list proves nothing.

    Returns:
        The history of the run, up to its early end if there was one.
    """
    run = _Run(target, plan, to_the_end=to_the_end, patient=patient)
    async with undone_on_error(run.undo_own), asyncio.TaskGroup() as tasks:
        body = tasks.create_task(run.phases())
        observers = [run.watch_contention(), run.measure(), run.traffic.follow()]
        if watch is not None:
            observers.append(run.report(watch))
        if enough is not None:
            observers.append(run.end_early(body, EarlyVerdict(enough)))
        if "views_agree" in target.spec.promises.made:
            observers.append(run.look())
        beside = [tasks.create_task(one) for one in observers]
        body.add_done_callback(lambda _: [task.cancel() for task in beside])
    # A run that ended early may have left a replica stalled. It is resumed here, because the graph may serve another run.
    history = run.history()
    await run.end_ongoing()
    return history


class _Run:
    """The state of one run."""

    def __init__(self, target: Target, plan: Plan, *, to_the_end: bool, patient: bool) -> None:
        self._target = target
        self._plan = plan
        self._to_the_end = to_the_end
        self._patient = patient
        self._zero_s = time.monotonic()
        self._began = datetime.now(UTC)
        self._events: list[Event] = []
        self._requests: list[Request] = []
        self._exchanges: list[str] = []
        self._phase: Phase = "baseline"
        self._phase_s = 0.0
        self._step = -1
        self._landing: Fault | None = None
        self._ongoing: dict[int, Step] = {}
        # The end of each of them, if it is under way.
        self._ends: dict[int, asyncio.Future[Landed]] = {}
        self._views = Views()
        self._trail = RequestTrail(self._requests)
        self._load = Load(
            target.spec,
            target.entries(),
            self._zero_s,
            self._requests,
            self._exchanges,
            target.socket_factory,
        )

        self.traffic = TrafficWatch(target, self._load.now_s, self._zero_s)

    def history(self) -> History:
        """The history so far, as a snapshot. Later events and requests do not change it."""
        host = Host(began=self._began)
        requests, exchanges = self._trail.snapshot(), self._exchanges.copy()
        notices = [replace(one, at_s=one.at_s - self._zero_s) for one in self._target.notices]
        return History(
            self._target.spec, self._plan, self._sorted_events(), requests, exchanges, host, notices
        )

    def _history_of_events(self) -> History:
        """The history so far without its requests, for questions about events only. To make it takes little time, even in a long run."""
        return History(self._target.spec, self._plan, self._sorted_events())

    def _sorted_events(self) -> list[Event]:
        spawned = (replace(event, at_s=event.at_s - self._zero_s) for event in self._target.log)
        return sorted([*self._events, *spawned], key=lambda event: event.at_s)

    async def phases(self) -> None:
        """Go through all phases in order."""
        target = self._target
        async with self._load as load:
            try:
                await self.traffic.sample()
                load.start()
                self._begin("baseline")
                await asyncio.sleep(BASELINE_S)
                self._events += await self.traffic.until_all_serve()
                target.note_baseline_memory()
                self._begin("plan")
                await self._do_plan()
                self._begin("heal")
                await self._heal()
                self._begin("recover")
                await self._recover()
                self._begin("steady")
                await self._steady()
                self._begin("drain")
                await self._drain()
            except BaseException:
                # A run that ends early does not wait for its in-flight requests.
                load.abort()
                raise

    async def report(self, watch: Watch) -> None:
        """Report the state of the run several times a second."""
        trail = FaultTrail(self._events)
        while True:
            await asyncio.sleep(TICK_S)
            self._trail.follow()
            counts = (len(self._requests), self._trail.failed, self._trail.ok)
            now_s, faults = self._load.now_s(), trail.faults(self._landing)
            watch(RunStatus(self._phase, now_s, self._step, *counts, faults, self._began))

    async def end_early(self, body: asyncio.Task[None], verdict: EarlyVerdict) -> None:
        """End the run, which is the task `body`, as soon as the question of `verdict` is answered with true."""
        while True:
            await asyncio.sleep(TICK_S)
            if self._is_between() or self._phase == "baseline":
                continue
            self._trail.follow()
            events = sum(not isinstance(event, Measured) for event in self._events)
            known = (events, len(self._target.log), self._trail.unwell)
            if not verdict.is_due(time.monotonic(), known):
                continue
            if await verdict.ask(self.history(), known) and not self._is_between():
                body.cancel()
                return

    def _is_between(self) -> bool:
        """True while a fault is landing or ending. Requests may fail because of it, but no event in the history excuses them yet."""
        return self._landing is not None or any(number in self._ends for number in self._ongoing)

    async def look(self) -> None:
        """Read the graph's lists and readiness probes: regularly, after each change of a replica, and when a wrong answer gets too old."""
        known = len(self._target.log)
        while not self._is_draining():
            await asyncio.sleep(POLL_S)
            now_s = time.monotonic() - self._zero_s
            if len(self._target.log) == known and not self._is_time_to_look(now_s):
                continue
            known = len(self._target.log)
            views = await self._target.views()
            if not self._is_draining():
                self._events += self._views.changes(views, now_s)

    def _is_draining(self) -> bool:
        return self._phase == "drain"

    def _is_time_to_look(self, now_s: float) -> bool:
        if now_s - self._views.looked_s >= LOOK_EVERY_S:
            return True
        if not self._views.differ:
            return False
        until_s = self._views.undecided_until_s(self._history_of_events())
        return until_s is not None and now_s >= until_s

    async def watch_contention(self) -> None:
        """Look for CPU contention from other processes, and for a slow way to the graph. After the first, violations prove nothing."""
        monitor = ContentionMonitor()
        while True:
            await asyncio.sleep(CONTENTION_EVERY_S)
            since_s, cause = monitor.sample([os.getpid(), *self._target.pids()])
            if not cause and (slow := self._target.disturbed) is not None:
                since_s, cause = slow
            if cause:
                self._events.append(Invalidated(since_s - self._zero_s, cause, spares_kept=True))
                return

    async def measure(self) -> None:
        """Sample the resources and the load of the replicas, every `MEASURE_EVERY_S` seconds."""
        while True:
            for one in await self._target.measures():
                self._events.append(replace(one, at_s=one.at_s - self._zero_s))
            await asyncio.sleep(MEASURE_EVERY_S)

    def _begin(self, phase: Phase) -> None:
        self._phase, self._phase_s = phase, self._load.now_s()
        self._events.append(PhaseBegan(self._phase_s, phase))

    async def _do_plan(self) -> None:
        async with asyncio.TaskGroup() as ends:
            await self._do_steps(ends)

    async def _do_steps(self, ends: asyncio.TaskGroup) -> None:
        for number, step in enumerate(self._plan.steps):
            self._step, now_s = number, self._load.now_s()
            self._landing = Fault(number, step, now_s) if step.is_fault else None
            if self._landing and self._load.is_over:
                cause = f'the clients had ended before "{step}": they need more requests'
                self._events.append(Invalidated(self._load.now_s(), cause))
            traffic = await self.traffic.before(number, self._plan)
            self._events += traffic
            done = await carry_out(number, step, self._target, self._load, traffic)
            self._events.append(done)
            self._landing = None
            if step.lasts_s and done.landed:
                self._ongoing[number] = step
                if step.lasts_s < math.inf:
                    ends.create_task(self._end_later(number, step))
            if not done.landed:
                # The remaining steps are not carried out: without this step they would be another plan.
                break
        self._step = -1

    async def _end_later(self, number: int, step: Step) -> None:
        await asyncio.sleep(step.lasts_s)
        await self._end(number)

    async def _end(self, number: int) -> None:
        """Undo a step that is still in effect, such as a stall. If that fails, the run is invalid.

        A step is undone once, also if a run is cancelled while its end is under way.
        """
        step = self._ongoing[number]
        if number not in self._ends:
            undo = step.undo(Scene(number, self._target, self._load))
            self._ends[number] = asyncio.ensure_future(undo)
        undone = await asyncio.shield(self._ends[number])
        if self._ongoing.pop(number, None) is None:
            return
        self._events += end_events(number, step, undone, self._zero_s)
        if not undone.ok:
            cause = f'the end of "{step}": {undone.proof}'
            self._events.append(Invalidated(self._load.now_s(), cause))

    async def undo_own(self) -> None:
        """Run the commands `undo` that are due, and wait for ends under way. The run has failed, and the caller ends the graph."""
        own = (self._end(number) for number, step in self._ongoing.items() if step.is_own)
        await asyncio.gather(*own, *self._ends.values(), return_exceptions=True)

    async def end_ongoing(self) -> None:
        """Undo all steps that are still in effect, such as stalls, at the same time."""
        await asyncio.gather(*map(self._end, list(self._ongoing)))

    async def _heal(self) -> None:
        """Undo all steps that are still in effect. Then start all dead replicas again at the same time, if the plan says `heal all`."""
        await self.end_ongoing()
        if self._plan.heal != "all":
            return
        for replica, landed in await bring_back_all(self._target, replicas_down(self._target)):
            if not landed.ok and not self._target.alive(replica):
                cause = f"heal could not respawn {replica}: {landed.proof}"
                self._events.append(Invalidated(self._load.now_s(), cause))

    def _can_serve(self) -> bool:
        living = {one.role for one in self._live_replicas()}
        return self._target.spec.serves.holds(living)

    async def _recover(self) -> None:
        whole_at_s = whole_s(self._history_of_events()) or self._load.now_s()
        until_s = whole_at_s + self._target.spec.promises.all_ok_s
        while self._can_serve() and self._load.now_s() < until_s and not self._is_calm():
            if self._load.is_over:
                if not any(
                    r.outcome == Outcome.OK and r.ended_s >= self._phase_s for r in self._requests
                ):
                    cause = "the clients had ended before it could recover: they need more requests"
                    self._events.append(Invalidated(self._load.now_s(), cause))
                return
            await asyncio.sleep(POLL_S)

    def _is_calm(self) -> bool:
        """True if every live replica is ready and clients were served well, in this phase, for the last `CALM_S` seconds."""
        now_s = self._load.now_s()
        return (
            now_s - self._phase_s >= CALM_S
            and all(map(self._target.ready, self._live_replicas()))
            and self._trail.is_calm(now_s, self._target.spec.load)
        )

    def _live_replicas(self) -> list[Replica]:
        return [one for one in self._target.spec.replicas() if self._target.alive(one)]

    async def _steady(self) -> None:
        if self._can_serve():
            await self._last()
        if self._to_the_end:
            await self._load.clients_end()

    async def _last(self) -> None:
        """Wait until failures are no longer excused by a fault or a burst, and until every wrong answer of the graph is decided.

        A wrong answer of the graph about itself, e.g. a list, is decided when it becomes right, or when its time limit is over.
        """
        now_s = self._load.now_s()
        history = self._history_of_events()
        last_s = max((at_s for _, at_s in history.disturbed()), default=now_s - self._plan.stay_s)
        over_s = (
            step.at_s + self._plan.steps[step.number].sends_s
            for step in history.of(StepDone)
            if self._plan.steps[step.number].adds_load
        )
        window_s = self._target.spec.promises.window_s + BEYOND_WINDOW_S
        until_s = max(
            now_s + STEADY_S, max([last_s, *over_s]) + window_s, last_s + self._plan.stay_s
        )
        await asyncio.sleep(until_s - now_s)
        while self._plan.adds_load and is_undecided(self.history(), self._load.now_s()):
            await asyncio.sleep(TICK_S)
        while (
            self._patient and self._views.undecided_until_s(self._history_of_events()) is not None
        ):
            await asyncio.sleep(POLL_S)

    async def _drain(self) -> None:
        """Stop the load, and wait until every request has ended. Then record the leaks that remain after the grace time of `no_leak`."""
        self._load.stop()
        await self._load.idle()
        if "no_leak" not in self._target.spec.promises.made:
            return
        whole_at_s = whole_s(self._history_of_events()) or 0.0
        until_s = max(self._load.now_s(), whole_at_s) + self._target.spec.promises.grace_s
        while leaks := await self._target.leaks():
            if (now_s := self._load.now_s()) >= until_s:
                self._events += [Leaked(now_s, leak.kind, leak.what) for leak in leaks]
                return
            await asyncio.sleep(POLL_S)
