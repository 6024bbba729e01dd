"""What all controllers of the test cluster ask about objects."""

from __future__ import annotations

from graphquake.harness.kubernetes.api.objects import Json, Resource, key_of, uid_of

from support.cluster.store import Store


def owned(store: Store, resource: Resource, owner: Json) -> list[Json]:
    """The objects of a kind that belong to another object."""
    return [
        one
        for one in store.all(resource, key_of(owner)[0])
        if any(o["uid"] == uid_of(owner) for o in one["metadata"].get("ownerReferences") or [])
    ]


def owner_of(item: Json) -> list[Json]:
    """The `ownerReferences` of an object that belongs to another one."""
    told = {"apiVersion": item["apiVersion"], "kind": item["kind"], "uid": uid_of(item)}
    return [{**told, "name": item["metadata"]["name"], "controller": True}]


def is_ready(pod: Json) -> bool:
    """True if the pod's condition says so."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def is_ending(item: Json) -> bool:
    """True if the object was deleted, and is not gone yet."""
    return bool(item["metadata"].get("deletionTimestamp"))
