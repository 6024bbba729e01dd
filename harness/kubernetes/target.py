"""The target of a graph in a Kubernetes cluster. What it deletes, a controller makes again.

It attaches to a graph that is there, and then creates only its agents. Or it makes the graph from manifests, in a namespace of its own.

A replica is a place of its role. It holds one pod and one process of a container at a time: a new value of either is the next incarnation,
whoever caused it. All knowledge of deaths, starts and readiness comes from a watch of the pods. A run is invalid if the API server is away
for longer than `DEAF_MAX_S`, because nobody knows what happened meanwhile.

Clients, probes and metrics use local ports that lead to the pods through the API server (see `doors`).
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Self

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import Measured, ReplicaEvent
from graphquake.harness.history.notices import Notice
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.kubeconfig import read_access
from graphquake.harness.kubernetes.api.pulse import Pulse
from graphquake.harness.kubernetes.changes.cluster_faults import ClusterFaults
from graphquake.harness.kubernetes.changes.own_namespace import in_own_namespace
from graphquake.harness.kubernetes.changes.policy_faults import PolicyFaults
from graphquake.harness.kubernetes.consent import check_context, check_namespace, check_rights
from graphquake.harness.kubernetes.doors import HOST
from graphquake.harness.kubernetes.endpoints import Endpoints
from graphquake.harness.kubernetes.node.agents import CAPABILITIES, OF_NETWORK, Agents
from graphquake.harness.kubernetes.node.node_verbs import NodeFaults
from graphquake.harness.kubernetes.node.pod_faults import PodFaults
from graphquake.harness.kubernetes.node.squeezes import PodSqueezes
from graphquake.harness.kubernetes.notices import Notices
from graphquake.harness.kubernetes.pods import Pod
from graphquake.harness.kubernetes.roster import Roster
from graphquake.harness.kubernetes.sweeping import sweep_namespace
from graphquake.harness.kubernetes.verbs import (
    NEEDS_NODE,
    NoOwnSteps,
    delete_pod,
    not_landed,
    send,
)
from graphquake.harness.observation.http_probe import Prober
from graphquake.harness.observation.introspection import Introspector, unlisted_text
from graphquake.harness.observation.log_watch import watch_logs
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.moments import ReplicaMoments
from graphquake.harness.processes.replicas import ReplicaState
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.scope import Scope
from graphquake.harness.targets.target import Landed, Leak, View, Work

POLL_S: Final = 0.02
NOT_RUNNING: Final = "does not run"
# The longest time without a word from the API server. A restart of a control plane takes up to half a minute.
DEAF_MAX_S: Final = 60.0
# The time limit for a graph to list its replicas once all of them are ready.
LISTED_WITHIN_S: Final = 10.0
# The time limit for a controller and a node to bring back a replica. The back-off of a container may be up to five minutes.
BACK_WITHIN_S: Final = 60.0
# The status of a process whose end nobody saw, because its pod is gone. The kubelet sends SIGTERM before anything else.
UNSEEN: Final = -int(signal.SIGTERM)


class KubernetesTarget:
    """A graph in a cluster: a `Target`. `attach` makes it.

    Attributes:
        spec: see `Target`.
        log: see `Target`.
    """

    def __init__(self, layout: Layout, client: Client, prober: Prober) -> None:
        """Begin nothing yet: `attach` does."""
        self.spec = layout.spec
        self.moments = ReplicaMoments(layout.replicas)
        self._roster = Roster(layout, client, self.moments.spawned)
        self._layout = layout
        self._replicas = layout.replicas
        self._client = client
        self._ask = Introspector(layout, prober)
        cluster = layout.spec.cluster
        assert cluster is not None
        can = (*CAPABILITIES, *(OF_NETWORK if layout.spec.network == "namespaces" else ()))
        self._agents = Agents(client, cluster.namespace, cluster.agent, can, self._fail) if cluster.agent else None  # fmt: skip
        self._on_node = NodeFaults(self._agents) if self._agents else None
        self.resources = PodSqueezes(self._agents, self._roster.running)
        self.network: PodFaults | PolicyFaults = PodFaults(self._agents, self._running_pod)
        if layout.spec.network == "policies":
            self.network = PolicyFaults(layout.spec, client, cluster.namespace, self._running_pod)
        self.cluster = ClusterFaults(layout.spec, client, self._roster, cluster.ready_s)
        self._endpoints = Endpoints(layout, client, self._roster, prober)
        self._notices = Notices(client, cluster.namespace, self._roster)
        self._pulse = Pulse(client)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._failure: BaseException | None = None
        self._user = asyncio.current_task()

    @property
    def log(self) -> list[ReplicaEvent]:
        """See `Target.log`."""
        return self._roster.log

    # -------------------------------------------------------------------------------------------- begin and end

    @classmethod
    @asynccontextmanager
    async def attach(cls, spec: GraphSpec, run_dir: Path) -> AsyncIterator[Self]:
        """Attach to a graph, and wait until every replica is ready. When the context ends, the graph goes on.

        A graph with manifests is made first, in a namespace of its own. It ends with the context.

        Args:
            spec: the graph. Its file has a table `[kubernetes]`.
            run_dir: the folder for logs.

        Raises:
            InputError: if the cluster or the namespace must not be used, or can't be reached.
            GraphError: if the graph does not become ready.
        """
        cluster = spec.cluster
        assert cluster is not None
        access = read_access(cluster.context)
        check_context(spec, cluster, access.context)
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(Client(access))
            await check_namespace(spec, cluster, client)
            prober = await stack.enter_async_context(Prober())
            await sweep_namespace(client, cluster)
            spec = await stack.enter_async_context(in_own_namespace(client, spec))
            cluster = spec.cluster
            assert cluster is not None
            layout = Layout(spec, run_dir)
            self = cls(layout, client, prober)
            stack.push_async_callback(self._close)
            try:
                await self._begin(cluster.namespace, cluster.ready_s)
                yield self
            except asyncio.CancelledError:
                if self._failure is None or self._user is None or self._user.uncancel() > 0:
                    raise  # the cancellation did not come from `_fail`
                raise self._failure from None

    async def _begin(self, namespace: str, ready_s: float) -> None:
        roster = self._roster
        for work in roster.begin(namespace):
            self._go(work)
        self._go(self.cluster.beat())
        self._go(self.network.beat())
        if any(HOST in url for url in self.entries()):
            self._go(self._pulse.beat())
        self._go(self._notices.follow())
        self._go(self._endpoints.follow())
        self._go(watch_logs(self.spec.promises, roster.incarnations, self.log.append))
        until_s = time.monotonic() + ready_s
        while (late := self._late()) or roster.has_extra:
            if time.monotonic() > until_s:
                why = roster.not_ready_text(late, ready_s) if late else roster.extra_text(ready_s)
                raise GraphError(why)
            await asyncio.sleep(POLL_S)
        await check_rights(self.spec, self._client, roster.first_pods())
        if self._agents is not None:
            await self._agents.ready_at(roster.nodes())
        if self.spec.network != "host":
            await self.network.check(self.spec.path.name, self.spec.replicas())
        if not await self.wait_ready(LISTED_WITHIN_S):
            lists = await self._ask.listings()
            raise GraphError(unlisted_text(self.spec, LISTED_WITHIN_S, lists, self._ask.read))

    def _late(self) -> ReplicaState | None:
        return next((one for one in self._replicas.values() if not one.is_ready), None)

    async def _close(self) -> None:
        self._is_closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._agents is not None:
            await self._agents.close()
        await self.network.close()
        await self.cluster.close()
        await self._roster.close()

    def _go(self, work: Coroutine[None, None, None]) -> None:
        """Run a task in the background. If it fails, the graph can no longer be used."""

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            if error is not None:
                self._fail(error)

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)

    def _fail(self, error: BaseException) -> None:
        """Note that the graph can no longer be used, and cancel the task that uses it."""
        if not self._is_closing and self._failure is None and self._user is not None:
            self._failure = error
            self._user.cancel()

    def begin_run(self) -> None:
        """See `Target.begin_run`."""
        if self._failure is not None:
            raise self._failure
        self._user = asyncio.current_task()
        self._notices.begin_run()
        self._pulse.begin_run()
        live = {(one.name, one.running.number) for one in self._replicas.values() if one.running}
        self.log[:] = [event for event in self.log if (event.replica, event.incarnation) in live]

    @property
    def notices(self) -> list[Notice]:
        """See `Target.notices`."""
        return self._notices.all()

    @property
    def disturbed(self) -> tuple[float, str] | None:
        """See `Target.disturbed`. The way to the pods leads through the API server."""
        return self._pulse.slow

    # ------------------------------------------------------------------------------------------------- questions

    def entries(self) -> list[str]:
        """See `Target.entries`."""
        entry = self.spec.entry_role
        urls = (self._layout.fill(one, entry.entry) for one in self._layout.of_role(entry.name))
        return list(dict.fromkeys(urls))

    @property
    def socket_factory(self) -> None:
        """See `Target.socket_factory`. Clients use ordinary sockets."""
        return None

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
        if running is None:
            return True
        try:
            async with asyncio.timeout(within_s):
                await running.ended.wait()
        except TimeoutError:
            return False
        return True

    def varied(self) -> list[Replica]:
        """See `Target.varied`. The commands of pods are not in the graph file."""
        return []

    def pids(self) -> list[int]:
        """See `Target.pids`. No process of the graph runs on this machine."""
        return []

    async def wait_ready(self, within_s: float) -> bool:
        """See `Target.wait_ready`. A controller brings back every replica that it should have, so all of these are awaited."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            works = Counter(one.role.name for one in self._replicas.values() if one.works)
            enough = all(works[r.name] >= self.cluster.expected(r.name) for r in self.spec.roles)
            extra = self._roster.has_extra and not self.cluster.has_more
            is_settled = enough and not extra and not self.network.is_disturbed
            if is_settled and await self._ask.are_listed():
                return True
            await asyncio.sleep(POLL_S)
        return False

    async def views(self) -> list[View]:
        """See `Target.views`. The cluster is asked, too. Nobody is asked while the network is disturbed, or unknown pods serve."""
        if self.network.is_disturbed or self.cluster.has_more or self._roster.has_extra:
            return []
        lives = {one.name: one.now for one in self._replicas.values()}
        views = await self._ask.views()
        # A replica that has just answered its probe serves. It need not be asked twice: each question is a call of the API.
        serving = {one.observer: lives[one.observer] for one in views if one.what == "readiness" and one.says}  # fmt: skip
        return [*views, *await self._endpoints.views(serving)]

    async def measures(self) -> list[Measured]:
        """See `Target.measures`. Only the load is known, from the pages of metrics."""
        now_s = time.monotonic()
        return [
            Measured(
                now_s, replica, 0.0, 0, 0,
                said.get("in_flight"), said.get("waiting"), said.get("kv_usage"),
            )
            for replica, said in (await self._ask.loads()).items()
        ]  # fmt: skip

    async def work(self) -> Mapping[Replica, Work]:
        """See `Target.work`. It can't be measured here."""
        return {}

    def note_baseline_memory(self) -> None:
        """See `Target.note_baseline_memory`. It can't be measured here."""

    async def leaks(self) -> list[Leak]:
        """See `Target.leaks`: gauges that should be 0."""
        return await self._ask.raised_gauges()

    # ---------------------------------------------------------------------------------------------------- actions

    def _running_pod(self, replica: Replica) -> Pod | None:
        there = self._roster.running(replica)
        return there[0] if there else None

    async def delete(self, replica: Replica, grace_s: int | None) -> Landed:
        """See `Actions.delete`."""
        if (there := self._roster.running(replica)) is None:
            return not_landed(f"{replica} {NOT_RUNNING}")
        pod, life = there
        seen = partial(self._roster.is_deleted, replica.role, pod)
        return await delete_pod(self._client, pod, life, grace_s, seen)

    async def terminate(self, replica: Replica) -> Landed:
        """See `Actions.terminate`."""
        return await self._send(replica, signal.SIGTERM)

    async def interrupt(self, replica: Replica) -> Landed:
        """See `Actions.interrupt`."""
        return await self._send(replica, signal.SIGINT)

    async def _send(self, replica: Replica, number: signal.Signals) -> Landed:
        if (there := self._roster.running(replica)) is None:
            return not_landed(f"{replica} {NOT_RUNNING}")
        pod, life = there
        # The process may end before the answer of the command arrives.
        life.aimed = True
        landed = await send(self._client, pod, number)
        life.aimed = landed.ok
        life.terminating = landed.ok and life.runs
        return landed

    async def kill(self, replica: Replica, scope: Scope) -> Landed:
        """See `Actions.kill`. It needs the agent."""
        there = self._roster.running(replica)
        if there is None or self._on_node is None:
            return not_landed(f"{replica}: {NEEDS_NODE if there else NOT_RUNNING}")
        return await self._on_node.kill(self.spec.role(replica.role), *there, scope)

    async def stall(self, replica: Replica, scope: Scope) -> Landed:
        """See `Actions.stall`. It needs the agent."""
        there = self._roster.running(replica)
        if there is None or self._on_node is None:
            return not_landed(f"{replica}: {NEEDS_NODE if there else NOT_RUNNING}")
        return await self._on_node.stall(self.spec.role(replica.role), *there, scope)

    async def resume(self, replica: Replica) -> Landed:
        """See `Actions.resume`."""
        there = self._roster.running(replica)
        if there is None or self._on_node is None or not there[1].stalled:
            proof = f"{replica} is not stalled"
            return Landed(ok=True, proof=proof, at_s=time.monotonic())
        return await self._on_node.resume(*there)

    def use(self, replica: Replica, variant: str) -> None:
        """See `Actions.use`. Roles of a cluster have no variants, so that no step asks for it."""

    async def respawn(self, replica: Replica) -> Landed:
        """See `Actions.respawn`. A controller and the kubelet start replicas again, so this waits until they have."""
        until_s = time.monotonic() + BACK_WITHIN_S
        while (there := self._roster.running(replica)) is None:
            if time.monotonic() > until_s:
                return not_landed(f"the cluster did not start {replica} again within {BACK_WITHIN_S:g} s")  # fmt: skip
            await asyncio.sleep(POLL_S)
        pod, life = there
        return Landed(ok=True, proof=f"the cluster started pod {pod.name} again", at_s=life.child.at_s)  # fmt: skip

    @property
    def own(self) -> NoOwnSteps:
        """See `Actions.own`."""
        return NoOwnSteps()
