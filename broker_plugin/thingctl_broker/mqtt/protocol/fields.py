"""The fields that MQTT packets are made of. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.protocol.frames import MalformedPacket

if TYPE_CHECKING:
    from thingctl_broker.mqtt.protocol.frames import Frame


class PacketBody:
    """Reads the fields of one packet, front to back."""

    __slots__ = ("_at", "_packet")

    def __init__(self, frame: Frame) -> None:
        self._packet = frame.packet
        self._at = frame.start

    @property
    def left(self) -> int:
        """Bytes that are left."""
        return len(self._packet) - self._at

    def take(self, length: int) -> bytes:
        """Take ``length`` bytes."""
        stop = self._at + length
        if stop > len(self._packet):
            raise MalformedPacket("section 2.2.3", "the packet ends inside a field")
        taken = self._packet[self._at : stop]
        self._at = stop
        return taken

    def byte(self) -> int:
        """Take one byte."""
        return self.take(1)[0]

    def number(self) -> int:
        """Take a Two Byte Integer."""
        return int.from_bytes(self.take(2), "big")

    def binary(self) -> bytes:
        """Take bytes with their length in front."""
        return self.take(self.number())

    def text(self) -> str:
        """Take a string."""
        return decode_text(self.binary())

    def packet_id(self) -> int:
        """Take a packet identifier."""
        packet_id = self.number()
        if not packet_id:
            raise MalformedPacket("MQTT-2.3.1-1", "packet identifier 0")
        return packet_id


def decode_text(encoded: bytes) -> str:
    """Decode an MQTT string [section 1.5.3]."""
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        raise MalformedPacket("MQTT-1.5.3-1", "a string that is not UTF-8") from None
    if "\0" in text:
        raise MalformedPacket("MQTT-1.5.3-2", "a string that contains U+0000")
    return text


def encode_length(length: int) -> bytes:
    """The remaining length, as it stands in a fixed header [section 2.2.3]."""
    if length < 0x80:
        return bytes((length,))
    if length < 0x4000:
        return bytes((length & 0x7F | 0x80, length >> 7))
    encoded = bytearray()
    while True:
        length, byte = length >> 7, length & 0x7F
        encoded.append(byte | 0x80 if length else byte)
        if not length:
            return bytes(encoded)


def encode_binary(data: bytes) -> bytes:
    """Bytes with their length in front."""
    return len(data).to_bytes(2, "big") + data


ONE_BYTE_LENGTHS: Final = tuple(bytes((length,)) for length in range(0x80))
"""The remaining lengths of one byte: to look one up is faster than to ask for it."""
