"""The test cluster on a real API server: its objects live there, and a real controller manager follows them.

The node is the test cluster's kubelet, in this process: its pods are local processes. So the API server must run on this machine, and must
have no other node. Set `GRAPHQUAKE_TEST_KUBECONFIG` to the kubeconfig of an administrator (see `servers`). Tests then use it.

The graph's user is a service account with exactly the rights that the docs name.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from graphquake.harness.kubernetes.api.client import MERGE, Client
from graphquake.harness.kubernetes.api.kubeconfig import Access, parsed_yaml, read_access
from graphquake.harness.kubernetes.api.objects import (
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    Json,
    Resource,
    name_of,
)
from graphquake.harness.processes.network.addresses import HUB

from support.cluster.cluster import Cluster, clean_up
from support.cluster.kubelet import NODE, Kubelet
from support.cluster.networks import PodNetworks
from support.cluster.store import Refused, now_text
from support.pages import DOCS
from support.real_cluster.front import opened
from support.real_cluster.kubelet_api import serving
from support.real_cluster.rest import Rest
from support.real_cluster.servers import CONFIG
from support.real_cluster.store import SERVICE_ACCOUNTS, RemoteStore

BEAT_EVERY_S: Final = 5.0
GONE_WITHIN_S: Final = 60.0
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
_RBAC: Final = "rbac.authorization.k8s.io"
USER: Final = "graphquake"


class RealCluster(Cluster):
    """See `Cluster`."""

    rest: Rest

    @property
    def user_config(self) -> Path:
        """The kubeconfig of the graph's user."""
        return self.config.with_name("user.json")

    def namespace(self, name: str, **labels: str) -> None:
        """See `Cluster.namespace`."""
        with suppress(Refused):  # a real cluster has `default` already
            self.store.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})

    def grant(self, namespace: str, *, makes_namespaces: bool) -> None:
        """Let the graph's user do in a namespace what the docs name, and cordon nodes. Write its kubeconfig."""
        rules = _rules()
        nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "patch"]}
        wide = [nodes]
        if makes_namespaces:
            every = ["create", "get", "list", "patch", "delete"]
            wide += [
                {"apiGroups": [""], "resources": ["namespaces"], "verbs": every},
                # What the manifests of the tests need.
                {"apiGroups": [""], "resources": ["services"], "verbs": ["create", "patch"]},
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["create", "patch"]},
                *(one for one in rules if "resourceNames" not in one),
            ]
        account = {"metadata": {"name": USER, "namespace": namespace}}
        with suppress(Refused):
            self.store.create(SERVICE_ACCOUNTS, account)
        subject = {"kind": "ServiceAccount", "name": USER, "namespace": namespace}
        for kind, where, granted in (("Role", namespace, rules), ("ClusterRole", "", wide)):
            _grant(self.rest, kind, where, granted, subject)
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = SERVICE_ACCOUNTS.path(namespace, USER, "token")
        token = self.rest.ask("POST", path, asked)["status"]["token"]
        config = json.loads(self.config.read_text(encoding="utf-8"))
        config["users"] = [{"name": "test", "user": {"token": token}}]
        self.user_config.write_text(json.dumps(config), encoding="utf-8")


def _rules() -> list[dict[str, Any]]:
    """The rules of the Role that the docs name."""
    page = (DOCS / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (block,) = (one for one in blocks if "kind: Role\n" in one)
    yaml = importlib.import_module("yaml")
    found: list[dict[str, Any]] = yaml.safe_load(block)["rules"]
    return found


def _grant(rest: Rest, kind: str, namespace: str, rules: list[Any], subject: Json) -> None:
    plural = kind.lower() + "s"
    for resource, body in (
        (Resource(_RBAC, "v1", plural, kind), {"rules": rules}),
        (
            Resource(_RBAC, "v1", kind.lower() + "bindings", kind + "Binding"),
            {"subjects": [subject], "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": USER}},
        ),
    ):
        item = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        item["metadata"] = {"name": USER, **({"namespace": namespace} if namespace else {})}
        with suppress(Refused):
            rest.ask("DELETE", resource.path(namespace, USER))
        rest.ask("POST", resource.path(namespace), item)


