"""The addresses of a graph with network namespaces. Nothing outside of these namespaces ever sees them."""

from __future__ import annotations

import ipaddress
from typing import Final

# The address of the hub: clients, probes and routes.
HUB: Final = "10.18.0.1"
_FIRST: Final = ipaddress.IPv4Address("10.18.1.1")


def address_of(place: int) -> str:
    """Return the address of a replica.

    Args:
        place: the place of the replica among all replicas of its graph, from 0.
    """
    return str(_FIRST + place)
