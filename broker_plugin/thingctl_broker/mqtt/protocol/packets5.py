"""PUBLISH of MQTT 5 as a cluster sends it. Pure. It is taken apart without looking at its properties.

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
