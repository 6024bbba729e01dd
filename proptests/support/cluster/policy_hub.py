"""The hub of the test cluster: that of launched graphs, with one more kind of rule.

`closed` drops the packets that open a TCP connection on an edge, and passes on all others. So open connections survive, and their answers
pass. Most network plugins treat them so: a plugin asks its policies only when a connection is opened.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from graphquake.harness.processes.network import hub, pump
from graphquake.harness.processes.network.packets import edge_of
from graphquake.harness.processes.network.wire import Wire

CLOSED: Final = "closed"
_TCP: Final = 6
_SYN, _ACK = 2, 16


def opens(packet: bytes) -> bool:
    """True if an IPv4 packet opens a TCP connection."""
    at = (packet[0] & 15) * 4
    if packet[9] != _TCP or struct.unpack_from(">H", packet, 6)[0] & 0x1FFF:
        return False
    return packet[at + 13] & (_SYN | _ACK) == _SYN


class PolicyWire(Wire):
    """A wire with such rules. The code of other rules passes every packet of a `closed` edge on."""

    def take(self, packet: bytes, now_s: float) -> Iterable[bytes]:
        """See `Wire.take`."""
        edge = edge_of(packet)
        closed = (one for one in self.rules.values() if one.kind == CLOSED)  # type: ignore[comparison-overlap] # one more kind
        if edge is not None and opens(packet) and any(edge in one.edges for one in closed):
            return ()
        return super().take(packet, now_s)


if __name__ == "__main__":
    vars(pump)["Wire"] = PolicyWire  # the hub has no other way to take it
    hub.main()
