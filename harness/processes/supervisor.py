"""The target that launches a graph as local processes. It starts, watches and ends the graph, and leaves no process behind.

Every process of a graph descends from the graph's guard (see `guard`). It runs in the graph's folder, with reserved ports and a clean
environment. Of the harness's environment only PATH and CUDA_VISIBLE_DEVICES are passed on. Any other variable could make test workers
register themselves in a production cluster.

The supervisor's knowledge of a replica comes from the kernel: exits from the guard that reaped the process, children from /proc.
A replica is ready when the graph file's probe is answered by a socket of its present incarnation.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import (
    BecameReady,
    Died,
    Measured,
    ReplicaEvent,
    Spawned,
    goes_on,
)
from graphquake.harness.observation.http_probe import POLL_S, Prober
from graphquake.harness.observation.introspection import Introspector, unlisted_text
from graphquake.harness.observation.log_watch import watch_logs
from graphquake.harness.observation.resource_usage import Usage
from graphquake.harness.processes.guard_client import Guard
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.moments import ReplicaMoments
from graphquake.harness.processes.network.client import KEY as HUB_KEY
from graphquake.harness.processes.network.network import Network
from graphquake.harness.processes.own.own_commands import OwnCommands
from graphquake.harness.processes.process_tree import ProcessTree
from graphquake.harness.processes.procfs import (
    OWNER,
    REPLICA,
    kill_all,
    marked,
    of_sessions,
    ownerless,
    this_owner,
)
from graphquake.harness.processes.replicas import Incarnation, ReplicaState
from graphquake.harness.processes.resources.gpus import memory_by_pid
from graphquake.harness.processes.resources.reservations import Reservations
from graphquake.harness.processes.signals import (
    FaultInjector,
    not_landed,
    seen,
)
from graphquake.harness.processes.squeezes.disks import HOLDER, PrivateDisks
from graphquake.harness.processes.squeezes.squeezer import Squeezer
from graphquake.harness.processes.start import (
    last_lines,
    not_ready,
    port_taken_text,
    start_in_order,
    until_answered,
)
from graphquake.harness.processes.traffic import TrafficMeter
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.roles.role import RoleSpec
from graphquake.harness.targets.no_pods import NoPods
from graphquake.harness.targets.target import Landed, Leak, SocketFactory, View, Work

# The time limit to kill processes that a guard which was killed has left behind.
SWEEP_WITHIN_S: Final = 2.0
# The time limit for a graph to list its replicas once all of them are ready.
LISTED_WITHIN_S: Final = 10.0
# The time limit while a replica is dead that the others may need to become listed, e.g. a registry.
UNLISTED_S: Final = 2.0
_graphs = itertools.count(1)


class Supervisor(NoPods):
    """A graph that was launched from its file: a `Target`. `launch` makes it. Use it only in the event loop in which `launch` was called.

    Attributes:
        spec: see `Target`.
        log: see `Target`.
    """

    def __init__(self, layout: Layout, prober: Prober, network: Network) -> None:
        """Start the guard. The replicas are started by `launch`."""
        self.spec = layout.spec
        self.log: list[ReplicaEvent] = []
        self.network = network
        self._layout = layout
        self._replicas = layout.replicas
        self.moments = ReplicaMoments(layout.replicas)
        self._owner = this_owner(str(next(_graphs)))
        self._incarnations: dict[str, tuple[ReplicaState, Incarnation]] = {}  # all, by their keys
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._restarts: dict[Replica, asyncio.Task[None]] = {}
        self._is_closing = False
        self._failure: BaseException | None = None
        self._user = asyncio.current_task()
        self._usage = Usage()
        self._prober = prober
        self._ask = Introspector(layout, prober)
        self._traffic = TrafficMeter(prober)
        lost = GraphError(f"{self.spec.name}: the guard of the graph was killed")
        self._guard = Guard(self._exited, lambda: self._fail(lost))
        self._tree = ProcessTree(self._guard.pid)
        self.own = OwnCommands(layout, self._guard, self._tree, str(self._owner), network)
        self._disks = PrivateDisks(layout, self._guard, self._tree, str(self._owner))
        self.resources = Squeezer(layout, self._guard, self._tree, str(self._owner), self._disks)
        # The signals of steps need nothing of the graph but its processes.
        inject = FaultInjector(self._tree, layout.replicas)
        self.kill, self.stall, self.resume = inject.kill, inject.stall, inject.resume
        self.terminate, self.interrupt = inject.terminate, inject.interrupt

    # ------------------------------------------------------------------------------------------- launch and end

    @classmethod
    @asynccontextmanager
    async def launch(cls, spec: GraphSpec, run_dir: Path) -> AsyncIterator[Self]:
        """Start a graph, and wait until it is ready. When the context ends, for any reason, end every process of the graph.

        Args:
            spec: the graph.
            run_dir: the graph's folder, `{run_dir}` in its file. Logs go to its subfolder `logs`.

        Raises:
            GraphError: if the graph does not become ready, or if its guard is killed while the context is open.
        """
        layout = Layout(spec, run_dir)
        async with AsyncExitStack() as stack:
            reservations = Reservations()
            stack.callback(reservations.close)
            layout.reserve(reservations)
            network = Network(layout)
            prober = await stack.enter_async_context(Prober(network.socket_factory))
            stack.callback(network.close)
            await kill_all(ownerless, SWEEP_WITHIN_S)
            self = cls(layout, prober, network)
            stack.push_async_callback(self._close)
            try:
                await self._start()
                yield self
            except asyncio.CancelledError:
                if self._failure is None or self._user is None or self._user.uncancel() > 0:
                    raise  # the cancellation did not come from `_fail`
                raise self._failure from None

    def begin_run(self) -> None:
        """See `Target.begin_run`."""
        if self._failure is not None:
            raise self._failure
        self._user = asyncio.current_task()
        live = {(one.name, one.running.number) for one in self._replicas.values() if one.running}
        self.log[:] = [event for event in self.log if goes_on(event, live)]

    async def _start(self) -> None:
        await self._disks.start()
        self._traffic.look_at(await self.network.open(self._guard, {OWNER: str(self._owner)}))
        logs = watch_logs(self.spec.promises, self._incarnations, self.log.append)
        self._watches["logs"] = self._in_background(logs)
        await start_in_order(self.spec.roles, self._start_role)
        if not await self.wait_ready(LISTED_WITHIN_S):
            lists = await self._ask.listings()
            raise GraphError(unlisted_text(self.spec, LISTED_WITHIN_S, lists, self._ask.read))

    async def _start_role(self, role: RoleSpec) -> None:
        replicas = list(self._layout.of_role(role.name))
        await asyncio.gather(*map(self._spawn, replicas))
        await asyncio.gather(*map(self._first_ready, replicas))

    async def _first_ready(self, replica: ReplicaState) -> None:
        url = self._layout.fill(replica, replica.role.ready.get) if replica.role.ready else ""
        why = await not_ready(replica, self.spec.restart, url, self._prober)
        if why:
            logs = [inc.log for owner, inc in self._incarnations.values() if owner is replica]
            raise GraphError(f"{self._place(replica)}: {why}{last_lines(reversed(logs))}")

    def _place(self, replica: ReplicaState) -> str:
        return f"{self.spec.path.name}: roles.{replica.role.name}: {replica.name}"

    async def _close(self) -> None:
        self._is_closing = True
        for task in (*self._watches.values(), *self._restarts.values()):
            task.cancel()
        clean = False
        try:
            clean = await self._guard.close()
        finally:
            self._traffic.close()
            for _, incarnation in self._incarnations.values():
                if incarnation.runs:
                    incarnation.child.close()
        if not clean:
            # If the guard was killed, its children died with it, but not their descendants.
            await kill_all(self._left_behind, SWEEP_WITHIN_S)
            self.resources.close()

    def _left_behind(self) -> set[int]:
        """The graph's processes that still run, found by their marks, or by their sessions if they have overwritten the marks."""
        sessions = {event.pid for event in self.log if isinstance(event, Spawned)}
        return {*marked(self._owner), *of_sessions(sessions, since=self._owner.start)}

    def _fail(self, error: BaseException) -> None:
        """Note that the graph can no longer be used, and cancel the task that uses it."""
        if not self._is_closing and self._failure is None and self._user is not None:
            self._failure = error
            self._user.cancel()

    # -------------------------------------------------------------------------------------- processes of replicas

    async def _spawn(self, replica: ReplicaState) -> Incarnation:
        """Start the next incarnation of a replica. Do not wait until it is ready.

        Raises:
            GraphError: if the process could not be started.
        """
        number, replica.begun = replica.begun, replica.begun + 1
        key = f"{replica.name}.{number}"
        log = self._layout.run_dir / "logs" / f"{replica.role.name}-{replica.index}.{number}.log"
        env = self._layout.environment(replica) | {OWNER: str(self._owner), REPLICA: key}
        argv = self._disks.command(replica, self._layout.command(replica))
        cwd = str(self._layout.run_dir)
        preload = self._layout.preload(replica)
        try:
            child = await self._guard.spawn(key, argv, env, cwd, str(log), preload, replica.spaces)
        except GraphError as error:
            raise GraphError(f"{self._place(replica)}: {error}") from None
        incarnation = replica.now = Incarnation(number, key, log, child)
        self._incarnations[key] = replica, incarnation
        self._tree.add(child.pid, key)
        self.log.append(Spawned(child.at_s, replica.name, number, child.pid))
        self._watches[key] = self._in_background(self._watch(replica, incarnation))
        self.moments.spawned(replica.name, incarnation)
        return incarnation

    def _in_background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a task in the background. If it fails, the graph can no longer be used."""

        def done(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._fail(error)

        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(done)
        return task

    async def _watch(self, replica: ReplicaState, incarnation: Incarnation) -> None:
        """Wait until an incarnation is ready, and log that moment."""
        probe = replica.role.ready
        if probe is not None:
            url, own = self._layout.fill(replica, probe.get), replica.ports.values()
            await until_answered(
                self._prober, url, probe.body, own, lambda: self._tree.of(incarnation)
            )
        incarnation.ready.set()
        self.log.append(BecameReady(time.monotonic(), replica.name, incarnation.number))

    def _exited(self, key: str, pid: int, status: int, at_s: float) -> None:
        """Log the exit of a main process that the guard reports. Restart the replica if the graph file asks for it."""
        if key == HUB_KEY:
            self._fail(GraphError(f"{self.spec.name}: the network process has ended"))
            return
        replica, incarnation = self._incarnations[key]
        incarnation.status, incarnation.ended_s = status, at_s
        incarnation.child.close()
        self._watches.pop(key).cancel()
        aimed = incarnation.aimed
        self.log.append(Died(at_s, replica.name, incarnation.number, pid, status, aimed))
        incarnation.ended.set()
        # Another replica may have answered at the port of this one, so that it counted as ready.
        started = incarnation.ready.is_set() and not incarnation.number and not aimed
        if started and (taken := port_taken_text(replica.role, incarnation.log)):
            self._fail(GraphError(f"{self._place(replica)}: {taken}"))
        if self.spec.restart == "always" and not self._is_closing:
            self._restarts[replica.name] = self._in_background(self._restart(replica))

    async def _restart(self, replica: ReplicaState) -> None:
        await asyncio.sleep(self.spec.restart_delay_s)
        async with replica.spawning:
            await self._spawn(replica)

    # -------------------------------------------------------------------------------------------------- the target

    def entries(self) -> list[str]:
        """See `Target.entries`."""
        entry = self.spec.entry_role
        return [self._layout.fill(one, entry.entry) for one in self._layout.of_role(entry.name)]

    @property
    def socket_factory(self) -> SocketFactory | None:
        """See `Target.socket_factory`."""
        return self.network.socket_factory

    def alive(self, replica: Replica) -> bool:
        """See `Target.alive`."""
        return self._replicas[replica].running is not None

    def ready(self, replica: Replica) -> bool:
        """See `Target.ready`."""
        return self._replicas[replica].is_ready

    def ending(self, replica: Replica) -> bool:
        """See `Target.ending`."""
        return self._replicas[replica].is_ending

    async def gone(self, replica: Replica, within_s: float) -> bool:
        """See `Target.gone`."""
        running = self._replicas[replica].running
        return running is None or await seen(running.ended, within_s)

    async def respawn(self, replica: Replica) -> Landed:
        """See `Target.respawn`."""
        place = self._replicas[replica]
        # A restart that is already spawning is not cancelled: its process would belong to no replica.
        if not place.spawning.locked() and (restart := self._restarts.pop(replica, None)):
            restart.cancel()
        async with place.spawning:
            if place.running is not None:
                return not_landed(f"{replica} still runs, as pid {place.running.child.pid}")
            try:
                incarnation = await self._spawn(place)
            except GraphError as error:
                return not_landed(str(error))
        return Landed(ok=True, proof=f"pid {incarnation.child.pid}", at_s=incarnation.child.at_s)

    def use(self, replica: Replica, variant: str) -> None:
        """See `Target.use`."""
        self._replicas[replica].variant = variant

    def varied(self) -> list[Replica]:
        """See `Target.varied`."""
        return [name for name, one in self._replicas.items() if one.variant]

    async def wait_ready(self, within_s: float) -> bool:
        """See `Target.wait_ready`."""
        begun_s = time.monotonic()

        def all_ready() -> bool:
            coming = any(not task.done() for task in self._restarts.values())
            return not (coming or self.network.is_disturbed) and all(
                one.is_ready for one in self._replicas.values() if one.running
            )

        def left_s() -> float:
            bound_s = within_s
            if any(one.running is None for one in self._ask.beside_paths()):
                bound_s = min(within_s, UNLISTED_S)
            return begun_s + bound_s - time.monotonic()

        while left_s() > 0:
            if all_ready() and await self._ask.are_listed():
                return True
            await asyncio.sleep(POLL_S)
        return False

    async def views(self) -> list[View]:
        """See `Target.views`. While the network is disturbed, some replicas may not learn of changes, as without a registry."""
        return [] if self.network.is_disturbed else await self._ask.views()

    def pids(self) -> list[int]:
        """See `Target.pids`."""
        return self._tree.pids()

    def note_baseline_memory(self) -> None:
        """See `Target.note_baseline_memory`."""
        if any(one.gpus for one in self._replicas.values()):
            self._tree.note_gpu_memory()

    async def measures(self) -> list[Measured]:
        """See `Target.measures`."""
        said = await self._ask.loads()
        pids = self._tree.by_replica(self._replicas.values())
        held = memory_by_pid() if self.spec.gpus else {}
        return self._usage.look(time.monotonic(), pids, held, said)

    async def work(self) -> dict[Replica, Work]:
        """See `Target.work`."""
        return await self._traffic.sample(self._tree.by_replica(self._replicas.values()))

    async def leaks(self) -> list[Leak]:
        """See `Target.leaks`. Leaks are processes of no running replica, their ports, GPU memory, and gauges above 0 or unreadable."""
        live = {one.running.key for one in self._replicas.values() if one.running} | {HOLDER}
        return [*self._tree.leaks(live), *await self._ask.raised_gauges()]
