"""What a client publishes: a thing's responses and announcements end here, the rest is the engine's."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.engine.message import published
from thingctl_broker.mqtt.protocol.frames import MalformedPacket
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_protocol.topics import DEVICE_KINDS, Kind, is_topic

if TYPE_CHECKING:
    from thingctl_broker.mqtt.auth.authenticator import Identity
    from thingctl_broker.mqtt.engine.message import Message
    from thingctl_broker.mqtt.engine.session import Session
    from thingctl_broker.mqtt.protocol.frames import Frame
    from thingctl_broker.mqtt.protocol.packets import Publish
    from thingctl_broker.mqtt.server.client import ServerConnection

_CHECKED_TOPICS: Final = 100
"""Topics of one client that are known to be allowed; when there are more, all are checked again."""

_NOBODY: Final = Reason.NO_MATCHING_SUBSCRIBERS


class Receiver:
    """The PUBLISH packets of one connection, whose client has been let in."""

    __slots__ = (
        "_acl",
        "_aliases",
        "_codec",
        "_connection",
        "_qos2",
        "_server",
        "_session",
        "_thing",
        "_unanswered",
        "known_topics",
    )

    def __init__(self, connection: ServerConnection, session: Session, admission: Identity) -> None:
        self._connection = connection
        self._server = connection.server
        self._codec = connection.codec
        self._session = session
        self._acl = admission.acl
        self._thing = admission.thing
        self.known_topics: dict[bytes, str] = {}
        """Ordinary topics that the client may publish, by their bytes."""
        self._aliases: dict[int, str] = {}
        # Packet identifiers. An empty set takes four times the memory of an empty dict.
        self._qos2: dict[int, None] = {}  # on the command path, not released yet
        self._unanswered: dict[int, None] = {}  # of QoS 1, not acknowledged yet

    @property
    def qos2_held(self) -> int:
        """QoS 2 messages that the client has not released."""
        return len(self._qos2) + len(self._session.received)

    def publish(self, frame: Frame) -> None:
        """Take a PUBLISH [section 3.3]."""
        publish = self._codec.parse_publish(frame)
        if self._codec.version == 5:
            publish = self._with_topic(publish)
            self._count(publish)
        topic = publish.topic
        if topic.encode() in self.known_topics:
            self._on_message(publish)
        elif self._server.topics.owns(topic):
            self._on_command(publish)
        elif topic.startswith("$"):
            self._refuse(publish, "a client may not publish under $")
        elif not is_topic(topic):
            raise MalformedPacket("MQTT-3.3.2-2", f"topic {topic[:80]!a}", Reason.TOPIC_NAME_INVALID)
        elif self._acl is not None and not self._acl.may_publish(topic):
            self._refuse(publish, "no rule lets this client publish it")
        else:
            if len(self.known_topics) >= _CHECKED_TOPICS:
                self.known_topics.clear()
            self.known_topics[topic.encode()] = topic
            self._on_message(publish)

    def release(self, frame: Frame) -> None:
        """Take a PUBREL [section 3.6]."""
        packet_id = self._codec.parse_acknowledgement(frame).packet_id
        if packet_id in self._qos2:
            del self._qos2[packet_id]
            self._connection.write(self._codec.encode_pubcomp(packet_id))
            return
        # What is not known is complete [MQTT-4.3.3-2].
        is_known = packet_id in self._session.received
        reason = Reason.SUCCESS if is_known else Reason.PACKET_IDENTIFIER_NOT_FOUND
        packet = self._codec.encode_pubcomp(packet_id, reason)
        self._server.engine.complete_exactly_once(
            self._session, packet_id, partial(self._connection.send, packet)
        )

    # Ordinary messages.

    def _on_message(self, publish: Publish) -> None:
        engine, now = self._server.engine, self._server.time()
        message = published(publish, self._session.client_id, now)
        if publish.qos == 0:
            engine.publish(message, now)
        elif publish.qos == 1:
            engine.receive(message, partial(self._acknowledge_published, 1, publish.packet_id), now)
        elif not self._take_exactly_once(publish):
            return
        else:
            receivers = engine.publish(message, now)
            engine.recorder.then(partial(self._acknowledge_published, 2, publish.packet_id, receivers))
        self._server.published(self._connection, message)

    def take_surely(self, message: Message, packet_id: int, now: float) -> bool:
        """Publish a QoS 1 message of MQTT 5; False: nothing has happened, for the client holds too many."""
        unanswered = self._unanswered
        if packet_id in unanswered or len(unanswered) + self.qos2_held >= self._connection.limits.qos2_held:
            return False
        unanswered[packet_id] = None
        self._server.engine.receive(message, partial(self._acknowledge_published, 1, packet_id), now)
        return True

    def _take_exactly_once(self, publish: Publish) -> bool:
        """Whether a QoS 2 message is to be published; otherwise it has been, or its client is dropped."""
        engine, packet_id = self._server.engine, publish.packet_id
        if packet_id in self._session.received:  # sent again [MQTT-4.3.3-2]
            engine.recorder.then(partial(self._acknowledge, 2, packet_id))
            return False
        return self._may_hold_another() and engine.begin_exactly_once(self._session, packet_id)

    # Commands.

    def _on_command(self, publish: Publish) -> None:
        server = self._server
        topic = server.topics.parse(publish.topic)
        if topic is None or topic.kind not in DEVICE_KINDS or topic.thing != self._thing:
            self._refuse(publish, "not a topic that this client may publish")
            return
        kept = partial(self._acknowledge_now, publish.qos, publish.packet_id)
        if publish.qos == 2:
            if publish.packet_id in self._qos2:  # sent again: it was handled [MQTT-4.3.3-2], if not kept yet
                server.service.journal.then(kept)
                return
            if not self._may_hold_another():
                return
            self._qos2[publish.packet_id] = None
        if server.observers.watching:
            server.observers.tell(publish.topic, publish.payload)
        if topic.kind is Kind.RESPONSE:
            assert topic.execution_id is not None
            server.service.respond(self._thing, topic.execution_id, publish.payload, kept)
        else:
            if topic.kind is Kind.ACTIONS:  # its presence is seen here, and need not be said
                server.service.announce(self._thing, publish.payload)
            kept()

    # Answers.

    def _refuse(self, publish: Publish, text: str) -> None:
        # MQTT 3.1.1 cannot refuse a PUBLISH: it is acknowledged and dropped [section 3.3.5].
        self._server.service.dropped(
            self._thing or self._connection.client_id, "forbiddenTopic", f"{text}: {publish.topic[:200]!a}"
        )
        # At QoS 2 its PUBREL is answered like any that is not known.
        self._acknowledge_now(publish.qos, publish.packet_id, Reason.NOT_AUTHORIZED, text)

    def _may_hold_another(self) -> bool:
        """Whether the client may begin another QoS 2 exchange; if not, it is dropped."""
        if self.qos2_held < self._connection.limits.qos2_held:
            return True
        self._connection.offended("qos2Held", "releases nothing: dropped")
        self._connection.drop(Reason.RECEIVE_MAXIMUM_EXCEEDED)
        return False

    def _acknowledge_published(self, qos: int, packet_id: int, receivers: int) -> None:
        self._acknowledge(qos, packet_id, 0 if receivers else _NOBODY)

    def _acknowledge(self, qos: int, packet_id: int, reason: int = 0) -> None:
        if qos == 1:
            self._unanswered.pop(packet_id, None)
            self._connection.send(self._codec.encode_puback(packet_id, reason))
        elif qos == 2:
            self._connection.send(self._codec.encode_pubrec(packet_id, reason))

    def _acknowledge_now(self, qos: int, packet_id: int, reason: int = 0, text: str = "") -> None:
        """Acknowledge what came on the command path: ahead of ordinary messages, as all of it."""
        if not qos:
            return
        if qos == 1:
            self._unanswered.pop(packet_id, None)
        encode = self._codec.encode_puback if qos == 1 else self._codec.encode_pubrec
        if text:
            self._connection.answer(self._connection.in_words(partial(encode, packet_id, reason), text))
        else:  # most of the time
            self._connection.answer(encode(packet_id, reason))

    # MQTT 5.

    def _with_topic(self, publish: Publish) -> Publish:
        """A PUBLISH with the topic that its alias stands for [MQTT5 section 3.3.2.3.4]."""
        alias = publish.topic_alias
        if not alias:
            return publish
        if alias > self._connection.limits.topic_aliases:
            raise MalformedPacket("MQTT5-3.3.2-9", f"topic alias {alias}", Reason.TOPIC_ALIAS_INVALID)
        if publish.topic:
            self._aliases[alias] = publish.topic
            return publish
        topic = self._aliases.get(alias)
        if topic is None:
            raise MalformedPacket(
                "MQTT5 section 3.3.4", f"topic alias {alias} stands for no topic", Reason.PROTOCOL_ERROR
            )
        return publish._replace(topic=topic)

    def _count(self, publish: Publish) -> None:
        """Hold the client to the Receive Maximum [MQTT5-3.3.4-7]."""
        if publish.qos == 1:
            self._unanswered[publish.packet_id] = None
        if len(self._unanswered) + self.qos2_held > self._connection.limits.qos2_held:
            raise MalformedPacket(
                "MQTT5-3.3.4-7", "more messages than the Receive Maximum", Reason.RECEIVE_MAXIMUM_EXCEEDED
            )
