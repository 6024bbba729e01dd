"""The ready-made graphs of a cluster: their manifests fit their graph files, and real Dynamo runs on the test cluster."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from graphquake.harness.history.events import StepDone
from graphquake.harness.kubernetes.api.objects import NAMESPACES, Json, name_of
from graphquake.harness.kubernetes.changes.manifests import Kinds, read_manifests
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.graph import built_in_graphs, load_graph
from graphquake.harness.spec.plan import parse_plan

from support.cluster.cluster import can_run_pods, running
from support.cluster.dynamo import allowed, dynamo_graph
from support.cluster.selectors import has_labels
from support.undisturbed import run_live

pytestmark = pytest.mark.roomy

pytest.importorskip("yaml")
NAMES = sorted(name for name in built_in_graphs() if name.endswith("-kube"))


def manifests(name: str) -> list[Json]:
    """The manifests of a ready-made graph."""
    spec = load_graph(name)
    assert spec.cluster is not None
    return read_manifests(spec.path.parent / spec.cluster.manifests)


@pytest.mark.simulated
@pytest.mark.parametrize("name", NAMES)
def test_manifests_fit_their_graph(name: str) -> None:
    """Each role selects the pods of one Deployment with as many replicas, and its ports are ports of the container."""
    made = [one for one in manifests(name) if one["kind"] == "Deployment"]
    spec = load_graph(name)
    assert len(made) == len(spec.roles)
    for role in spec.roles:
        assert role.pods is not None
        labels = [one["spec"]["template"]["metadata"]["labels"] for one in made]
        (mine,) = [d for d, one in zip(made, labels, strict=True) if has_labels(role.pods.select, one)]  # fmt: skip
        assert mine["spec"]["replicas"] == role.replicas
        (container,) = mine["spec"]["template"]["spec"]["containers"]
        assert {p["containerPort"] for p in container["ports"]} == set(role.pods.ports.values())
        assert container["readinessProbe"]["httpGet"]["port"] in role.pods.ports.values()


@pytest.mark.simulated
@pytest.mark.parametrize("name", NAMES)
def test_the_api_knows_the_manifests(name: str, tmp_path: Path) -> None:
    """Every object is of a kind that lives in a namespace, and none names a namespace of its own."""

    async def body() -> None:
        async with running(tmp_path) as cluster, cluster.client() as client:
            kinds = Kinds(client)
            for item in manifests(name):
                assert (await kinds.of(item)).kind == item["kind"]

    asyncio.run(body())


@pytest.mark.skipif(
    not can_run_pods() or importlib.util.find_spec("dynamo") is None,
    reason="needs ai-dynamo, and root for the pods",
)
def test_real_dynamo_in_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo finds its workers through the API. A delete of a worker keeps all promises, and nothing of the graph is left."""
    graph = dynamo_graph("dynamo-agg-kube", tmp_path)

    async def body() -> None:
        async with running(tmp_path, speed=4) as cluster:
            for key, value in allowed(cluster).items():
                monkeypatch.setenv(key, value)
            spec = on_this_machine(load_graph(str(graph)))
            run = await run_live(spec, parse_plan("p", ["delete worker 0"]), tmp_path / "run")
            # The API server shares this process with the clients, so a busy machine may make the run invalid.
            assert [str(one.signature) for one in run.verdict.violations] == []
            (done,) = run.history.of(StepDone)
            assert "SIGTERM, and SIGKILL after 10 s" in done.proof
            assert {name_of(one) for one in cluster.store.all(NAMESPACES)} == {"default", "dynamo"}

    asyncio.run(body())
