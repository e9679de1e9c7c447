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
    """A session. ``away_since``: Unix seconds. Filters with their options; commands with their QoS."""

    number: int
    owner: str | None
    thing: str | None
    expiry: int
    away_since: float
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
    """A delivery. ``message``: the number of its message."""

    message: int
    qos: int
    retain: bool
    subscription_ids: tuple[int, ...]
    packet_id: int
    released: bool


_encode: Final = msgspec.msgpack.Encoder().encode
_session: Final = msgspec.msgpack.Decoder(SessionRecord)
_message: Final = msgspec.msgpack.Decoder(MessageRecord)
_delivery: Final = msgspec.msgpack.Decoder(DeliveryRecord)


def encode_session(session: Session, now: float, wall: float) -> bytes:
    """``now``: monotonic seconds. ``wall``: Unix seconds at monotonic 0."""
    since = now if session.is_connected else session.away_since
    return _encode(
        SessionRecord(
            session.number,
            session.owner,
            session.thing,
            session.expiry,
            since + wall,
            {name: tuple(options) for name, options in session.subscriptions.items()},  # type: ignore[misc]
            session.commands.by_filter(),
        )
    )


def decode_session(record: bytes) -> SessionRecord:
    """Raises :class:`msgspec.DecodeError`."""
    return _session.decode(record)


def encode_message(message: Message, wall: float) -> bytes:
    """``wall``: Unix seconds at monotonic 0."""
    expires_at = None if message.expires_at is None else message.expires_at + wall
    return _encode(
        MessageRecord(
            message.topic,
            message.payload,
            message.qos,
            message.publisher,
            message.properties,
            expires_at,
            message.response_topic,
        )
    )


def decode_message(record: bytes, wall: float, *, retain: bool = False) -> Message:
    """Raises :class:`msgspec.DecodeError`."""
    found = _message.decode(record)
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


def encode_delivery(delivery: MessageDelivery) -> bytes:
    """A delivery, without its message."""
    return _encode(
        DeliveryRecord(
            delivery.message.number,
            delivery.qos,
            delivery.retain,
            delivery.subscription_ids,
            delivery.packet_id,
            delivery.released,
        )
    )


def decode_delivery(record: bytes) -> DeliveryRecord:
    """Raises :class:`msgspec.DecodeError`."""
    return _delivery.decode(record)
