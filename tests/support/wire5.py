"""Packets of an MQTT 5 client as bytes, right or wrong."""

from __future__ import annotations

from thingctl_broker.mqtt.protocol.fields import encode_length


def text(value: str | bytes) -> bytes:
    """A string, with its length in front."""
    encoded = value.encode() if isinstance(value, str) else value
    return len(encoded).to_bytes(2) + encoded


def packet(first: int, *parts: bytes) -> bytes:
    """A packet of this first byte."""
    body = b"".join(parts)
    return bytes([first]) + encode_length(len(body)) + body


def properties(*parts: bytes) -> bytes:
    """Encoded properties, with their length in front."""
    body = b"".join(parts)
    return encode_length(len(body)) + body


def connect(
    client_id: str = "lamp",
    *given: bytes,
    clean: bool = True,
    flags: int = 0,
    keep_alive: int = 0,
    rest: bytes = b"",
) -> bytes:
    """A CONNECT. ``given``: its properties; ``rest``: what stands behind the client identifier."""
    head = text("MQTT") + bytes([5, flags | 2 * clean]) + keep_alive.to_bytes(2)
    return packet(0x10, head, properties(*given), text(client_id), rest)


def subscribe(packet_id: int, *filters: str, options: int = 1) -> bytes:
    """A SUBSCRIBE; ``options``: of each filter."""
    wanted = (text(topic_filter) + bytes([options]) for topic_filter in filters)
    return packet(0x82, packet_id.to_bytes(2), properties(), *wanted)


def unsubscribe(packet_id: int, *filters: str) -> bytes:
    """An UNSUBSCRIBE."""
    return packet(0xA2, packet_id.to_bytes(2), properties(), *map(text, filters))
