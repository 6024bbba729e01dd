"""The network plugin of the test cluster: it follows NetworkPolicies, as the API's documentation describes them."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable
from typing import Any

from graphquake.harness.kubernetes.api.objects import (
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    Json,
    key_of,
    labels_of,
)
from graphquake.harness.processes.network.client import Hub

from support.cluster.policy_hub import CLOSED
from support.cluster.store import Store


def matches(selector: Json | None, labels: dict[str, str]) -> bool:
    """True if labels match a selector of a policy. An empty selector matches everything, and none matches nothing."""
    if selector is None:
        return False
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions", []):
        has, among = one["key"] in labels, labels.get(one["key"]) in one.get("values", [])
        if not {"In": among, "NotIn": not among, "Exists": has, "DoesNotExist": not has}[one["operator"]]:  # fmt: skip
            return False
    return True


def _allows(peer: Json, policy: Json, pod: Json, spaces: dict[str, Json], *, blocks: bool) -> bool:
    """True if a peer of a rule stands for a pod. With `blocks`, blocks of addresses stand for pods, too."""
    if "ipBlock" in peer:
        address = ipaddress.ip_address(pod["status"]["podIP"])
        block = peer["ipBlock"]
        if not blocks or address not in ipaddress.ip_network(block["cidr"]):
            return False
        return not any(address in ipaddress.ip_network(one) for one in block.get("except", []))
    space = key_of(pod)[0]
    if "namespaceSelector" not in peer:
        at_home = space == key_of(policy)[0]
    else:
        at_home = matches(peer["namespaceSelector"], dict(labels_of(spaces[space])))
    return at_home and matches(peer.get("podSelector", {}), dict(labels_of(pod)))


def closed_edges(
    policies: Iterable[Json], pods: list[Json], namespaces: Iterable[Json], *, blocks: bool = True
) -> set[tuple[str, str]]:
    """The pairs of addresses of which the first one may not open a connection to the second one. Rules for single ports are not known.

    Args:
        policies, pods, namespaces: the objects. Each pod has an address.
        blocks: true if blocks of addresses stand for pods, too. Some network plugins do not apply them to pods.
    """
    policies = list(policies)
    spaces = {one["metadata"]["name"]: one for one in namespaces}

    def open_to(at: Json, other: Json, direction: str, rules: str, side: str) -> bool:
        mine = [
            one
            for one in policies
            if key_of(one)[0] == key_of(at)[0]
            and direction in one["spec"]["policyTypes"]
            and matches(one["spec"]["podSelector"], dict(labels_of(at)))
        ]
        found: list[Any] = [(one, rule) for one in mine for rule in one["spec"].get(rules) or []]
        return not mine or any(
            not rule.get(side)
            or any(_allows(peer, one, other, spaces, blocks=blocks) for peer in rule[side])
            for one, rule in found
        )

    return {
        (source["status"]["podIP"], to["status"]["podIP"])
        for source, to in itertools.permutations(pods, 2)
        if not open_to(source, to, "Egress", "egress", "to")
        or not open_to(to, source, "Ingress", "ingress", "from")
    }


async def follow_policies(store: Store, hub: Hub) -> None:
    """Close the edges that the policies of a cluster close, until cancelled."""
    keys = itertools.count(1)
    closed: dict[tuple[str, str], int] = {}
    while True:
        done = store.version
        pods = [one for one in store.all(PODS) if one.get("status", {}).get("podIP")]
        live = [one for one in pods if not one["spec"].get("hostNetwork")]
        wanted = closed_edges(store.all(NETWORK_POLICIES), live, store.all(NAMESPACES))
        for edge in closed.keys() - wanted:
            await hub.ask("end", closed.pop(edge), [edge])
        for edge in wanted - closed.keys():
            closed[edge] = next(keys)
            await hub.ask("begin", closed[edge], CLOSED, 0.0, [edge])
        if store.version == done:
            await store.changed(done)
