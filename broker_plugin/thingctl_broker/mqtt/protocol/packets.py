"""MQTT 3.1.1 packets: taken apart as strictly as the standard asks, and put together.

Only what the front itself reads or writes. Each refusal names its rule.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from thingctl_broker.mqtt.protocol.frames import Frame, MalformedPacket


class PacketType(IntEnum):
    """Control packet types [section 2.2.1]."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class ConnackCode(IntEnum):
    """CONNACK return codes [section 3.2.2.3]."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_USER_NAME_OR_PASSWORD = 4
    NOT_AUTHORIZED = 5


class ConnectRefused(Exception):
    """A CONNECT that is answered with a return code before the connection closes.

    ``fault``: what it is counted as.
    """

    def __init__(self, code: ConnackCode, text: str, fault: str = "refused") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.fault = fault


def too_many_failures() -> ConnectRefused:
    """What was brought was not looked at, right or wrong: too much that was wrong came before it."""
    text = "too many wrong passwords or tokens from this address, or of this user from there"
    return ConnectRefused(ConnackCode.NOT_AUTHORIZED, text, "tooManyFailures")


class Will(NamedTuple):
    """What a client wants published when it is lost."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class Connect(NamedTuple):
    """A CONNECT. ``keep_alive``: seconds, 0 for none.

    ``certificate`` is not in the packet: the names in the client's TLS certificate, verified.
    """

    client_id: str
    clean_session: bool
    keep_alive: int
    username: str | None
    password: bytes | None
    will: Will | None
    certificate: tuple[str, ...] = ()


class Publish(NamedTuple):
    """A PUBLISH. ``packet_id`` is 0 at QoS 0."""

    topic: str
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    payload: bytes


SUBSCRIPTION_REFUSED: Final = 0x80
PINGRESP: Final = b"\xd0\x00"
_PROTOCOL_LEVEL: Final = 4
_FIXED_FLAGS: Final = {
    PacketType.CONNECT: 0,
    PacketType.PUBACK: 0,
    PacketType.PUBREC: 0,
    PacketType.PUBREL: 2,
    PacketType.PUBCOMP: 0,
    PacketType.SUBSCRIBE: 2,
    PacketType.UNSUBSCRIBE: 2,
    PacketType.PINGREQ: 0,
    PacketType.DISCONNECT: 0,
}
"""What a client may send besides PUBLISH, and the flags it must have [section 2.2.2]."""

_WITH_ID_ONLY: Final = frozenset(
    {PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP},
)
_EMPTY: Final = frozenset({PacketType.PINGREQ, PacketType.DISCONNECT})


def check_shape(frame: Frame) -> PacketType:
    """Return the type of a packet other than PUBLISH, its flags and length being right for it."""
    kind = frame.first >> 4
    flags = _FIXED_FLAGS.get(kind)  # type: ignore[call-overload] # an IntEnum member equals its number
    if flags is None:
        raise MalformedPacket("section 2.2.1", f"a client cannot send packet type {kind}")
    if frame.first & 0x0F != flags:
        raise MalformedPacket("MQTT-2.2.2-2", f"flags {frame.first & 0x0F} on packet type {kind}")
    length = len(frame.packet) - frame.start
    if (kind in _WITH_ID_ONLY and length != 2) or (kind in _EMPTY and length):
        raise MalformedPacket("section 2.2.3", f"a body of {length} bytes in packet type {kind}")
    return PacketType(kind)


