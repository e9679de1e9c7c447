"""Sessions, deliveries and messages as records of the store, and back. Pure.

Times are Unix seconds in a record: monotonic ones mean nothing after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_broker.mqtt.engine.message import Message

if TYPE_CHECKING:
    from thingctl_broker.mqtt.engine.delivery import MessageDelivery
    from thingctl_broker.mqtt.engine.session import Session


class SessionRecord(msgspec.Struct, array_like=True, frozen=True):
    """A session: its filters with their options, and those of commands with their QoS.

    ``away_since``: Unix seconds, None while its client is connected.
    """

    number: int
    owner: str | None
    thing: str | None
    expiry: int
    away_since: float | None
    subscriptions: dict[str, tuple[int, bool, bool, int, int]]
    commands: dict[str, int]


class MessageRecord(msgspec.Struct, array_like=True, frozen=True):
    """A message. ``expires_at``: Unix seconds."""

    topic: str
    payload: bytes
    qos: int
    publisher: str
    properties: bytes
    expires_at: float | None
    response_topic: str


class DeliveryRecord(msgspec.Struct, array_like=True, frozen=True):
    """A delivery. ``message``: the number of its message; ``own``: the message, which is no one else's."""

    message: int
    qos: int
    retain: bool
    subscription_ids: tuple[int, ...]
    packet_id: int
    released: bool
    own: MessageRecord | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
_session: Final = msgspec.msgpack.Decoder(SessionRecord)
_message: Final = msgspec.msgpack.Decoder(MessageRecord)
_delivery: Final = msgspec.msgpack.Decoder(DeliveryRecord)


def encode_session(session: Session, wall: float) -> bytes:
    """``wall``: Unix seconds at monotonic 0."""
    return _encode(
        SessionRecord(
            session.number,
            session.owner,
            session.thing,
            session.expiry,
            None if session.is_connected else session.away_since + wall,
            {name: tuple(options) for name, options in session.subscriptions.items()},  # type: ignore[misc]
            session.commands.by_filter(),
        )
    )


def decode_session(record: bytes) -> SessionRecord:
    """Raises :class:`msgspec.DecodeError`."""
    return _session.decode(record)


def encode_message(message: Message, wall: float) -> bytes:
    """``wall``: Unix seconds at monotonic 0."""
    return _encode(_record_of(message, wall))


def _record_of(message: Message, wall: float) -> MessageRecord:
    return MessageRecord(
        message.topic,
        message.payload,
        message.qos,
        message.publisher,
        message.properties,
        None if message.expires_at is None else message.expires_at + wall,
        message.response_topic,
    )


def decode_message(record: bytes, wall: float, *, retain: bool = False) -> Message:
    """Raises :class:`msgspec.DecodeError`."""
    return message_of(_message.decode(record), wall, retain=retain)


def message_of(found: MessageRecord, wall: float, *, retain: bool = False) -> Message:
    """The message that a record holds."""
    expires_at = None if found.expires_at is None else found.expires_at - wall
    return Message(
        found.topic,
        found.payload,
        found.qos,
        retain,
        found.publisher,
        found.properties,
        expires_at,
        found.response_topic,
    )


def encode_delivery(delivery: MessageDelivery, wall: float) -> bytes:
    """A delivery, with its message unless others get it, too. ``wall``: Unix seconds at monotonic 0."""
    message = delivery.message
    return _encode(
        DeliveryRecord(
            message.number,
            delivery.qos,
            delivery.retain,
            delivery.subscription_ids,
            delivery.packet_id,
            delivery.released,
            None if message.has_record else _record_of(message, wall),
        )
    )


def decode_delivery(record: bytes) -> DeliveryRecord:
    """Raises :class:`msgspec.DecodeError`."""
    return _delivery.decode(record)
