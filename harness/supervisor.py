"""The target that launches a graph itself: starts it, watches it, kills it, and leaves nothing of it behind.

Every process of a graph descends from the graph's guard (see `guard`), runs in the graph's own folder, with ports of its own and with
a clean environment: what the harness was started with stays outside (but for PATH and CUDA_VISIBLE_DEVICES), or dying workers would
register themselves in somebody's production.

What the supervisor knows about a replica comes from the kernel: its exit from the guard that reaped it, its children from /proc. It is
ready when the probe of the graph file is answered, and by a socket that belongs to just this incarnation.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from graphquake.harness.errors import GraphError
from graphquake.harness.gauges import gauges_in, load_in
from graphquake.harness.gpus import MIB, memory_by_pid
from graphquake.harness.guard import children_of, descendants_of, stat_of
from graphquake.harness.guardlink import Guard
from graphquake.harness.history import BecameReady, Died, Measured, Spawned
from graphquake.harness.plan import PROCESS, TREE
from graphquake.harness.ports import Reservations
from graphquake.harness.probe import HTTP_OK, POLL_S, Prober
from graphquake.harness.processes import (
    OWNER,
    REPLICA,
    command_of,
    is_called,
    is_stopped,
    kill_all,
    marked,
    marks_of,
    of_sessions,
    ownerless,
    ports_of,
    runs,
    signal_and_see,
    signal_until,
    this_owner,
)
from graphquake.harness.replicas import Incarnation, Layout, Replica
from graphquake.harness.spec import GraphSpec
from graphquake.harness.target import Landed, Leak, View
from graphquake.harness.usage import Usage
from graphquake.harness.zygote import NAME as ZYGOTE

# How long a replica that was just started may take to have the child that a step aims at.
CHILD_WITHIN_S: Final = 1.0
# Longest that a SIGKILL may take to be seen: a process that gives back many GiB, or a GPU, takes its time.
KILL_WITHIN_S: Final = 5.0
SWEEP_WITHIN_S: Final = 2.0
# A process stops at once, unless the kernel is at work for it; on a busy host some milliseconds.
SWITCH_WITHIN_S: Final = 2.0
# How long a graph of which every replica is ready may take to list them.
LISTED_WITHIN_S: Final = 10.0
# The same while a replica is dead by which others would be listed: those may wait for it in vain.
UNLISTED_S: Final = 2.0
LOG_LINES: Final = 5
# What an allocator may keep besides; of three engines on a H100, each of 0.5 GiB, less than that was seen.
GPU_SLACK_BYTES: Final = 64 * MIB
SAID_MAX: Final = 160
_graphs = itertools.count(1)


class Supervisor:
    """A graph that was launched from its file; a `Target`. Made by `launch`, for the event loop that it was launched in.

    Attributes:
        spec: see `Target`.
        log: see `Target`.
    """

    def __init__(self, spec: GraphSpec, run_dir: Path) -> None:
        self.spec = spec
        self.log: list[Spawned | BecameReady | Died] = []
        self._layout = Layout(spec, run_dir.resolve())
        self._replicas = self._layout.replicas
        self._owner = this_owner(str(next(_graphs)))
        # Every incarnation so far, by its key, and the latest by its pid.
        self._incarnations: dict[str, tuple[Replica, Incarnation]] = {}
        self._mains: dict[int, str] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._restarts: dict[str, asyncio.Task[None]] = {}
        self._is_closing = False
        self._failure: BaseException | None = None
        self._user: asyncio.Task[object] | None = None
        # Every process so far, as far as it was met; and what all of them held of GPUs when the graph had settled.
        self._met: set[int] = set()
        self._gpu_bytes: int | None = None
        self._usage = Usage()
        self._prober: Prober
        self._guard: Guard

    # ------------------------------------------------------------------------------------------- launch and end

    @classmethod
    @asynccontextmanager
    async def launch(cls, spec: GraphSpec, run_dir: Path) -> AsyncIterator[Self]:
        """Start a graph and wait until it is ready; afterwards, whatever happened, end every process of it.

        Args:
            spec: what to start.
            run_dir: the graph's own folder, `{run_dir}` in its file; logs go to `logs` in it.

        Raises:
            GraphError: if the graph does not become ready, or if its guard is lost meanwhile.
        """
        self = cls(spec, run_dir)
        self._user = asyncio.current_task()
        async with AsyncExitStack() as stack:
            reservations = Reservations()
            stack.callback(reservations.close)
            self._layout.reserve(reservations)
            self._prober = await stack.enter_async_context(Prober())
            await kill_all(ownerless, SWEEP_WITHIN_S)
            self._guard = Guard(self._exited, self._lost)
            stack.push_async_callback(self._close)
            try:
                await self._start()
                yield self
            except asyncio.CancelledError:
                if self._failure is None or self._user is None or self._user.uncancel() > 0:
                    raise  # cancelled by somebody else
                raise self._failure from None

    def begin_anew(self) -> None:
        """A further run uses the graph, perhaps in a task of its own: what it is told of begins with the processes that live.

        Raises:
            GraphError: if the graph can no longer be used.
        """
        if self._failure is not None:
            raise self._failure
        self._user = asyncio.current_task()
        live = {(one.name, one.running.number) for one in self._replicas.values() if one.running}
        self.log[:] = [event for event in self.log if (event.replica, event.incarnation) in live]

    async def _start(self) -> None:
        await asyncio.gather(*map(self._spawn, self._replicas.values()))
        await asyncio.gather(*map(self._first_ready, self._replicas.values()))
        if not await self.wait_ready(LISTED_WITHIN_S):
            raise GraphError(
                f"{self.spec.name}: every replica is ready, but not listed within {LISTED_WITHIN_S:g} s: "
                + ", ".join(f"{one.says} of {one.holds}" for one in await self._listings())
            )

    async def _first_ready(self, replica: Replica) -> None:
        """Wait until a replica that was just started is ready.

        Raises:
            GraphError: if it dies before and nobody restarts it, or if it takes longer than its file allows.
        """
        probe = replica.role.ready
        within_s = probe.within_s if probe else KILL_WITHIN_S

        def settled() -> bool:
            assert replica.now is not None
            return replica.now.ready.is_set() or (
                not replica.now.runs and self.spec.restart == "never"
            )

        in_time = await self._until(settled, within_s)
        assert replica.now is not None
        if replica.now.ready.is_set():
            return
        if in_time:
            why = f"{replica.now.how_it_ended} before it was ready"
        else:
            assert probe is not None
            url = self._layout.fill(replica, probe.get)
            answer = await self._prober.get(url)
            said = " ".join(answer.text.split())[:SAID_MAX]
            status = f"HTTP {answer.status} " if answer.status else ""
            why = f"not ready within {within_s:g} s: GET {url}: {status}{said}".rstrip()
        raise GraphError(f"{self._place(replica)}: {why}{self._last_lines(replica)}")

    def _place(self, replica: Replica) -> str:
        return f"{self.spec.path.name}: roles.{replica.role.name}: {replica.name}"

    def _last_lines(self, replica: Replica) -> str:
        """The end of its latest log that has anything in it, each line indented below what went wrong."""
        logs = [inc.log for owner, inc in self._incarnations.values() if owner is replica]
        for log in reversed(logs):
            with suppress(OSError):
                lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
                told = [line.rstrip()[:SAID_MAX] for line in lines if line.strip()][-LOG_LINES:]
                if told:
                    return "; the end of its log:" + "".join(f"\n    {line}" for line in told)
        return "; its log is empty"

    async def _close(self) -> None:
        self._is_closing = True
        for task in (*self._watches.values(), *self._restarts.values()):
            task.cancel()
        clean = False
        try:
            clean = await self._guard.close()
        finally:
            for _, incarnation in self._incarnations.values():
                if incarnation.runs:
                    incarnation.child.close()
        if not clean:
            # A guard that was killed takes only its children with it.
            await kill_all(self._left_behind, SWEEP_WITHIN_S)

    def _left_behind(self) -> set[int]:
        """Found by mark, and by session where a process wrote over its marks."""
        sessions = {event.pid for event in self.log if isinstance(event, Spawned)}
        return {*marked(self._owner), *of_sessions(sessions, since=self._owner.start)}

    def _lost(self) -> None:
        self._fail(GraphError(f"{self.spec.name}: the guard of the graph was killed"))

    def _fail(self, error: BaseException) -> None:
        """The graph can no longer be used: cancel whoever uses it."""
        if not self._is_closing and self._failure is None and self._user is not None:
            self._failure = error
            self._user.cancel()

    # -------------------------------------------------------------------------------------- processes of replicas

    async def _spawn(self, replica: Replica) -> Incarnation:
        """Start the next incarnation.

        Raises:
            GraphError: if there is no process afterwards.
        """
        number, replica.begun = replica.begun, replica.begun + 1
        key = f"{replica.name}.{number}"
        log = self._layout.run_dir / "logs" / f"{replica.role.name}-{replica.index}.{number}.log"
        env = self._layout.environment(replica) | {OWNER: str(self._owner), REPLICA: key}
        argv, cwd = self._layout.command(replica), str(self._layout.run_dir)
        try:
            child = await self._guard.spawn(key, argv, env, cwd, str(log), self._preload(replica))
        except GraphError as error:
            raise GraphError(f"{self._place(replica)}: {error}") from None
        incarnation = replica.now = Incarnation(number, key, log, child)
        self._incarnations[key] = replica, incarnation
        self._mains[child.pid] = key
        self.log.append(Spawned(child.at_s, replica.name, number, child.pid))
        self._watches[key] = self._go(self._watch(replica, incarnation))
        return incarnation

    def _preload(self, replica: Replica) -> tuple[str, ...]:
        """What is worth importing beforehand: not what would have been for a GPU that is not there."""
        role = replica.role
        own = () if role.gpus and not replica.gpus else role.preload
        return (*self.spec.preload, *own)

    def _go(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Do something beside; if it fails, the graph can no longer be used."""

        def done(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._fail(error)

        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(done)
        return task

    async def _watch(self, replica: Replica, incarnation: Incarnation) -> None:
        """Write down when an incarnation becomes ready."""
        probe = replica.role.ready
        if probe is not None:
            url = self._layout.fill(replica, probe.get)
            await self._prober.until(url, probe.body)
            port = urlsplit(url).port
            is_own = port in replica.ports.values()
            while is_own and port not in ports_of(self._processes(incarnation)):
                # Somebody else answers there: a child that outlived an earlier incarnation.
                await asyncio.sleep(POLL_S)
                await self._prober.until(url, probe.body)
        incarnation.ready.set()
        self.log.append(BecameReady(time.monotonic(), replica.name, incarnation.number))

    def _exited(self, key: str, pid: int, status: int, at_s: float) -> None:
        """The guard reports an exit."""
        replica, incarnation = self._incarnations[key]
        incarnation.status, incarnation.ended_s = status, at_s
        incarnation.child.close()
        self._watches.pop(key).cancel()
        aimed = incarnation.aimed
        self.log.append(Died(at_s, replica.name, incarnation.number, pid, status, aimed))
        incarnation.ended.set()
        if self.spec.restart == "always" and not self._is_closing:
            self._restarts[replica.name] = self._go(self._restart(replica))

    async def _restart(self, replica: Replica) -> None:
        await asyncio.sleep(self.spec.restart_delay_s)
        async with replica.spawning:
            await self._spawn(replica)

    def _families(self) -> dict[int, str]:
        """Every process of the graph, and the key of the incarnation that it belongs to; no key if nothing tells."""
        found = {}
        for child in children_of(self._guard.pid):
            if (stat := stat_of(child)) and stat.comm == ZYGOTE:
                continue
            key = self._mains.get(child) or marks_of(child).get(REPLICA, "")
            if not key and (stat := stat_of(child)):
                key = self._mains.get(stat.session, "")
            for pid in (child, *descendants_of(child)):
                if runs(pid):
                    found[pid] = key
        return found

    def _processes(self, incarnation: Incarnation) -> list[int]:
        """All running processes of an incarnation, its main process first."""
        return [pid for pid, key in self._families().items() if key == incarnation.key]

    async def _until(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Wait until something holds. Whether it did in time."""
        until_s = time.monotonic() + within_s
        while not holds():
            if time.monotonic() >= until_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    # -------------------------------------------------------------------------------------------------- the target

    def entries(self) -> list[str]:
        """See `Target.entries`."""
        entry = self.spec.entry_role
        return [self._layout.fill(one, entry.entry) for one in self._layout.of_role(entry.name)]

    def alive(self, replica: str) -> bool:
        """See `Target.alive`."""
        return self._replicas[replica].running is not None

    def ready(self, replica: str) -> bool:
        """See `Target.ready`."""
        running = self._replicas[replica].running
        return running is not None and running.ready.is_set() and not running.stalled

    def ending(self, replica: str) -> bool:
        """See `Target.ending`."""
        running = self._replicas[replica].running
        return running is not None and running.told

    async def gone(self, replica: str, within_s: float) -> bool:
        """See `Target.gone`."""
        running = self._replicas[replica].running
        return running is None or await _seen(running.ended, within_s)

    async def kill(self, replica: str, scope: str, child: int) -> Landed:
        """See `Target.kill`."""
        place = self._replicas[replica]
        running = place.running
        if running is None:
            return _not(f"{replica} was dead already")
        if scope not in (TREE, PROCESS):
            return await self._kill_child(place, running, scope, child)
        begun_s = time.monotonic()
        running.aimed = True
        family = self._families()
        self._met.update(family)
        # What hides its marks is known only as long as its parents live: so all are looked up before anyone dies.
        others = {
            pid: stat.start
            for pid, key in family.items()
            if key == running.key and pid != running.child.pid and (stat := stat_of(pid))
        }
        running.child.send_signal(signal.SIGKILL)
        ended_s = begun_s
        pids = f"pid {running.child.pid}"
        if scope == TREE:

            def left() -> set[int]:
                known = {
                    pid
                    for pid, start in others.items()
                    if (stat := stat_of(pid)) and stat.start == start
                }
                return known.union(self._processes(running)) - {running.child.pid}

            more, all_gone = await kill_all(left, KILL_WITHIN_S)
            if not all_gone:
                return _not(f"SIGKILL did not end all of {replica} within {KILL_WITHIN_S:g} s")
            if more:
                pids += f" and {more} more"
                ended_s = time.monotonic()
        if not await _seen(running.ended, KILL_WITHIN_S):
            return _not(f"SIGKILL did not end {pids} within {KILL_WITHIN_S:g} s")
        ended_s = max(ended_s, running.ended_s)
        return Landed(ok=True, proof=_gone_after(pids, ended_s - begun_s), at_s=ended_s)

    async def _kill_child(
        self, replica: Replica, running: Incarnation, scope: str, number: int
    ) -> Landed:
        name = replica.role.children[scope]
        family: list[int] = []
        found: list[tuple[int, int]] = []

        def is_there() -> bool:
            family[:] = [pid for pid in self._processes(running) if pid != running.child.pid]
            found[:] = [
                (stat.start, pid)
                for pid in family
                if is_called(pid, name) and (stat := stat_of(pid))
            ]
            return number < len(found) or not running.runs

        await self._until(is_there, CHILD_WITHIN_S)
        if number >= len(found):
            there = ", ".join(sorted({command_of(pid)[:40] for pid in family})) or "none"
            return _not(
                f"{replica.name} has {len(found)} child processes called {name}; its children: {there}"
            )
        _, pid = sorted(found)[number]
        begun_s = time.monotonic()
        running.told |= scope in replica.role.dies_with
        gone = await signal_and_see(
            pid, signal.SIGKILL, lambda: pid in self._processes(running), KILL_WITHIN_S
        )
        ended_s = time.monotonic()
        if not gone:
            return _not(f"SIGKILL did not end pid {pid} ({name}) within {KILL_WITHIN_S:g} s")
        proof = _gone_after(f"pid {pid} ({name})", ended_s - begun_s)
        return Landed(ok=True, proof=proof, at_s=ended_s)

    async def terminate(self, replica: str) -> Landed:
        """See `Target.terminate`."""
        running = self._replicas[replica].running
        if running is None:
            return _not(f"{replica} was dead already")
        running.aimed = running.told = True
        sent_s = time.monotonic()
        running.child.send_signal(signal.SIGTERM)
        return Landed(ok=True, proof=f"SIGTERM sent to pid {running.child.pid}", at_s=sent_s)

    async def stall(self, replica: str) -> Landed:
        """See `Target.stall`."""
        running = self._replicas[replica].running
        if running is None:
            return _not(f"{replica} was dead already")
        running.stalled = True
        return await self._switch(running, signal.SIGSTOP)

    async def resume(self, replica: str) -> Landed:
        """See `Target.resume`."""
        running = self._replicas[replica].running
        if running is None or not running.stalled:
            return Landed(ok=True, proof="it had died", at_s=time.monotonic())
        landed = await self._switch(running, signal.SIGCONT)
        running.stalled = not landed.ok
        return landed

    async def _switch(self, running: Incarnation, number: signal.Signals) -> Landed:
        """Stop all processes of an incarnation, or let them go on."""
        begun_s = time.monotonic()
        is_stop = number == signal.SIGSTOP
        count, done = await signal_until(
            lambda: self._processes(running),
            number,
            lambda pid: runs(pid) and is_stopped(pid) != is_stop,
            SWITCH_WITHIN_S,
        )
        at_s = time.monotonic()
        took = f"{(at_s - begun_s) * 1e3:.1f} ms after {number.name}"
        state = "stopped (state T)" if is_stop else "no longer stopped"
        if not done:
            return _not(f"not all processes of {running.key} {state} {took}")
        return Landed(ok=True, proof=f"{count} processes {state} {took}", at_s=at_s)

    async def respawn(self, replica: str) -> Landed:
        """See `Target.respawn`."""
        place = self._replicas[replica]
        # One that is being started already can't be called back: its process would be nobody's.
        if not place.spawning.locked() and (restart := self._restarts.pop(replica, None)):
            restart.cancel()
        async with place.spawning:
            if place.running is not None:
                return _not(f"{replica} still runs, as pid {place.running.child.pid}")
            try:
                incarnation = await self._spawn(place)
            except GraphError as error:
                return _not(str(error))
        return Landed(ok=True, proof=f"pid {incarnation.child.pid}", at_s=incarnation.child.at_s)

    async def wait_ready(self, within_s: float) -> bool:
        """See `Target.wait_ready`."""
        begun_s = time.monotonic()

        def all_ready() -> bool:
            coming = any(not task.done() for task in self._restarts.values())
            running = [one.running for one in self._replicas.values()]
            return not coming and all(
                one.ready.is_set() and not one.stalled for one in running if one is not None
            )

        def left_s() -> float:
            bound_s = within_s
            if any(one.running is None for one in self._beside_paths()):
                bound_s = min(within_s, UNLISTED_S)
            return begun_s + bound_s - time.monotonic()

        while left_s() > 0:
            if all_ready() and await self._are_listed():
                return True
            await asyncio.sleep(POLL_S)
        return False

    def _beside_paths(self) -> list[Replica]:
        """Those that are no part of a path, such as a registry: while one of them is away, nobody may learn what became of others."""
        path = self.spec.serves.roles | {self.spec.entry_role.name}
        return [one for one in self._replicas.values() if one.role.name not in path]

    async def _are_listed(self) -> bool:
        return all(one.says >= one.holds for one in await self._listings())

    async def views(self) -> list[View]:
        """See `Target.views`."""
        if not all(map(self._works, self._beside_paths())):
            return []
        readiness = asyncio.gather(
            *map(self._readiness, filter(self._works, self._replicas.values()))
        )
        return [*await self._listings(), *(one for one in await readiness if one)]

    def _works(self, replica: Replica) -> bool:
        return self.ready(replica.name) and not self.ending(replica.name)

    async def _listings(self) -> list[View]:
        asked = (one for one in self._replicas.values() if one.role.listed and self._works(one))
        return await asyncio.gather(*map(self._listing, asked))

    async def _listing(self, replica: Replica) -> View:
        listed = replica.role.listed
        assert listed is not None
        answer = await self._prober.get(self._layout.fill(replica, listed.get))
        count = len(re.findall(listed.item, answer.text)) if answer.status else -1
        names = [one for role in listed.roles for one in self._layout.of_role(role)]
        return View(replica.name, "listing", count, sum(map(self._works, names)))

    async def _readiness(self, replica: Replica) -> View | None:
        probe = replica.role.ready
        if probe is None:
            return None
        answer = await self._prober.get(self._layout.fill(replica, probe.get))
        says = answer.status == HTTP_OK and re.search(probe.body, answer.text) is not None
        # Whom clients talk to is ready as long as it could serve them.
        holds = not replica.role.entry or self.spec.serves.holds_by(
            lambda role: any(map(self._works, self._layout.of_role(role)))
        )
        return View(replica.name, "readiness", int(says), int(holds))

    def pids(self) -> list[int]:
        """See `Target.pids`."""
        return descendants_of(self._guard.pid)

    def settled(self) -> None:
        """See `Target.settled`."""
        if any(one.gpus for one in self._replicas.values()):
            self._gpu_bytes = self._gpu_memory().total()

    def _gpu_memory(self) -> Counter[int]:
        """What processes of this graph, those that are gone included, hold of GPUs."""
        self._met.update(self._families())
        held = memory_by_pid()
        return Counter({pid: held[pid] for pid in self._met if held[pid]})

    def _gpu_leaks(self) -> Iterator[Leak]:
        if self._gpu_bytes is None:
            return
        held = self._gpu_memory()
        for pid in [pid for pid in held if not runs(pid)]:
            mib = held.pop(pid) // MIB
            yield Leak("gpu memory", f"pid {pid} is gone and still holds {mib} MiB of a GPU")
        more = held.total() - self._gpu_bytes
        if more > GPU_SLACK_BYTES:
            yield Leak(
                "gpu memory",
                f"{held.total() // MIB} MiB of GPUs are held, {more // MIB} MiB more than at first",
            )

    async def measures(self) -> list[Measured]:
        """See `Target.measures`."""
        asked = [one for one in self._replicas.values() if one.role.metrics and self._works(one)]
        answers = await asyncio.gather(
            *(self._prober.get(self._layout.fill(one, one.role.metrics)) for one in asked)
        )
        said = {
            one.name: load_in(answer.text, self.spec.gauges)
            for one, answer in zip(asked, answers, strict=True)
            if answer.status == HTTP_OK
        }
        owners = {one.running.key: one.name for one in self._replicas.values() if one.running}
        pids: dict[str, list[int]] = {name: [] for name in owners.values()}
        for pid, key in self._families().items():
            if key in owners:
                pids[owners[key]].append(pid)
        held = memory_by_pid() if self.spec.gpus else {}
        return self._usage.look(time.monotonic(), pids, held, said)

    async def leaks(self) -> list[Leak]:
        """See `Target.leaks`: processes without a replica, ports that they listen on, GPU memory, gauges that are not 0."""
        found = list(self._gpu_leaks())
        live = {one.running.key for one in self._replicas.values() if one.running}
        for pid, key in self._families().items():
            if key in live:
                continue
            whose = f"left by {key.rpartition('.')[0]}" if key else "of no replica"
            called = f"pid {pid} ({command_of(pid)[:60]})"
            found.append(Leak("process", f"{called} still runs, {whose}"))
            found += [
                Leak("socket", f"port {port} is listened on by {called}, {whose}")
                for port in sorted(ports_of([pid]))
            ]
        return found + await self._raised_gauges()

    async def _raised_gauges(self) -> list[Leak]:
        found = []
        gauges = self.spec.promises.gauges
        asked = [
            one for one in self._replicas.values() if one.role.metrics and self.ready(one.name)
        ]
        for replica in asked if gauges else []:
            answer = await self._prober.get(self._layout.fill(replica, replica.role.metrics))
            if answer.status != HTTP_OK:
                found.append(
                    Leak("gauge", f"{replica.name} gave no metrics: {answer.text[:SAID_MAX]}")
                )
            for name, value in gauges_in(answer.text, gauges).items():
                if value > 0:
                    found.append(Leak("gauge", f"{replica.name}: {name} is {value:g}"))
        return found


async def _seen(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _gone_after(what: str, took_s: float) -> str:
    return f"{what} gone {max(0.0, took_s) * 1e3:.1f} ms after SIGKILL"


def _not(proof: str) -> Landed:
    return Landed(ok=False, proof=proof, at_s=time.monotonic())
