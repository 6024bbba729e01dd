"""Scales, rollouts and cordons on the test cluster: the cases in which they miss, heal, and what a killed run leaves."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Died, StepDone, Undone
from graphquake.harness.history.history import History
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.objects import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NODES,
    PODS,
    Json,
    name_of,
    uid_of,
)
from graphquake.harness.kubernetes.api.shell import Ran
from graphquake.harness.kubernetes.changes.records import LABEL, NOTE, Owner, Record, record_of
from graphquake.harness.kubernetes.endpoints import probe_needs_s
from graphquake.harness.kubernetes.pods import read_pod
from graphquake.harness.kubernetes.target import KubernetesTarget
from graphquake.harness.kubernetes.verbs import send
from graphquake.harness.picture import page
from graphquake.harness.run.open_target import sweep_leftovers
from graphquake.harness.spec.plan import parse_plan
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import View

from support.cluster.cluster import Cluster, can_run_pods
from support.cluster.kubelet import NODE
from support.cluster.web import GRAPH, web_cluster, web_spec
from support.undisturbed import run_live

pytestmark = [
    pytest.mark.skipif(
        not can_run_pods(), reason="pods need PID namespaces, and so root, on this machine"
    ),
    pytest.mark.roomy,
]
TEXT = GRAPH.replace("ready_s = 30", "ready_s = 30\ncordon = true")
ZERO = Replica("web", 0)


def workload(cluster: Cluster) -> Json:
    """The Deployment."""
    return cluster.store.get(DEPLOYMENTS, "lab", "web")


def node(cluster: Cluster) -> Json:
    """The node."""
    return cluster.store.get(NODES, "", NODE)


def is_marked(item: Json) -> bool:
    """True if the object carries a record."""
    meta = item["metadata"]
    return LABEL in (meta.get("labels") or {}) or NOTE in (meta.get("annotations") or {})


@asynccontextmanager
async def set_back(cluster: Cluster, replicas: int) -> AsyncIterator[None]:
    """Somebody else gives the Deployment its number of replicas back, as soon as it has another one."""

    async def watch() -> None:
        while True:
            now = workload(cluster)
            if now["spec"]["replicas"] != replicas:
                cluster.store.change(DEPLOYMENTS, now, spec={**now["spec"], "replicas": replicas})
            await cluster.store.changed(cluster.store.version)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()


def test_runs_with_faults_of_workloads(tmp_path: Path) -> None:
    """A rollout and a cordon before a delete keep all promises. Heal undoes the cordon, and the pod comes back only then."""

    async def body() -> None:
        async with web_cluster(tmp_path) as cluster:
            spec = web_spec(tmp_path, TEXT)
            plan = parse_plan("p", ["rollout web", "cordon web 0", "delete web 0", "wait 1 s"])
            run = await run_live(spec, plan, tmp_path / "run")
            notices = History.load(run.folder).notices
            assert [one for one in notices if one.reason == "Killing" and one.replica == "web 0"]
            kinds = ("Pod web-", "ReplicaSet web-", "Deployment web")
            assert all(one.about.startswith(kinds) for one in notices)
            assert notices == run.history.notices
            assert notices[0].about in page(run.history, {})
            rollout, cordon, delete, _ = run.history.of(StepDone)
            assert [str(one.signature) for one in run.verdict.violations] == []
            assert "Deployment web restarted: web 0.0 (pod web-" in rollout.proof
            assert "became web 0.1 (pod web-" in rollout.proof
            assert {one for _, one in rollout.told} == {ZERO, Replica("web", 1)}
            assert "the API server shows node node-0 as unschedulable" in cordon.proof
            (undone,) = run.history.of(Undone)
            assert undone.proof == "unschedulable of Node node-0 is None again"
            deaths = list(run.history.of(Died))
            assert [one.aimed for one in deaths] == [True] * 3
            assert deaths[-1].at_s > delete.begun_s
            assert not node(cluster)["spec"].get("unschedulable")
            assert not is_marked(node(cluster))
            assert not is_marked(workload(cluster))

    asyncio.run(body())


async def missing(cluster: Cluster, target: KubernetesTarget) -> None:
    """The attempts of `test_faults_that_miss`."""
    async with set_back(cluster, 2):
        landed = await target.cluster.scale("web", 1)
    assert not landed.ok
    assert landed.proof.endswith("from 2 to 1, but another user has set it to 2")
    assert not is_marked(workload(cluster))
    assert await target.wait_ready(30)

    async with set_back(cluster, 2):
        landed = await target.cluster.scale("web", 3)
    assert not landed.ok
    assert landed.proof.endswith("from 2 to 3, but another user has set it to 2")
    assert not is_marked(workload(cluster))
    async with asyncio.timeout(30):
        while not await target.views():
            await asyncio.sleep(0.02)

    landed = await target.cluster.scale("web", 0)
    assert landed.ok
    async with set_back(cluster, 1):
        await asyncio.sleep(0)
        back = await target.cluster.unscale("web")
    assert not back.ok
    assert "another user has set replicas of Deployment web to 1, so it stays" in back.proof  # fmt: skip
    assert not is_marked(workload(cluster))

    now = workload(cluster)
    cluster.store.change(DEPLOYMENTS, now, spec={**now["spec"], "paused": True, "replicas": 2})  # fmt: skip
    assert await target.wait_ready(30)
    landed = await target.cluster.rollout("web")
    assert not landed.ok
    assert "Deployment web is paused" in landed.proof

    cluster.label_node()
    landed = await target.cluster.cordon(ZERO)
    assert not landed.ok
    assert '"node-0" has no label graphquake/consent=true' in landed.proof
    assert not node(cluster)["spec"].get("unschedulable")


def test_faults_that_miss(tmp_path: Path) -> None:
    """A scale that somebody sets back, a paused rollout and a node without consent have not landed. They leave no record."""

    async def body() -> None:
        async with web_cluster(tmp_path) as cluster:
            spec = web_spec(tmp_path, TEXT)
            async with KubernetesTarget.attach(spec, tmp_path / "run") as target:
                await missing(cluster, target)
            with pytest.raises(InputError, match=r"kubernetes.cordon: .*kubectl label node node-0"):
                async with KubernetesTarget.attach(spec, tmp_path / "again"):
                    pass

    asyncio.run(body())


def mark(cluster: Cluster, owner: Owner) -> None:
    """Let the cluster look as if a run had scaled the Deployment and cordoned the node."""
    for resource, item, key, was, now in (
        (DEPLOYMENTS, workload(cluster), "replicas", 2, 0),
        (NODES, node(cluster), "unschedulable", None, True),
    ):
        marks = Record(key, was, now, owner, time.time()).marks("ab12")
        meta = item["metadata"]
        labels = {**(meta.get("labels") or {}), **marks["labels"]}
        meta = {**meta, "labels": labels, "annotations": marks["annotations"]}
        cluster.store.change(resource, item, metadata=meta, spec={**item["spec"], key: now})


def beat_s(item: Json) -> float:
    """When the record of an object was renewed last."""
    record = record_of(item)
    assert record is not None
    return record.beat_s


def test_what_a_killed_run_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep and the next start put back what a killed run has changed. They leave the changes of a run that goes on.

    A run renews its records, and its end puts back what it has changed.
    """
    monkeypatch.setattr("graphquake.harness.kubernetes.changes.cluster_faults.BEAT_EVERY_S", 0.05)

    async def body() -> None:
        async with web_cluster(tmp_path) as cluster:
            spec = web_spec(tmp_path, TEXT)
            mark(cluster, Owner.here())
            assert await sweep_leftovers(spec) == []
            assert workload(cluster)["spec"]["replicas"] == 0

            dead = replace(Owner.here(), start_s=1.0)
            mark(cluster, dead)
            assert await sweep_leftovers(spec) == ["Deployment web", "Node node-0"]
            assert workload(cluster)["spec"]["replicas"] == 2
            assert "unschedulable" not in node(cluster)["spec"]
            assert not is_marked(workload(cluster))
            assert not is_marked(node(cluster))

            mark(cluster, dead)
            async with KubernetesTarget.attach(spec, tmp_path / "run") as target:
                assert target.ready(ZERO)
                assert (await target.cluster.scale("web", 1)).ok
                first_s = beat_s(workload(cluster))
                async with asyncio.timeout(30):
                    while beat_s(workload(cluster)) == first_s:
                        await asyncio.sleep(0.02)
            assert not is_marked(workload(cluster))
            assert workload(cluster)["spec"]["replicas"] == 2
            assert not is_marked(node(cluster))

    asyncio.run(body())


