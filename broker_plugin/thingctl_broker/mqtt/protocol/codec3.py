"""MQTT 3.1 and 3.1.1 as a codec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.fields import ONE_BYTE_LENGTHS, encode_length
from thingctl_broker.mqtt.protocol.packets import (
    Acknowledgement,
    ConnackCode,
    Disconnect,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
)
from thingctl_broker.mqtt.protocol.reason_codes import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingctl_broker.mqtt.protocol.codec import Codec, ConnackProperties
    from thingctl_broker.mqtt.protocol.frames import Frame

_RETURN_CODES: Final = {
    Reason.SUCCESS: ConnackCode.ACCEPTED,
    Reason.UNSUPPORTED_PROTOCOL_VERSION: ConnackCode.UNACCEPTABLE_PROTOCOL_VERSION,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: ConnackCode.IDENTIFIER_REJECTED,
    Reason.BAD_USER_NAME_OR_PASSWORD: ConnackCode.BAD_USER_NAME_OR_PASSWORD,
    Reason.NOT_AUTHORIZED: ConnackCode.NOT_AUTHORIZED,
    Reason.BANNED: ConnackCode.NOT_AUTHORIZED,
    Reason.BAD_AUTHENTICATION_METHOD: ConnackCode.NOT_AUTHORIZED,
}
"""The return code of each reason; of all others it is 3, server unavailable."""


class Codec3:
    """The packets of MQTT 3.1 and 3.1.1: what is not in them is ignored."""

    __slots__ = ()
    version: Final = 4
    check_shape = staticmethod(packets.check_shape)
    parse_publish = staticmethod(packets.parse_publish)

    def parse_acknowledgement(self, frame: Frame) -> Acknowledgement:
        """Take a PUBACK, PUBREC, PUBREL or PUBCOMP apart."""
        return Acknowledgement(packets.parse_packet_id(frame))

    def parse_subscribe(self, frame: Frame, most: int) -> Subscribe:
        """Take a SUBSCRIBE of at most ``most`` filters apart."""
        packet_id, wanted = packets.parse_subscribe(frame, most)
        return Subscribe(packet_id, [SubscriptionRequest(topic_filter, qos) for topic_filter, qos in wanted])

    def parse_unsubscribe(self, frame: Frame, most: int) -> Unsubscribe:
        """Take an UNSUBSCRIBE of at most ``most`` filters apart."""
        return Unsubscribe(*packets.parse_unsubscribe(frame, most))

    def parse_disconnect(self, frame: Frame) -> Disconnect:  # noqa: ARG002 - it says nothing more
        """Take a DISCONNECT apart."""
        return Disconnect()

    def encode_connack(
        self,
        reason: int,
        *,
        session_present: bool = False,
        reason_string: str = "",  # noqa: ARG002 - no room
        properties: ConnackProperties | None = None,  # noqa: ARG002 - no room
    ) -> bytes:
        """Put a CONNACK together. A refusal never has a session [MQTT-3.2.2-4]."""
        code = _RETURN_CODES.get(Reason(reason), ConnackCode.SERVER_UNAVAILABLE)
        return bytes([0x20, 2, session_present and not code, code])

    @staticmethod
    def encode_publish(
        topic: bytes,
        payload: bytes,
        *,
        qos: int = 0,
        packet_id: int = 0,
        dup: bool = False,
        retain: bool = False,
        properties: bytes = b"",  # noqa: ARG004 - no room
        message_expiry: int | None = None,  # noqa: ARG004 - no room
        subscription_ids: Sequence[int] = (),  # noqa: ARG004 - no room
        topic_alias: int = 0,  # noqa: ARG004 - no room
    ) -> bytes:
        """Put a PUBLISH together. ``packet_id`` is written from QoS 1 on."""
        first = 0x30 | qos << 1 | (8 if dup else 0) | (1 if retain else 0)
        identifier = packet_id.to_bytes(2, "big") if qos else b""
        length = 2 + len(topic) + len(identifier) + len(payload)
        return b"%c%b%b%b%b%b" % (
            first,
            encode_length(length) if length >= 0x80 else ONE_BYTE_LENGTHS[length],
            len(topic).to_bytes(2, "big"),
            topic,
            identifier,
            payload,
        )

    def encode_puback(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:  # noqa: ARG002
        """Put a PUBACK together."""
        return b"\x40\x02" + packet_id.to_bytes(2, "big")

    def encode_pubrec(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:  # noqa: ARG002
        """Put a PUBREC together."""
        return b"\x50\x02" + packet_id.to_bytes(2, "big")

    def encode_pubrel(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:  # noqa: ARG002
        """Put a PUBREL together."""
        return b"\x62\x02" + packet_id.to_bytes(2, "big")

    def encode_pubcomp(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:  # noqa: ARG002
        """Put a PUBCOMP together."""
        return b"\x70\x02" + packet_id.to_bytes(2, "big")

    def encode_suback(self, packet_id: int, codes: list[int]) -> bytes:
        """Put a SUBACK together. Each refusal is 0x80, the only one there is [MQTT-3.9.3-2]."""
        return packets.encode_suback(packet_id, [min(code, 0x80) for code in codes])

    def encode_unsuback(self, packet_id: int, codes: list[int]) -> bytes:  # noqa: ARG002 - no room
        """Put an UNSUBACK together."""
        return packets.encode_unsuback(packet_id)

    def encode_disconnect(self, reason: int, reason_string: str = "", server_reference: str = "") -> bytes:  # noqa: ARG002
        """Put nothing together: a server says nothing before it closes."""
        return b""


CODEC_3: Final[Codec] = Codec3()
