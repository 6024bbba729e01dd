"""The key `network` of a graph file: whether the replicas share the network of this machine, or have network namespaces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

from graphquake.harness.spec.table import Table

Network: TypeAlias = Literal["host", "namespaces"]
NETWORKS: Final[tuple[Network, ...]] = get_args(Network)
_LOOPBACK: Final = re.compile(r"127\.0\.0\.1|localhost|\[::1\]")


def read_network(top: Table, roles: Mapping[str, Table]) -> Network:
    """Return the value of the key `network`. Without such a key, return `host`.

    Args:
        top: the whole file.
        roles: the table of each role.

    Raises:
        InputError: if the value is none of `NETWORKS`, or if the harness could not reach a replica in its namespace.
    """
    network = top.choice("network", NETWORKS, "host")
    if network == "host":
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
