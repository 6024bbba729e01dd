"""The roster of a graph in a cluster: which pod is which replica now, and what has happened to each.

All of it comes from one watch for each role. A change of a pod becomes a change at a place (see `places`), then an event of the log, and
opens or shuts the doors to the pod.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Final

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import BecameReady, Died, ReplicaEvent, Spawned, exit_text
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import PODS, labels_of, owner_of
from graphquake.harness.kubernetes.api.watch import Watch, items_of
from graphquake.harness.kubernetes.doors import Door
from graphquake.harness.kubernetes.journal import Journal
from graphquake.harness.kubernetes.logs import follow_log
from graphquake.harness.kubernetes.places import Happening, Places
from graphquake.harness.kubernetes.pods import Pod, read_pod
from graphquake.harness.processes.guard_client import Child
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.replicas import Incarnation, ReplicaState
from graphquake.harness.spec.replica import Replica

# The longest time without a word from the API server. A restart of a control plane takes up to half a minute.
DEAF_MAX_S: Final = 60.0
# The least pauses between two questions about the time: the first ones come soon, because the clock is not known yet.
ASK_SOON: Final = 20
ASK_SOON_S: Final = 0.05
ASK_LATER_S: Final = 5.0
GOLDEN: Final = (math.sqrt(5) - 1) / 2
# The status of a process whose end nobody saw, because its pod is gone. The kubelet sends SIGTERM before anything else.
UNSEEN: Final = -int(signal.SIGTERM)


class Roster:
    """The roster of one graph.

    Args:
        layout: the replicas. Their state is kept here.
        client: the API server.
        spawned: is called for each new incarnation.

    Attributes:
        log: see `Target.log`.
        incarnations: all incarnations by their keys.
        endings: the time at which each pod in a place was seen as deleted, and the replica.
        objects: the pods of the graph and the workloads behind them, by kind and name, with the replica of each pod that was in a place.
        journal: the journal.
    """

    def __init__(
        self, layout: Layout, client: Client, spawned: Callable[[Replica, Incarnation], None]
    ) -> None:
        self.log: list[ReplicaEvent] = []
        self.incarnations: dict[str, tuple[ReplicaState, Incarnation]] = {}
        self._layout = layout
        self._replicas = layout.replicas
        self._client = client
        self._spawned = spawned
        self.endings: list[tuple[float, Replica]] = []
        self.objects: dict[tuple[str, str], str] = {}
        self._claims: dict[str, int] = {}
        self.journal = Journal(layout.run_dir / "logs", client.clock)
        self._places = {role.name: Places(role.replicas) for role in layout.spec.roles}
        self._watches: dict[str, Watch] = {}
        self._doors: dict[Replica, dict[str, Door]] = {}
        # These are open as long as the pod runs, ready or not.
        self._inner: dict[Replica, dict[str, Door]] = {}

    def begin(self, namespace: str) -> Iterator[Coroutine[None, None, None]]:
        """Make the doors, which give each replica its ports. Yield the tasks that follow the cluster."""
        for replica in self._replicas.values():
            pods = replica.role.pods
            assert pods is not None
            doors = {name: Door(self._client, namespace, port) for name, port in pods.ports.items()}
            self._doors[replica.name] = doors
            self._inner[replica.name] = {
                name: Door(self._client, namespace, port) for name, port in pods.ports.items()
            }
            replica.ports = {name: door.port for name, door in doors.items()}
        for role in self._layout.spec.roles:
            assert role.pods is not None
            watch = Watch(self._client, PODS, namespace, role.pods.select)
            self._watches[role.name] = watch
        yield self._follow_all()
        yield self._listen()

    async def close(self) -> None:
        """Close all doors. The tasks that follow the cluster must have ended."""
        for doors in (*self._doors.values(), *self._inner.values()):
            for door in doors.values():
                await door.close()

    # ------------------------------------------------------------------------------------------------- questions

    def running(self, replica: Replica) -> tuple[Pod, Incarnation] | None:
        """Return the pod and the incarnation of a replica, or None if it does not run."""
        life = self._replicas[replica].running
        pod = self._places[replica.role].places[replica.index].pod
        return (pod, life) if pod is not None and life is not None else None

    def is_deleted(self, role: str, pod: Pod) -> bool:
        """True if the watch shows a pod as deleted, or as gone."""
        now = self._watches[role].known.get((pod.namespace, pod.name))
        return now is None or "deletionTimestamp" in now["metadata"]

    def pod(self, replica: Replica) -> Pod | None:
        """Return the pod in the place of a replica, or None if the place is free."""
        return self._places[replica.role].places[replica.index].pod

    def inner_ports(self, replica: Replica) -> dict[str, int]:
        """Return the local ports that lead to the pod of a replica as long as it runs, also if it is not ready."""
        return {name: door.port for name, door in self._inner[replica].items()}

    def a_pod(self, role: str) -> Pod | None:
        """Return a pod of a role, or None if there is none."""
        held = (place.pod for place in self._places[role].places)
        return next((pod for pod in held if pod is not None), None)

    def life_text(self, replica: Replica) -> str:
        """Return the name of the incarnation that runs, with its pod, e.g. `web 0.1 (pod web-5d4f)`. Empty if none runs."""
        there = self.running(replica)
        return f"{there[1].key} (pod {there[0].name})" if there else ""

    def works(self, replica: Replica) -> bool:
        """True if the replica is ready and not shutting down."""
        return self._replicas[replica].works

    @property
    def has_extra(self) -> bool:
        """True while a pod runs that is in no place, such as a replacement whose old pod shuts down. The graph may list it."""
        return any(map(self._extra, self._places))

    def _extra(self, role: str) -> list[Pod]:
        """Return the pods of a role that run and are in no place."""
        return [pod for pod in self._places[role].unplaced if pod.runs]

    def extra_text(self, within_s: float) -> str:
        """Say which role has more pods than the graph file expects."""
        role = next(one for one in self._layout.spec.roles if self._extra(one.name))
        assert role.pods is not None
        count = role.replicas + len(self._extra(role.name))
        where = f"{self._layout.spec.path.name}: roles.{role.name}"
        return f'{where}: after {within_s:g} s, select "{role.pods.select}" finds {count} pods, expected {role.replicas}'

    def lasting(self, role: str) -> list[str]:
        """Return the names of the pods of a role that do not shut down."""
        return [pod.name for pod in self._pods(role) if not (pod.deleting or pod.over)]

    def claim(self, role: str, count: int) -> None:
        """Note that a step makes a controller delete so many pods of a role. Their ends are then caused by a step."""
        self._claims[role] = count

    def _claimed(self, role: str) -> bool:
        left = self._claims.get(role, 0)
        self._claims[role] = max(0, left - 1)
        return left > 0

    def _told(self, replica: ReplicaState, life: Incarnation, at_s: float) -> None:
        """Note that the pod of a life was deleted, if that was not known before."""
        if not life.deleted:
            life.deleted = life.terminating = True
            life.aimed = life.aimed or self._claimed(replica.role.name)
            self.endings.append((at_s, replica.name))

    def first_pods(self) -> dict[str, Pod]:
        """Return one pod of each role, by the name of the role."""
        return {role: pod for role in self._places if (pod := self.a_pod(role)) is not None}

    def nodes(self) -> list[str]:
        """Return the nodes that hold a replica."""
        held = (place.pod for places in self._places.values() for place in places.places)
        return sorted({pod.item["spec"].get("nodeName", "") for pod in held if pod is not None})

    def not_ready_text(self, late: ReplicaState, within_s: float) -> str:
        """Say that a replica was not ready in time, and why."""
        pods = late.role.pods
        assert pods is not None
        where = f"{self._layout.spec.path.name}: roles.{late.role.name}: {late.name}"
        pod = self._places[late.role.name].places[late.index].pod
        count = len(self._watches[late.role.name].known)
        if pod is None:
            return f'{where}: after {within_s:g} s, select "{pods.select}" finds {count} pods, expected {late.role.replicas}'
        why = pod.waits_for or "its readiness probe does not pass"
        return f"{where}: pod {pod.name} is not ready within {within_s:g} s: {why}"

    # -------------------------------------------------------------------------------------- following the cluster

    async def _follow_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for role, watch in self._watches.items():
                tasks.create_task(self._follow(role, watch, tasks))

    async def _follow(self, role: str, watch: Watch, logs: asyncio.TaskGroup) -> None:
        """Follow the pods of a role."""
        async for change in watch.changes():
            pods = self._pods(role)
            self._note_objects(pods)
            for happened in self._places[role].update(pods):
                self._note(role, happened, change.seen_s, logs)
            await self._set_doors(role)

    def _pods(self, role: str) -> list[Pod]:
        pods = self._layout.spec.role(role).pods
        assert pods is not None
        return [read_pod(item, pods.container) for item in items_of(self._watches[role])]

    def _note_objects(self, pods: list[Pod]) -> None:
        """Remember the pods, and the workloads above them. A Deployment has the name of its ReplicaSet without the hash."""
        for pod in pods:
            self.objects.setdefault(("Pod", pod.name), "")
            kind, name = owner_of(pod.item)
            self.objects[kind, name] = ""
            if mark := labels_of(pod.item).get("pod-template-hash"):
                self.objects["Deployment", name.removesuffix(f"-{mark}")] = ""

    async def _listen(self) -> None:
        """Ask the API server for a word now and then: it tells the time. Fail if it is away for too long."""
        for count in itertools.count():
            # The fractions of these pauses are spread evenly, so that the answers come at all parts of a second.
            await asyncio.sleep(
                count * GOLDEN % 1 + (ASK_SOON_S if count < ASK_SOON else ASK_LATER_S)
            )
            with suppress(ApiError):
                await self._client.request("GET", "/version")
            heard_s = min(watch.heard_s for watch in self._watches.values())
            if time.monotonic() - heard_s > DEAF_MAX_S:
                server, name = self._client.access.server, self._layout.spec.name
                raise GraphError(f"{name}: the API server {server} was away for {DEAF_MAX_S:g} s")

    def _note(self, role: str, happened: Happening, seen_s: float, logs: asyncio.TaskGroup) -> None:
        """Take over what happened at one place."""
        replica = self._replicas[Replica(role, happened.number)]
        pod = happened.pod
        match happened.what:
            case "began":
                # A place never holds two lives at once, though its next pod may run before the last one is gone.
                ended_s = replica.now.ended_s if replica.now else -math.inf
                at_s = max(ended_s, self.journal.at(pod.started_s, seen_s))
                life = self._next_life(replica, pod, at_s)
                self.objects["Pod", pod.name] = str(replica.name)
                self.log.append(Spawned(at_s, replica.name, life.number, 0))
                text = f"began as container {pod.container_id} of pod {pod.name}"
                self.journal.note(f"{life.key} {text}", at_s, seen_s, pod.started_s)
                self._spawned(replica.name, life)
                logs.create_task(follow_log(self._client, pod, life))
            case "ready" if replica.running is not None:
                replica.running.ready.set()
                self.log.append(BecameReady(seen_s, replica.name, replica.running.number))
                self.journal.note(f"{replica.running.key} is ready", seen_s, seen_s, None)
            case "ended" if replica.running is not None:
                life, end = replica.running, happened.end
                if pod.deleting or end is None:
                    self._told(replica, life, seen_s)
                finished_s = end.finished_s if end else None
                at_s = max(life.child.at_s, self.journal.at(finished_s, seen_s))
                status = end.status if end else UNSEEN
                life.status, life.ended_s = status, at_s
                self.log.append(Died(at_s, replica.name, life.number, 0, status, life.aimed))
                text = f"ended with {exit_text(status)}" if end else "is gone"
                self.journal.note(f"{life.key} {text}", at_s, seen_s, finished_s)
                life.ended.set()
        self.log.sort(key=lambda event: event.at_s)

    def _next_life(self, replica: ReplicaState, pod: Pod, at_s: float) -> Incarnation:
        number, replica.begun = replica.begun, replica.begun + 1
        key = f"{replica.name}.{number}"
        log = self._layout.run_dir / "logs" / f"{replica.role.name}-{replica.index}.{number}.log"
        life = replica.now = Incarnation(number, key, log, Child(0, -1, at_s))
        life.terminating = pod.deleting
        self.incarnations[key] = replica, life
        return life

    async def _set_doors(self, role: str) -> None:
        """Open the doors to ready pods, and shut the others. Note which pods shut down."""
        for index, place in enumerate(self._places[role].places):
            replica = self._replicas[Replica(role, index)]
            pod = place.pod
            if replica.running is not None and pod is not None and pod.deleting:
                self._told(replica, replica.running, time.monotonic())
            runs = pod is not None and pod.runs and not pod.deleting
            ready = pod is not None and pod.ready
            for doors, is_open in ((self._doors, runs and ready), (self._inner, runs)):
                for door in doors[replica.name].values():
                    if pod is not None and is_open:
                        await door.open_to(pod.name)
                    else:
                        door.shut()
