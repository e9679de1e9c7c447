"""What a client publishes: a thing's responses and announcements end here, the rest goes to amqtt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.frames import MalformedPacket
from thingctl_protocol.topics import DEVICE_KINDS, Kind, is_topic

if TYPE_CHECKING:
    from thingctl_broker.mqtt.auth.authenticator import Identity
    from thingctl_broker.mqtt.protocol.frames import Frame
    from thingctl_broker.mqtt.protocol.packets import Publish
    from thingctl_broker.mqtt.server.client import ServerConnection


class Receiver:
    """The PUBLISH packets of one connection, whose client has been let in."""

    __slots__ = ("_acl", "_connection", "_front", "_qos2", "_thing")

    def __init__(self, connection: ServerConnection, admission: Identity) -> None:
        self._connection = connection
        self._front = connection.front
        self._acl = admission.acl
        self._thing = admission.thing
        self._qos2: set[int] = set()  # handled here, not released yet

    @property
    def qos2_held(self) -> int:
        """QoS 2 messages that the client has not released."""
        behind = self._connection.behind
        return len(self._qos2) + (behind.qos2_held if behind is not None else 0)

    def publish(self, frame: Frame) -> None:
        """Take a PUBLISH [section 3.3]."""
        publish = packets.parse_publish(frame)
        topic = publish.topic
        if self._front.topics.owns(topic):
            self._on_command(publish)
        elif topic.startswith("$"):
            self._refuse(publish, "a client may not publish under $")
        elif not is_topic(topic):
            raise MalformedPacket("MQTT-3.3.2-2", f"topic {topic[:80]!a}")
        elif self._acl is not None and not self._acl.may_publish(topic):
            self._refuse(publish, "no rule lets this client publish it")
        elif publish.retain and not self._front.may_retain(topic, publish.payload):
            self._refuse(publish, "no room to retain it")
        elif publish.qos < 2:
            self._connection.amqtt().feed(frame.packet)
        elif self._may_hold_another():
            self._connection.amqtt().feed_qos2(frame.packet, publish.packet_id)

    def release(self, frame: Frame) -> None:
        """Take a PUBREL [section 3.6]."""
        packet_id = packets.parse_packet_id(frame)
        behind = self._connection.behind
        if packet_id in self._qos2:
            self._qos2.remove(packet_id)
        elif behind is not None and behind.feed_pubrel(frame.packet, packet_id):
            return
        # What is not known is complete [MQTT-4.3.3-2].
        self._connection.write(packets.encode_pubcomp(packet_id))

    def _on_command(self, publish: Publish) -> None:
        front = self._front
        topic = front.topics.parse(publish.topic)
        if topic is None or topic.kind not in DEVICE_KINDS or topic.thing != self._thing:
            self._refuse(publish, "not a topic that this client may publish")
            return
        kept = partial(self._acknowledge, publish.qos, publish.packet_id)
        if publish.qos == 2:
            if publish.packet_id in self._qos2:  # sent again: it was handled [MQTT-4.3.3-2], if not kept yet
                front.service.journal.then(kept)
                return
            if not self._may_hold_another():
                return
            self._qos2.add(publish.packet_id)
        if front.observers.watching:
            front.observers.tell(publish.topic, publish.payload)
        if topic.kind is Kind.RESPONSE:
            assert topic.execution_id is not None
            front.service.respond(self._thing, topic.execution_id, publish.payload, kept)
        else:
            if topic.kind is Kind.ACTIONS:  # its presence is seen here, and need not be said
                front.service.announce(self._thing, publish.payload)
            kept()

    def _refuse(self, publish: Publish, text: str) -> None:
        # MQTT 3.1.1 cannot refuse a PUBLISH: it is acknowledged and dropped [section 3.3.5].
        self._front.service.dropped(
            self._thing or self._connection.client_id, "forbiddenTopic", f"{text}: {publish.topic[:200]!a}"
        )
        # At QoS 2 its PUBREL is answered like any that is not known.
        self._acknowledge(publish.qos, publish.packet_id)

    def _may_hold_another(self) -> bool:
        """Whether the client may begin another QoS 2 exchange; if not, it is dropped."""
        if self.qos2_held < self._connection.limits.qos2_held:
            return True
        self._connection.offended("qos2Held", "releases nothing: dropped")
        self._connection.abort()
        return False

    def _acknowledge(self, qos: int, packet_id: int) -> None:
        if qos == 1:
            self._connection.write(packets.encode_puback(packet_id))
        elif qos == 2:
            self._connection.write(packets.encode_pubrec(packet_id))
