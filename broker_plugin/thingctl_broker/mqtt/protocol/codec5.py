"""MQTT 5 as a codec. Rules are spelled as in ``properties``: ``MQTT5-3.8.3-5``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from thingctl_broker.mqtt.protocol.fields import ONE_BYTE_LENGTHS, encode_length
from thingctl_broker.mqtt.protocol.frames import Frame, MalformedPacket, new_tuple
from thingctl_broker.mqtt.protocol.packets import (
    UNSAID,
    Acknowledgement,
    Disconnect,
    PacketType,
    Publish,
    Subscribe,
    SubscriptionRequest,
    TooManyFilters,
    Unsubscribe,
)
from thingctl_broker.mqtt.protocol.properties import (
    NONE,
    PacketBody5,
    decode_text,
    encode_properties,
    encode_property,
)
from thingctl_broker.mqtt.protocol.reason_codes import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingctl_broker.mqtt.protocol.codec import Codec, ConnackProperties

_T = PacketType
_FLAGS: Final = {
    _T.CONNECT: 0,
    _T.PUBACK: 0,
    _T.PUBREC: 0,
    _T.PUBREL: 2,
    _T.PUBCOMP: 0,
    _T.SUBSCRIBE: 2,
    _T.UNSUBSCRIBE: 2,
    _T.PINGREQ: 0,
    _T.DISCONNECT: 0,
    _T.AUTH: 0,
}
_OF_RECEIVED: Final = frozenset({0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
_OF_RELEASED: Final = frozenset({0, 0x92})
_REASONS: Final = {
    _T.PUBACK: ("MQTT5-3.4.2-1", _OF_RECEIVED),
    _T.PUBREC: ("MQTT5-3.5.2-1", _OF_RECEIVED),
    _T.PUBREL: ("MQTT5-3.6.2-1", _OF_RELEASED),
    _T.PUBCOMP: ("MQTT5-3.7.2-1", _OF_RELEASED),
    _T.DISCONNECT: (
        "MQTT5-3.14.2-1",
        frozenset({0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}),
    ),
}
"""The reason codes that a client may give, and the rule that says so."""

_CONNACK_IDS: Final = (0x11, 0x21, 0x24, 0x25, 0x27, 0x12, 0x22, 0x28, 0x29, 0x2A, 0x13, 0x1A, 0x1C)
"""The properties of a CONNACK, in the order of ``ConnackProperties``."""


def _checked(kind: PacketType, reason: int) -> int:
    rule, allowed = _REASONS[kind]
    if reason not in allowed:
        raise MalformedPacket(
            rule, f"reason code 0x{reason:02X} in packet type {kind}", Reason.PROTOCOL_ERROR
        )
    return reason


def _end(body: PacketBody5) -> None:
    if body.left:
        raise MalformedPacket("MQTT5 section 2.1.4", f"{body.left} bytes behind the last field")


def _request(topic_filter: str, options: int) -> SubscriptionRequest:
    """A filter with its options [section 3.8.3.1]."""
    if options & 0xC0:
        raise MalformedPacket("MQTT5-3.8.3-5", "reserved subscription options are set")
    request = SubscriptionRequest(
        topic_filter, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3
    )
    if request.qos == 3:
        raise MalformedPacket("MQTT5 section 3.8.3.1", "requested QoS 3", Reason.PROTOCOL_ERROR)
    if request.retain_handling == 3:
        raise MalformedPacket("MQTT5 section 3.8.3.1", "retain handling 3", Reason.PROTOCOL_ERROR)
    if request.no_local and topic_filter.startswith("$share/"):
        raise MalformedPacket("MQTT5-3.8.3-4", "no local on a shared filter", Reason.PROTOCOL_ERROR)
    return request


def _nowhere() -> MalformedPacket:
    text = "neither a topic nor an alias"
    return MalformedPacket("MQTT5 section 3.3.2.1", text, Reason.PROTOCOL_ERROR)


def _with_properties(publish: Publish, body: PacketBody5) -> Publish:
    values, forwarded = body.properties(PacketType.PUBLISH)
    if 0x0B in values:
        text = "a client's PUBLISH with a subscription identifier"
        raise MalformedPacket("MQTT5-3.3.4-6", text, Reason.PROTOCOL_ERROR)
    return publish._replace(
        payload=body.take(body.left),
        message_expiry=cast("int | None", values.get(0x02)),
        topic_alias=cast("int", values.get(0x23, 0)),
        properties=forwarded,
        response_topic=cast("str", values.get(0x08, "")),
    )


def _publish_properties(
    forwarded: bytes, message_expiry: int | None, subscription_ids: Sequence[int], topic_alias: int
) -> bytes:
    """The properties of a PUBLISH, their length in front."""
    encoded = forwarded
    if message_expiry is not None:
        encoded += b"\x02" + message_expiry.to_bytes(4, "big")
    if subscription_ids:
        encoded += b"".join([encode_property(0x0B, number) for number in subscription_ids])
    if topic_alias:
        encoded += b"\x23" + topic_alias.to_bytes(2, "big")
    return encode_length(len(encoded)) + encoded


def _packet(first: int, body: bytes) -> bytes:
    return b"%c%b%b" % (first, encode_length(len(body)), body)


def _acknowledgement(first: int, packet_id: int, reason: int, reason_string: str) -> bytes:
    if not reason and not reason_string:
        return b"%c\x02%b" % (first, packet_id.to_bytes(2, "big"))
    properties = encode_properties(((0x1F, reason_string),)) if reason_string else b""
    return _packet(first, packet_id.to_bytes(2, "big") + bytes((reason,)) + properties)


class Codec5:
    """The packets of MQTT 5."""

    __slots__ = ()
    version: Final = 5

    def check_shape(self, frame: Frame) -> PacketType:
        """Return the type of a packet other than PUBLISH, its flags and length being right for it."""
        kind = frame.first >> 4
        flags = _FLAGS.get(kind)  # type: ignore[call-overload] # an IntEnum member equals its number
        if flags is None:
            text = f"a client cannot send packet type {kind}"
            raise MalformedPacket("MQTT5 section 2.1.2", text, Reason.PROTOCOL_ERROR)
        if frame.first & 0x0F != flags:
            raise MalformedPacket("MQTT5-2.1.3-1", f"flags {frame.first & 0x0F} on packet type {kind}")
        if kind == PacketType.PINGREQ and len(frame.packet) > frame.start:
            raise MalformedPacket("MQTT5 section 3.12.1", "a PINGREQ with a body")
        if kind == PacketType.AUTH:
            text = "an AUTH, and the CONNECT named no authentication method"  # or it would have been refused
            raise MalformedPacket("MQTT5-4.12.0-7", text, Reason.PROTOCOL_ERROR)
        return PacketType(kind)

    @staticmethod
    def parse_publish(frame: Frame) -> Publish:
        """Take a PUBLISH apart [section 3.3]. Whether its topic is a topic is the caller's to check."""
        first, packet, start = frame
        qos = first >> 1 & 3
        if qos == 3:
            raise MalformedPacket("MQTT5-3.3.1-4", "QoS 3")
        if qos == 0 and first & 0x08:
            raise MalformedPacket("MQTT5-3.3.1-2", "DUP at QoS 0")
        at = start + 2 + int.from_bytes(packet[start : start + 2], "big")
        topic = decode_text(packet[start + 2 : at])
        packet_id = 0
        if qos:
            packet_id = int.from_bytes(packet[at : at + 2], "big")
            at += 2
        if at >= len(packet):
            raise MalformedPacket("MQTT5 section 2.1.4", "the packet ends inside a field")
        if qos and not packet_id:
            raise MalformedPacket("MQTT5-2.2.1-3", "packet identifier 0", Reason.PROTOCOL_ERROR)
        if packet[at]:
            publish = Publish(topic, qos, bool(first & 1), bool(first & 8), packet_id, b"")
            publish = _with_properties(publish, PacketBody5(Frame(first, packet, at)))
        else:
            if not topic:
                raise _nowhere()
            fields = topic, qos, bool(first & 1), bool(first & 8), packet_id, packet[at + 1 :]
            return new_tuple(Publish, fields + UNSAID)
        if not topic and not publish.topic_alias:
            raise _nowhere()
        return publish

    def parse_acknowledgement(self, frame: Frame) -> Acknowledgement:
        """Take a PUBACK, PUBREC, PUBREL or PUBCOMP apart."""
        kind, body = PacketType(frame.first >> 4), PacketBody5(frame)
        packet_id = body.packet_id()
        reason = _checked(kind, body.byte()) if body.left else 0
        properties = body.properties(kind) if body.left else NONE
        _end(body)
        return Acknowledgement(packet_id, reason, cast("str", properties.values.get(0x1F, "")))

    def parse_subscribe(self, frame: Frame, most: int) -> Subscribe:
        """Take a SUBSCRIBE of at most ``most`` filters apart."""
        body = PacketBody5(frame)
        packet_id = body.packet_id()
        values = body.properties(PacketType.SUBSCRIBE).values
        filters: list[SubscriptionRequest] = []
        while body.left:
            if len(filters) == most:
                raise TooManyFilters(most)
            filters.append(_request(body.text(), body.byte()))
        if not filters:
            raise MalformedPacket("MQTT5-3.8.3-2", "a SUBSCRIBE without a filter", Reason.PROTOCOL_ERROR)
        return Subscribe(packet_id, filters, cast("int", values.get(0x0B, 0)))

    def parse_unsubscribe(self, frame: Frame, most: int) -> Unsubscribe:
        """Take an UNSUBSCRIBE of at most ``most`` filters apart."""
        body = PacketBody5(frame)
        packet_id = body.packet_id()
        body.properties(PacketType.UNSUBSCRIBE)
        filters: list[str] = []
        while body.left:
            if len(filters) == most:
                raise TooManyFilters(most)
            filters.append(body.text())
        if not filters:
            raise MalformedPacket("MQTT5-3.10.3-2", "an UNSUBSCRIBE without a filter", Reason.PROTOCOL_ERROR)
        return Unsubscribe(packet_id, filters)

    def parse_disconnect(self, frame: Frame) -> Disconnect:
        """Take a DISCONNECT apart."""
        body = PacketBody5(frame)
        reason = _checked(PacketType.DISCONNECT, body.byte()) if body.left else 0
        properties = body.properties(PacketType.DISCONNECT) if body.left else NONE
        _end(body)
        if 0x1C in properties.values:
            text = "a client's DISCONNECT with a server reference"
            raise MalformedPacket("MQTT5 section 3.14.2.2.5", text, Reason.PROTOCOL_ERROR)
        return Disconnect(reason, cast("int | None", properties.values.get(0x11)))

    def encode_connack(
        self,
        reason: int,
        *,
        session_present: bool = False,
        reason_string: str = "",
        properties: ConnackProperties | None = None,
    ) -> bytes:
        """Put a CONNACK together. A refusal never has a session [MQTT5-3.2.2-6]."""
        said = zip(_CONNACK_IDS, properties or (), strict=properties is not None)
        encoded = encode_properties((*said, (0x1F, reason_string)))
        return _packet(0x20, bytes((session_present and not reason, reason)) + encoded)

    @staticmethod
    def encode_publish(
        topic: bytes,
        payload: bytes,
        *,
        qos: int = 0,
        packet_id: int = 0,
        dup: bool = False,
        retain: bool = False,
        properties: bytes = b"",
        message_expiry: int | None = None,
        subscription_ids: Sequence[int] = (),
        topic_alias: int = 0,
    ) -> bytes:
        """Put a PUBLISH together. ``packet_id`` is written from QoS 1 on.

        >>> CODEC_5.encode_publish(b"a", b"x", qos=1, packet_id=7, message_expiry=30).hex(" ")
        '32 0c 00 01 61 00 07 05 02 00 00 00 1e 78'
        """
        first = 0x30 | qos << 1 | (8 if dup else 0) | (1 if retain else 0)
        identifier = packet_id.to_bytes(2, "big") if qos else b""
        if properties or message_expiry is not None or subscription_ids or topic_alias:
            properties = _publish_properties(properties, message_expiry, subscription_ids, topic_alias)
        else:
            properties = b"\0"
        length = 2 + len(topic) + len(identifier) + len(properties) + len(payload)
        return b"%c%b%b%b%b%b%b" % (
            first,
            encode_length(length) if length >= 0x80 else ONE_BYTE_LENGTHS[length],
            len(topic).to_bytes(2, "big"),
            topic,
            identifier,
            properties,
            payload,
        )

    def encode_puback(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:
        """Put a PUBACK together."""
        return _acknowledgement(0x40, packet_id, reason, reason_string)

    def encode_pubrec(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:
        """Put a PUBREC together."""
        return _acknowledgement(0x50, packet_id, reason, reason_string)

    def encode_pubrel(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:
        """Put a PUBREL together."""
        return _acknowledgement(0x62, packet_id, reason, reason_string)

    def encode_pubcomp(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:
        """Put a PUBCOMP together."""
        return _acknowledgement(0x70, packet_id, reason, reason_string)

    def encode_suback(self, packet_id: int, codes: list[int]) -> bytes:
        """Put a SUBACK together; ``codes`` are reason codes, in the order of the filters."""
        return _packet(0x90, packet_id.to_bytes(2, "big") + b"\0" + bytes(codes))

    def encode_unsuback(self, packet_id: int, codes: list[int]) -> bytes:
        """Put an UNSUBACK together; ``codes`` are reason codes, in the order of the filters."""
        return _packet(0xB0, packet_id.to_bytes(2, "big") + b"\0" + bytes(codes))

    def encode_disconnect(self, reason: int, reason_string: str = "", server_reference: str = "") -> bytes:
        """Put a server's DISCONNECT together."""
        properties = encode_properties(((0x1F, reason_string), (0x1C, server_reference)))
        return _packet(0xE0, bytes((reason,)) + properties)


CODEC_5: Final[Codec] = Codec5()
