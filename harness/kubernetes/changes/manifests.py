"""Read manifests, and apply them into a namespace. Only objects that live in a namespace can be applied.

The text `{namespace}` in a manifest stands for the name of the namespace. An object that names a namespace of its own is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.kubeconfig import parsed_yaml
from graphquake.harness.kubernetes.api.objects import Json, Resource

_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
WORD: Final = "{namespace}"


def read_manifests(path: Path) -> list[Json]:
    """Return the objects of a file, or of all files of a folder in the order of their names. A `List` counts as its items.

    Raises:
        InputError: if there is no manifest, or one can't be read.
    """
    files = [path]
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.suffix in _SUFFIXES)
    found = [item for file in files for item in _objects(file)]
    if not found:
        raise InputError(f"{path}: holds no manifest, expected files {', '.join(sorted(_SUFFIXES))}")  # fmt: skip
    return found


def _objects(file: Path) -> Iterator[Json]:
    for document in parsed_yaml(file):
        items = document.get("items") if isinstance(document, dict) else None
        every: list[Any] = items if isinstance(items, list) else [document]
        for item in every:
            meta = item.get("metadata") if isinstance(item, dict) else None
            if not isinstance(meta, dict) or not all(item.get(k) for k in ("apiVersion", "kind")):
                raise InputError(f"{file}: holds a document that is not an object of Kubernetes")
            if not meta.get("name"):
                raise InputError(f"{file}: {item['kind']}: metadata.name is missing")
            if meta.get("namespace") not in (None, WORD):
                said = f"{item['kind']} {meta['name']}: metadata.namespace is {meta['namespace']}"
                raise InputError(f"{file}: {said}, expected none: it is applied into a new one")
            yield item


def placed(item: Any, namespace: str) -> Any:
    """Return a part of a manifest in which each `{namespace}` is the name of the namespace."""
    if isinstance(item, dict):
        return {key: placed(value, namespace) for key, value in item.items()}
    if isinstance(item, list):
        return [placed(one, namespace) for one in item]
    return item.replace(WORD, namespace) if isinstance(item, str) else item


def with_protocols(item: Json) -> Json:
    """Return an object in which each port of a Service has a protocol. API servers such as 1.20 refuse to apply it otherwise."""
    if item["kind"] != "Service":
        return item
    spec = item.get("spec") or {}
    ports = [{"protocol": "TCP", **port} for port in spec.get("ports") or []]
    return {**item, "spec": {**spec, "ports": ports}} if ports else item


class Kinds:
    """Finds the kinds of objects in the documents of the API server.

    Args:
        client: the API server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, dict[str, Resource]] = {}

    async def of(self, item: Json) -> Resource:
        """Return the kind of an object.

        Raises:
            InputError: if the API server does not know it, or if its objects do not live in a namespace.
        """
        version, kind = str(item["apiVersion"]), str(item["kind"])
        if version not in self._known:
            self._known[version] = await self._read(version)
        found = self._known[version].get(kind)
        if found is None:
            raise InputError(f"kubernetes.manifests: this cluster has no kind {kind} of {version}")
        if not found.namespaced:
            name = item["metadata"]["name"]
            said = f"{kind} {name} does not live in a namespace, so it can't be applied"
            raise InputError(f"kubernetes.manifests: {said}")
        return found

    async def _read(self, text: str) -> dict[str, Resource]:
        group, _, version = text.rpartition("/")
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        try:
            said = await self._client.request("GET", path)
        except ApiError as error:
            if error.is_missing:
                return {}
            raise
        return {
            row["kind"]: Resource(group, version, row["name"], row["kind"], row["namespaced"])
            for row in said.get("resources") or []
            if "/" not in row["name"]
        }
