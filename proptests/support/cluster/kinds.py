"""The kinds of objects that the test cluster knows, and the documents in which an API server names them."""

from __future__ import annotations

from typing import Any, Final

from graphquake.harness.kubernetes.api.objects import (
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)

DYNAMO_GRAPHS: Final = Resource(
    "nvidia.com", "v1alpha1", "dynamographdeployments", "DynamoGraphDeployment"
)
_RBAC: Final = "rbac.authorization.k8s.io"
KINDS: Final = (
    PODS,
    SERVICES,
    EVENTS,
    NAMESPACES,
    NODES,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    DAEMON_SETS,
    ENDPOINT_SLICES,
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    NETWORK_POLICIES,
    Resource(_RBAC, "v1", "roles", "Role"),
    Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
    DYNAMO_GRAPHS,
    Resource("nvidia.com", "v1alpha1", "dynamoworkermetadatas", "DynamoWorkerMetadata"),
)
# The kinds whose `status` is changed only through the subresource.
WITH_STATUS: Final = frozenset({PODS, DEPLOYMENTS, REPLICA_SETS, NODES, NAMESPACES})
SHORT_NAMES: Final = {
    "deployments": ["deploy"],
    "namespaces": ["ns"],
    "pods": ["po"],
    "services": ["svc"],
}
VERBS: Final = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def kind_at(group: str, version: str, plural: str) -> Resource | None:
    """The kind at this place of the API, if there is one."""
    wanted = (group, version, plural)
    return next((one for one in KINDS if (one.group, one.version, one.plural) == wanted), None)


def group_list() -> dict[str, Any]:
    """The document of `/apis`."""
    groups = []
    for group in sorted({one.group for one in KINDS} - {""}):
        versions = sorted({one.version for one in KINDS if one.group == group})
        told = [{"groupVersion": f"{group}/{one}", "version": one} for one in versions]
        groups.append({"name": group, "versions": told, "preferredVersion": told[0]})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def resource_list(group: str, version: str) -> dict[str, Any]:
    """The document of one group, with its kinds and their subresources."""
    rows = []
    for one in KINDS:
        if (one.group, one.version) != (group, version):
            continue
        row = {
            "name": one.plural,
            "singularName": one.kind.lower(),
            "namespaced": one.namespaced,
            "kind": one.kind,
            "verbs": VERBS,
            "shortNames": SHORT_NAMES.get(one.plural, []),
        }
        rows.append(row)
        if one in {DEPLOYMENTS, REPLICA_SETS}:
            part = {"name": f"{one.plural}/scale", "kind": "Scale", "verbs": ["get", "patch"]}
            rows.append({**row, **part, "group": "autoscaling", "version": "v1", "shortNames": []})
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}".lstrip("/"),
        "resources": rows,
    }


def schema_list() -> dict[str, Any]:
    """The document of `/openapi/v3`: where the schema of each group is."""
    paths = {one.path().removeprefix("/").rsplit("/", 1)[0] for one in KINDS}
    return {"paths": {one: {"serverRelativeURL": f"/openapi/v3/{one}"} for one in sorted(paths)}}


def schema(group: str, version: str) -> dict[str, Any]:
    """The schema of a group. It says only that the server itself checks what it gets, which `kubectl apply` wants to know."""
    found = {}
    for one in KINDS:
        if (one.group, one.version) == (group, version):
            kind = {"group": group, "version": version, "kind": one.kind}
            checks = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
            patch = {"x-kubernetes-group-version-kind": kind, "parameters": [checks]}
            found[one.path("{namespace}", "{name}")] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "test", "version": "1"}, "paths": found}
