"""How messages become packets for one client: by its version, and by what its CONNECT said. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.codec5 import CODEC_5

if TYPE_CHECKING:
    from thingctl_broker.mqtt.engine.delivery import MessageDelivery
    from thingctl_broker.mqtt.engine.message import Message
    from thingctl_broker.mqtt.protocol.codec import Codec
    from thingctl_broker.mqtt.protocol.packets import Connect


class Encoder(Protocol):
    """Encodes PUBLISH packets for one connection."""

    codec: Codec

    def unacknowledged(self, message: Message, now: float, *, retain: bool, ids: tuple[int, ...]) -> bytes:
        """A PUBLISH at QoS 0; empty: it is longer than the client takes, or has expired."""
        ...

    def acknowledged(self, delivery: MessageDelivery, now: float) -> bytes:
        """A PUBLISH at QoS 1 or 2; empty: it is longer than the client takes. DUP if it was sent before."""
        ...


class PlainEncoder:
    """For MQTT 3.1 and 3.1.1."""

    __slots__ = ()

    codec: Codec = CODEC_3

    def unacknowledged(
        self,
        message: Message,
        now: float,  # noqa: ARG002 there is no expiry in these versions, beyond the queue's
        *,
        retain: bool,
        ids: tuple[int, ...],  # noqa: ARG002 nor identifiers
    ) -> bytes:
        """A PUBLISH at QoS 0."""
        if retain:
            return CODEC_3.encode_publish(message.topic_bytes, message.payload, retain=True)
        return message.plain()

    def acknowledged(self, delivery: MessageDelivery, now: float) -> bytes:  # noqa: ARG002 as above
        """A PUBLISH at QoS 1 or 2."""
        message = delivery.message
        first = 0x30 | delivery.qos << 1 | delivery.is_sent << 3 | delivery.retain
        return b"%c%b%b%b" % (first, message.head(), delivery.packet_id.to_bytes(2), message.payload)


class PropertyEncoder:
    """For MQTT 5: with properties, topic aliases, and within the client's maximum packet size."""

    __slots__ = ("_aliases", "_most_aliases", "_most_bytes")

    codec: Codec = CODEC_5

    def __init__(self, *, topic_aliases: int = 0, packet_bytes: int | None = None) -> None:
        """``topic_aliases``: how many the client takes; ``packet_bytes``: its maximum packet size."""
        self._most_aliases = topic_aliases
        self._most_bytes = packet_bytes
        self._aliases: dict[str, int] = {}

    def unacknowledged(self, message: Message, now: float, *, retain: bool, ids: tuple[int, ...]) -> bytes:
        """A PUBLISH at QoS 0."""
        if not retain and not ids and self._is_plain(message):
            return self._within(message.plain5())
        left = message.seconds_left(now)
        if left is not None and left <= 0:
            return b""
        return self._encode(message, left, retain=retain, subscription_ids=ids)

    def acknowledged(self, delivery: MessageDelivery, now: float) -> bytes:
        """A PUBLISH at QoS 1 or 2."""
        message = delivery.message
        if not delivery.subscription_ids and self._is_plain(message):
            first = 0x30 | delivery.qos << 1 | delivery.is_sent << 3 | delivery.retain
            return self._within(
                b"%c%b%b\0%b" % (first, message.head5(), delivery.packet_id.to_bytes(2), message.payload)
            )
        left = message.seconds_left(now)
        return self._encode(
            message,
            None if left is None else max(left, 0),
            qos=delivery.qos,
            packet_id=delivery.packet_id,
            dup=delivery.is_sent,
            retain=delivery.retain,
            subscription_ids=delivery.subscription_ids,
        )

    def _is_plain(self, message: Message) -> bool:
        """Whether a message needs no properties."""
        return not message.properties and message.expires_at is None and not self._most_aliases

    def _within(self, packet: bytes) -> bytes:
        return packet if self._most_bytes is None or len(packet) <= self._most_bytes else b""

    def _encode(
        self,
        message: Message,
        left: int | None,
        *,
        qos: int = 0,
        packet_id: int = 0,
        dup: bool = False,
        retain: bool = False,
        subscription_ids: tuple[int, ...] = (),
    ) -> bytes:
        topic, alias, is_new = message.topic_bytes, 0, False
        if self._most_aliases:
            alias, is_new = self._alias(message.topic)
            if alias and not is_new:
                topic = b""
        packet = CODEC_5.encode_publish(
            topic,
            message.payload,
            qos=qos,
            packet_id=packet_id,
            dup=dup,
            retain=retain,
            properties=message.properties,
            message_expiry=left,
            subscription_ids=subscription_ids,
            topic_alias=alias,
        )
        if self._most_bytes is not None and len(packet) > self._most_bytes:
            if is_new:  # the client never hears of it
                del self._aliases[message.topic]
            return b""
        return packet

    def _alias(self, topic: str) -> tuple[int, bool]:
        """The alias of a topic, 0 for none, and whether it is new. Those who come first have them."""
        alias = self._aliases.get(topic)
        if alias is not None:
            return alias, False
        if len(self._aliases) >= self._most_aliases:
            return 0, False
        self._aliases[topic] = alias = len(self._aliases) + 1
        return alias, True


_PLAIN = PlainEncoder()


def encoder_for(connect: Connect) -> Encoder:
    """What encodes messages for the client of a CONNECT."""
    if connect.version < 5:
        return _PLAIN
    return PropertyEncoder(
        topic_aliases=min(connect.topic_alias_maximum, TOPIC_ALIASES),
        packet_bytes=connect.maximum_packet_size,
    )


TOPIC_ALIASES = 16
"""Topic aliases that one client gets at most, whatever it takes."""
