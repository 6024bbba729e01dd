"""A graph file of the web servers of `manifests`, and a cluster in which they run."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from graphquake.harness.kubernetes.api.objects import DEPLOYMENTS, PODS
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.graph import GraphSpec, load_graph

from support.cluster.cluster import Cluster
from support.cluster.manifests import deployment, server, service
from support.cluster.networks import PodNetworks
from support.real_cluster.choice import cluster_of_tests

# The time limit for a controller to make the pods.
MADE_WITHIN_S: Final = 30.0
PODS_MADE: Final = 2
GRAPH = """
graph = "web"

[kubernetes]
namespace = "lab"
ready_s = 30

[roles.web]
replicas = 2
select = "app=web"
ports = { http = 8000 }
entry = "http://{address.http}"
ready = { get = "http://{address.http}/" }

[load]
model = "m"
rate_per_s = 20
max_tokens = 4

[promises]
answers = { oracle = "support.fake_target:expected" }
error_window = { window_s = 0.5 }
"""


def web_spec(folder: Path, text: str = GRAPH) -> GraphSpec:
    """The graph file, read, with the kinds of steps that a cluster can't do."""
    path = folder / "web.toml"
    path.write_text(text)
    return on_this_machine(load_graph(str(path)))


def web_manifests(folder: Path, **env: str) -> str:
    """Write the manifests of two web servers into a folder, and return the graph file's text that names it."""
    to = folder / "manifests"
    to.mkdir()
    made = deployment("web", 2, server(**env), namespace="{namespace}", terminationGracePeriodSeconds=1)  # fmt: skip
    del made["metadata"]["namespace"]
    (to / "web.json").write_text(json.dumps(made))
    (to / "service.json").write_text(json.dumps(service("web", "{namespace}")))
    return GRAPH.replace("ready_s = 30", 'ready_s = 30\nmanifests = "manifests"')


@asynccontextmanager
async def web_cluster(
    folder: Path, networks: PodNetworks | None = None, **env: str
) -> AsyncIterator[Cluster]:
    """A cluster with two web servers in the namespace `lab`, which allows runs. KUBECONFIG names it meanwhile."""
    async with (
        cluster_of_tests(folder, networks=networks) as cluster,
        cluster.client() as client,
    ):
        cluster.namespace("lab", **{"graphquake/consent": "true"})
        cluster.grant("lab", makes_namespaces=False)
        cluster.label_node(**{"graphquake/consent": "true"})
        made = deployment(
            "web", 2, server(**env), namespace="lab", terminationGracePeriodSeconds=10
        )
        await client.create(DEPLOYMENTS, made)
        async with asyncio.timeout(MADE_WITHIN_S):
            while len(cluster.store.all(PODS, "lab")) < PODS_MADE:
                await asyncio.sleep(0.01)
        before = os.environ.get("KUBECONFIG")
        os.environ["KUBECONFIG"] = str(cluster.user_config)
        try:
            yield cluster
        finally:
            del os.environ["KUBECONFIG"]
            if before is not None:
                os.environ["KUBECONFIG"] = before
