"""Rollouts of each kind of workload: StatefulSets, DaemonSets and Dynamo graphs restart, and the proof has each new incarnation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import (
    DAEMON_SETS,
    DEPLOYMENTS,
    STATEFUL_SETS,
    Json,
    Resource,
    name_of,
)
from graphquake.harness.kubernetes.changes.workloads import GRAPHS, Workload, workload_of
from graphquake.harness.kubernetes.consent import check_rights
from graphquake.harness.kubernetes.pods import Pod, read_pod
from graphquake.harness.kubernetes.target import KubernetesTarget

from support.cluster.cluster import Cluster, can_run_pods
from support.cluster.kinds import DYNAMO_GRAPHS
from support.cluster.manifests import deployment, server
from support.cluster.web import GRAPH, web_cluster, web_spec
from support.real_cluster.choice import is_real

needs_pods = pytest.mark.skipif(
    not can_run_pods(), reason="pods need PID namespaces, and so root, on this machine"
)
SETS = GRAPH.replace("[load]", """
[roles.state]
replicas = 2
select = "app=state"

[roles.daemon]
select = "app=daemon"
faults = ["rollout"]

[load]""")  # fmt: skip
DYNAMO = """
graph = "dynamo"

[kubernetes]
namespace = "lab"
deployment = "chat"
ready_s = 30

[roles.Worker]
replicas = 2
entry = "http://{address.http}"

