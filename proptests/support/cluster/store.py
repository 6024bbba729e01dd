"""The objects of the test cluster, with their versions and the log of all changes.

Each change gets the next version. A watch reads the log from a version on. A long log forgets its older half, and `compact` forgets all of
it, as etcd does after five minutes: a watch from an older version then ends with 410.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from graphquake.harness.kubernetes.api.objects import (
    NAMESPACES,
    Json,
    Resource,
    key_of,
    labels_of,
    uid_of,
)

from support.cluster.kinds import KINDS

# A test makes fewer changes. A search of hours would fill the memory without a limit.
LOG_CHANGES = 20_000


def now_text() -> str:
    """The time as the API writes it, in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Change(NamedTuple):
    """One change of one object, as it was then."""

    version: int
    kind: str
    resource: Resource
    item: Json


class Refused(Exception):
    """A request that the API server refuses, with the HTTP status and the reason."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


class Store:
    """All objects."""

    def __init__(self) -> None:
        self.version = 1000
        self.compacted = 1000
        self.log: list[Change] = []
        self._items: dict[Resource, dict[tuple[str, str], Json]] = {one: {} for one in KINDS}
        self._woke = asyncio.Event()

    # ---- reading

    def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """The object itself, not a copy. Change it by `update` only."""
        found = self.find(resource, namespace, name)
        if found is None:
            raise Refused(404, "NotFound", f'{resource.plural} "{name}" not found')
        return found

    def find(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """The object, or None."""
        return self._items[resource].get((namespace if resource.namespaced else "", name))

    def all(self, resource: Resource, namespace: str = "") -> list[Json]:
        """All objects of a kind, in the order of their names."""
        items = self._items[resource]
        return [items[key] for key in sorted(items) if not namespace or key[0] == namespace]

    def everything(self) -> Iterator[tuple[Resource, Json]]:
        """All objects of all kinds."""
        for resource, items in self._items.items():
            yield from ((resource, item) for item in [*items.values()])

    def since(self, version: int) -> list[Change]:
        """The changes after a version, without those that are forgotten. The log has each later version once."""
        return self.log[max(0, version - self.compacted) :]

    async def changed(self, version: int) -> None:
        """Wait until there is a change after a version."""
        while self.version <= version:
            await self._woke.wait()

    # ---- changing

    def create(self, resource: Resource, item: Json, *, dry: bool = False) -> Json:
        """Add an object, and return it."""
        item = copy.deepcopy(item)
        meta = item.setdefault("metadata", {})
        if "name" not in meta and meta.get("generateName"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        if not meta.get("name"):
            raise Refused(422, "Invalid", "metadata.name: Required value: name is required")
        if resource.namespaced and self.find(NAMESPACES, "", meta.get("namespace", "")) is None:
            message = f'namespaces "{meta.get("namespace", "")}" not found'
            raise Refused(404, "NotFound", message)
        around = self.find(NAMESPACES, "", meta.get("namespace", ""))
        if resource.namespaced and around and around["metadata"].get("deletionTimestamp"):
            raise Refused(403, "Forbidden", "the namespace is being terminated")
        if key_of(item) in self._items[resource]:
            message = f'{resource.plural} "{meta["name"]}" already exists'
            raise Refused(409, "AlreadyExists", message)
        item.update(apiVersion=resource.api_version, kind=resource.kind)
        meta.update(uid=str(uuid.uuid4()), creationTimestamp=now_text(), generation=1)
        if dry:
            return item
        self._items[resource][key_of(item)] = item
        self._note("ADDED", resource, item)
        return item

    def update(self, resource: Resource, item: Json) -> Json:
        """Put a changed copy in place of an object. Nothing happens if nothing has changed. The last finalizer's end removes it."""
        key = key_of(item)
        old = self._items[resource][key]
        if item == old:
            return old
        if item.get("spec") != old.get("spec"):
            item["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        self._items[resource][key] = item
        self._note("MODIFIED", resource, item)
        meta = item["metadata"]
        was_kept = old["metadata"].get("finalizers") and not meta.get("finalizers")
        if meta.get("deletionTimestamp") and was_kept:
            self.remove(resource, item)
        return item

    def change(self, resource: Resource, item: Json, **parts: Any) -> Json:
        """Replace some parts of an object, e.g. its status. An object that is gone stays gone."""
        now = self.find(resource, *key_of(item))
        if now is None or uid_of(now) != uid_of(item):
            return item
        return self.update(resource, {**copy.deepcopy(now), **parts})

    def delete(self, resource: Resource, item: Json, grace_s: int | None = None) -> Json:
        """Mark an object as deleted. Without finalizers and grace it is gone at once."""
        marked = copy.deepcopy(item)
        meta = marked["metadata"]
        if grace_s is not None:
            known_s = meta.get("deletionGracePeriodSeconds")
            meta["deletionGracePeriodSeconds"] = min(grace_s, known_s if known_s is not None else grace_s)  # fmt: skip
        if meta.get("finalizers") or grace_s:
            meta.setdefault("deletionTimestamp", now_text())
            return self.update(resource, marked)
        if grace_s is None:
            self.remove(resource, item)
            return item
        meta.setdefault("deletionTimestamp", now_text())
        marked = self.update(resource, marked)
        self.remove(resource, marked)
        return marked

    def remove(self, resource: Resource, item: Json) -> None:
        """Take an object away, and then everything that it owns."""
        if self.find(resource, *key_of(item)) is not item:
            return
        if resource == NAMESPACES and self._emptied(item["metadata"]["name"]):
            marked = {**item, "metadata": {**item["metadata"], "deletionTimestamp": now_text()}}
            self.update(resource, {**marked, "status": {"phase": "Terminating"}})
            return
        gone = self._items[resource].pop(key_of(item))
        self._note("DELETED", resource, gone)
        for kind, owned in list(self.everything()):
            owners = owned["metadata"].get("ownerReferences") or []
            if any(one["uid"] == uid_of(gone) for one in owners):
                self.delete(kind, owned, grace_of(kind, owned))
        namespace = self.find(NAMESPACES, "", key_of(gone)[0])
        if namespace and namespace["metadata"].get("deletionTimestamp") and not self._inside(namespace["metadata"]["name"]):  # fmt: skip
            self.remove(NAMESPACES, namespace)

    def _inside(self, namespace: str) -> list[tuple[Resource, Json]]:
        return [(k, one) for k, one in list(self.everything()) if k.namespaced and key_of(one)[0] == namespace]  # fmt: skip

    def _emptied(self, namespace: str) -> bool:
        """Delete everything in a namespace. True if something needs time to end: the namespace stays until then."""
        for kind, inner in self._inside(namespace):
            if not inner["metadata"].get("deletionTimestamp"):
                self.delete(kind, inner, grace_of(kind, inner))
        return bool(self._inside(namespace))

    def compact(self, kept: int = 0) -> None:
        """Forget all changes but the last ones."""
        self.compacted = self.version - kept
        self.log = self.log[len(self.log) - kept :]

    def _note(self, kind: str, resource: Resource, item: Json) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.log.append(Change(self.version, kind, resource, copy.deepcopy(item)))
        if len(self.log) > LOG_CHANGES:
            self.compact(kept=LOG_CHANGES // 2)
        woke, self._woke = self._woke, asyncio.Event()
        woke.set()


def grace_of(resource: Resource, item: Json) -> int | None:
    """The time that an object gets to end, if nobody says otherwise: pods have one."""
    if resource.plural != "pods":
        return None
    return int(item["spec"].get("terminationGracePeriodSeconds", 30))


def labelled(items: list[Json], **labels: str) -> list[Json]:
    """The objects that have all of these labels."""
    return [one for one in items if labels.items() <= dict(labels_of(one)).items()]
