"""Merge patches, strategic merge patches, and server-side apply."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from graphquake.harness.kubernetes.api.objects import Json

from support.cluster.store import Refused

# The key by which the items of a list are told apart, by the name of the list.
MERGE_KEYS = {
    "conditions": "type",
    "containers": "name",
    "containerStatuses": "name",
    "env": "name",
    "initContainers": "name",
    "podIPs": "ip",
    "ports": "port",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
Path = tuple[str, ...]


def merged(old: Any, patch: Any) -> Any:
    """A merge patch (RFC 7396): None removes a field, and a list replaces a list."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def strategic(old: Any, patch: Any, name: str = "") -> Any:
    """A strategic merge patch: as a merge patch, but the items of known lists are merged by their key."""
    if isinstance(patch, dict):
        result = copy.deepcopy(old) if isinstance(old, dict) else {}
        for key, value in patch.items():
            if key.startswith("$"):
                continue
            if value is None:
                result.pop(key, None)
            else:
                result[key] = strategic(result.get(key), value, key)
        return result
    key = _key_of_list(name, patch)
    if not key or not isinstance(old, list):
        return copy.deepcopy(patch)
    items = copy.deepcopy(old)
    for item in patch:
        at = next((n for n, one in enumerate(items) if one.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            items = [one for one in items if one.get(key) != item.get(key)]
        elif at is None:
            items.append(copy.deepcopy(item))
        else:
            items[at] = strategic(items[at], item)
    return items


def _key_of_list(name: str, items: Any) -> str:
    """The key of a list, or an empty text if the list is one value."""
    if not isinstance(items, list) or not items or not all(isinstance(i, dict) for i in items):
        return ""
    key = MERGE_KEYS.get(name, "")
    if key == "port" and "containerPort" in items[0]:
        key = "containerPort"
    return key if key and all(key in one for one in items) else ""


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All fields of an object with their paths. An item of a keyed list is addressed by its key."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
        return
    key = _key_of_list(path[-1], value) if path else ""
    if key:
        for item in value:
            yield from leaves(item, (*path, f"{key}={item[key]}"))
        return
    yield path, value


def _without(value: Any, path: Path) -> None:
    """Remove the field at a path, and its containers if they become empty."""
    head, *rest = path
    if isinstance(value, list):
        key, _, name = head.partition("=")
        inner = next((one for one in value if str(one.get(key)) == name), None)
        if inner is None:
            return
        if rest:
            _without(inner, tuple(rest))
        if not rest or inner.keys() <= {key}:
            value.remove(inner)
    elif head in value:
        if rest:
            _without(value[head], tuple(rest))
        if not rest or value[head] in ({}, []):
            del value[head]


class Appliers:
    """Which manager has applied which fields of which object."""

    def __init__(self) -> None:
        self._owned: dict[str, dict[str, dict[Path, Any]]] = {}

    def applied(self, old: Json, body: Json, manager: str, *, force: bool) -> Json:
        """Server-side apply onto an object.

        Fields that this manager applied before, and has left out now, are removed if nobody else applied them.

        Raises:
            Refused: 409 if another manager has applied another value to a field, and `force` is false.
        """
        identity = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
        wanted = {path: value for path, value in leaves(body) if path not in identity}
        owned = self._owned.get(old["metadata"]["uid"], {})
        others = {name: fields for name, fields in owned.items() if name != manager}
        for name, fields in others.items():
            clash = [p for p in wanted if p in fields and fields[p] != wanted[p]]
            if clash and not force:
                message = f'Apply failed with 1 conflict: conflict with "{name}": .{".".join(clash[0])}'  # fmt: skip
                raise Refused(409, "Conflict", message)
            for path in clash:
                del fields[path]
        result: Json = copy.deepcopy(old)
        for path in owned.get(manager, {}).keys() - wanted.keys():
            if not any(path in fields for fields in others.values()):
                _without(result, path)
        result = strategic(result, body)
        self._owned[old["metadata"]["uid"]] = {**others, manager: wanted}
        return result
