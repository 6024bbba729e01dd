"""The key `network` of a graph file: what can disturb the network between the replicas.

`host` is nothing, `namespaces` is a network namespace for each replica, and `policies` is NetworkPolicies of a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

from graphquake.harness.spec.table import Table

Network: TypeAlias = Literal["host", "namespaces", "policies"]
NETWORKS: Final[tuple[Network, ...]] = get_args(Network)
_LOOPBACK: Final = re.compile(r"127\.0\.0\.1|localhost|\[::1\]")


def read_network(top: Table, roles: Mapping[str, Table]) -> Network:
    """Return the value of the key `network`. Without such a key, return `host`.

    Args:
        top: the whole file.
        roles: the table of each role.

    Raises:
        InputError: if the value is none of `NETWORKS`, if the harness could not reach a replica in its namespace, or if policies do not fit
            to the file.
    """
    network = top.choice("network", NETWORKS, "host")
    if network == "policies":
        _check_policies(top, roles)
    if network != "namespaces":
        return network
    for role in roles.values():
        for key, where in (("entry", role), ("metrics", role), ("ready", None), ("listed", None)):
            table = where or role.table(key)
            name = key if where else "get"
            said = str(table.values.get(name, ""))
            if found := _LOOPBACK.search(said):
                why = f'has "{found[0]}", expected "{{host}}": with network namespaces each replica has its own address'
                raise table.error(name, why)
    return network


def _check_policies(top: Table, roles: Mapping[str, Table]) -> None:
    """Check that the graph lives in a cluster, and that each role has a port to which a connection can be tried."""
    if "kubernetes" not in top:
        raise top.error("network", 'found "policies", which is for a graph with a table [kubernetes]')  # fmt: skip
    if "deployment" in top.table("kubernetes"):
        return  # its components have known ports
    for role in roles.values():
        if not role.values.get("ports"):
            why = 'is missing: with network = "policies", a new connection to a port of the pod proves a cut'
            raise role.error("ports", why)
