"""Reason strings of MQTT 5: to clients that want them, in packets that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.mqtt.protocol.packets import Connect


def with_words(
    connect: Connect | None, encode: Callable[[str], bytes], text: str, *, always: bool = False
) -> bytes:
    """A packet with a reason string, or without [MQTT5-3.1.2-29, MQTT5-3.4.2-2].

    ``connect``: the client's, None if it is not known. ``encode``: makes the packet of a reason string.
    ``always``: of a CONNACK, in which a client that asks for none may get one.
    """
    if connect is None or not text:
        return encode(text)
    packet = encode(text)
    most = connect.maximum_packet_size
    is_wanted = always or connect.wants_problem_information
    return packet if is_wanted and (most is None or len(packet) <= most) else encode("")