[load]
model = "m"
"""


def set_of(name: str, **spec: Any) -> Json:
    """A StatefulSet or a DaemonSet of web servers."""
    made = deployment(name, 2, server(), namespace="lab", terminationGracePeriodSeconds=1)
    made["spec"] |= spec
    del made["kind"]
    return made


@asynccontextmanager
async def sets(tmp_path: Path) -> AsyncIterator[tuple[Cluster, KubernetesTarget]]:
    """A cluster with a StatefulSet and a DaemonSet, and a target of some workloads."""
    async with web_cluster(tmp_path) as cluster, cluster.client() as client:
        await client.create(STATEFUL_SETS, {**set_of("state"), "kind": "StatefulSet"})
        await client.create(DAEMON_SETS, {**set_of("daemon"), "kind": "DaemonSet"})
        spec = web_spec(tmp_path, SETS)
        async with KubernetesTarget.attach(spec, tmp_path / "run") as target:
            yield cluster, target


@asynccontextmanager
async def dynamo(tmp_path: Path) -> AsyncIterator[tuple[Cluster, KubernetesTarget]]:
    """A cluster with a graph of Dynamo, and a target of it. The operator is part of the test cluster."""
    async with web_cluster(tmp_path) as cluster, cluster.client() as client:
        part = {"replicas": 2, "extraPodSpec": {"mainContainer": server(), "terminationGracePeriodSeconds": 1}}  # fmt: skip
        graph = {"metadata": {"name": "chat", "namespace": "lab"}, "spec": {"services": {"Worker": part}}}  # fmt: skip
        await client.create(DYNAMO_GRAPHS, {**graph, "apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoGraphDeployment"})  # fmt: skip
        spec = web_spec(tmp_path, DYNAMO)
        async with KubernetesTarget.attach(spec, tmp_path / "run") as target:
            yield cluster, target


@needs_pods
@pytest.mark.roomy
def test_sets_restart(tmp_path: Path) -> None:
    """The new pods of a StatefulSet have the old names, and are new incarnations. It can be scaled. A DaemonSet restarts, too."""

    async def body() -> None:
        async with sets(tmp_path) as (cluster, target):
            landed = await target.cluster.rollout("state")
            assert landed.ok, landed.proof
            assert "StatefulSet state restarted" in landed.proof
            assert "state 0.0 (pod state-0) became state 0.1 (pod state-0)" in landed.proof
            assert len(landed.told) == 2
            landed = await target.cluster.rollout("daemon")
            assert landed.ok, landed.proof
            assert "DaemonSet daemon restarted: daemon 0.0 (pod daemon-" in landed.proof
            landed = await target.cluster.scale("state", 1)
            assert landed.ok, landed.proof
            assert (await target.cluster.unscale("state")).ok
            assert cluster.store.get(STATEFUL_SETS, "lab", "state")["spec"]["replicas"] == 2
            assert await target.wait_ready(30)
            landed = await target.cluster.scale("daemon", 0)
            assert (landed.ok, landed.proof) == (False, "DaemonSet daemon has no number of replicas")  # fmt: skip
            waits = cluster.store.get(STATEFUL_SETS, "lab", "state")
            cluster.store.change(STATEFUL_SETS, waits, spec={**waits["spec"], "updateStrategy": {"type": "OnDelete"}})  # fmt: skip
            landed = await target.cluster.rollout("state")
            assert not landed.ok
            assert "spec.updateStrategy is OnDelete" in landed.proof

    asyncio.run(body())


@needs_pods
@pytest.mark.skipif(is_real(), reason="the operator of Dynamo graphs is part of the test cluster")
@pytest.mark.roomy
def test_a_dynamo_graph_restarts(tmp_path: Path) -> None:
    """The mark goes into the graph, and its operator carries it to the Deployment, whose pods are new then."""

    async def body() -> None:
        async with dynamo(tmp_path) as (cluster, target):
            landed = await target.cluster.rollout("Worker")
            assert landed.ok, landed.proof
            assert "DynamoGraphDeployment chat, component Worker restarted" in landed.proof
            assert "Worker 0.0 (pod chat-worker-" in landed.proof
            marked = cluster.store.get(DYNAMO_GRAPHS, "lab", "chat")["spec"]["services"]["Worker"]
            assert [*marked["extraPodMetadata"]["annotations"]] == ["kubectl.kubernetes.io/restartedAt"]  # fmt: skip

    asyncio.run(body())


# -------------------------------------------------------------------------------------------------- without a cluster


class Known:
    """A client of an API server that has some objects. What it was asked to change is in `changes`."""

    def __init__(self, **items: Json) -> None:
        self.items = items
        self.changes: list[Json] = []

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """The object of this kind and version."""
        assert (namespace, name) == ("lab", "chat")
        if resource.version not in self.items:
            raise ApiError("GET: not found", 404)
        return self.items[resource.version]

    async def delete(self, *_: object, **__: object) -> bool:
        """Allowed."""
        return True

    async def patch(self, _: Resource, __: str, ___: str, change: Json, *, dry: bool) -> Json:
        """Remember a change."""
        assert dry
        self.changes.append(change)
        return {}


def a_pod(component: str = "Worker", **more: Any) -> Pod:
    """A pod of the component."""
    labels = {"nvidia.com/dynamo-component": component}
    meta = {"name": "p", "namespace": "lab", "labels": labels, **more}
    return read_pod({"metadata": meta, "spec": {"containers": [{"name": "main"}]}})


def owned(kind: str) -> Pod:
    """A pod with a controller."""
    return a_pod(ownerReferences=[{"kind": kind, "name": "chat", "controller": True}])


def graph(**spec: Any) -> Json:
    """A Dynamo graph."""
    return {"metadata": {"name": "chat", "namespace": "lab", "resourceVersion": "7"}, "spec": spec}


@pytest.mark.simulated
def test_both_versions_of_a_dynamo_graph_are_marked() -> None:
    """The first version has a table of components, so the change names one. In the second one, the whole list is written back."""

    async def body() -> None:
        client = Known(v1alpha1=graph(services={"Worker": {}}))
        found = await workload_of(cast("Client", client), a_pod(), "chat")
        assert isinstance(found, Workload)
        part = {"extraPodMetadata": {"annotations": {"at": "1"}}}
        assert found.marked({"at": "1"}) == {"spec": {"services": {"Worker": part}}}
        worker = {"name": "Worker", "podTemplate": {"metadata": {"annotations": {"a": "b"}}, "spec": {"x": 1}}}  # fmt: skip
        client = Known(v1beta1=graph(components=[{"name": "Frontend"}, worker]))
        found = await workload_of(cast("Client", client), a_pod(), "chat")
        assert isinstance(found, Workload)
        change = found.marked({"at": "1"})
        assert change["metadata"] == {"resourceVersion": "7"}
        frontend, new = change["spec"]["components"]
        assert frontend == {"name": "Frontend"}
        assert new["podTemplate"] == {"metadata": {"annotations": {"a": "b", "at": "1"}}, "spec": {"x": 1}}  # fmt: skip
        assert json.dumps(worker) not in json.dumps(change)

    asyncio.run(body())


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("client", "pod", "name", "why"),
    [
        (Known(), a_pod(), "chat", "DynamoGraphDeployment chat is gone"),
        (Known(v1alpha1=graph(services={"Other": {}})), a_pod(), "chat", "DynamoGraphDeployment chat has no component Worker"),
        (Known(), a_pod(), "", "pod p has no controller, expected a Deployment, a StatefulSet or a DaemonSet"),
        (Known(), owned("StatefulSet"), "", "the controller of pod p is gone"),
        (Known(), owned("Job"), "", "the controller of pod p is Job chat, expected a Deployment, a StatefulSet or a DaemonSet"),
    ],
)  # fmt: skip
def test_pods_without_a_workload(client: Known, pod: Pod, name: str, why: str) -> None:
    """The reason why there is no workload names the object, and what would be right."""
    assert asyncio.run(workload_of(cast("Client", client), pod, name)) == why


@pytest.mark.simulated
def test_a_scale_of_a_daemon_set_is_refused_first(tmp_path: Path) -> None:
    """A DaemonSet can't be scaled. A search that would draw it is refused before it begins."""
    client = Known(v1=graph(template={}))
    pods = {"web": owned("DaemonSet")}
    with pytest.raises(InputError, match=r"roles\.web\.faults: DaemonSet chat has no number"):
        asyncio.run(check_rights(web_spec(tmp_path), cast("Client", client), pods))
    text = GRAPH.replace("replicas = 2", 'replicas = 2\nfaults = ["rollout"]')
    asyncio.run(check_rights(web_spec(tmp_path, text), cast("Client", client), pods))
    assert client.changes == [{"spec": {"template": {"metadata": {"annotations": {}}}}}]
    assert name_of(Workload(DEPLOYMENTS, graph()).item) == "chat"
    assert not Workload(GRAPHS[0], graph(), "Worker").scales
