"""A shortcut for most of what ordinary clients send: PUBACKs, and plain messages to known topics.

As ``fast_path`` does for commands: what is wholly there and exactly what is looked for goes to the engine
without a frame and a publish being made of it, and anything else is left for the way that every packet can
take (``connection``). A property test holds that both come to the same.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.engine.message import Message
from thingctl_broker.mqtt.engine.outbox import LAST_PACKET_ID
from thingctl_broker.mqtt.protocol.packets import PacketType

if TYPE_CHECKING:
    from thingctl_broker.mqtt.engine.session import Session
    from thingctl_broker.mqtt.server.client import ServerConnection
    from thingctl_broker.mqtt.server.publish import Receiver

_PUBACK: Final = PacketType.PUBACK << 4
_PUBLISH: Final = PacketType.PUBLISH << 4
_QOS_1: Final = 1 << 1
_PUBLISH_QOS_1: Final = _PUBLISH | _QOS_1
_ACKNOWLEDGED: Final = b"\x40\x02"
_LEAST: Final = 4
"""Bytes of a PUBACK; a PUBLISH with fewer has no topic."""


class MessageFastPath:
    """The shortcut of one connection of MQTT 3.1 or 3.1.1."""

    __slots__ = ("_connection", "_limit", "_now", "_receiver", "_session", "_topics")

    def __init__(self, connection: ServerConnection, session: Session, receiver: Receiver) -> None:
        self._connection = connection
        self._session = session
        self._receiver = receiver
        self._topics = receiver.known_topics
        self._limit = connection.limits.packet_bytes
        self._now = 0.0

    def take(self, data: bytes, at: int) -> int:
        """Handle the packets that begin at ``at``, as long as they are such; return where they end.

        The connection may have ended when this returns.
        """
        end, connection, session = len(data), self._connection, self._session
        now = self._now = connection.server.time()
        packets = 0
        while end - at >= _LEAST:
            first = data[at]
            if first | _QOS_1 == _PUBLISH_QOS_1:  # or QoS 0
                stop = self._publish(data, at, end)
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

    def _publish(self, data: bytes, at: int, end: int) -> int:
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
        if data[at] == _PUBLISH:
            message = self._take(topic, data, at, behind, stop)
        else:
            message = self._take_surely(topic, data, at, behind, stop)
        if message is None:
            return 0
        server = self._connection.server
        if server.events or server.engine.totals.slow:
            server.published(self._connection, message)
        return stop

    def _take(self, topic: str, data: bytes, at: int, behind: int, stop: int) -> Message | None:
        """Publish at QoS 0 what is ``behind`` the topic; None: nothing has happened."""
        if behind > stop:
            return None
        message = Message(topic, data[behind:stop], 0, False, self._session.client_id)
        message.packet = data[at:stop]
        self._connection.server.engine.publish(message, self._now)
        return message

    def _take_surely(self, topic: str, data: bytes, at: int, behind: int, stop: int) -> Message | None:
        """Publish at QoS 1 what is ``behind`` the topic; None: nothing has happened."""
        packet_id = data[behind : behind + 2]
        if behind + 2 > stop or packet_id == b"\0\0":
            return None
        message = Message(topic, data[behind + 2 : stop], 1, False, self._session.client_id)
        message.header = data[at + 1 : behind]
        engine, puback = self._connection.server.engine, _ACKNOWLEDGED + packet_id
        changes = engine.recorder.changes  # as Engine.receive, without a call for the acknowledgement
        engine.publish(message, self._now)
        if engine.recorder.changes == changes:
            self._session.write(puback)
        else:
            engine.recorder.then(partial(self._connection.send, puback))
        return message


class MessageFastPath5(MessageFastPath):
    """The shortcut of one connection of MQTT 5: for messages without properties."""

    __slots__ = ()

    def _take(self, topic: str, data: bytes, at: int, behind: int, stop: int) -> Message | None:
        if behind >= stop or data[behind]:
            return None
        message = Message(topic, data[behind + 1 : stop], 0, False, self._session.client_id)
        message.packet5 = data[at:stop]
        self._connection.server.engine.publish(message, self._now)
        return message

    def _take_surely(self, topic: str, data: bytes, at: int, behind: int, stop: int) -> Message | None:
        if behind + 2 >= stop or data[behind + 2]:
            return None
        packet_id = data[behind] << 8 | data[behind + 1]
        message = Message(topic, data[behind + 3 : stop], 1, False, self._session.client_id)
        message.header5 = data[at + 1 : behind]
        return message if packet_id and self._receiver.take_surely(message, packet_id, self._now) else None
