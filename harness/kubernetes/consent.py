"""Check that a run may act in a namespace, before it changes anything.

Three things must agree: the graph file names the namespace, the namespace carries the label of consent, and the name of the context holds
no text that stands for a production cluster, unless the file names that context as allowed. Then the API server is asked, by a dry run,
whether it would let the run do what its steps need.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import (
    NAMESPACES,
    NODES,
    PODS,
    Json,
    key_of,
    labels_of,
)
from graphquake.harness.kubernetes.changes.workloads import workload_of
from graphquake.harness.kubernetes.pods import Pod
from graphquake.harness.spec.feasible import drawn_at
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.roles.cluster import ClusterSpec

CONSENT: Final = "graphquake/consent"
YES: Final = "true"
_SCALES: Final = frozenset({"scale", "scale up"})
_OF_WORKLOADS: Final = frozenset({*_SCALES, "rollout"})


def has_consent(item: Json) -> bool:
    """True if an object carries the label of consent."""
    return labels_of(item).get(CONSENT) == YES


def no_consent_text(kind: str, name: str) -> str:
    """Say that an object does not allow changes, and how to allow them.

    Args:
        kind: `namespace` or `node`.
        name: its name.
    """
    return (
        f'"{name}" has no label {CONSENT}={YES}, so nothing is done there; '
        f"to allow it: kubectl label {kind} {name} {CONSENT}={YES}"
    )


def check_context(spec: GraphSpec, cluster: ClusterSpec, context: str) -> None:
    """Check the name of the context.

    Raises:
        InputError: if it holds a refused text and the file does not allow it by its name.
    """
    held = next((text for text in cluster.refused if text in context), None)
    if held is not None and context not in cluster.allowed:
        raise InputError(
            f'{spec.path.name}: kubernetes.context: "{context}" holds "{held}", so nothing is done there; '
            f'if that is meant, write allowed = ["{context}"]'
        )


async def check_namespace(spec: GraphSpec, cluster: ClusterSpec, client: Client) -> None:
    """Check that the namespace exists and carries the label of consent.

    Raises:
        InputError: if it does not.
        ApiError: if it can't be read.
    """
    name = cluster.namespace
    where = f"{spec.path.name}: kubernetes.namespace"
    try:
        found = await client.get(NAMESPACES, "", name)
    except ApiError as error:
        if error.is_missing:
            raise InputError(f'{where}: "{name}" is not a namespace of this cluster') from None
        if error.is_forbidden:
            said = f'"{name}" can\'t be read: it does not exist, or no role allows it: {error}'
            raise InputError(f"{where}: {said}") from None
        raise
    if not has_consent(found):
        raise InputError(f"{where}: {no_consent_text('namespace', name)}")


async def check_rights(spec: GraphSpec, client: Client, pods: Mapping[str, Pod]) -> None:
    """Ask the API server, by dry runs, whether it would do what a search draws: delete a pod, change a Deployment, cordon a node.

    Args:
        spec: the graph.
        client: the API server.
        pods: one pod of each role.

    Raises:
        InputError: if no role of the cluster allows it, or if a node does not carry the label of consent.
    """
    for role, pod in pods.items():
        async with _allowed(spec, "a delete"):
            await client.delete(PODS, pod.item, dry=True)
        drawn = drawn_at(spec, role)
        if _OF_WORKLOADS & {*drawn}:
            async with _allowed(
                spec, f"a scale or a rollout (or leave both out of faults at {role})"
            ):
                graph = spec.cluster.deployment if spec.cluster else ""
                found = await workload_of(client, pod, graph)
                if _SCALES & {*drawn} and not isinstance(found, str) and not found.scales:
                    where = f"{spec.path.name}: roles.{role}.faults"
                    raise InputError(f"{where}: {found} has no number of replicas, so leave out scale")  # fmt: skip
                if not isinstance(found, str):
                    change = found.marked({})
                    await client.patch(found.resource, *key_of(found.item), change, dry=True)
        if "cordon" in drawn:
            await _check_node(spec, client, str(pod.item["spec"].get("nodeName", "")))


async def _check_node(spec: GraphSpec, client: Client, name: str) -> None:
    async with _allowed(spec, "a cordon"):
        node = await client.get(NODES, "", name)
        if not has_consent(node):
            where = f"{spec.path.name}: kubernetes.cordon"
            raise InputError(f"{where}: {no_consent_text('node', name)}")
        change = {"spec": {"unschedulable": node["spec"].get("unschedulable")}}
        await client.patch(NODES, "", name, change, dry=True)


@asynccontextmanager
async def _allowed(spec: GraphSpec, what: str) -> AsyncIterator[None]:
    """Turn a refusal for lack of rights into an error of the user."""
    try:
        yield
    except ApiError as error:
        if not error.is_forbidden:
            raise
        raise InputError(f"{spec.path.name}: kubernetes: a dry run of {what}: {error}") from None
