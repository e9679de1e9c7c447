"""A client of the engine without a socket: it connects, answers, and reads what the engine has for it."""

from __future__ import annotations

from typing import NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from thingctl_broker.mqtt.engine.encoder import encoder_for
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.message import Message
from thingctl_broker.mqtt.engine.outbox import WINDOW
from thingctl_broker.mqtt.engine.session import Session
from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.frames import FrameScanner
from thingctl_broker.mqtt.protocol.packets import NEVER, Connect, PacketType, Will

NOW = 1000.0


class Heard(NamedTuple):
    """A PUBLISH that the engine has for the client. ``properties``: of MQTT 5, by paho's names."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    properties: dict[str, object]


class Answer(NamedTuple):
    """A packet other than PUBLISH."""

    kind: PacketType
    packet_id: int


class EngineClient:
    """One client id. ``expiry``: seconds that its session stays."""

    def __init__(self, engine: Engine, client_id: str, *, version: int = 4, expiry: int = 0) -> None:
        self.engine = engine
        self.client_id = client_id
        self.version = version
        self.expiry = expiry
        self.codec = CODEC_5 if version == 5 else CODEC_3
        self.session: Session

    def connect(
        self,
        now: float = NOW,
        *,
        clean: bool | None = None,
        will: Will | None = None,
        window: int = WINDOW,
        owner: str | None = None,
        thing: str | None = None,
        **fields: int,
    ) -> bool:
        """Connect, and go on with what is left; return whether there was a session."""
        is_clean = not self.expiry if clean is None else clean
        connect = Connect(self.client_id, is_clean, 0, None, None, will, version=self.version, **fields)
        self.session, present = self.engine.connect(
            self.client_id,
            owner=owner,
            thing=thing,
            clean=is_clean,
            expiry=self.expiry,
            will=will,
            encoder=encoder_for(connect),
            window=window,
            now=now,
        )
        self.session.resume(now)
        return present

    def leave(self, now: float = NOW, *, will: bool = False) -> None:
        """Disconnect; ``will``: so that the will is published."""
        self.engine.disconnect(self.session, now, publishes_will=will)

    def subscribe(self, topic_filter: str, qos: int = 1, now: float = NOW, **options: int) -> None:
        """Subscribe, and be given what is retained."""
        wanted = SubscriptionOptions(qos, **options)
        is_new = self.engine.subscribe(self.session, topic_filter, wanted)
        self.engine.subscriptions_changed(self.session, lambda: None)
        self.engine.send_retained(self.session, topic_filter, wanted, now, is_new=is_new)

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 1, now: float = NOW, **fields) -> int:
        """Publish; return how many got it."""
        return self.engine.publish(Message(topic, payload, qos, publisher=self.client_id, **fields), now)

    def read(self, most: int = 1 << 20) -> list[Heard | Answer]:
        """Everything that the engine has for the client."""
        scanner = FrameScanner(1 << 28)
        found: list[Heard | Answer] = []
        for first, packet, start in scanner.feed(self.session.take_outgoing(most)):
            if first >> 4 == PacketType.PUBLISH:
                found.append(self._heard(first, packet, start))
            else:
                found.append(Answer(PacketType(first >> 4), int.from_bytes(packet[start : start + 2])))
        return found

    def _heard(self, first: int, packet: bytes, start: int) -> Heard:
        qos = first >> 1 & 3
        at = start + 2 + int.from_bytes(packet[start : start + 2])
        topic, packet_id = packet[start + 2 : at].decode(), 0
        if qos:
            packet_id, at = int.from_bytes(packet[at : at + 2]), at + 2
        properties: dict[str, object] = {}
        if self.version == 5:
            unpacked = Properties(PacketTypes.PUBLISH)
            _, length = unpacked.unpack(packet[at:])
            at += length
            properties = {name: value for name, value in vars(unpacked).items() if name[0].isupper()}
        return Heard(topic, packet[at:], qos, bool(first & 1), bool(first & 8), packet_id, properties)

    def payloads(self) -> list[bytes]:
        """The payloads of the messages that the engine has for the client."""
        return [packet.payload for packet in self.read() if isinstance(packet, Heard)]

    def acknowledge(self, packet: Heard, now: float = NOW) -> None:
        """Take a message: PUBACK, or the whole exchange of QoS 2."""
        if packet.qos == 1:
            self.session.on_puback(packet.packet_id, now)
        elif packet.qos == 2:
            self.session.on_pubrec(packet.packet_id, 0, now)
            self.session.on_pubcomp(packet.packet_id, now)


def client(engine, name, *filters, qos=1, **options) -> EngineClient:
    """One that has connected and subscribed."""
    made = EngineClient(engine, name, **options)
    made.connect()
    for topic_filter in filters:
        made.subscribe(topic_filter, qos)
    return made


__all__ = ["NEVER", "NOW", "Answer", "EngineClient", "Heard", "client"]