def slice_of(cluster: Cluster, ready: bool) -> Json:  # noqa: FBT001 # a condition of the API
    """An EndpointSlice of somebody else's controller, which lists the pod of web 0 as ready or not."""
    pod = cluster.store.all(PODS, "lab")[0]
    about = {"kind": "Pod", "name": name_of(pod), "uid": uid_of(pod)}
    entry = {"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": about}
    return {"metadata": {"name": "web-x", "namespace": "lab"}, "addressType": "IPv4", "endpoints": [entry]}  # fmt: skip


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("probe", "serves", "needs_s"),
    [
        (None, False, 0.0),
        ({}, False, 31.0),
        ({}, True, 11.0),
        ({"periodSeconds": 2, "failureThreshold": 5, "timeoutSeconds": 3}, False, 13.0),
        ({"periodSeconds": 2, "successThreshold": 2}, True, 5.0),
    ],
)
def test_the_time_that_a_kubelet_needs(probe: Json | None, serves: bool, needs_s: float) -> None:  # noqa: FBT001 # a column of the table
    """It is the time of the probes that have to fail or to pass, with the answer to the last one. Without a probe nothing is awaited."""
    container = {"name": "main"} if probe is None else {"name": "main", "readinessProbe": probe}
    item = {"metadata": {"name": "web-1"}, "spec": {"containers": [container]}}
    assert probe_needs_s(read_pod(item), serves=serves) == needs_s


