"""Real Dynamo in the test cluster: its ready-made graphs, with a model that lies on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from graphquake.harness.spec.graph import built_in_graphs

from support.cluster.cluster import Cluster

MODEL = "Qwen/Qwen3-0.6B"


def dynamo_graph(name: str, folder: Path, *, agent: bool = False) -> Path:
    """Copy a ready-made graph and its manifests into a folder, and return the graph file.

    Args:
        name: the name of the graph, such as `dynamo-agg-kube`.
        folder: the folder.
        agent: if true, an agent on the node kills and stalls.
    """
    graph = built_in_graphs()[name]
    kube = f"{name.removesuffix('-kube')}.yaml"
    text = (graph.parent / "kube" / kube).read_text()
    (folder / "kube").mkdir(parents=True)
    (folder / "kube" / kube).write_text(text.replace(MODEL, str(graph.parent / "tiny")))
    ready = "ready_s   = 60" + ('\nagent     = "python"' if agent else "")
    own = folder / graph.name
    own.write_text(graph.read_text().replace("ready_s   = 300", ready))
    return own


def allowed(cluster: Cluster) -> dict[str, str]:
    """Allow changes in the namespace of these graphs. Return the environment of a process that uses the cluster.

    The containers are processes of this machine, and their `python3` is the one with Dynamo.
    """
    cluster.namespace("dynamo", **{"graphquake/consent": "true"})
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"KUBECONFIG": str(cluster.config), "PATH": path}
