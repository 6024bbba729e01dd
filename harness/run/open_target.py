"""Open the target of a graph file: the only module that names the kinds of targets.

A new kind of target is a class that follows `Target` and a function of the type `OpenTarget` that opens it.
`open_target` chooses between these functions: a graph file with a table `[kubernetes]` describes a graph that is there already.
Callers with another kind of target pass their own `OpenTarget` to `run_live`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from graphquake.harness.kubernetes.abilities import lacking as lacking_in_cluster
from graphquake.harness.kubernetes.sweeping import sweep_graph
from graphquake.harness.kubernetes.target import KubernetesTarget
from graphquake.harness.processes.abilities import lacking
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.spec.faults import LINK_FAULTS
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.targets.target import Target

# Arguments: the spec of the graph, and an existing folder for the graph's own files. Log files belong into its subfolder `logs`.
# Entering the context returns a graph with all replicas ready, or raises a GraphError. Leaving the context ends the graph.
OpenTarget: TypeAlias = Callable[[GraphSpec, Path], AbstractAsyncContextManager[Target]]


def open_target(spec: GraphSpec, folder: Path) -> AbstractAsyncContextManager[Target]:
    """Open the kind of target that the graph file asks for (see `OpenTarget`)."""
    if spec.cluster is not None:
        return KubernetesTarget.attach(spec, folder)
    return Supervisor.launch(spec, folder)


def on_this_machine(spec: GraphSpec) -> GraphSpec:
    """Return the graph with the kinds of steps that its target can't do on this machine (see `GraphSpec.lacks`).

    The draw leaves these kinds out, and an explicit plan with one of them is an error. `left_out_text` names them.
    If the machine does not offer network namespaces, the graph uses the network of the machine.
    """
    lacks = lacking_in_cluster(spec) if spec.cluster is not None else lacking(spec)
    network = "host" if LINK_FAULTS[0] in lacks else spec.network
    return replace(spec, lacks=lacks, network=network)


async def sweep_leftovers(spec: GraphSpec) -> list[str]:
    """Remove the leftovers of killed runs from the cluster of a graph, and return their names (see `sweep_graph`)."""
    return await sweep_graph(spec)
