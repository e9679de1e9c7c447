"""The properties of MQTT 5 [section 2.2.2.2] as one table, and how they are read and written.

Rules and sections of MQTT 5 are spelled ``MQTT5-3.3.2-8`` and ``MQTT5 section 3.1.2``.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from thingctl_broker.mqtt.protocol.fields import PacketBody, encode_binary, encode_length
from thingctl_broker.mqtt.protocol.frames import MalformedPacket
from thingctl_broker.mqtt.protocol.packets import PacketType
from thingctl_broker.mqtt.protocol.reason_codes import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

Value: TypeAlias = "int | str | bytes | tuple[str, str]"


class ValueType(Enum):
    """What a property's value is [section 1.5]."""

    BYTE = 1
    TWO_BYTES = 2
    FOUR_BYTES = 4
    VARIABLE = "variable byte integer"
    BINARY = "binary"
    TEXT = "text"
    PAIR = "pair of texts"


class Property(NamedTuple):
    """One row of the table. ``packets``: where it may stand; ``WILL``: in a CONNECT's will."""

    name: str
    type: ValueType
    packets: frozenset[int]
    is_repeatable: bool = False


WILL: Final = 0
_T = PacketType
_ACKS: Final = (_T.PUBACK, _T.PUBREC, _T.PUBREL, _T.PUBCOMP, _T.SUBACK, _T.UNSUBACK)


def _in(*packets: int) -> frozenset[int]:
    return frozenset(packets)


PROPERTIES: Final = {
    0x01: Property("payload format indicator", ValueType.BYTE, _in(_T.PUBLISH, WILL)),
    0x02: Property("message expiry interval", ValueType.FOUR_BYTES, _in(_T.PUBLISH, WILL)),
    0x03: Property("content type", ValueType.TEXT, _in(_T.PUBLISH, WILL)),
    0x08: Property("response topic", ValueType.TEXT, _in(_T.PUBLISH, WILL)),
    0x09: Property("correlation data", ValueType.BINARY, _in(_T.PUBLISH, WILL)),
    0x0B: Property(
        "subscription identifier", ValueType.VARIABLE, _in(_T.PUBLISH, _T.SUBSCRIBE), is_repeatable=True
    ),
    0x11: Property(
        "session expiry interval", ValueType.FOUR_BYTES, _in(_T.CONNECT, _T.CONNACK, _T.DISCONNECT)
    ),
    0x12: Property("assigned client identifier", ValueType.TEXT, _in(_T.CONNACK)),
    0x13: Property("server keep alive", ValueType.TWO_BYTES, _in(_T.CONNACK)),
    0x15: Property("authentication method", ValueType.TEXT, _in(_T.CONNECT, _T.CONNACK, _T.AUTH)),
    0x16: Property("authentication data", ValueType.BINARY, _in(_T.CONNECT, _T.CONNACK, _T.AUTH)),
    0x17: Property("request problem information", ValueType.BYTE, _in(_T.CONNECT)),
    0x18: Property("will delay interval", ValueType.FOUR_BYTES, _in(WILL)),
    0x19: Property("request response information", ValueType.BYTE, _in(_T.CONNECT)),
    0x1A: Property("response information", ValueType.TEXT, _in(_T.CONNACK)),
    0x1C: Property("server reference", ValueType.TEXT, _in(_T.CONNACK, _T.DISCONNECT)),
    0x1F: Property("reason string", ValueType.TEXT, _in(_T.CONNACK, *_ACKS, _T.DISCONNECT, _T.AUTH)),
    0x21: Property("receive maximum", ValueType.TWO_BYTES, _in(_T.CONNECT, _T.CONNACK)),
    0x22: Property("topic alias maximum", ValueType.TWO_BYTES, _in(_T.CONNECT, _T.CONNACK)),
    0x23: Property("topic alias", ValueType.TWO_BYTES, _in(_T.PUBLISH)),
    0x24: Property("maximum QoS", ValueType.BYTE, _in(_T.CONNACK)),
    0x25: Property("retain available", ValueType.BYTE, _in(_T.CONNACK)),
    0x26: Property(
        "user property",
        ValueType.PAIR,
        _in(WILL, *(kind for kind in _T if kind not in {_T.PINGREQ, _T.PINGRESP})),
        is_repeatable=True,
    ),
    0x27: Property("maximum packet size", ValueType.FOUR_BYTES, _in(_T.CONNECT, _T.CONNACK)),
    0x28: Property("wildcard subscription available", ValueType.BYTE, _in(_T.CONNACK)),
    0x29: Property("subscription identifiers available", ValueType.BYTE, _in(_T.CONNACK)),
    0x2A: Property("shared subscription available", ValueType.BYTE, _in(_T.CONNACK)),
}

_FORWARDED: Final = frozenset({0x01, 0x03, 0x08, 0x09, 0x26})
"""What a subscriber gets as the publisher wrote it [MQTT5-3.3.2-4, -15, -16, -17, -20]."""

_NOT_ZERO: Final = {
    0x0B: ("MQTT5 section 3.8.2.1.2", Reason.PROTOCOL_ERROR),
    0x21: ("MQTT5 section 3.1.2.11.3", Reason.PROTOCOL_ERROR),
    0x23: ("MQTT5-3.3.2-8", Reason.TOPIC_ALIAS_INVALID),
    0x27: ("MQTT5 section 3.1.2.11.4", Reason.PROTOCOL_ERROR),
}
_ZERO_OR_ONE: Final = {
    0x01: "MQTT5 section 3.3.2.3.2",
    0x17: "MQTT5 section 3.1.2.11.7",
    0x19: "MQTT5 section 3.1.2.11.6",
}


