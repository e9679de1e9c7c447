"""Which records the store gets as sessions, deliveries and retained messages change. Pure.

A message that several sessions get is one record, which goes with the last of their deliveries. A message
of one session is part of its delivery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.engine import records, sys_topics
from thingctl_broker.mqtt.engine.store import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.mqtt.engine.delivery import MessageDelivery
    from thingctl_broker.mqtt.engine.message import Message
    from thingctl_broker.mqtt.engine.session import Session
    from thingctl_broker.mqtt.engine.store import RecordStore

KEY_BYTES: Final = 8
"""Of a number in a key: big endian, which sorts as it counts."""


class StoreRecorder:
    """Writes to a :class:`~thingctl_broker.mqtt.engine.store.RecordStore`.

    ``wall``: Unix seconds at monotonic 0, for times that must mean something after a restart.
    ``changes`` counts what was handed to the store.
    """

    __slots__ = ("_number", "_store", "changes", "wall")

    def __init__(self, store: RecordStore, wall: float = 0.0) -> None:
        self._store = store
        self._number = 0
        self.wall = wall
        self.changes = 0

    def begin_after(self, number: int) -> None:
        """Give numbers above this one: those up to it are taken."""
        self._number = max(self._number, number)

    def next_number(self) -> int:
        """A number that no record has yet."""
        self._number += 1
        return self._number

    def then(self, kept: Callable[[], None]) -> None:
        """Call ``kept`` when everything so far is on the disk."""
        self._store.then(kept)

    # Sessions.

    def session(self, session: Session) -> None:
        """A session has begun, or something of it has changed."""
        if not session.number:
            session.number = self.next_number()
        self._put(RecordKind.SESSION, session.client_id.encode(), records.encode_session(session, self.wall))

    def ended(self, session: Session) -> None:
        """A session is no more."""
        self._delete(RecordKind.SESSION, session.client_id.encode())

    def received(self, session: int, packet_id: int) -> None:
        """A QoS 2 message has come from the client."""
        self._add(RecordKind.RECEIVED, _key(session) + packet_id.to_bytes(2), b"")

    def released(self, session: int, packet_id: int) -> None:
        """A QoS 2 message from the client is complete."""
        self._delete(RecordKind.RECEIVED, _key(session) + packet_id.to_bytes(2))

    # Deliveries.

    def queued(self, session: int, delivery: MessageDelivery) -> None:
        """A message waits for the session from now on."""
        message = delivery.message
        if message.has_record:
            if not message.number:
                message.number = self.next_number()
            if not message.references:
                self._add(
                    RecordKind.MESSAGE, _key(message.number), records.encode_message(message, self.wall)
                )
            message.references += 1
        # The number first: records are then added at the table's end, wherever their sessions are.
        delivery.key = _key(self.next_number()) + _key(session)
        self._add(RecordKind.DELIVERY, delivery.key, records.encode_delivery(delivery, self.wall))

    def changed(self, delivery: MessageDelivery) -> None:
        """A delivery has got its packet identifier, or is released."""
        if delivery.key:
            self._put(RecordKind.DELIVERY, delivery.key, records.encode_delivery(delivery, self.wall))

    def delivered(self, delivery: MessageDelivery) -> None:
        """A delivery has ended, one way or another."""
        if not delivery.key:
            return
        self._delete(RecordKind.DELIVERY, delivery.key)
        delivery.key = b""
        message = delivery.message
        if not message.has_record:
            return
        message.references -= 1
        if not message.references:
            self._delete(RecordKind.MESSAGE, _key(message.number))

    # Retained messages.

    def retained(self, message: Message) -> None:
        """A message is retained under its topic. The broker's figures are not kept: they come anew."""
        if message.topic.startswith(sys_topics.ROOT):
            return
        self._put(RecordKind.RETAINED, message.topic_bytes, records.encode_message(message, self.wall))

    def cleared(self, topic: str) -> None:
        """Nothing is retained under a topic any more."""
        self._delete(RecordKind.RETAINED, topic.encode())

    def _add(self, kind: RecordKind, key: bytes, value: bytes) -> None:
        self.changes += 1
        self._store.add(kind, key, value)

    def _put(self, kind: RecordKind, key: bytes, value: bytes) -> None:
        self.changes += 1
        self._store.put(kind, key, value)

    def _delete(self, kind: RecordKind, key: bytes) -> None:
        self.changes += 1
        self._store.delete(kind, key)


def _key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES)
