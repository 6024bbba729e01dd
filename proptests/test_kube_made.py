"""A namespace with manifests for each graph on the test cluster, and the planted bug that runs there."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.objects import (
    NAMESPACES,
    PODS,
    name_of,
)
from graphquake.harness.kubernetes.changes.manifests import read_manifests, with_protocols
from graphquake.harness.kubernetes.changes.own_namespace import in_own_namespace
from graphquake.harness.kubernetes.changes.records import Owner, record_of
from graphquake.harness.kubernetes.target import KubernetesTarget
from graphquake.harness.run.open_target import on_this_machine, sweep_leftovers
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.harness.spec.plan import parse_plan
from graphquake.harness.spec.replica import Replica

from support.cluster.cluster import Cluster, can_run_pods
from support.cluster.router import router_graph
from support.cluster.web import web_cluster, web_manifests, web_spec
from support.undisturbed import run_live

pytestmark = pytest.mark.skipif(
    not can_run_pods(), reason="pods need PID namespaces, and so root, on this machine"
)
ZERO = Replica("web", 0)


def spaces(cluster: Cluster) -> list[str]:
    """The names of the namespaces that runs have made."""
    return [name for one in cluster.store.all(NAMESPACES) if (name := name_of(one)).startswith("lab-")]  # fmt: skip


def test_a_namespace_for_each_graph(tmp_path: Path) -> None:
    """Two graphs are made side by side from one file, each in a namespace of its own. Nothing is left of them, or of a killed run."""

    async def body() -> None:
        async with web_cluster(tmp_path) as cluster:
            cluster.grant("lab", makes_namespaces=True)
            spec = web_spec(tmp_path, web_manifests(tmp_path))
            assert not spec.is_shared
            async with (
                KubernetesTarget.attach(spec, tmp_path / "one") as one,
                KubernetesTarget.attach(spec, tmp_path / "two") as two,
            ):
                names = spaces(cluster)
                assert len(names) == 2
                assert all(target.ready(ZERO) for target in (one, two))
                assert (await one.delete(ZERO, 0)).ok
                assert two.ready(ZERO)
                # The EndpointSlices come later than the pods, by another watch.
                async with asyncio.timeout(30):
                    while {view.what for view in await two.views()} != {"readiness", "pod", "endpoint"}:  # fmt: skip
                        await asyncio.sleep(0.05)
            assert spaces(cluster) == []
            assert {one["metadata"]["namespace"] for one in cluster.store.all(PODS)} == {"lab"}

            async with in_own_namespace_of(spec, cluster) as name:
                meta = cluster.store.get(NAMESPACES, "", name)["metadata"]
                assert await sweep_leftovers(spec) == []
                record = record_of({"metadata": meta})
                assert record is not None
                dead = replace(record, owner=replace(Owner.here(), start_s=1.0)).marks("x")
                notes = {**meta, "annotations": dead["annotations"]}
                cluster.store.change(NAMESPACES, cluster.store.get(NAMESPACES, "", name), metadata=notes)  # fmt: skip
                assert await sweep_leftovers(spec) == [f"Namespace {name}"]
            assert spaces(cluster) == []

            wrong = tmp_path / "manifests" / "wrong.json"
            refusals = {
                "Nothing": "this cluster has no kind Nothing of v1",
                "Node": "Node x does not live in a namespace",
            }
            for kind, said in refusals.items():
                item = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}}
                wrong.write_text(json.dumps(item))
                with pytest.raises(InputError, match=said):
                    async with KubernetesTarget.attach(spec, tmp_path / "three"):
                        pass
                assert spaces(cluster) == []

    asyncio.run(body())


@asynccontextmanager
async def in_own_namespace_of(spec: GraphSpec, cluster: Cluster) -> AsyncIterator[str]:
    """The manifests of a graph in a namespace of their own, without a target."""
    async with cluster.client() as client, in_own_namespace(client, spec) as placed:
        assert placed.cluster is not None
        yield placed.cluster.namespace


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "holds a document that is not an object of Kubernetes"),
        ('{"apiVersion": "v1", "kind": "Service", "metadata": {}}', "Service: metadata.name is missing"),
        ('{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "b"}}', "Service a: metadata.namespace is b"),
        ("", "holds no manifest, expected files .json, .yaml, .yml"),
    ],
)  # fmt: skip
def test_wrong_manifests(text: str, said: str, tmp_path: Path) -> None:
    """The error names the file and the object, and says what would be right."""
    if text:
        (tmp_path / "one.json").write_text(text)
    with pytest.raises(InputError, match=re.escape(said)):
        read_manifests(tmp_path)


@pytest.mark.simulated
def test_ports_of_services_get_a_protocol() -> None:
    """API servers such as 1.20 refuse to apply a Service without it. A protocol that is there stays, and so do other kinds."""
    ports = [{"port": 80}, {"port": 53, "protocol": "UDP"}]
    item = {"kind": "Service", "spec": {"selector": {"app": "a"}, "ports": ports}}
    found = with_protocols(item)["spec"]
    assert found["ports"] == [{"port": 80, "protocol": "TCP"}, ports[1]]
    assert found["selector"] == {"app": "a"}
    for other in ({"kind": "Deployment", "spec": {"ports": ports}}, {"kind": "Service"}):
        assert with_protocols(other) == other


def test_the_planted_bug(tmp_path: Path) -> None:
    """A worker that returns under its old name at a new port is lost to the router with the bug. A delete does not show it."""

    async def body() -> None:
        async with web_cluster(tmp_path) as cluster:
            cluster.grant("lab", makes_namespaces=True)

            verdicts = {}

            async def breaks(plan: str, **env: str) -> bool:
                folder = tmp_path / plan.replace(" ", "-") / "".join(env)
                folder.mkdir(parents=True)
                spec = on_this_machine(load_graph(str(router_graph(folder, **env))))
                run = await run_live(spec, parse_plan("p", [plan]), folder / "run")
                verdicts[plan, *env] = run.verdict
                return bool(run.verdict.violations)

            # One after the other, because the API server and all clients share one loop, and clients must not be late.
            found = [
                await breaks("terminate worker 0"),
                await breaks("terminate worker 0", FIXED="yes"),
                await breaks("delete worker 0"),
            ]
            assert found == [True, False, False], verdicts

    asyncio.run(body())
