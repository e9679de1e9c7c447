"""PUBLISH and PUBACK of MQTT 5. Pure. A PUBLISH is taken apart without looking at its properties.

Any client that may publish chooses the properties. None of them means anything here, so none of them
is decoded: what is wrong in one (text that is not UTF-8, an unknown identifier) cannot
keep a message from being acknowledged, and so cannot use up the Receive Maximum.
"""

from __future__ import annotations

from typing import NamedTuple


class Received(NamedTuple):
    """A PUBLISH. ``packet_id`` is 0 at QoS 0. ``retain``: it was kept by the cluster until now.

    A topic that is no UTF-8 has replacement characters in it, and so names no thing.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int


def encode_publish(topic: bytes, payload: bytes, packet_id: int = 0, expires_in: int | None = None) -> bytes:
    """Put a PUBLISH together: QoS 1 if it has a packet id. ``expires_in``: seconds, from 1.

    >>> encode_publish(b"a", b"x", 7, 30).hex(" ")
    '32 0c 00 01 61 00 07 05 02 00 00 00 1e 78'
    """
    head = b"%b%b" % (len(topic).to_bytes(2), topic)
    if packet_id:
        head += packet_id.to_bytes(2)
    head += b"\x00" if expires_in is None else b"\x05\x02" + expires_in.to_bytes(4)
    length = len(head) + len(payload)
    remaining = bytearray()
    while length > 0x7F:
        remaining.append(length & 0x7F | 0x80)
        length >>= 7
    remaining.append(length)
    return b"%c%b%b%b" % (0x32 if packet_id else 0x30, bytes(remaining), head, payload)


def encode_puback(packet_id: int) -> bytes:
    """Put a PUBACK together; without a reason code it is a success [section 3.4.2.1]."""
    return b"\x40\x02" + packet_id.to_bytes(2)


def parse_publish(first: int, body: bytes) -> Received:
    """Take apart what follows the fixed header; raises ValueError where the packet ends too soon."""
    qos = first >> 1 & 3
    at = 2 + int.from_bytes(body[:2])
    topic = body[2:at].decode(errors="replace")
    packet_id = 0
    if qos:
        packet_id = int.from_bytes(body[at : at + 2])
        at += 2
    # Property Length, a Variable Byte Integer [MQTT 5.0 section 2.2.2.1].
    length = shift = 0
    while True:
        if at >= len(body) or shift > 21:
            raise ValueError("a PUBLISH that ends too soon")
        byte = body[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    at += length
    if at > len(body):
        raise ValueError("a PUBLISH that ends within its properties")
    return Received(topic, body[at:], qos, bool(first & 1), packet_id)
