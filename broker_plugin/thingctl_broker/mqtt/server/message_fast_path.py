"""A shortcut for most of what ordinary clients of MQTT 3.1.1 send: messages to known topics, and PUBACKs.

As ``fast_path`` does for commands: what is wholly there and exactly what is looked for goes to the engine
without a frame and a publish being made of it, and anything else is left for the way that every packet can
take (``connection``). A property test holds that both come to the same.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.engine.message import Message
from thingctl_broker.mqtt.engine.session import LAST_PACKET_ID
from thingctl_broker.mqtt.protocol.packets import PacketType

if TYPE_CHECKING:
    from thingctl_broker.mqtt.engine.session import Session
    from thingctl_broker.mqtt.server.client import ServerConnection

_PUBACK: Final = PacketType.PUBACK << 4
_PUBLISH: Final = PacketType.PUBLISH << 4
_QOS_1: Final = 1 << 1
_PUBLISH_QOS_1: Final = _PUBLISH | _QOS_1
_ACKNOWLEDGED: Final = b"\x40\x02"
_LEAST: Final = 4
"""Bytes of a PUBACK; a PUBLISH with fewer has no topic."""


class MessageFastPath:
    """The shortcut of one connection. ``topics``: those that its client may publish, by their bytes."""

    __slots__ = ("_connection", "_limit", "_session", "_topics")

    def __init__(self, connection: ServerConnection, session: Session, topics: dict[bytes, str]) -> None:
        self._connection = connection
        self._session = session
        self._topics = topics
        self._limit = connection.limits.packet_bytes

    def take(self, data: bytes, at: int) -> int:
        """Handle the packets that begin at ``at``, as long as they are such; return where they end.

        The connection may have ended when this returns.
        """
        end, connection, session = len(data), self._connection, self._session
        now = connection.server.time()
        packets = 0
        while end - at >= _LEAST:
            first = data[at]
            if first | _QOS_1 == _PUBLISH_QOS_1:  # or QoS 0
                stop = self._publish(data, at, end, now)
                if not stop:
                    break
                at = stop
                packets += 1
                if connection.is_closed():
                    break
            elif first == _PUBACK and data[at + 1] == 2:
                packet_id = data[at + 2] << 8 | data[at + 3]
                if packet_id > LAST_PACKET_ID or not session.on_puback(packet_id, now):
                    break
                at += 4
                packets += 1
            else:
                break
        connection.server.packets_received += packets
        return at

    def _publish(self, data: bytes, at: int, end: int, now: float) -> int:
        """Publish the message at ``at``; return where it ends. 0: it is left, and nothing has happened."""
        length, body = data[at + 1], at + 2
        if length >= 0x80:
            more = data[body]
            if not 0 < more < 0x80:
                return 0
            length, body = length & 0x7F | more << 7, at + 3
        stop = body + length
        if stop > end or stop - at > self._limit or length < 2:
            return 0
        behind = body + 2 + (data[body] << 8 | data[body + 1])
        topic = self._topics.get(data[body + 2 : behind])
        if topic is None:
            return 0
        server = self._connection.server
        if data[at] == _PUBLISH:
            if behind > stop:
                return 0
            message = Message(topic, data[behind:stop], 0, False, self._session.client_id)
            message.packet = data[at:stop]
            server.engine.publish(message, now)
        else:
            if behind + 2 > stop:
                return 0
            packet_id = data[behind : behind + 2]
            if packet_id == b"\0\0":
                return 0
            message = Message(topic, data[behind + 2 : stop], 1, False, self._session.client_id)
            message.header = data[at + 1 : behind]
            self._publish_surely(message, _ACKNOWLEDGED + packet_id, now)
        if server.events or server.engine.totals.slow:
            server.published(self._connection, message)
        return stop

    def _publish_surely(self, message: Message, puback: bytes, now: float) -> None:
        engine = self._connection.server.engine
        changes = engine.recorder.changes
        engine.publish(message, now)
        if engine.recorder.changes == changes:
            self._session.write(puback)
        else:
            engine.recorder.then(partial(self._connection.send, puback))