class Properties(NamedTuple):
    """What was read. ``forwarded``: what subscribers get, encoded as it came, without a length."""

    values: dict[int, Value]
    forwarded: bytes


NONE: Final = Properties({}, b"")


class PacketBody5(PacketBody):
    """Reads the fields of one packet of MQTT 5, front to back."""

    __slots__ = ()

    def take(self, length: int) -> bytes:
        """Take ``length`` bytes."""
        stop = self._at + length
        if stop > len(self._packet):
            raise MalformedPacket("MQTT5 section 2.1.4", "the packet ends inside a field")
        taken = self._packet[self._at : stop]
        self._at = stop
        return taken

    def text(self) -> str:
        """Take a string."""
        return decode_text(self.binary())

    def packet_id(self) -> int:
        """Take a packet identifier."""
        packet_id = self.number()
        if not packet_id:
            raise MalformedPacket("MQTT5-2.2.1-3", "packet identifier 0", Reason.PROTOCOL_ERROR)
        return packet_id

    def variable(self) -> int:
        """Take a Variable Byte Integer [section 1.5.5]."""
        value = 0
        for i in range(4):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if not byte and i:
                    raise MalformedPacket("MQTT5-1.5.5-1", "a number with more bytes than it needs")
                return value
        raise MalformedPacket("MQTT5 section 1.5.5", "a number of more than four bytes")

    def properties(self, packet: int) -> Properties:
        """Take the properties of a packet, their length in front."""
        length = self.variable()
        if not length:
            return NONE
        if length > self.left:
            raise MalformedPacket("MQTT5 section 2.2.2.1", "the packet ends inside its properties")
        stop = self._at + length
        values: dict[int, Value] = {}
        forwarded = []
        while self._at < stop:
            start = self._at
            number = self.variable()
            value = self._property(number, packet, values)
            if self._at > stop:
                raise MalformedPacket("MQTT5 section 2.2.2.1", "a property goes beyond their length")
            values[number] = value
            if number in _FORWARDED:
                forwarded.append(self._packet[start : self._at])
        return Properties(values, b"".join(forwarded))

    def _property(self, number: int, packet: int, before: dict[int, Value]) -> Value:
        row = PROPERTIES.get(number)
        if row is None or packet not in row.packets:
            raise MalformedPacket("MQTT5 section 2.2.2.2", f"property 0x{number:02X} in packet type {packet}")
        is_repeatable = (row.is_repeatable and packet != PacketType.SUBSCRIBE) or number == 0x26
        if number in before and not is_repeatable:
            raise MalformedPacket("MQTT5 section 2.2.2.2", f"two of {row.name}", Reason.PROTOCOL_ERROR)
        value = self._value(row.type)
        _check_value(number, row.name, value)
        return value

    def _value(self, kind: ValueType) -> Value:
        match kind:
            case ValueType.TEXT:
                return self.text()
            case ValueType.PAIR:
                return self.text(), self.text()
            case ValueType.BINARY:
                return self.binary()
            case ValueType.VARIABLE:
                return self.variable()
        return int.from_bytes(self.take(kind.value), "big")


def _check_value(number: int, name: str, value: Value) -> None:
    if number in _NOT_ZERO and not value:
        rule, reason = _NOT_ZERO[number]
        raise MalformedPacket(rule, f"{name} 0", reason)
    if number in _ZERO_OR_ONE and value not in {0, 1}:
        raise MalformedPacket(_ZERO_OR_ONE[number], f"{name} {value!r}", Reason.PROTOCOL_ERROR)
    if number == 0x08 and isinstance(value, str) and (not value or "+" in value or "#" in value):
        raise MalformedPacket("MQTT5-3.3.2-14", f"response topic {value[:80]!a}", Reason.PROTOCOL_ERROR)


def decode_text(encoded: bytes) -> str:
    """Decode a string of MQTT 5 [section 1.5.4]."""
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        raise MalformedPacket("MQTT5-1.5.4-1", "a string that is not UTF-8") from None
    if "\0" in text:
        raise MalformedPacket("MQTT5-1.5.4-2", "a string that contains U+0000")
    return text


def encode_property(number: int, value: Value) -> bytes:
    """Put one property together. A text longer than 65,535 bytes raises OverflowError."""
    kind = PROPERTIES[number].type
    head = bytes((number,))
    if isinstance(value, tuple):
        return head + encode_binary(value[0].encode()) + encode_binary(value[1].encode())
    if isinstance(value, str):
        return head + encode_binary(value.encode())
    if isinstance(value, bytes):
        return head + encode_binary(value)
    if kind is ValueType.VARIABLE:
        return head + encode_length(value)
    return head + value.to_bytes(kind.value, "big")


def encode_properties(properties: Iterable[tuple[int, Value | None]]) -> bytes:
    """Put properties together, their length in front; None and "" are left out."""
    encoded = b"".join(
        encode_property(n, value) for n, value in properties if value is not None and value != ""
    )
    return encode_length(len(encoded)) + encoded