@asynccontextmanager
async def running(
    folder: Path, *, speed: float, networks: PodNetworks | None
) -> AsyncIterator[Cluster]:
    """See `support.cluster.cluster.running`."""
    access = read_access(env={"KUBECONFIG": os.environ[CONFIG]})
    rest = Rest(access, await access.credentials.headers())
    async with _closed(rest), Client(access) as client, opened(access.server) as front:
        store = RemoteStore(rest, client, NODE)
        await _emptied(store)
        kubelet = Kubelet(store, folder / "pods", speed=speed, networks=networks)
        config = folder / "config"
        config.write_text(
            json.dumps(_kubeconfig(access, "127.0.0.1", front.port)), encoding="utf-8"
        )
        kubelet.config = config
        cluster = RealCluster(store, front, kubelet, config, f"https://127.0.0.1:{front.port}")
        cluster.rest = rest
        if networks is not None:
            await networks.begin(folder)
            await front.listen(networks.listener(front.port))
            kubelet.config = folder / "config-of-pods"
            inside = json.dumps(_kubeconfig(access, HUB, front.port))
            kubelet.config.write_text(inside, encoding="utf-8")
        async with serving(kubelet, folder) as port:
            _register(rest, port)
            works = kubelet.run(), store.follow(), _beat(client)
            tasks = [asyncio.create_task(one) for one in works]
            try:
                yield cluster
            finally:
                await _emptied(store)
                await clean_up(tasks, networks=networks)
                rest.ask("DELETE", NODES.path("", NODE))


@asynccontextmanager
async def _closed(rest: Rest) -> AsyncIterator[None]:
    """Close the connection at the end."""
    try:
        yield
    finally:
        rest.close()


async def _emptied(store: RemoteStore) -> None:
    """Remove everything that tests have made."""
    for resource in (DEPLOYMENTS, PODS):
        for item in store.all(resource):
            store.delete(resource, item, 0 if resource == PODS else None)
    for item in store.all(NAMESPACES):
        if name_of(item).startswith("lab"):
            store.delete(NAMESPACES, item)
    async with asyncio.timeout(GONE_WITHIN_S):
        while any(name_of(one).startswith("lab") for one in store.all(NAMESPACES)):
            for pod in store.all(PODS):
                store.delete(PODS, pod, 0)
            await asyncio.sleep(0.1)


def _register(rest: Rest, port: int) -> None:
    """Register the node, and say where its kubelet is."""
    with suppress(Refused):
        rest.ask("DELETE", NODES.path("", NODE))
    item = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "spec": {}}
    rest.ask("POST", NODES.path(), item)
    conditions = [
        {"type": "Ready", "status": "True", "reason": "Test", "lastTransitionTime": now_text()}
    ]
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "conditions": conditions,
    }
    rest.ask("PATCH", NODES.path("", NODE, "status"), {"status": status}, MERGE)
    lease: Json = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": NODE}}
    lease["spec"] = {"holderIdentity": NODE, "leaseDurationSeconds": 40}
    with suppress(Refused):
        rest.ask("POST", LEASES.path("kube-node-lease"), lease)


async def _beat(client: Client) -> None:
    """Say again and again that the node lives. Otherwise its pods would be evicted."""
    while True:
        spec = {"renewTime": now_text().replace("Z", ".000000Z")}
        await client.patch(LEASES, "kube-node-lease", NODE, {"spec": spec})
        await asyncio.sleep(BEAT_EVERY_S)


def _kubeconfig(access: Access, host: str, port: int) -> dict[str, object]:
    """The kubeconfig of the administrator, which leads through the proxy."""
    given: Any = next(parsed_yaml(Path(os.environ[CONFIG])))
    context = next(one["context"] for one in given["contexts"] if one["name"] == access.context)
    cluster = next(one["cluster"] for one in given["clusters"] if one["name"] == context["cluster"])
    user = next(one["user"] for one in given["users"] if one["name"] == context["user"])
    cluster = {**cluster, "server": f"https://{host}:{port}"}
    if path := cluster.pop("certificate-authority", ""):
        data = (Path(os.environ[CONFIG]).parent / path).read_bytes()
        cluster["certificate-authority-data"] = base64.b64encode(data).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
