"""Remove what runs that were killed have left in the namespace of a graph."""

from __future__ import annotations

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.kubeconfig import read_access
from graphquake.harness.kubernetes.changes.own_namespace import sweep_namespaces
from graphquake.harness.kubernetes.changes.policies import sweep_policies
from graphquake.harness.kubernetes.changes.records import sweep_records
from graphquake.harness.kubernetes.consent import check_context, check_namespace
from graphquake.harness.kubernetes.node.agents import sweep
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.roles.cluster import ClusterSpec


async def sweep_graph(spec: GraphSpec) -> list[str]:
    """Remove the namespaces, agents and policies of ended runs, and put back what such runs have changed. Return the names of these.

    Nothing else is touched, and nothing of a run that may still go on. An agent ends by itself half a minute after its run was killed.

    Raises:
        InputError: if the cluster or the namespace must not be used, or can't be reached.
    """
    cluster = spec.cluster
    assert cluster is not None
    access = read_access(cluster.context)
    check_context(spec, cluster, access.context)
    async with Client(access) as client:
        await check_namespace(spec, cluster, client)
        return await sweep_namespace(client, cluster)


async def sweep_namespace(client: Client, cluster: ClusterSpec) -> list[str]:
    """Sweep a namespace that was checked (see `sweep_graph`)."""
    spaces = await sweep_namespaces(client, cluster) if cluster.manifests else []
    pods = await sweep(client, cluster.namespace)
    changed = await sweep_records(client, cluster.namespace, nodes=cluster.cordon)
    policies = await sweep_policies(client, cluster.namespace)
    return [*spaces, *(f"Pod {name}" for name in pods), *changed, *policies]
