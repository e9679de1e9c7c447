"""What packets say in every version of MQTT; and those of 3.1 and 3.1.1 as bytes.

Packets are taken apart as strictly as the standard asks. Each refusal names its rule.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from thingctl_broker.mqtt.protocol.fields import PacketBody, decode_text, encode_binary, encode_length
from thingctl_broker.mqtt.protocol.frames import Frame, MalformedPacket, new_tuple
from thingctl_broker.mqtt.protocol.reason_codes import Reason


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
    AUTH = 15


class ConnackCode(IntEnum):
    """CONNACK return codes of 3.1 and 3.1.1 [section 3.2.2.3]."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_USER_NAME_OR_PASSWORD = 4
    NOT_AUTHORIZED = 5


class ConnectRefused(Exception):
    """A CONNECT that is answered with a reason before the connection closes.

    ``fault``: what it is counted as.
    """

    def __init__(self, code: Reason, text: str, fault: str = "refused") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.fault = fault


def too_many_failures() -> ConnectRefused:
    """What was brought was not looked at, right or wrong: too much that was wrong came before it."""
    text = "too many wrong passwords or tokens from this address, or of this user from there"
    return ConnectRefused(Reason.NOT_AUTHORIZED, text, "tooManyFailures")


NEVER: Final = 0xFFFFFFFF
"""The session expiry of a session that is kept for ever."""


class Will(NamedTuple):
    """What a client wants published when it is lost.

    ``delay``, ``message_expiry``: seconds. ``properties``: as in :class:`Publish`.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    delay: int = 0
    message_expiry: int | None = None
    properties: bytes = b""


class Connect(NamedTuple):
    """A CONNECT. ``keep_alive``: seconds, 0 for none. ``session_expiry``: seconds, or ``NEVER``.

    ``certificate`` is not in the packet: the names in the client's TLS certificate, verified.
    ``version``: 3, 4 (3.1.1) or 5. ``is_bridge``: the client says it is a broker.
    """

    client_id: str
    clean_session: bool
    keep_alive: int
    username: str | None
    password: bytes | None
    will: Will | None
    certificate: tuple[str, ...] = ()
    version: int = 4
    is_bridge: bool = False
    session_expiry: int = 0
    receive_maximum: int = 65535
    maximum_packet_size: int | None = None
    topic_alias_maximum: int = 0
    wants_problem_information: bool = True
    authentication_method: str | None = None


class Publish(NamedTuple):
    """A PUBLISH. ``packet_id`` is 0 at QoS 0. ``message_expiry``: seconds. ``topic_alias``: 0 for none.

    ``properties``: those that a subscriber gets unchanged, encoded, without a length in front.
    """

    topic: str
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    payload: bytes
    message_expiry: int | None = None
    topic_alias: int = 0
    properties: bytes = b""
    response_topic: str = ""


class SubscriptionRequest(NamedTuple):
    """One filter of a SUBSCRIBE, with its options."""

    topic_filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(NamedTuple):
    """A SUBSCRIBE. ``subscription_id``: 0 for none."""

    packet_id: int
    filters: list[SubscriptionRequest]
    subscription_id: int = 0


class Unsubscribe(NamedTuple):
    """An UNSUBSCRIBE."""

    packet_id: int
    filters: list[str]


class Acknowledgement(NamedTuple):
    """A PUBACK, PUBREC, PUBREL or PUBCOMP."""

    packet_id: int
    reason: int = 0
    reason_string: str = ""


class Disconnect(NamedTuple):
    """A DISCONNECT of a client. ``session_expiry``: seconds; None: as it was."""

    reason: int = 0
    session_expiry: int | None = None


SUBSCRIPTION_REFUSED: Final = 0x80
PINGRESP: Final = b"\xd0\x00"
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


UNSAID: Final = (None, 0, b"", "")
"""The last fields of a PUBLISH without properties."""


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
    fields = decode_text(topic), qos, bool(first & 1), bool(first & 8), packet_id, packet[payload:]
    return new_tuple(Publish, fields + UNSAID)


class TooManyFilters(MalformedPacket):
    """More filters in one packet than this broker takes (the standard has no bound)."""

    def __init__(self, limit: int) -> None:
        super().__init__("limit", f"more than {limit} filters in one packet")


def parse_subscribe(frame: Frame, most: int) -> tuple[int, list[tuple[str, int]]]:
    """Take a SUBSCRIBE apart [section 3.8]; return its packet id and its filters with their QoS.

    Raises :class:`TooManyFilters` beyond ``most`` of them.
    """
    body = PacketBody(frame)
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
    body = PacketBody(frame)
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


def encode_connect(connect: Connect) -> bytes:
    """Put a CONNECT of MQTT 3.1.1 together."""
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
