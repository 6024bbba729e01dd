"""IPv4 packets with TCP segments, as far as the wire reads and makes them."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_TCP: Final = 6
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_IP_HEADER_BYTES: Final = 20
_TCP_HEADER_BYTES: Final = 20
# The port to which the hub connects to measure a round trip. Nothing listens there, so the kernel of the other side refuses at once.
PING_PORT: Final = 9


class Edge(NamedTuple):
    """The sender and the receiver of a packet, as IPv4 addresses of four bytes."""

    source: bytes
    to: bytes


def edge_of(packet: bytes) -> Edge | None:
    """Return the sender and the receiver of an IPv4 packet. None for any other packet."""
    if len(packet) < _IP_HEADER_BYTES or packet[0] >> 4 != 4:  # noqa: PLR2004 - the version of IPv4
        return None
    return Edge(packet[12:16], packet[16:20])


def _tcp_at(packet: bytes) -> int | None:
    """Return the place of the TCP header in an IPv4 packet, or None if it has none."""
    at = (packet[0] & 15) * 4
    fragment: int = struct.unpack_from(">H", packet, 6)[0]
    if packet[9] == _TCP and not fragment & 0x1FFF and len(packet) >= at + _TCP_HEADER_BYTES:
        return at
    return None


def is_ping(packet: bytes) -> bool:
    """True if the packet belongs to a measurement of a round trip, see `PING_PORT`."""
    at = _tcp_at(packet)
    return at is not None and PING_PORT in struct.unpack_from(">HH", packet, at)


def resets_for(packet: bytes) -> list[bytes]:
    """Return the packets that end the connection of a TCP packet: one for its sender, and one for its receiver.

    A packet that opens a connection only gets an answer. A packet that resets a connection, or is not TCP, gets nothing.
    """
    at = _tcp_at(packet)
    if at is None:
        return []
    source, to, seq, ack, offset, flags = struct.unpack_from(">HHIIBB", packet, at)
    if flags & _RST:
        return []
    sender, receiver = packet[12:16], packet[16:20]
    if not flags & _ACK:
        length = len(packet) - at - (offset >> 4) * 4 + bool(flags & _SYN) + bool(flags & _FIN)
        refusal = (0, (seq + length) & 0xFFFFFFFF, _RST | _ACK)
        return [_segment(receiver, sender, to, source, *refusal)]
    found = [_segment(receiver, sender, to, source, ack, 0, _RST)]
    if not flags & _SYN:
        found.append(_segment(sender, receiver, source, to, seq, ack, _RST | _ACK))
    return found


def _segment(
    sender: bytes, receiver: bytes, source: int, to: int, seq: int, ack: int, flags: int
) -> bytes:
    tcp = struct.pack(">HHIIBBHHH", source, to, seq, ack, 5 << 4, flags, 0, 0, 0)
    pseudo = sender + receiver + struct.pack(">BBH", 0, _TCP, len(tcp))
    tcp = tcp[:16] + struct.pack(">H", _checksum(pseudo + tcp)) + tcp[18:]
    length = _IP_HEADER_BYTES + len(tcp)
    head = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, _TCP, 0) + sender + receiver
    return head[:10] + struct.pack(">H", _checksum(head)) + head[12:] + tcp


def _checksum(data: bytes) -> int:
    """Return the checksum of the Internet protocols (RFC 1071)."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
