"""NetworkPolicies that keep some pods from opening connections to each other, and all others as they were.

A NetworkPolicy can't deny. A pod that a policy selects may talk only to the peers that some policy allows. So a policy here selects one pod
and allows every peer but those that it is cut off from. Peers are named twice, by a label and by their addresses, because some network
plugins do not apply blocks of addresses to pods. A run gives that label to the pods, and takes it away again.

Policies add up: a peer that any policy allows is allowed. So a pod has one policy for all cuts that act on it. And a pod that a policy of
somebody else selects is refused (see `selects`): a policy here would open what the other one closes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, TypeAlias

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import (
    NETWORK_POLICIES,
    PODS,
    Json,
    key_of,
    labels_of,
    name_of,
)
from graphquake.harness.kubernetes.changes.records import (
    BEAT_EVERY_S,
    LABEL,
    NOTE,
    Owner,
    Record,
    record_of,
)
from graphquake.harness.kubernetes.node.agents import RUN
from graphquake.harness.kubernetes.pods import Pod

# The label that names one pod. Its value is the uid of the pod.
POD: Final = "graphquake/pod"
CLOSED_WITHIN_S: Final = 10.0
UNMARKED: Final[Json] = {
    "labels": {POD: None, LABEL: None},
    "annotations": {NOTE: None},
}
# The uids of two pods: the first one must not open a connection to the second one.
Edge: TypeAlias = tuple[str, str]


def shares(edges: Iterable[Edge]) -> dict[str, frozenset[Edge]]:
    """Choose the pods that get a policy, and the edges that each policy closes. The pod at most of the edges that are left comes next."""
    left, found = set(edges), {}
    while left:
        ends = Counter(pod for edge in sorted(left) for pod in edge)
        pod = ends.most_common(1)[0][0]
        found[pod] = frozenset(edge for edge in left if pod in edge)
        left -= found[pod]
    return found


def policy_spec(pod: str, edges: Iterable[Edge], addresses: Mapping[str, Iterable[str]]) -> Json:
    """Return the `spec` of the policy of one pod. A direction that stays open is None, so that a merge patch removes it.

    Args:
        pod: the uid of the pod.
        edges: the edges to close. The pod is at one end of each.
        addresses: the addresses of each peer, by its uid.
    """
    edges = sorted(edges)
    sources = [source for source, to in edges if to == pod]
    to = [to for source, to in edges if source == pod]
    return {
        "podSelector": {"matchLabels": {POD: pod}},
        "policyTypes": [*(["Ingress"] if sources else []), *(["Egress"] if to else [])],
        "ingress": [{"from": _all_but(sources, addresses)}] if sources else None,
        "egress": [{"to": _all_but(to, addresses)}] if to else None,
    }


def _all_but(pods: list[str], addresses: Mapping[str, Iterable[str]]) -> list[Json]:
    """Return the peers that stay allowed: every other pod, and every other address."""
    labels = {"matchExpressions": [{"key": POD, "operator": "NotIn", "values": pods}]}
    known = [ipaddress.ip_network(one) for pod in pods for one in addresses[pod]]
    blocks = []
    for version, every in ((4, "0.0.0.0/0"), (6, "::/0")):
        closed = [str(one) for one in known if one.version == version]
        blocks.append({"ipBlock": {"cidr": every, **({"except": closed} if closed else {})}})
    return [{"namespaceSelector": {}, "podSelector": labels}, *blocks]


def addresses_of(pod: Pod) -> list[str]:
    """Return all addresses of a pod, the main one first."""
    status = pod.item.get("status") or {}
    every = [status.get("podIP", ""), *(one.get("ip", "") for one in status.get("podIPs") or [])]
    return list(dict.fromkeys(filter(None, every)))


def selects(selector: Json, labels: Mapping[str, str]) -> bool:
    """True if a label selector of an object matches. An empty one matches everything."""
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    holds: dict[str, Callable[[str, list[str]], bool]] = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _: key in labels,
        "DoesNotExist": lambda key, _: key not in labels,
    }
    asked = selector.get("matchExpressions") or []
    return all(holds[one["operator"]](one["key"], one.get("values") or []) for one in asked)


class Policies:
    """The policies of one run, and its labels of pods. Run `beat` in the background, and `close` it.

    Args:
        client: the API server.
        namespace: the namespace of the graph.

    Attributes:
        pods: the pods that are known, by their uids. The caller adds them.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self.pods: dict[str, Pod] = {}
        self._run = secrets.token_hex(4)
        self._owner = Owner.here()
        self._lock = asyncio.Lock()
        # What is in the cluster, by the uid of the pod.
        self._made: dict[str, tuple[Json, frozenset[Edge]]] = {}
        self._marked: set[str] = set()

    async def other(self, pods: Iterable[Pod]) -> str:
        """Return why a pod can't be cut off: the policy of somebody else that selects it. Empty if there is none.

        Raises:
            ApiError: if the policies can't be listed.
        """
        found = await self._client.list_all(NETWORK_POLICIES, self._namespace)
        others = [item for item in found.items if labels_of(item).get(RUN) != self._run]
        for pod in pods:
            for item in others:
                if selects(item["spec"].get("podSelector") or {}, labels_of(pod.item)):
                    return f"NetworkPolicy {name_of(item)} selects pod {pod.name}, and one more would open what it closes"  # fmt: skip
        return ""

    async def dry_run(self, pod: Pod) -> None:
        """Let the API server check the policy and the label of a pod.

        Raises:
            ApiError: if one of them is refused.
        """
        policy = self._policy(pod.uid, frozenset({(pod.uid, pod.uid)}))
        await self._client.create(NETWORK_POLICIES, policy, dry=True)
        await self._client.patch(PODS, pod.namespace, pod.name, self._mark(pod.uid), dry=True)

    async def keep(self, wanted: Mapping[str, frozenset[Edge]]) -> None:
        """Make, change and remove policies and labels, until exactly these edges are closed.

        New policies come before the old ones go, so that no cut is open for a moment.

        Args:
            wanted: the edges that the policy of each pod closes, by the uid of the pod.

        Raises:
            ApiError: if the API server refuses it, or is away. The next call goes on from there.
        """
        async with self._lock:
            involved = {pod for edges in wanted.values() for edge in edges for pod in edge}
            for uid in sorted(involved - self._marked):
                self._marked.add(uid)
                name = self.pods[uid].name
                await self._client.patch(PODS, self._namespace, name, self._mark(uid))
            for uid, edges in wanted.items():
                await self._set(uid, edges)
            for uid in sorted(self._made.keys() - wanted.keys()):
                await self._client.delete(NETWORK_POLICIES, self._made[uid][0])
                del self._made[uid]
            for uid in sorted(self._marked - involved):
                await unmark(self._client, self._namespace, self.pods[uid].name)
                self._marked.discard(uid)

    async def _set(self, uid: str, edges: frozenset[Edge]) -> None:
        if uid not in self._made:
            item = await self._client.create(NETWORK_POLICIES, self._policy(uid, edges))
        else:
            item, there = self._made[uid]
            if there != edges:
                change = {"spec": policy_spec(uid, edges, self._addresses())}
                item = await self._client.patch(NETWORK_POLICIES, *key_of(item), change)
        self._made[uid] = item, edges

    def _addresses(self) -> dict[str, list[str]]:
        return {uid: addresses_of(pod) for uid, pod in self.pods.items()}

    def _policy(self, uid: str, edges: frozenset[Edge]) -> Json:
        meta = {
            "name": f"graphquake-{self._run}-{uid}",
            "namespace": self._namespace,
            "labels": {RUN: self._run},
            "annotations": self._marks()["annotations"],
        }
        kind = NETWORK_POLICIES
        spec = {key: value for key, value in policy_spec(uid, edges, self._addresses()).items() if value}  # fmt: skip
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": spec}

    def _marks(self) -> Json:
        return Record("", None, None, self._owner, time.time()).marks(self._run)

    def _mark(self, uid: str) -> Json:
        marks = self._marks()
        return {"metadata": {**marks, "labels": {**marks["labels"], POD: uid}}}

    async def beat(self) -> None:
        """Renew the records, for ever."""
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            change = {"metadata": {"annotations": self._marks()["annotations"]}}
            async with self._lock:
                held = [(NETWORK_POLICIES, name_of(item)) for item, _ in self._made.values()]
                held += [(PODS, self.pods[uid].name) for uid in self._marked]
                for resource, name in held:
                    # An API server that is away hears of it later.
                    with suppress(ApiError):
                        await self._client.patch(resource, self._namespace, name, change)

    async def close(self) -> None:
        """Remove everything. If the API server is away, the next start or a sweep does it."""
        if not self._marked:
            return
        with suppress(TimeoutError, ApiError):
            async with asyncio.timeout(CLOSED_WITHIN_S):
                # A request that was cancelled may have made a policy that is not known here.
                mine = f"{RUN}={self._run}"
                found = await self._client.list_all(NETWORK_POLICIES, self._namespace, labels=mine)
                for item in found.items:
                    await self._client.delete(NETWORK_POLICIES, item)
                self._made.clear()
                await self.keep({})


