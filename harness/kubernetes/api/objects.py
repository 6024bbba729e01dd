"""Kinds of objects of the Kubernetes API: their paths, and small readers for the parts that all objects have.

An object stays the JSON that the API server sent. A reader of one kind, e.g. of pods, turns it into a dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias
from urllib.parse import quote

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, and where the API server keeps it.

    Attributes:
        group: the API group, e.g. `apps`. Empty for the core group.
        version: the version of the group, e.g. `v1`.
        plural: the name of the kind in paths, e.g. `pods`.
        kind: the name of the kind in manifests, e.g. `Pod`.
        namespaced: true if each object of this kind lives in a namespace.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The text of `apiVersion` in a manifest, e.g. `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", part: str = "") -> str:
        """Return the path of a collection, of one object, or of a part of one object.

        Args:
            namespace: the namespace, or empty for the collection of all namespaces.
            name: the name of the object, or empty for the collection.
            part: a subresource such as `status` or `exec`, or empty for the object itself.
        """
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{quote(namespace)}" if namespace and self.namespaced else ""
        tail = "".join(f"/{quote(one)}" for one in (name, part) if one)
        return f"{base}{inside}/{self.plural}{tail}"


PODS: Final = Resource("", "v1", "pods", "Pod")
SERVICES: Final = Resource("", "v1", "services", "Service")
EVENTS: Final = Resource("", "v1", "events", "Event")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS: Final = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets", "ReplicaSet")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
NETWORK_POLICIES: Final = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
# API servers before 1.21 have this version only.
ENDPOINT_SLICES_BETA: Final = Resource(
    "discovery.k8s.io", "v1beta1", "endpointslices", "EndpointSlice"
)


def name_of(item: Mapping[str, Any]) -> str:
    """Return the name of an object."""
    return str(item["metadata"]["name"])


def key_of(item: Mapping[str, Any]) -> tuple[str, str]:
    """Return the namespace and the name of an object. The namespace is empty for an object of the cluster."""
    meta = item["metadata"]
    return str(meta.get("namespace", "")), str(meta["name"])


def uid_of(item: Mapping[str, Any]) -> str:
    """Return the uid of an object. An object that was deleted and created again has another one."""
    return str(item["metadata"].get("uid", ""))


def version_of(item: Mapping[str, Any]) -> str:
    """Return the `resourceVersion` of an object or of a list."""
    return str(item.get("metadata", {}).get("resourceVersion", ""))


def labels_of(item: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the labels of an object."""
    found: Mapping[str, str] = item["metadata"].get("labels") or {}
    return found


def owner_of(item: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind and the name of the controller of an object. Both are empty if it has none."""
    owners = item["metadata"].get("ownerReferences") or []
    found = next((one for one in owners if one.get("controller")), None)
    return (str(found["kind"]), str(found["name"])) if found else ("", "")


def wall_s(text: str) -> float:
    """Return a time of the API server in seconds since the epoch.

    Args:
        text: a time as RFC 3339 writes it, e.g. `2026-01-31T12:00:00Z`. Most times of the API have whole seconds only.

    Raises:
        ValueError: if the text is not such a time.
    """
    return datetime.fromisoformat(text).timestamp()
