"""The kubelet of the test cluster: it runs the containers of each pod, probes them, restarts them, and ends them.

It follows the rules of a real one: SIGTERM, then SIGKILL after the grace, which is at least 2 s, even if a delete says 0; a back-off that
doubles between restarts; a pod is ready if all of its containers are. Probes and the back-off go `speed` times as fast.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from graphquake.harness.kubernetes.api.objects import EVENTS, NODES, PODS, Json, key_of, uid_of
from graphquake.harness.processes.network.addresses import address_of

from support.cluster.containers import Container
from support.cluster.networks import PodNetworks
from support.cluster.store import Refused, Store, now_text

GRACE_LEAST_S: Final = 2.0
BACK_OFF_S: Final = 10.0
BACK_OFF_MAX_S: Final = 300.0
NODE: Final = "node-0"


class Kubelet:
    """Runs the pods of a store. `run` is its task."""

    def __init__(self, store: Store, folder: Path, *, speed: float, networks: PodNetworks | None) -> None:  # fmt: skip
        self.store = store
        self.networks = networks
        self.folder = folder
        self.speed = speed
        # Pods that use the API find it there. A real kubelet gives them a service account instead.
        self.config = Path()
        self.pods: dict[str, PodRun] = {}
        self._octets = (os.getpid() % 100 + 100, time.monotonic_ns() // 1000 % 250 + 1)
        self._over: set[str] = set()
        self._count = 0
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Follow the pods, until cancelled. Every container is then killed."""
        done = self.store.version
        factory = self.networks.hub.socket_factory if self.networks else None
        way = aiohttp.TCPConnector(socket_factory=factory)
        async with aiohttp.ClientSession(connector=way) as self.http:
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    for pod in self.store.all(PODS):
                        self._begin(pod)
                    while True:
                        await self.store.changed(done)
                        for change in self.store.since(done):
                            done = change.version
                            if change.resource == PODS:
                                self._follow(change.kind, change.item)
                            elif change.resource == NODES:
                                self._place_all()
            finally:
                for run in self.pods.values():
                    run.kill()
                ends = [one.process.wait() for run in self.pods.values() for one in run.containers if one.process]  # fmt: skip
                await asyncio.gather(*ends)

    def _place(self, pod: Json) -> None:
        """Begin a pod, or say that no node has room for it. A pod that names its node needs no scheduler."""
        node = self.store.find(NODES, "", NODE) or {}
        if pod["spec"].get("nodeName") or not node.get("spec", {}).get("unschedulable"):
            self._begin(pod)
            return
        why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        self.store.change(PODS, pod, status={"phase": "Pending", "conditions": [why]})

    def _place_all(self) -> None:
        """Begin the pods that wait for the node."""
        for pod in self.store.all(PODS):
            self._follow("MODIFIED", pod)

    def _begin(self, pod: Json) -> None:
        assert self._tasks is not None
        self._count += 1
        address = "127.{}.{}.{}".format(*self._octets, self._count % 250 + 1)
        if self.networks:
            address = address_of(self._count)
        self.pods[uid_of(pod)] = run = PodRun(self, pod, address)
        self._tasks.create_task(run.run(self._tasks))

    def end(self, pod: Json) -> None:
        """Note that a pod has ended for good."""
        self._over.add(uid_of(pod))
        del self.pods[uid_of(pod)]

    def _follow(self, kind: str, pod: Json) -> None:
        run = self.pods.get(uid_of(pod))
        if run is None:
            if kind != "DELETED" and not pod["metadata"].get("deletionTimestamp"):
                if uid_of(pod) not in self._over:  # old news of a pod that has ended by itself
                    self._place(pod)
            elif (now := self.store.find(PODS, *key_of(pod))) and uid_of(now) == uid_of(pod):
                self.store.delete(PODS, now, 0)  # it never ran, so nothing has to end
        elif kind == "DELETED":
            run.end_within(GRACE_LEAST_S)
        elif pod["metadata"].get("deletionTimestamp"):
            run.end_within(max(GRACE_LEAST_S, pod["metadata"]["deletionGracePeriodSeconds"]))

    # ---- what streams ask

    def _container(self, pod: Json, name: str) -> Container:
        run = self.pods.get(uid_of(pod))
        found = next((one for one in run.containers if one.name == name), None) if run else None
        if found is None:
            raise Refused(404, "NotFound", f"container {name} was not created yet")
        return found

    def inside(self, pod: Json, container: str, argv: list[str]) -> list[str]:
        """See `Node.inside`."""
        found = self._container(pod, container)
        if not found.pid:
            raise Refused(500, "InternalError", f"container {container} is not running")
        return found.inside(argv)

    def environment(self, pod: Json, container: str) -> dict[str, str]:
        """See `Node.environment`."""
        spec = next(one for one in pod["spec"]["containers"] if one["name"] == container)
        return self.pods[uid_of(pod)].environment(spec)

    async def connect(
        self, pod: Json, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See `Node.connect`."""
        run = self.pods[uid_of(pod)]
        if not run.network:
            return await asyncio.open_connection(run.address, port)
        assert self.networks is not None
        made = self.networks.new_socket()
        await asyncio.get_running_loop().sock_connect(made, (run.address, port))
        return await asyncio.open_connection(sock=made)

    def log(self, pod: Json, container: str, *, previous: bool) -> Path:
        """See `Node.log`."""
        found = self._container(pod, container)
        return found.folder / f"{found.restarts - 1}.log" if previous else found.log


class PodRun:
    """One pod on this node."""

    def __init__(self, kubelet: Kubelet, pod: Json, address: str) -> None:
        self.address = address
        self.network = ""
        self.pod = pod
        namespace, name = key_of(pod)
        base = kubelet.folder / f"{namespace}_{name}_{uid_of(pod)}"
        shares = bool(pod["spec"].get("hostPID"))
        self.containers = [Container(one["name"], base / one["name"], shares) for one in pod["spec"]["containers"]]  # fmt: skip
        self._kubelet = kubelet
        self._started_at = now_text()
        self._end_s = float("inf")
        self._ending = asyncio.Event()
        self._ready_since: tuple[bool, str] = (False, now_text())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to each main process."""
        for one in self.containers:
            one.signal(number)

    def kill(self) -> None:
        """Kill each container with its launcher, because the cluster ends."""
        for one in self.containers:
            if one.process is not None and one.process.returncode is None:
                one.process.kill()

    def end_within(self, grace_s: float) -> None:
        """Send SIGTERM, once, and SIGKILL after this time. A shorter time than before counts."""
        self._end_s = min(self._end_s, time.monotonic() + grace_s)
        if not self._ending.is_set():
            self._ending.set()
            self.signal(signal.SIGTERM)
            self.tell("Killing", "Stopping container " + self.containers[0].name)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Run all containers until they have ended for good. Then remove the pod, if it was deleted."""
        if self._kubelet.networks and not self.pod["spec"].get("hostNetwork"):
            self.network = await self._kubelet.networks.add(self.address)
            for one in self.containers:
                one.network = self.network
        killer = tasks.create_task(self._kill_in_time())
        specs = self.pod["spec"]["containers"]
        try:
            async with asyncio.TaskGroup() as group:
                for container, spec in zip(self.containers, specs, strict=True):
                    group.create_task(self._keep(container, spec))
        finally:
            # The files of a container go with it. These containers share the machine's folder for temporary files.
            Path("/tmp", key_of(self.pod)[1]).unlink(missing_ok=True)  # as in a container
        if self._ending.is_set():
            killer.cancel()
            store, (namespace, name) = self._kubelet.store, key_of(self.pod)
            left = store.find(PODS, namespace, name)
            if left is not None and uid_of(left) == uid_of(self.pod):
                store.delete(PODS, left, 0)
        self._kubelet.end(self.pod)

    async def _kill_in_time(self) -> None:
        await self._ending.wait()
        while (left_s := self._end_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, 0.05))
        self.signal(signal.SIGKILL)

    async def _keep(self, one: Container, spec: Json) -> None:
        """Start a container again and again, as its restart policy says."""
        back_off_s = 0.0
        policy = self.pod["spec"].get("restartPolicy", "Always")
        while not self._ending.is_set():
            begun_s = time.monotonic()
            code = await self._once(one, spec)
            if policy == "Never" or (policy == "OnFailure" and code == 0) or self._ending.is_set():
                break
            if (time.monotonic() - begun_s) * self._kubelet.speed > 2 * BACK_OFF_MAX_S:
                back_off_s = 0.0
            one.last, one.waiting = one.over, "CrashLoopBackOff"
            self.report()
            with suppress(TimeoutError):
                async with asyncio.timeout(back_off_s / self._kubelet.speed):
                    await self._ending.wait()
            back_off_s = min(max(BACK_OFF_S, 2 * back_off_s), BACK_OFF_MAX_S)
        one.waiting = ""
        self.report()

    async def _once(self, one: Container, spec: Json) -> int:
        """Run a container's process once, with its probes."""
        argv = [*spec.get("command", []), *spec.get("args", [])]
        try:
            await one.start(argv, self.environment(spec), spec.get("workingDir"))
        except OSError as error:
            one.over = {"exitCode": 128, "reason": "StartError", "message": str(error)}
            return 128
        one.ready = "readinessProbe" not in spec
        self.report()
        self.tell("Started", f"Started container {one.name}")
        if self._ending.is_set():
            one.signal(signal.SIGTERM)
        probes = [
            asyncio.create_task(self._probe(one, kind, spec[kind]))
            for kind in ("readinessProbe", "livenessProbe")
            if kind in spec
        ]
        try:
            return await one.ended()
        finally:
            for probe in probes:
                probe.cancel()
            await asyncio.gather(*probes, return_exceptions=True)
            if not self._kubelet.http.closed:
                self.report()

    async def _probe(self, one: Container, kind: str, probe: Json) -> None:
        """Ask a container again and again. A readiness probe sets `ready`, and a liveness probe ends the container."""
        speed, failed = self._kubelet.speed, 0
        await asyncio.sleep(probe.get("initialDelaySeconds", 0) / speed)
        while True:
            good = await self._asked(one, probe)
            failed = 0 if good else failed + 1
            if kind == "readinessProbe":
                ready = good or (one.ready and failed < probe.get("failureThreshold", 3))
                if ready != one.ready:
                    one.ready = ready
                    self.report()
            elif failed >= probe.get("failureThreshold", 3):
                self.tell("Unhealthy", "Liveness probe failed", "Warning")
                one.signal(signal.SIGTERM)
                await asyncio.sleep(GRACE_LEAST_S)
                one.signal(signal.SIGKILL)
            await asyncio.sleep(probe.get("periodSeconds", 10) / speed)

    async def _asked(self, one: Container, probe: Json) -> bool:
        limit = aiohttp.ClientTimeout(total=probe.get("timeoutSeconds", 1))
        if "exec" in probe:
            argv = one.inside(probe["exec"]["command"])
            process = await asyncio.create_subprocess_exec(*argv, stdout=-3, stderr=-3)
            return await process.wait() == 0
        get: dict[str, Any] = probe["httpGet"]
        url = f"http://{self.address}:{get['port']}{get.get('path', '/')}"
        try:
            async with self._kubelet.http.get(url, timeout=limit) as answer:
                return answer.status < 400
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def environment(self, spec: Json) -> dict[str, str]:
        """The environment variables of a container."""
        fields = {
            "metadata.name": self.pod["metadata"]["name"],
            "metadata.namespace": self.pod["metadata"]["namespace"],
            "metadata.uid": uid_of(self.pod),
            "status.podIP": self.address,
            "spec.nodeName": NODE,
        }
        env = {"PATH": os.environ["PATH"], "HOME": "/root", "HOSTNAME": fields["metadata.name"]}
        env["KUBECONFIG"] = str(self._kubelet.config)
        for one in spec.get("env", []):
            source = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            env[one["name"]] = fields[source] if source else one.get("value", "")
        return env

    # ---- telling the API server

    def report(self) -> None:
        """Write the status of the pod."""
        states = [one.status() for one in self.containers]
        over = [one.over for one in self.containers if one.over and not one.waiting and not one.pid]
        is_over = len(over) == len(states)
        codes = [one["exitCode"] for one in over]
        ready = all(one.ready for one in self.containers) and not is_over
        if ready != self._ready_since[0]:
            self._ready_since = (ready, now_text())
        when = {"status": str(ready), "lastTransitionTime": self._ready_since[1]}
        conditions = [{"type": kind, **when} for kind in ("Ready", "ContainersReady")]
        starting = all(one.restarts < 0 for one in self.containers)
        phase = "Pending" if starting else "Running"
        if is_over:
            phase = "Failed" if any(codes) else "Succeeded"
        status = {
            "phase": phase,
            "conditions": conditions,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "hostIP": "127.0.0.1",
            "startTime": self._started_at,
            "containerStatuses": states,
        }
        now = self._kubelet.store.find(PODS, *key_of(self.pod))
        if now is not None:
            spec = {**now["spec"], "nodeName": NODE}
            self._kubelet.store.change(PODS, self.pod, status=status, spec=spec)

    def tell(self, reason: str, message: str, kind: str = "Normal") -> None:
        """Create an event about the pod."""
        namespace, name = key_of(self.pod)
        about = {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid_of(self.pod)}
        meta = {"namespace": namespace, "generateName": f"{name}."}
        said = {"involvedObject": about, "reason": reason, "message": message, "type": kind}
        times = {"firstTimestamp": now_text(), "lastTimestamp": now_text(), "count": 1}
        with suppress(Refused):  # the namespace may be gone
            self._kubelet.store.create(EVENTS, {"metadata": meta, **said, **times})
