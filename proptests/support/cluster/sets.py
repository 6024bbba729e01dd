"""More controllers of the test cluster: StatefulSets, DaemonSets, and an operator with a Deployment for each part of a Dynamo graph."""

from __future__ import annotations

import hashlib
import json
import secrets

from graphquake.harness.kubernetes.api.objects import (
    DAEMON_SETS,
    DEPLOYMENTS,
    PODS,
    STATEFUL_SETS,
    Json,
    key_of,
    labels_of,
    name_of,
)

from support.cluster.kinds import DYNAMO_GRAPHS
from support.cluster.objects import is_ending, is_ready, owned, owner_of
from support.cluster.store import Store

HASH = "controller-revision-hash"


def keep_sets(store: Store) -> None:
    """Take one step towards what each object asks for."""
    for item in store.all(STATEFUL_SETS):
        if not is_ending(item):
            _stateful_set(store, item)
    for item in store.all(DAEMON_SETS):
        if not is_ending(item):
            _daemon_set(store, item)
    for item in store.all(DYNAMO_GRAPHS):
        for name, service in item["spec"].get("services", {}).items():
            _dynamo_part(store, item, name, service)


def _digest(item: Json) -> str:
    return hashlib.sha1(json.dumps(item["spec"]["template"], sort_keys=True).encode()).hexdigest()[:10]  # fmt: skip


def _make(store: Store, item: Json, name: str) -> None:
    template = item["spec"]["template"]
    meta = template.get("metadata", {})
    labels = {**meta.get("labels", {}), HASH: _digest(item)}
    meta = {**meta, "labels": labels, "name": name, "namespace": key_of(item)[0]}
    meta["ownerReferences"] = owner_of(item)
    store.create(PODS, {"metadata": meta, "spec": template["spec"]})


def _end(store: Store, pod: Json) -> None:
    store.delete(PODS, pod, int(pod["spec"].get("terminationGracePeriodSeconds", 30)))


def _is_old(item: Json, pod: Json) -> bool:
    waits = item["spec"].get("updateStrategy", {}).get("type") == "OnDelete"
    return not waits and labels_of(pod).get(HASH) != _digest(item)


def _stateful_set(store: Store, item: Json) -> None:
    """Start pods in their order, each when the one before is ready. Replace old ones from the last to the first, under the same names."""
    wanted = [f"{name_of(item)}-{number}" for number in range(item["spec"].get("replicas", 1))]
    pods = {name_of(pod): pod for pod in owned(store, PODS, item)}
    for name in wanted:
        if name not in pods:
            _make(store, item, name)
            return
        if not is_ready(pods[name]) or is_ending(pods[name]):
            return
    for name in sorted(pods, reverse=True):
        if not is_ending(pods[name]) and (name not in wanted or _is_old(item, pods[name])):
            _end(store, pods[name])
            return


def _daemon_set(store: Store, item: Json) -> None:
    """Keep one pod on the one node. A new one starts when the old one is gone."""
    pods = owned(store, PODS, item)
    if not pods:
        _make(store, item, f"{name_of(item)}-{secrets.token_hex(3)[:5]}")
    for pod in pods:
        if not is_ending(pod) and _is_old(item, pod):
            _end(store, pod)


def _dynamo_part(store: Store, item: Json, name: str, service: Json) -> None:
    """Keep the Deployment of one component. The labels of its pods are those of the operator."""
    namespace, graph = key_of(item)
    labels = {
        "nvidia.com/dynamo-graph-deployment-name": graph,
        "nvidia.com/dynamo-component": name,
    }
    spec = dict(service["extraPodSpec"])
    spec["containers"] = [spec.pop("mainContainer")]
    notes = service.get("extraPodMetadata", {}).get("annotations", {})
    template = {"metadata": {"labels": labels, "annotations": notes}, "spec": spec}
    asked = {
        "replicas": service.get("replicas", 1),
        "selector": {"matchLabels": labels},
        "template": template,
    }
    now = store.find(DEPLOYMENTS, namespace, f"{graph}-{name.lower()}")
    if now is None:
        meta = {"name": f"{graph}-{name.lower()}", "namespace": namespace}
        meta["ownerReferences"] = owner_of(item)  # type: ignore[assignment] # a list among texts
        store.create(DEPLOYMENTS, {"metadata": meta, "spec": asked})
    elif now["spec"]["template"] != template:
        store.change(DEPLOYMENTS, now, spec={**now["spec"], "template": template})
