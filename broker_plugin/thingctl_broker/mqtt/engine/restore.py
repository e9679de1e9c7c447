"""An engine's sessions, queues and retained messages as the store has kept them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_broker.mqtt.engine import records
from thingctl_broker.mqtt.engine.delivery import MessageDelivery
from thingctl_broker.mqtt.engine.recorder import KEY_BYTES
from thingctl_broker.mqtt.engine.store import RecordKind
from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.mqtt.engine.engine import Engine
    from thingctl_broker.mqtt.engine.message import Message
    from thingctl_broker.mqtt.engine.records import SessionRecord
    from thingctl_broker.mqtt.engine.session import Session
    from thingctl_broker.mqtt.engine.store import RecordStore


_NOW: Final = float("inf")
"""Sorts behind every time."""


class DamagedRecord(Exception):
    """A record that cannot be read."""


def restore(
    engine: Engine, store: RecordStore, now: float, subscribe_commands: Callable[[Session, str, int], object]
) -> int:
    """Fill an empty engine from ``store``; return how many sessions there are. All their clients are away.

    ``subscribe_commands`` gets each command filter of a session, and its QoS. Raises
    :class:`DamagedRecord`.
    """
    try:
        sessions = _restore_sessions(engine, store, now, subscribe_commands)
        messages = _restore_messages(engine, store)
        _restore_deliveries(engine, store, sessions, messages)
        for key, _ in store.load(RecordKind.RECEIVED):
            session = sessions.get(_number(key))
            if session is not None:
                session.received[int.from_bytes(key[KEY_BYTES:])] = None
        for _, record in store.load(RecordKind.RETAINED):
            engine.retained.set(records.decode_message(record, engine.recorder.wall, retain=True))
    except (msgspec.MsgspecError, ValueError) as error:
        raise DamagedRecord(str(error)) from error
    for session in sessions.values():
        if session.expiry:
            engine.go_away(session, now)
        else:  # its connection was its last one
            engine.end(session, now)
    return len(sessions)


def _restore_sessions(
    engine: Engine, store: RecordStore, now: float, subscribe_commands: Callable[[Session, str, int], object]
) -> dict[int, Session]:
    sessions = {}
    found = [(key, records.decode_session(record)) for key, record in store.load(RecordKind.SESSION)]
    for key, kept in sorted(found, key=lambda pair: pair[1].away_since or _NOW):
        session = engine.new_session(key.decode(), owner=kept.owner, thing=kept.thing)
        session.number = kept.number
        session.is_recorded = True
        session.expiry = kept.expiry
        session.away_since = _away_since(kept, engine.recorder.wall, now)
        for topic_filter, options in kept.subscriptions.items():
            engine.subscribe(session, topic_filter, SubscriptionOptions(*options))
        for topic_filter, qos in kept.commands.items():
            subscribe_commands(session, topic_filter, qos)
        session.commands.sum_up()
        if kept.away_since is None:
            engine.recorder.session(session)  # or the next start would count from its own time
        sessions[kept.number] = session
        engine.recorder.begin_after(kept.number)
    return sessions


def _restore_messages(engine: Engine, store: RecordStore) -> dict[int, Message]:
    messages = {}
    for key, record in store.load(RecordKind.MESSAGE):
        message = records.decode_message(record, engine.recorder.wall)
        message.number = _number(key)
        message.has_record = True
        messages[message.number] = message
        engine.recorder.begin_after(message.number)
    return messages


def _restore_deliveries(
    engine: Engine, store: RecordStore, sessions: dict[int, Session], messages: dict[int, Message]
) -> None:
    for key, record in store.load(RecordKind.DELIVERY):
        kept = records.decode_delivery(record)
        session, message = sessions.get(int.from_bytes(key[KEY_BYTES:])), messages.get(kept.message)
        if kept.own is not None:
            message = records.message_of(kept.own, engine.recorder.wall)
        engine.recorder.begin_after(_number(key))
        if session is None or message is None:
            store.delete(RecordKind.DELIVERY, key)
            continue
        delivery = MessageDelivery(
            message, kept.qos, retain=kept.retain, subscription_ids=kept.subscription_ids
        )
        delivery.key, delivery.packet_id, delivery.released = key, kept.packet_id, kept.released
        message.references += message.has_record
        session.restore(delivery)
    for message in messages.values():
        if not message.references:
            store.delete(RecordKind.MESSAGE, message.number.to_bytes(KEY_BYTES))


def _number(key: bytes) -> int:
    return int.from_bytes(key[:KEY_BYTES])


def _away_since(kept: SessionRecord, wall: float, now: float) -> float:
    """When the client has gone; one that was connected when the broker ended has gone just now."""
    return now if kept.away_since is None else min(kept.away_since - wall, now)
