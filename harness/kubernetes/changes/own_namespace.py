"""A namespace of its own for one graph: made with the graph's manifests, and removed at the end with everything in it.

The namespace that the graph file names must carry the label of consent: it allows new namespaces beside it, whose names begin with its own.
A new one carries the id of the run and a record of its process (see `records`), so that a sweep removes it if the harness was killed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import NAMESPACES, Json, name_of
from graphquake.harness.kubernetes.changes.manifests import (
    Kinds,
    placed,
    read_manifests,
    with_protocols,
)
from graphquake.harness.kubernetes.changes.records import (
    BEAT_EVERY_S,
    NOTE,
    Owner,
    Record,
    record_of,
)
from graphquake.harness.kubernetes.consent import CONSENT, YES
from graphquake.harness.kubernetes.node.agents import RUN
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.roles.cluster import ClusterSpec

# The time limit for everything in the namespace to end. The cluster goes on alone after that.
REMOVED_WITHIN_S: Final = 60.0
POLL_S: Final = 0.1
# A name may have 63 letters, and the id of the run needs 9 of them.
PREFIX_MAX: Final = 54


@asynccontextmanager
async def in_own_namespace(client: Client, spec: GraphSpec) -> AsyncIterator[GraphSpec]:
    """Apply the manifests of a graph into a new namespace. Yield the graph with the name of this namespace. Remove it at the end.

    A graph without manifests is yielded as it is.

    Raises:
        InputError: if a manifest is wrong, or if the API server refuses one.
        ApiError: if the namespace can't be made.
    """
    cluster = spec.cluster
    assert cluster is not None
    if not cluster.manifests:
        yield spec
        return
    items = read_manifests(spec.path.parent / cluster.manifests)
    run = secrets.token_hex(4)
    made = await client.create(NAMESPACES, _namespace(cluster, run))
    beat = asyncio.get_running_loop().create_task(_beat(client, made))
    try:
        await _apply_all(client, spec, items, name_of(made))
        yield replace(spec, cluster=replace(cluster, namespace=name_of(made)))
    finally:
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
        await _remove(client, made)


def _namespace(cluster: ClusterSpec, run: str) -> Json:
    record = Record("", None, None, Owner.here(), time.time())
    meta: Json = {"name": f"{cluster.namespace[:PREFIX_MAX]}-{run}"}
    meta["labels"] = {CONSENT: YES, RUN: run}
    meta["annotations"] = record.marks(run)["annotations"]
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


async def _apply_all(client: Client, spec: GraphSpec, items: list[Json], namespace: str) -> None:
    """Apply all manifests, after a dry run of each."""
    kinds = Kinds(client)
    whole = []
    for item in items:
        resource = await kinds.of(item)
        new = with_protocols(placed(item, namespace))
        new["metadata"]["namespace"] = namespace
        whole.append((resource, new))
    for dry in (True, False):
        for resource, item in whole:
            try:
                await client.apply(resource, item, dry=dry)
            except ApiError as error:
                raise InputError(f"{spec.path.name}: kubernetes.manifests: {resource.kind} {name_of(item)}: {error}") from None  # fmt: skip


async def _beat(client: Client, made: Json) -> None:
    """Renew the record of a namespace, for ever."""
    record = record_of(made)
    assert record is not None
    while True:
        await asyncio.sleep(BEAT_EVERY_S)
        notes = replace(record, beat_s=time.time()).marks("")["annotations"]
        with suppress(ApiError):
            await client.patch(NAMESPACES, "", name_of(made), {"metadata": {"annotations": {NOTE: notes[NOTE]}}})  # fmt: skip


async def _remove(client: Client, made: Json) -> None:
    """Delete the namespace, and wait until it is gone. If the API server is away, the next start or a sweep does it."""
    with suppress(TimeoutError, ApiError):
        async with asyncio.timeout(REMOVED_WITHIN_S):
            await client.delete(NAMESPACES, made)
            while True:
                try:
                    await client.get(NAMESPACES, "", name_of(made))
                except ApiError as error:
                    if error.is_missing:
                        return
                    raise
                await asyncio.sleep(POLL_S)


async def sweep_namespaces(client: Client, cluster: ClusterSpec) -> list[str]:
    """Remove the namespaces of runs that are over. Return their names.

    Raises:
        ApiError: if the API server refuses it.
    """
    found = await client.list_all(NAMESPACES, labels=RUN)
    prefix = f"{cluster.namespace[:PREFIX_MAX]}-"
    swept = []
    for item in found.items:
        record = record_of(item)
        if record is None or not name_of(item).startswith(prefix):
            continue
        if record.is_over() and await client.delete(NAMESPACES, item):
            swept.append(f"Namespace {name_of(item)}")
    return swept
