"""One application message, as it stands between its publisher and those who get it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.protocol.fields import encode_length

if TYPE_CHECKING:
    from thingctl_broker.mqtt.protocol.packets import Publish, Will

OVERHEAD_BYTES: Final = 200
"""What a message costs in memory besides its topic, payload and properties."""


class Message:
    """A message. Nothing but what is remembered of it changes once it is made.

    ``expires_at``: monotonic seconds; None: never. ``properties``: those of MQTT 5 that go on to the
    receivers unchanged, encoded. ``publisher``: the client id; empty: the broker. ``size``: the bytes that it
    counts for. ``number``: its key in the store; 0: it is not stored.
    """

    __slots__ = (
        "expires_at",
        "has_record",
        "header",
        "header5",
        "number",
        "packet",
        "packet5",
        "payload",
        "properties",
        "publisher",
        "qos",
        "references",
        "response_topic",
        "retain",
        "size",
        "topic",
        "topic_bytes",
    )

    def __init__(  # noqa: PLR0917 the fields of a PUBLISH
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        publisher: str = "",
        properties: bytes = b"",
        expires_at: float | None = None,
        response_topic: str = "",
    ) -> None:
        self.topic = topic
        self.topic_bytes = topic.encode()
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.publisher = publisher
        self.properties = properties
        self.expires_at = expires_at
        self.response_topic = response_topic
        self.size = len(self.topic_bytes) + len(payload) + len(properties) + OVERHEAD_BYTES
        self.number = 0
        self.has_record = False
        """Whether it is a record of its own in the store, since several sessions get it."""
        self.references = 0
        """Records in the store that name it."""
        self.packet: bytes | None = None
        """The PUBLISH of ``plain``, once it is known."""
        self.header: bytes | None = None
        """The bytes of ``head``, once they are known."""
        self.packet5: bytes | None = None
        self.header5: bytes | None = None
        """Both for MQTT 5, without properties."""

    def plain(self) -> bytes:
        """The PUBLISH of MQTT 3 at QoS 0, without RETAIN: encoded once for all who get it."""
        packet = self.packet
        if packet is None:
            length = 2 + len(self.topic_bytes) + len(self.payload)
            packet = self.packet = b"\x30%b%b" % (self._head_of(length), self.payload)
        return packet

    def head(self) -> bytes:
        """What a PUBLISH of MQTT 3 at QoS 1 or 2 has between its first byte and its packet identifier."""
        header = self.header
        if header is None:
            header = self.header = self._head_of(4 + len(self.topic_bytes) + len(self.payload))
        return header

    def plain5(self) -> bytes:
        """The PUBLISH of MQTT 5 at QoS 0, without RETAIN and properties."""
        packet = self.packet5
        if packet is None:
            length = 3 + len(self.topic_bytes) + len(self.payload)
            packet = self.packet5 = b"\x30%b\0%b" % (self._head_of(length), self.payload)
        return packet

    def head5(self) -> bytes:
        """What stands before the packet identifier in MQTT 5, without properties."""
        header = self.header5
        if header is None:
            header = self.header5 = self._head_of(5 + len(self.topic_bytes) + len(self.payload))
        return header

    def _head_of(self, length: int) -> bytes:
        return encode_length(length) + len(self.topic_bytes).to_bytes(2) + self.topic_bytes

    def seconds_left(self, now: float) -> int | None:
        """Seconds until it expires, rounded up; 0 and less: it has; None: it never does [MQTT5-3.3.2-6]."""
        return None if self.expires_at is None else -int(-(self.expires_at - now) // 1)


def published(publish: Publish, publisher: str, now: float) -> Message:
    """The message that a client's PUBLISH carries."""
    expiry = publish.message_expiry
    return Message(
        publish.topic,
        publish.payload,
        publish.qos,
        publish.retain,
        publisher,
        publish.properties,
        None if expiry is None else now + expiry,
        publish.response_topic,
    )


def last_will(will: Will, publisher: str, now: float) -> Message:
    """The message that a client's will becomes when it is published."""
    expiry = will.message_expiry
    return Message(
        will.topic,
        will.payload,
        will.qos,
        will.retain,
        publisher,
        will.properties,
        None if expiry is None else now + expiry,
    )
