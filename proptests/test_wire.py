"""Tests of the wire: what happens to each packet of a disturbed edge, without a network."""

from __future__ import annotations

import socket
import struct

import pytest

from graphquake.harness.processes.network.packets import Edge, edge_of, is_ping, resets_for
from graphquake.harness.processes.network.wire import Kind, Rule, Wire

pytestmark = pytest.mark.simulated

A, B, C = (socket.inet_aton(f"10.18.1.{number}") for number in (1, 2, 3))
SYN, RST, ACK = 2, 4, 16


def segment(
    source: bytes = A,
    to: bytes = B,
    *,
    flags: int = ACK,
    body: bytes = b"",
    seq: int = 100,
    ack: int = 900,
    ports: tuple[int, int] = (4000, 80),
) -> bytes:
    """An IPv4 packet with a TCP segment."""
    tcp = struct.pack(">HHIIBBHHH", *ports, seq, ack, 5 << 4, flags, 0, 0, 0) + body
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + source + to + tcp


def fields(packet: bytes) -> tuple[Edge | None, tuple[int, int], int, int, int]:
    """The edge, the ports, the sequence number, the acknowledged number and the flags of a packet."""
    source, to, seq, ack, _, flags = struct.unpack_from(">HHIIBB", packet, 20)
    return edge_of(packet), (source, to), seq, ack, flags


def wire_with(kind: Kind, value: float = 0.0, *edges: Edge) -> Wire:
    """A wire with one rule, number 1."""
    wire = Wire()
    wire.rules[1] = Rule(kind, value, frozenset(edges or (Edge(A, B),)))
    return wire


def test_a_cut_drops_and_counts() -> None:
    """A cut edge drops each packet and counts it with its bytes. The other direction, and other replicas, are not affected."""
    wire, packet = wire_with("cut"), segment(body=b"x" * 60)
    assert list(wire.take(packet, 5.0)) == []
    assert list(wire.take(segment(B, A), 5.1)) == [segment(B, A)]
    assert list(wire.take(segment(A, C), 5.2)) == [segment(A, C)]
    rule = wire.rules[1]
    assert (rule.packets, rule.dropped, rule.dropped_octets, rule.first_s) == (1, 1, 100, 5.0)


def test_a_delay_holds_packets_back_in_their_order() -> None:
    """A delayed packet is due after the delay, not before, and packets keep their order."""
    wire = wire_with("delay", 0.2)
    first, second = segment(body=b"1"), segment(body=b"2")
    assert not list(wire.take(first, 1.0))
    assert not list(wire.take(second, 1.0))
    assert wire.next_s == pytest.approx(1.2)
    assert not list(wire.due(1.19))
    assert list(wire.due(1.21)) == [first, second]
    assert wire.next_s is None
    assert wire.rules[1].held_s == pytest.approx(0.4)


def test_a_slow_edge_passes_its_rate() -> None:
    """Packets leave a slow edge one after the other, each after the time that its bytes take. A full queue drops packets."""
    wire, packet = wire_with("slow", 1e6), segment(body=b"x" * 960)
    for _ in range(100):
        assert not list(wire.take(packet, 0.0))
    assert len(list(wire.due(0.0505))) == 50
    assert wire.next_s == pytest.approx(0.051)
    for _ in range(400):
        wire.take(packet, 0.0)
    assert 0 < wire.rules[1].dropped < 400


def test_a_share_is_lost() -> None:
    """An edge that loses 30% of the packets drops about that share."""
    wire = wire_with("lose", 0.3)
    passed = sum(len(list(wire.take(segment(), 0.0))) for _ in range(2000))
    assert 1300 < passed < 1500
    assert wire.rules[1].dropped == 2000 - passed


def test_a_reset_answers_both_ends() -> None:
    """A packet of an open connection is answered with RST to both ends, with the numbers that each end accepts."""
    wire = wire_with("reset")
    answers = list(wire.take(segment(seq=100, ack=900, body=b"abc"), 0.0))
    assert [fields(one) for one in answers] == [
        (Edge(B, A), (80, 4000), 900, 0, RST),
        (Edge(A, B), (4000, 80), 100, 900, RST | ACK),
    ]
    assert wire.rules[1].resets == 2


def test_a_reset_refuses_new_connections() -> None:
    """A packet that opens a connection is refused, as a closed port refuses it. RST itself gets no answer."""
    (answer,) = resets_for(segment(flags=SYN, seq=100))
    assert fields(answer) == (Edge(B, A), (80, 4000), 0, 101, RST | ACK)
    assert resets_for(segment(flags=RST)) == []


def test_a_made_packet_has_right_checksums() -> None:
    """The checksums of a made packet are right, so the kernel takes it: the sum over header and checksum is all ones."""
    answer = resets_for(segment())[0]
    pseudo = answer[12:20] + struct.pack(">BBH", 0, 6, 20)
    for data in (answer[:20], pseudo + answer[20:]):
        total = sum(struct.unpack(f">{len(data) // 2}H", data))
        assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


def test_rules_add_up() -> None:
    """Two rules on one edge both act: a packet is delayed by the sum of both delays."""
    wire = wire_with("delay", 0.1)
    wire.rules[2] = Rule("delay", 0.2, frozenset({Edge(A, B)}))
    wire.take(segment(), 1.0)
    assert wire.next_s == pytest.approx(1.3)


def test_measurements_are_not_counted() -> None:
    """The packets of a round trip that Graphquake measures meet the rule, but do not count as packets of the graph."""
    ping = segment(ports=(4000, 9))
    assert is_ping(ping)
    wire = wire_with("cut")
    assert list(wire.take(ping, 0.0)) == []
    assert wire.rules[1].packets == wire.rules[1].dropped == 0


@pytest.mark.parametrize("packet", [b"", b"\x60" + bytes(60), b"\x45" + bytes(10)])
def test_other_packets_have_no_edge(packet: bytes) -> None:
    """A packet that is not IPv4, or is cut short, belongs to no edge and is not passed on."""
    assert edge_of(packet) is None
    assert list(wire_with("cut").take(packet, 0.0)) == []
