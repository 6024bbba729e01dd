"""The network namespaces of one graph: one for each replica, and one in their middle, the hub, which routes between them.

    replica eth0 ---- r0  hub  r1 ---- eth0 replica
                          wire

Each replica has one address and one virtual Ethernet device. The clients and probes of the harness use sockets of the hub. The hub also has
a device called `wire`. A rule can send the packets of one edge there. Its other end is in a namespace with nothing else, where a program
reads each packet and decides whether to pass it on. A packet that is written back goes on to its destination.

No file or name holds a namespace, only processes and file descriptors do. So the kernel removes all of it when the hub process and the
replicas have ended. The machine's own interfaces, routes and rules are never touched. Without root, a user namespace gives the rights.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from graphquake.harness.observation.sock_diag import SockDiag
from graphquake.harness.processes.network.addresses import HUB
from graphquake.harness.processes.network.rtnetlink import RtNetlink
from graphquake.harness.processes.network.wire_device import (
    NEW_NET,
    Diversions,
    let_answers_come_another_way,
    namespace_fd,
    new_wire,
    set_namespace,
    unshare,
)

_NEW_USER: Final = 0x10000000


class Missing(Exception):
    """This machine lacks something that the namespaces need. The text names it, with the reason."""


class Topology:
    """The hub's namespace, and those of the replicas. The process that makes it moves into the hub.

    Attributes:
        wire: a socket. It receives the packets of diverted edges as Ethernet frames, and sends a frame on that is written to it.
        user: the path of the user namespace, or an empty text if there is none.

    Raises:
        Missing: if this machine can't have the namespaces.
    """

    def __init__(self) -> None:
        self._devices: dict[str, str] = {}
        self._namespaces: dict[str, int] = {}
        self._diags: dict[str, SockDiag] = {}
        self.user = "" if _unshared(NEW_NET) else _new_user()
        self._hub_fd = namespace_fd()
        self._routes = RtNetlink()
        self._diversions = Diversions(self._routes)
        let_answers_come_another_way()
        self._routes.set_up("lo")
        self._routes.add_address("lo", HUB)
        try:
            self.wire = new_wire(self._routes, self._hub_fd)
        except OSError as error:
            raise Missing(
                f"packet sockets and virtual Ethernet devices: {error.strerror}"
            ) from None

    def add(self, address: str) -> str:
        """Make the namespace of one replica. Return its path, which lives as long as this process."""
        device = f"r{len(self._namespaces)}"
        unshare(NEW_NET)
        try:
            inside_fd = namespace_fd()
            inside = RtNetlink()
            # The socket that the kernel uses for requests from here on belongs to the new namespace.
            self._diags[address] = SockDiag()
        finally:
            set_namespace(self._hub_fd)
        self._namespaces[address], self._devices[address] = inside_fd, device
        self._routes.add_veth(device, "eth0", inside_fd)
        with self.inside(address), inside:
            inside.set_up("lo")
            inside.add_address("eth0", address)
            inside.set_up("eth0")
            inside.add_route(HUB, "eth0")
            inside.add_route("", "eth0", gateway=HUB)
        self._routes.let_forward(device)
        self._routes.set_up(device)
        self._routes.add_route(address, device, source=HUB)
        return f"/proc/{os.getpid()}/fd/{inside_fd}"

    @contextmanager
    def inside(self, address: str) -> Iterator[None]:
        """Be in the namespace of a replica for the time of the block."""
        set_namespace(self._namespaces[address])
        try:
            yield
        finally:
            set_namespace(self._hub_fd)

    def sockets_at(self, address: str) -> SockDiag:
        """The kernel's table of TCP sockets in the namespace of a replica."""
        return self._diags[address]

    def new_sockets_at(self, address: str) -> SockDiag:
        """The same table, by sockets of its own, for another process."""
        with self.inside(address):
            return SockDiag()

    def divert(self, source: str, to: str, *, on: bool) -> None:
        """Send the packets of an edge to the wire, or no longer. Calls are counted, so two faults may divert one edge."""
        self._diversions.divert(self._devices[source], to, on=on)


def _unshared(flags: int) -> bool:
    """True if this process has moved into new namespaces, false if it is not allowed to."""
    try:
        unshare(flags)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise Missing(f"network namespaces: {error.strerror}") from None
        return False
    return True


def _new_user() -> str:
    """Move into a new user namespace with a network namespace, in which this process has all rights. Return its path."""
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(_NEW_USER | NEW_NET)
        # The user and the group keep their numbers, so that the replicas see no difference.
        proc = Path("/proc/self")
        (proc / "setgroups").write_text("deny", encoding="ascii")
        (proc / "uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        (proc / "gid_map").write_text(f"{group} {group} 1", encoding="ascii")
        # Some systems let a process make a user namespace, and refuse it all rights there.
        with RtNetlink() as routes:
            routes.set_up("lo")
    except OSError as error:
        why = f"user namespaces are not allowed here ({error.strerror}), and this is not root"
        raise Missing(why) from None
    return f"/proc/{os.getpid()}/ns/user"