class _PacketBody:
    """Reads the fields of one packet, front to back."""

    __slots__ = ("_at", "_packet")

    def __init__(self, frame: Frame) -> None:
        self._packet = frame.packet
        self._at = frame.start

    @property
    def left(self) -> int:
        return len(self._packet) - self._at

    def take(self, length: int) -> bytes:
        stop = self._at + length
        if stop > len(self._packet):
            raise MalformedPacket("section 2.2.3", "the packet ends inside a field")
        taken = self._packet[self._at : stop]
        self._at = stop
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def binary(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        return decode_text(self.binary())

    def packet_id(self) -> int:
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


def parse_connect(frame: Frame) -> Connect:
    """Take a CONNECT apart [section 3.1].

    Raises :class:`MalformedPacket` where the standard wants the connection closed without
    a word, and :class:`ConnectRefused` where it wants a return code first.
    """
    body = _PacketBody(frame)
    name = body.binary()
    level = body.byte()
    if name not in {b"MQTT", b"MQIsdp"}:
        raise MalformedPacket("MQTT-3.1.2-1", f"protocol name {name[:16]!a}")
    if name != b"MQTT" or level != _PROTOCOL_LEVEL:
        # Also what makes an MQTT 5 client fall back to 3.1.1 [MQTT-3.1.2-2].
        raise ConnectRefused(
            ConnackCode.UNACCEPTABLE_PROTOCOL_VERSION, f"MQTT protocol level {level}; only 3.1.1 is spoken"
        )
    flags = body.byte()
    keep_alive = body.number()
    has_name, has_password, will_retain = bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20)
    will_qos, has_will, clean = flags >> 3 & 3, bool(flags & 0x04), bool(flags & 0x02)
    if flags & 0x01:
        raise MalformedPacket("MQTT-3.1.2-3", "the reserved connect flag is set")
    if not has_will and (will_qos or will_retain):
        raise MalformedPacket("MQTT-3.1.2-11", "will flags without a will")
    if will_qos == 3:
        raise MalformedPacket("MQTT-3.1.2-14", "will QoS 3")
    if has_password and not has_name:
        raise MalformedPacket("MQTT-3.1.2-22", "a password without a user name")
    client_id = body.text()
    will = Will(body.text(), body.binary(), will_qos, will_retain) if has_will else None
    username = body.text() if has_name else None
    password = body.binary() if has_password else None
    if body.left:
        raise MalformedPacket("MQTT-3.1.3-1", f"{body.left} bytes behind the last field")
    if not client_id and not clean:
        raise ConnectRefused(
            ConnackCode.IDENTIFIER_REJECTED, "no client identifier, and a session to be kept"
        )
    return Connect(client_id, clean, keep_alive, username, password, will)


def parse_publish(frame: Frame) -> Publish:
    """Take a PUBLISH apart [section 3.3]. Whether its topic is a topic is the caller's to check."""
    first, packet, start = frame
    qos = first >> 1 & 3
    if qos == 3:
        raise MalformedPacket("MQTT-3.3.1-4", "QoS 3")
    if qos == 0 and first & 0x08:
        raise MalformedPacket("MQTT-3.3.1-2", "DUP at QoS 0")
    payload = start + 2 + int.from_bytes(packet[start : start + 2], "big")
    packet_id = 0
    topic = packet[start + 2 : payload]
    if qos:
        packet_id = int.from_bytes(packet[payload : payload + 2], "big")
        payload += 2
    if payload > len(packet) or len(packet) < start + 2:
        raise MalformedPacket("section 2.2.3", "the packet ends inside a field")
    if qos and not packet_id:
        raise MalformedPacket("MQTT-2.3.1-1", "packet identifier 0")
    return Publish(decode_text(topic), qos, bool(first & 1), bool(first & 8), packet_id, packet[payload:])


class TooManyFilters(MalformedPacket):
    """More filters in one packet than this broker takes (the standard has no bound)."""

    def __init__(self, limit: int) -> None:
        super().__init__("limit", f"more than {limit} filters in one packet")


def parse_subscribe(frame: Frame, most: int) -> tuple[int, list[tuple[str, int]]]:
    """Take a SUBSCRIBE apart [section 3.8]; return its packet id and its filters with their QoS.

    Raises :class:`TooManyFilters` beyond ``most`` of them.
    """
    body = _PacketBody(frame)
    packet_id = body.packet_id()
    wanted: list[tuple[str, int]] = []
    while body.left:
        if len(wanted) == most:
            raise TooManyFilters(most)
        topic_filter, qos = body.text(), body.byte()
        if qos > 2:
            raise MalformedPacket("MQTT-3.8.3-4", f"requested QoS {qos}")
        wanted.append((topic_filter, qos))
    if not wanted:
        raise MalformedPacket("MQTT-3.8.3-3", "a SUBSCRIBE without a filter")
    return packet_id, wanted