async def sweep_policies(client: Client, namespace: str) -> list[str]:
    """Remove the policies of runs that are over, and their labels of pods. Return the names of these objects.

    Raises:
        ApiError: if the API server refuses it. A user who may not list policies could not make any, so that is passed over.
    """
    try:
        policies = await client.list_all(NETWORK_POLICIES, namespace, labels=RUN)
    except ApiError as error:
        if error.is_forbidden:
            return []
        raise
    over = [item for item in policies.items if _is_over(item)]
    swept = [f"NetworkPolicy {name_of(item)}" for item in over if await client.delete(NETWORK_POLICIES, item)]  # fmt: skip
    for item in (await client.list_all(PODS, namespace, labels=POD)).items:
        if _is_over(item):
            await unmark(client, *key_of(item))
            swept.append(f"label of Pod {name_of(item)}")
    return swept


def _is_over(item: Json) -> bool:
    record = record_of(item)
    return record is not None and record.is_over()


async def unmark(client: Client, namespace: str, name: str) -> None:
    """Take the label and the record from a pod, if it still exists.

    Raises:
        ApiError: if the API server refuses it.
    """
    try:
        await client.patch(PODS, namespace, name, {"metadata": UNMARKED})
    except ApiError as error:
        if not error.is_missing:
            raise
