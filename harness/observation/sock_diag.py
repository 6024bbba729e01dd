"""Ask the kernel how many bytes each TCP socket of a network namespace has received. No privilege is needed, except to end a connection.

The kernel answers over netlink (`NETLINK_SOCK_DIAG`, see man 7 sock_diag). A dump lists the open sockets. The kernel also sends a notice
of each socket that is closed, with its final count. So a connection of a few milliseconds counts, too.

This module knows nothing of replicas: see `traffic`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

# Constants of <linux/netlink.h>, <linux/sock_diag.h> and <linux/inet_diag.h>.
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_SOCK_DESTROY: Final = 21
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_REQUEST_DUMP: Final = 0x301
_REQUEST_ACK: Final = 0x5
_DESTROY_GROUPS: Final = 0b0101  # closed TCP sockets of IPv4 and of IPv6
_INFO: Final = 2  # the attribute that holds a `struct tcp_info`
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
# The place of `tcpi_bytes_received` in `struct tcp_info`. Linux has had it since 4.1.
_RECEIVED: Final = struct.Struct("=Q")
_RECEIVED_AT: Final = 128
# The length of `struct inet_diag_msg`, and the places in it of the ports, the other end's address, the cookie and the inode.
_MESSAGE_BYTES: Final = 72
_PORTS: Final = struct.Struct(">HH")
_PORTS_AT, _REMOTE_AT, _COOKIE_AT, _INODE_AT = 4, 24, 44, 68
# The start of an IPv4 address that a socket of IPv6 uses.
_MAPPED: Final = bytes(10) + b"\xff\xff"
# Sockets in these states carry no data of an application: TIME_WAIT, and SYN_SENT.
_STATES: Final = 0xFFF & ~(1 << 6) & ~(1 << 2)
_LISTEN: Final = 1 << 10
_BUFFER_BYTES: Final = 1 << 20


class TcpSocket(NamedTuple):
    """One end of a TCP connection, or a listening socket.

    Attributes:
        cookie: identifies the socket. The kernel never uses it again.
        local_port: the port of this end.
        remote_port: the port of the other end, or 0 if the socket listens.
        inode: the inode of the socket, as /proc/PID/fd shows it, or 0 if the socket is closed.
        received_bytes: the number of bytes that this end has received.
        remote: the address of the other end, in 4 bytes for IPv4, also if an IPv6 socket uses it.
    """

    cookie: bytes
    local_port: int
    remote_port: int
    inode: int
    received_bytes: int
    remote: bytes


class SockDiag:
    """Reads the TCP sockets of the network namespace in which it was made. Close it after use.

    Args:
        fds: two netlink sockets that another process has detached from its `SockDiag`. By default, new ones are made.

    Raises:
        OSError: if the kernel does not offer this, e.g. in some sandboxes.
    """

    def __init__(self, fds: tuple[int, int] | None = None) -> None:
        if fds is not None:
            self._asks, self._hears = (socket.socket(fileno=fd) for fd in fds)
            return
        self._asks = _netlink(0)
        try:
            self._hears = _netlink(_DESTROY_GROUPS)
        except OSError:
            self._asks.close()
            raise

    def detach(self) -> tuple[int, int]:
        """Return the file descriptors of both netlink sockets, for another process. This object can't be used any more."""
        return self._asks.detach(), self._hears.detach()

    def destroy(self, remote: bytes) -> int:
        """End each open connection to an address: this end gets an error, and the other one gets RST. Return their number.

        Args:
            remote: the IPv4 address, in 4 bytes.

        Raises:
            OSError: if the kernel does not offer this, or the process may not do it.
        """
        found = [
            body
            for family in (socket.AF_INET, socket.AF_INET6)
            for body in self._bodies(family)
            if socket_in(body).remote == remote and socket_in(body).remote_port
        ]
        return sum(self._destroy(body) for body in found)

    def _destroy(self, body: bytes) -> bool:
        """End the connection that a `struct inet_diag_msg` describes. False if it has ended meanwhile."""
        request = struct.pack("=BBBxI", body[0], socket.IPPROTO_TCP, 0, 0xFFF)
        request += body[_PORTS_AT : _COOKIE_AT + 8]
        self._asks.send(
            _HEADER.pack(_HEADER.size + len(request), _SOCK_DESTROY, _REQUEST_ACK, 1, 0) + request
        )
        for kind, answer in _messages(self._asks.recv(_BUFFER_BYTES)):
            number = -struct.unpack_from("=i", answer)[0] if kind == _NLMSG_ERROR else 0
            if number == errno.ENOENT:
                return False
            if number:
                raise OSError(number, os.strerror(number))
        return True

    def close(self) -> None:
        """Close both netlink sockets."""
        self._asks.close()
        self._hears.close()

    def open_sockets(self) -> list[TcpSocket]:
        """Return the sockets that are open now."""
        return [*self._dump(socket.AF_INET), *self._dump(socket.AF_INET6)]

    def listening_sockets(self) -> list[TcpSocket]:
        """Return the sockets that listen now. The kernel need not walk through its connections for that, so it takes far less time."""
        families = (socket.AF_INET, socket.AF_INET6)
        return [socket_in(body) for family in families for body in self._bodies(family, _LISTEN)]

    def closed_sockets(self) -> list[TcpSocket]:
        """Return the sockets that were closed since the last call. Some are missing if too many were closed in between."""
        found: list[TcpSocket] = []
        while True:
            try:
                data = self._hears.recv(_BUFFER_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # the buffer was full, so the kernel has dropped some notices
            found += (
                socket_in(body) for kind, body in _messages(data) if kind == _SOCK_DIAG_BY_FAMILY
            )

    def _dump(self, family: int) -> Iterator[TcpSocket]:
        return map(socket_in, self._bodies(family))

    def _bodies(self, family: int, states: int = _STATES) -> Iterator[bytes]:
        request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), states)
        request += bytes(48)  # an empty `struct inet_diag_sockid`: sockets with any address
        length = _HEADER.size + len(request)
        self._asks.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
        while True:
            for kind, body in _messages(self._asks.recv(_BUFFER_BYTES)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, os.strerror(number))
                yield body


def _netlink(groups: int) -> socket.socket:
    made = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    )
    with suppress(OSError):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    try:
        made.bind((0, groups))
    except OSError:
        made.close()
        raise
    return made


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the body of each netlink message in `data`."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def socket_in(body: bytes) -> TcpSocket:
    """Return the socket that a `struct inet_diag_msg` and the attributes after it describe."""
    local, remote = _PORTS.unpack_from(body, _PORTS_AT)
    cookie = body[_COOKIE_AT : _COOKIE_AT + 8]
    inode = struct.unpack_from("=I", body, _INODE_AT)[0]
    address = body[_REMOTE_AT : _REMOTE_AT + 16]
    address = address[:4] if body[0] == socket.AF_INET else address.removeprefix(_MAPPED)
    return TcpSocket(cookie, local, remote, inode, _received(body), address)


def _received(body: bytes) -> int:
    at = _MESSAGE_BYTES
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        start = at + _ATTRIBUTE.size
        if kind == _INFO and length - _ATTRIBUTE.size >= _RECEIVED_AT + _RECEIVED.size:
            return int(_RECEIVED.unpack_from(body, start + _RECEIVED_AT)[0])
        if length < _ATTRIBUTE.size:
            break
        at += (length + 3) & ~3
    return 0