def parse_unsubscribe(frame: Frame, most: int) -> tuple[int, list[str]]:
    """Take an UNSUBSCRIBE apart [section 3.10]; return its packet id and its filters.

    Raises :class:`TooManyFilters` beyond ``most`` of them.
    """
    body = _PacketBody(frame)
    packet_id = body.packet_id()
    filters: list[str] = []
    while body.left:
        if len(filters) == most:
            raise TooManyFilters(most)
        filters.append(body.text())
    if not filters:
        raise MalformedPacket("MQTT-3.10.3-2", "an UNSUBSCRIBE without a filter")
    return packet_id, filters


def parse_packet_id(frame: Frame) -> int:
    """The packet id of a PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return int.from_bytes(frame.packet[frame.start : frame.start + 2], "big")


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


def encode_connect(connect: Connect) -> bytes:
    """Put a CONNECT together."""
    flags = 0x02 if connect.clean_session else 0
    payload = encode_binary(connect.client_id.encode())
    if connect.will is not None:
        flags |= 0x04 | connect.will.qos << 3 | (0x20 if connect.will.retain else 0)
        payload += encode_binary(connect.will.topic.encode()) + encode_binary(connect.will.payload)
    if connect.username is not None:
        flags |= 0x80
        payload += encode_binary(connect.username.encode())
    if connect.password is not None:
        flags |= 0x40
        payload += encode_binary(connect.password)
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + connect.keep_alive.to_bytes(2, "big") + payload
    return b"\x10" + encode_length(len(body)) + body


def encode_connack(code: ConnackCode, *, session_present: bool = False) -> bytes:
    """Put a CONNACK together. A refusal never has a session [MQTT-3.2.2-4]."""
    return bytes([0x20, 2, session_present and code is ConnackCode.ACCEPTED, code])


def encode_publish(
    topic: bytes, payload: bytes, *, qos: int = 0, packet_id: int = 0, dup: bool = False, retain: bool = False
) -> bytes:
    """Put a PUBLISH together. ``packet_id`` is written from QoS 1 on."""
    first = 0x30 | qos << 1 | (8 if dup else 0) | (1 if retain else 0)
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    length = 2 + len(topic) + len(identifier) + len(payload)
    return b"%c%b%b%b%b%b" % (
        first,
        encode_length(length),
        len(topic).to_bytes(2, "big"),
        topic,
        identifier,
        payload,
    )


def encode_puback(packet_id: int) -> bytes:
    """Put a PUBACK together."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def encode_pubrec(packet_id: int) -> bytes:
    """Put a PUBREC together."""
    return b"\x50\x02" + packet_id.to_bytes(2, "big")


def encode_pubcomp(packet_id: int) -> bytes:
    """Put a PUBCOMP together."""
    return b"\x70\x02" + packet_id.to_bytes(2, "big")


def encode_subscribe(packet_id: int, wanted: list[tuple[str, int]]) -> bytes:
    """Put a SUBSCRIBE together."""
    body = packet_id.to_bytes(2, "big")
    body += b"".join(encode_binary(topic_filter.encode()) + bytes([qos]) for topic_filter, qos in wanted)
    return b"\x82" + encode_length(len(body)) + body


def encode_suback(packet_id: int, codes: list[int]) -> bytes:
    """Put a SUBACK together."""
    return b"\x90" + encode_length(2 + len(codes)) + packet_id.to_bytes(2, "big") + bytes(codes)


def encode_unsubscribe(packet_id: int, filters: list[str]) -> bytes:
    """Put an UNSUBSCRIBE together."""
    body = packet_id.to_bytes(2, "big") + b"".join(encode_binary(f.encode()) for f in filters)
    return b"\xa2" + encode_length(len(body)) + body


def encode_unsuback(packet_id: int) -> bytes:
    """Put an UNSUBACK together."""
    return b"\xb0\x02" + packet_id.to_bytes(2, "big")
