"""MQTT framing, the same in every version: bytes in, whole packets out.

Sans-IO and incremental: however the bytes are cut, the packets are the same. Bounded:
a packet over the limit is refused as soon as its length is known, before it is buffered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from thingctl_broker.mqtt.protocol.reason_codes import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER_MAX: Final = 5
"""Bytes of the longest fixed header: the type and four bytes of length [section 2.2.3]."""


class MalformedPacket(Exception):
    """What a client sent breaks the standard; the connection must be closed [MQTT-4.8.0-1].

    ``rule``: the normative statement that was broken, such as ``MQTT-3.1.0-1``, or a
    section where the standard has no number for it. Statements and sections of MQTT 5
    begin with ``MQTT5-`` and ``MQTT5 section``. ``reason``: what MQTT 5 answers it with.
    """

    def __init__(self, rule: str, text: str, reason: Reason = Reason.MALFORMED_PACKET) -> None:
        super().__init__(f"[{rule}] {text}")
        self.rule = rule
        self.text = text
        self.reason = reason


class PacketTooLarge(MalformedPacket):
    """A packet over the limit of this broker (not of the standard)."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(
            "limit", f"a packet of {length} bytes; at most {limit} are allowed", Reason.PACKET_TOO_LARGE
        )


class Frame(NamedTuple):
    """One whole packet.

    ``first``: its first byte, type and flags. ``start``: where its variable header begins.
    """

    first: int
    packet: bytes
    start: int


new_tuple: Final = tuple.__new__  # half the time of the class's own


class FrameScanner:
    """Cuts a stream of bytes into packets of at most ``limit`` bytes."""

    __slots__ = ("_buffer", "_needed", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._needed = 0  # bytes that the buffer must hold before looking at it pays

    @property
    def buffered(self) -> int:
        """Bytes of a packet that has not ended yet."""
        return len(self._buffer)

    def join(self, data: bytes) -> bytes:
        """Return what was kept of a packet that had not ended, with ``data`` behind it.

        Empty: it has not ended yet, and all of it is kept.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return b""
            data = bytes(self._buffer)
            self._buffer.clear()
        self._needed = 0
        return data

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take in ``data``; yield the packets that are now whole, in order.

        Raises :class:`MalformedPacket` when it comes to a malformed one, after those before it.
        """
        data = self.join(data)
        position, end = 0, len(data)
        while end - position >= 2:
            start, length = position + 2, data[position + 1]
            if length >= 0x80:
                start, length = _long_length(data, position, end)
                if length < 0:
                    break
            stop = start + length
            if stop - position > self.limit:
                raise PacketTooLarge(stop - position, self.limit)
            if stop > end:
                self._needed = stop - position
                break
            yield new_tuple(Frame, (data[position], data[position:stop], start - position))
            position = stop
        if position < end:
            self._buffer += data[position:] if position else data


def _long_length(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Where the body of the packet at ``position`` begins, and its length; -1: not all of it is here.

    Up to four bytes of seven bits each, the least significant first [section 2.2.3].
    """
    length = 0
    for i in range(HEADER_MAX - 1):
        at = position + 1 + i
        if at == end:
            return at, -1
        byte = data[at]
        length |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return at + 1, length
    raise MalformedPacket("section 2.2.3", "a remaining length of more than four bytes")
