"""The device `wire` of a network namespace. Packets that a rule sends there go through a program, which decides what happens to them.

    namespace   wire ---- wire   a namespace with nothing else, where the program reads and writes

A packet that the program writes back goes on to its destination. The device goes away with the program, however it ends, because nothing
but its socket holds the other namespace. Then a rule that is left sends packets nowhere else than before: its table is empty.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

from graphquake.harness.processes.network.rtnetlink import RtNetlink

NEW_NET: Final = 0x40000000
WIRE: Final = "wire"
# The device of packets that processes of this namespace send.
OWN: Final = "lo"
_IPV4: Final = 0x0800
# Of <linux/sockios.h>, <linux/ethtool.h> and <asm/socket.h>: checksums, segments of TCP, and segments in general.
_ETHTOOL: Final = 0x8946
_OFFLOADS: Final = (0x17, 0x1F, 0x24)
_BUFFER_FORCE: Final = 33
_WIRE_TABLE: Final = 18
# Before the main table (32766) and after the table of local addresses (0).
_RULE_PRIORITY: Final = 1000
# A replica may send as much at once as its socket buffers hold.
_WIRE_BUFFER_BYTES: Final = 8 << 20
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Diversions:
    """The rules of a namespace that send packets to the wire. Two faults may divert the same packets, so calls are counted.

    Args:
        routes: a netlink socket of the namespace.
    """

    def __init__(self, routes: RtNetlink) -> None:
        self._routes = routes
        self._counts: Counter[tuple[str, str]] = Counter()

    def divert(self, device: str, to: str, *, on: bool) -> None:
        """Send packets to the wire, or no longer.

        Args:
            device: the device on which they arrive. `OWN` for packets of the namespace itself.
            to: their destination.
            on: true to begin, false to end.
        """
        before = self._counts[device, to]
        if before == (0 if on else 1):
            self._routes.divert(device, to, _WIRE_TABLE, _RULE_PRIORITY, on=on)
        self._counts[device, to] += 1 if on else -1

    def clear(self) -> None:
        """Remove the rules that an earlier program has left."""
        with suppress(FileNotFoundError):
            while True:
                self._routes.forget(_WIRE_TABLE, _RULE_PRIORITY)


def new_wire(routes: RtNetlink, home_fd: int, *, source: str = "") -> socket.socket:
    """Make the device, and return the socket of its other end. It gets Ethernet frames, and a frame that is written to it goes on.

    The calling thread must be in the namespace, and is there again afterwards.

    Args:
        routes: a netlink socket of the namespace.
        home_fd: the namespace.
        source: the address of packets that the namespace itself sends. Empty if it only forwards those of others.

    Raises:
        OSError: if the kernel does not offer this.
    """
    unshare(NEW_NET)
    try:
        outside_fd = namespace_fd()
        outside = RtNetlink()
    finally:
        set_namespace(home_fd)
    routes.add_veth(WIRE, WIRE, outside_fd)
    # The program sees packets as a cable carries them: with their checksums, and none larger than a frame.
    for setting in _OFFLOADS:
        _switch_off(WIRE, setting)
    routes.let_forward(WIRE, also_own=bool(source))
    routes.set_up(WIRE, alone=True)
    routes.add_route("", WIRE, source=source, table=_WIRE_TABLE)
    set_namespace(outside_fd)
    try:
        with outside:
            outside.set_up(WIRE)
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
        wire.bind((WIRE, _IPV4))
    finally:
        set_namespace(home_fd)
        os.close(outside_fd)
    wire.setblocking(False)
    for option in (_BUFFER_FORCE, socket.SO_RCVBUF):
        with suppress(OSError):
            wire.setsockopt(socket.SOL_SOCKET, option, _WIRE_BUFFER_BYTES)
            break
    return wire


def let_answers_come_another_way() -> None:
    """Let this namespace forward, and take packets whose answers would go another way.

    In a container these settings may be read-only. Then those of each device decide.
    """
    for name, value in (("ip_forward", "1"), ("conf/all/rp_filter", "0")):
        with suppress(OSError):
            Path(f"/proc/sys/net/ipv4/{name}").write_text(value, encoding="ascii")


def _switch_off(device: str, setting: int) -> None:
    """Switch off one of the offloads of a device, as `ethtool` does."""
    value = ctypes.create_string_buffer(struct.pack("=II", setting, 0), 8)
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
        fcntl.ioctl(asks, _ETHTOOL, request)


def namespace_fd() -> int:
    """Open the network namespace of this thread."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def set_namespace(fd: int) -> None:
    """Move this thread into a network namespace."""
    if _LIBC.setns(fd, NEW_NET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unshare(flags: int) -> None:
    """Move this thread into new namespaces."""
    if _LIBC.unshare(flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def new_socket() -> socket.socket:
    """Return a TCP socket of the namespace in which this thread is."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
