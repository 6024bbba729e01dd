"""Ask the kernel for links, addresses, routes and rules in this network namespace: the few requests of rtnetlink that the hub needs.

See man 7 rtnetlink. The requests go straight to the kernel, so no program such as `ip` has to be installed, and each takes some 10 µs.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final, Self

# Constants of <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h>, <linux/fib_rules.h> and <linux/ip.h>.
_ROUTE: Final = 0
_NEW_LINK, _DELETE_LINK, _NEW_ADDRESS, _NEW_ROUTE, _NEW_RULE, _DELETE_RULE = 16, 17, 20, 24, 32, 33
_REQUEST_ACK: Final = 0x5
_CREATE: Final = 0x600
_ERROR: Final = 2
_IFLA_NAME, _IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NETNS_FD = 3, 18, 26, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_INET_CONF, _FORWARDING, _RP_FILTER, _ACCEPT_LOCAL = 1, 1, 8, 23
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_SOURCE, _RTA_TABLE = 1, 4, 5, 7, 15
_FRA_DST, _FRA_IIF_NAME, _FRA_PRIORITY, _FRA_TABLE = 1, 3, 6, 15
_TO_TABLE: Final = 1
_UP, _NO_ARP = 0x1, 0x80
_MAIN_TABLE, _SCOPE_LINK, _UNICAST, _BOOT = 254, 253, 1, 3
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BBHiII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_ROUTE_BODY: Final = struct.Struct("=BBBBBBBBI")


class RtNetlink:
    """A netlink socket of the network namespace in which the calling thread is. It stays with that namespace.

    Each method raises OSError if the kernel refuses the request.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _ROUTE
        )
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def add_veth(self, name: str, peer: str, peer_namespace_fd: int) -> None:
        """Make a pair of virtual Ethernet devices: one in this namespace, its peer in another one."""
        other = _LINK.pack(0, 0, 0, 0, 0, 0) + _text(_IFLA_NAME, peer)
        other += _number(_IFLA_NETNS_FD, peer_namespace_fd)
        data = _attribute(_INFO_DATA, _attribute(_VETH_PEER, other))
        info = _attribute(_IFLA_LINKINFO, _text(_INFO_KIND, "veth") + data)
        body = _LINK.pack(0, 0, 0, 0, 0, 0) + _text(_IFLA_NAME, name) + info
        self._ask(_NEW_LINK, _CREATE, body)

    def set_up(self, name: str, *, alone: bool = False) -> None:
        """Switch a device on.

        Args:
            name: the device.
            alone: true if no kernel at the other end answers for an address. Then all packets go to the device's own address.
        """
        flags = _UP | (_NO_ARP if alone else 0)
        self._ask(_NEW_LINK, 0, _LINK.pack(0, 0, 0, socket.if_nametoindex(name), flags, flags))

    def delete_link(self, name: str) -> None:
        """Remove a device, and its peer."""
        self._ask(_DELETE_LINK, 0, _LINK.pack(0, 0, 0, socket.if_nametoindex(name), 0, 0))

    def let_forward(self, name: str, *, also_own: bool = False) -> None:
        """Let packets that arrive at a device be forwarded, whichever way the answer would take.

        Args:
            name: the device.
            also_own: true if packets may carry an address of this namespace as their source.
        """
        settings = _number(_FORWARDING, 1) + _number(_RP_FILTER, 0)
        settings += _number(_ACCEPT_LOCAL, also_own)
        family = _attribute(socket.AF_INET, _attribute(_INET_CONF, settings))
        body = _LINK.pack(0, 0, 0, socket.if_nametoindex(name), 0, 0)
        self._ask(_NEW_LINK, 0, body + _attribute(_IFLA_AF_SPEC, family))

    def add_address(self, name: str, address: str) -> None:
        """Give a device an address, without a network around it."""
        ip = socket.inet_aton(address)
        body = _ADDRESS.pack(socket.AF_INET, 32, 0, 0, socket.if_nametoindex(name))
        body += _attribute(_IFA_LOCAL, ip) + _attribute(_IFA_ADDRESS, ip)
        self._ask(_NEW_ADDRESS, _CREATE, body)

    def add_route(
        self, to: str, device: str, *, gateway: str = "", source: str = "", table: int = _MAIN_TABLE
    ) -> None:
        """Send packets to an address through a device.

        Args:
            to: the address, or an empty text for all addresses.
            device: the device.
            gateway: the next router, or an empty text if the address is reached directly.
            source: the address from which packets of this namespace are sent.
            table: the routing table.
        """
        bits, scope = (32 if to else 0), (0 if gateway else _SCOPE_LINK)
        body = _ROUTE_BODY.pack(socket.AF_INET, bits, 0, 0, 0, _BOOT, scope, _UNICAST, 0)
        body += _number(_RTA_TABLE, table) + _number(_RTA_OIF, socket.if_nametoindex(device))
        for kind, address in ((_RTA_DST, to), (_RTA_GATEWAY, gateway), (_RTA_SOURCE, source)):
            if address:
                body += _attribute(kind, socket.inet_aton(address))
        self._ask(_NEW_ROUTE, _CREATE, body)

    def divert(self, device: str, to: str, table: int, priority: int, *, on: bool) -> None:
        """Send packets that arrive at a device and go to an address by another routing table, or no longer do so.

        Args:
            device: the name of the device.
            to: the destination of the packets.
            table: the routing table.
            priority: the place of the rule among all rules.
            on: true to begin, false to end.
        """
        body = _ROUTE_BODY.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, _TO_TABLE, 0)
        body += _attribute(_FRA_DST, socket.inet_aton(to)) + _text(_FRA_IIF_NAME, device)
        body += _number(_FRA_PRIORITY, priority) + _number(_FRA_TABLE, table)
        self._ask(_NEW_RULE if on else _DELETE_RULE, _CREATE if on else 0, body)

    def forget(self, table: int, priority: int) -> None:
        """Remove one rule with a table and a priority. FileNotFoundError if there is none."""
        body = _ROUTE_BODY.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
        body += _number(_FRA_PRIORITY, priority) + _number(_FRA_TABLE, table)
        self._ask(_DELETE_RULE, 0, body)

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, kind, _REQUEST_ACK | flags, 1, 0) + body)
        answer = self._socket.recv(1 << 16)
        if _HEADER.unpack_from(answer)[1] == _ERROR:
            number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
            if number:
                raise OSError(number, os.strerror(number))


def _attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + bytes(-length % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
