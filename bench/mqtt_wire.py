"""MQTT packets for the load tools: built and taken apart as bytes, nothing more.

They are those of 3.1.1, or of 5 where ``version`` says so: without properties.

The broker's own framing is not used here on purpose: a load that shares code with
what it measures would share its mistakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
SUBACK: Final = 0x90
PINGRESP: Final = 0xD0

PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"


def varint(number: int) -> bytes:
    """The remaining length, as MQTT writes it (section 2.2.3).

    >>> varint(321)
    b'\\xc1\\x02'
    """
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(out)


def text(value: str | bytes) -> bytes:
    """A length-prefixed string."""
    encoded = value.encode() if isinstance(value, str) else value
    return len(encoded).to_bytes(2, "big") + encoded


def connect(
    client_id: str,
    *,
    username: str = "",
    password: str = "",
    keepalive: int = 0,
    clean: bool = True,
    version: int = 4,
) -> bytes:
    """A CONNECT; ``clean``: with a clean session, which ends with the connection."""
    flags = (0x02 if clean else 0) | (0x80 if username else 0) | (0x40 if password else 0)
    body = b"\x00\x04MQTT" + bytes((version, flags)) + keepalive.to_bytes(2, "big")
    body += _properties(version) + text(client_id)
    if username:
        body += text(username)
    if password:
        body += text(password)
    return b"\x10" + varint(len(body)) + body


def subscribe(packet_id: int, topic_filter: str, qos: int = 1, *, version: int = 4) -> bytes:
    """A SUBSCRIBE to one filter."""
    body = packet_id.to_bytes(2, "big") + _properties(version) + text(topic_filter) + bytes((qos,))
    return b"\x82" + varint(len(body)) + body


def publish(topic: str | bytes, payload: bytes, packet_id: int | None = None, *, version: int = 4) -> bytes:
    """A PUBLISH: QoS 1 with a packet id, QoS 0 without."""
    identifier = b"" if packet_id is None else packet_id.to_bytes(2, "big")
    body = text(topic) + identifier + _properties(version) + payload
    return (b"\x30" if packet_id is None else b"\x32") + varint(len(body)) + body


def _properties(version: int) -> bytes:
    return b"\x00" if version == 5 else b""


def puback(packet_id: bytes) -> bytes:
    """The PUBACK for a packet id that arrived as two bytes."""
    return b"\x40\x02" + packet_id


def packets(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (first byte, start of the body, end of the packet) of every whole packet in ``data``.

    What stands behind the last end is the beginning of a packet that is still on its way.
    """
    at, size = 0, len(data)
    while at + 1 < size:
        length, body = data[at + 1], at + 2
        if length > 127:  # more digits follow, least significant first
            length, body = _long_length(data, at + 1)
            if not body:
                return
        end = body + length
        if end > size:
            return
        yield data[at], body, end
        at = end


def _long_length(data: bytes, at: int) -> tuple[int, int]:
    """(remaining length, start of the body); (0, 0) when the digits are not all here."""
    length = 0
    for shift, digit in enumerate(data[at : at + 4]):
        length |= (digit & 127) << (7 * shift)
        if digit < 128:
            return length, at + shift + 1
    if len(data) - at >= 4:
        raise ValueError("a remaining length of more than four bytes")
    return 0, 0
