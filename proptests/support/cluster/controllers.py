"""The controllers of the test cluster: Deployments, ReplicaSets and EndpointSlices follow what was asked for.

Each round compares what is with what was asked for, and takes one step. Rounds go on until nothing changes.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

from graphquake.harness.kubernetes.api.objects import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    Json,
    key_of,
    labels_of,
    uid_of,
)

from support.cluster.objects import is_ending, is_ready, owned, owner_of
from support.cluster.selectors import selects
from support.cluster.sets import keep_sets
from support.cluster.store import Store


async def control(store: Store) -> None:
    """Follow all changes, until cancelled."""
    while True:
        done = store.version
        for deployment in store.all(DEPLOYMENTS):
            _deployment(store, deployment)
        for replica_set in store.all(REPLICA_SETS):
            _replica_set(store, replica_set)
        keep_sets(store)
        for service in store.all(SERVICES):
            _endpoints(store, service)
        if store.version == done:
            await store.changed(done)


def _deployment(store: Store, item: Json) -> None:
    if is_ending(item):
        return
    spec, name = item["spec"], item["metadata"]["name"]
    wanted = spec.setdefault("replicas", 1)
    digest = hashlib.sha1(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
    sets = owned(store, REPLICA_SETS, item)
    mine = next((s for s in sets if labels_of(s).get("pod-template-hash") == digest), None)
    others = [one for one in sets if one is not mine and one["spec"]["replicas"]]
    if mine is None and spec.get("paused"):
        return
    if mine is None:
        mark = {"pod-template-hash": digest}
        template = json.loads(json.dumps(spec["template"]))
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        labels |= mark
        meta = {
            "name": f"{name}-{digest}",
            "namespace": key_of(item)[0],
            "labels": labels,
            "ownerReferences": owner_of(item),
        }
        selector = {"matchLabels": {**spec["selector"]["matchLabels"], **mark}}
        made = {"replicas": 0 if others else wanted, "selector": selector, "template": template}
        store.create(REPLICA_SETS, {"metadata": meta, "spec": made})
        return
    _scaled(store, item, mine, others, wanted)
    ready = sum(map(is_ready, owned(store, PODS, mine)))
    pods = [pod for one in sets for pod in owned(store, PODS, one)]
    status = {
        "observedGeneration": item["metadata"]["generation"],
        "replicas": len(pods),
        "updatedReplicas": len(owned(store, PODS, mine)),
        "readyReplicas": sum(map(is_ready, pods)),
        "availableReplicas": ready,
        "unavailableReplicas": max(0, wanted - ready),
    }
    store.change(DEPLOYMENTS, item, status=status)


def _scaled(store: Store, item: Json, mine: Json, others: list[Json], wanted: int) -> None:
    """Take the next step of a rollout: at most one pod too many, none too few. `Recreate` ends all old pods first."""
    recreates = item["spec"].get("strategy", {}).get("type") == "Recreate"
    if recreates and others:
        for one in others:
            _resize(store, one, 0)
    elif recreates and any(owned(store, PODS, one) for one in owned(store, REPLICA_SETS, item) if one is not mine):  # fmt: skip
        return
    elif not others:
        _resize(store, mine, wanted)
    else:
        total = mine["spec"]["replicas"] + sum(one["spec"]["replicas"] for one in others)
        ready = sum(is_ready(p) for one in (mine, *others) for p in owned(store, PODS, one))
        if mine["spec"]["replicas"] < wanted and total <= wanted:
            _resize(store, mine, mine["spec"]["replicas"] + 1)
        elif total > wanted and ready > wanted:
            _resize(store, others[0], others[0]["spec"]["replicas"] - 1)


def _resize(store: Store, item: Json, replicas: int) -> None:
    store.change(REPLICA_SETS, item, spec={**item["spec"], "replicas": replicas})


def _replica_set(store: Store, item: Json) -> None:
    if is_ending(item):
        return
    pods = [one for one in owned(store, PODS, item) if not is_ending(one)]
    live = [one for one in pods if one.get("status", {}).get("phase") not in {"Failed", "Succeeded"}]  # fmt: skip
    wanted = item["spec"]["replicas"]
    for _ in range(wanted - len(live)):
        template = item["spec"]["template"]
        meta = {
            **template.get("metadata", {}),
            "name": f"{item['metadata']['name']}-{secrets.token_hex(3)[:5]}",
            "namespace": key_of(item)[0],
            "ownerReferences": owner_of(item),
        }
        store.create(PODS, {"metadata": meta, "spec": template["spec"]})
    spare = sorted(live, key=lambda one: (is_ready(one), one["metadata"]["creationTimestamp"]))
    for pod in spare[: max(0, len(live) - wanted)]:
        store.delete(PODS, pod, int(pod["spec"].get("terminationGracePeriodSeconds", 30)))
    ready = sum(map(is_ready, live))
    store.change(REPLICA_SETS, item, status={"replicas": len(live), "readyReplicas": ready})


def _endpoints(store: Store, service: Json) -> None:
    """Keep the one EndpointSlice of a Service. It has the labels of the Service."""
    selector = service["spec"].get("selector")
    if not selector or is_ending(service):
        return
    namespace, name = key_of(service)
    pods = [one for one in store.all(PODS, namespace) if selects(selector, dict(labels_of(one)))]
    body = {
        "addressType": "IPv4",
        "endpoints": list(_addresses(service, pods)),
        "ports": [_port(port, pods) for port in service["spec"].get("ports", [])],
    }
    old = store.find(ENDPOINT_SLICES, namespace, f"{name}-slice")
    if old is None:
        labels = {**labels_of(service), "kubernetes.io/service-name": name}
        meta: Json = {"name": f"{name}-slice", "namespace": namespace, "labels": labels}
        meta["ownerReferences"] = owner_of(service)
        store.create(ENDPOINT_SLICES, {"metadata": meta, **body})
    else:
        store.change(ENDPOINT_SLICES, old, **body)


def _addresses(service: Json, pods: list[Json]) -> Iterator[dict[str, Any]]:
    for pod in pods:
        address = pod.get("status", {}).get("podIP")
        if not address or pod["status"]["phase"] != "Running":
            continue
        namespace, name = key_of(pod)
        serving = is_ready(pod) or bool(service["spec"].get("publishNotReadyAddresses"))
        yield {
            "addresses": [address],
            "nodeName": pod["spec"].get("nodeName"),
            "conditions": {
                "ready": serving and not is_ending(pod),
                "serving": serving,
                "terminating": is_ending(pod),
            },
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid_of(pod)},
        }


def _port(port: Json, pods: list[Json]) -> Json:
    """A port of a slice. A target port may be a name, which a container gives to a number."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, str):
        named = (
            one["containerPort"]
            for pod in pods
            for container in pod["spec"]["containers"]
            for one in container.get("ports", [])
            if one.get("name") == target
        )
        target = next(named, None)
    return {"name": port.get("name", ""), "port": target, "protocol": "TCP"}