def test_an_endpoint_slice_that_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that serves and is not listed, one that is listed and does not serve, and the entry of a pod that is gone are seen."""
    # The kubelet of the test cluster probes faster than the manifest says.
    monkeypatch.setattr("graphquake.harness.kubernetes.endpoints.FAILURES", 0.0)

    async def seen(target: KubernetesTarget, replica: Replica, says: int) -> None:
        async with asyncio.timeout(30):
            while View(replica, "endpoint", says, 1 - says) not in await target.views():
                await asyncio.sleep(0.05)

    async def body() -> None:
        async with web_cluster(tmp_path) as cluster:
            cluster.store.create(ENDPOINT_SLICES, slice_of(cluster, ready=False))
            async with KubernetesTarget.attach(web_spec(tmp_path), tmp_path / "run") as target:
                (listed,) = cluster.store.all(ENDPOINT_SLICES)
                (entry,) = listed["endpoints"]
                pods = target._roster
                zero = next(
                    one for one in target.spec.replicas()
                    if (there := pods.running(one)) and there[0].uid == entry["targetRef"]["uid"]
                )  # fmt: skip
                await seen(target, zero, 0)
                lies = {**entry, "conditions": {"ready": True}}
                cluster.store.change(ENDPOINT_SLICES, listed, endpoints=[lies])
                run = cluster.kubelet.pods[entry["targetRef"]["uid"]]
                run.signal(signal.SIGSTOP)
                try:
                    await seen(target, zero, 1)
                finally:
                    run.signal(signal.SIGCONT)
                assert await target.wait_ready(30)
                assert (await target.delete(zero, None)).ok
                assert await target.gone(zero, 30)
                await seen(target, zero, 1)

    asyncio.run(body())


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("ran", "ok"),
    [
        (Ran(0, "0000000000004000\n", ""), True),
        (Ran(137, "0000000000004000\n", ""), True),
        (Ran(137, "0000000000000000\n", ""), False),
        (Ran(1, "0000000000004000\n", "not permitted"), False),
        (Ran(137, "", "killed"), False),
    ],
)
def test_a_container_that_ends_at_once(ran: Ran, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 # a column of the table
    """A signal has landed if the process handles it, also if the command that sent it was killed with the container."""

    async def answered(*_: Any) -> Ran:
        return ran

    monkeypatch.setattr("graphquake.harness.kubernetes.verbs.run", answered)
    item = {"metadata": {"name": "web-1", "namespace": "lab"}, "spec": {"containers": [{"name": "main"}]}}  # fmt: skip
    assert asyncio.run(send(cast("Client", None), read_pod(item), signal.SIGTERM)).ok is ok
