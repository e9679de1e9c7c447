"""One client's connection: its packets, in order, each to where it belongs.

Command packets are handled here, synchronously. Everything else goes to amqtt, whole.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt import packets
from thingctl_broker.mqtt.behind import Behind
from thingctl_broker.mqtt.certificates import names_of
from thingctl_broker.mqtt.frames import Frame, FrameScanner, MalformedPacket
from thingctl_broker.mqtt.handshake import Handshake
from thingctl_broker.mqtt.inflight import CANCEL, InFlight
from thingctl_broker.mqtt.packets import (
    SUBSCRIPTION_REFUSED,
    ConnackCode,
    Connect,
    PacketType,
    Publish,
    Refused,
)
from thingctl_broker.mqtt.shortcut import Shortcut
from thingctl_broker.mqtt.subscriptions import CommandSubscriptions
from thingctl_broker.mqtt.wire import Wire
from thingctl_protocol.messages import EMPTY_OBJECT, encode_time
from thingctl_protocol.topics import DEVICE_KINDS, Kind, is_filter, is_topic

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from thingctl_broker.acl import Acl
    from thingctl_broker.mqtt.front import Admission, Front
    from thingctl_protocol.topics import ThingTopics

PATIENCE: Final = 1.5
"""A client may be silent for this many times its keep-alive [MQTT-3.1.2-24]."""

_REQUEST: Final = Kind.REQUEST
"""Looked up once: it is a call of a function in Python 3.11."""


class Connection(Wire):
    """A client, from its first byte to its last."""

    __slots__ = (
        "_acl",
        "_connect",
        "_handshake",
        "_in_flight",
        "_qos2",
        "_scanner",
        "_shortcut",
        "_topics",
        "_unread",
        "behind",
        "client_id",
        "front",
        "heard_at",
        "keeps_session",
        "patience",
        "subscriptions",
        "thing",
    )

    def __init__(self, front: Front) -> None:
        super().__init__(front.limits)
        self.front = front
        self.client_id = ""
        self.thing: str | None = None
        self.keeps_session = False
        self.subscriptions = CommandSubscriptions()
        self.behind: Behind | None = None
        self.heard_at = 0.0
        """When the client last sent anything; before it is let in: when it opened the connection."""
        self.patience = front.limits.connect_timeout
        """Seconds that the client may be silent."""
        self._scanner = FrameScanner(front.limits.connect_bytes)
        self._connect: Connect | None = None  # None: it is not admitted yet
        self._handshake: Handshake | None = None
        self._unread: Iterator[Frame] | None = None
        self._in_flight = InFlight()
        self._topics: ThingTopics  # of a thing only, and so are requests
        self._shortcut: Shortcut | None = None
        self._qos2: set[int] = set()
        self._acl: Acl | None = None

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a CONNECT."""
        super().connection_made(transport)
        self.heard_at = self.front.time()
        if not self.front.opened(self):
            self._closed = True
            transport.abort()  # type: ignore[attr-defined] # a Transport, whatever its annotation

    def data_received(self, data: bytes) -> None:
        """Take in what came, packet by packet."""
        if self._closed:
            return  # it came in one piece with what ended the connection
        if self._connect is not None:
            self.heard_at = self.front.time()
            if self._shortcut is not None and not self._scanner.buffered:
                taken = self._shortcut.take(data)
                if taken == len(data) or self._closed:
                    return
                if taken:
                    data = data[taken:]
        elif self._handshake is not None:
            self._unread = chain(self._unread or (), self._scanner.feed(data))
            if self._handshake.leaves_unread(len(data)):
                self.hold_reading(stop=True)
            return
        elif not self._scanner.buffered and data[0] >> 4 != PacketType.CONNECT:
            self._fault(MalformedPacket("MQTT-3.1.0-1", "the first packet is not a CONNECT"))
            return
        self._take(self._scanner.feed(data))

    def eof_received(self) -> bool:
        """The client sends no more. True: what it has sent is still to be read."""
        if self._handshake is None:
            return False
        self._handshake.is_last_word = True
        return True

    def left(self) -> None:
        """Undo everything this connection is to others."""
        if self._handshake is not None:
            self._handshake.cancel()
        if self.behind is not None:
            self.behind.feed_eof()
        self.front.closed(self)

    def offended(self, limit: str, text: str) -> None:
        """Tell of a limit that the client has reached."""
        self.front.note(limit, text, who=self.client_id)

    # Called by the front.

    def close(self, reason: str) -> None:
        """End the connection now; what amqtt has to do about it, it does by itself."""
        if not self._closed:
            self.front.service.counters["front.closed"] += 1
            del reason  # kept in the signature: it tells the reader why, and a debugger when
            self.finish()

    def watch(self, now: float, elapsed: float) -> None:
        """Drop the client if it has been silent, or has not read, for too long."""
        self.check_stall(elapsed)
        if self._closed or now <= self.heard_at + self.patience:
            return
        if self._connect is None:
            self.front.note("connectTimeout", "no CONNECT in time", who=self.peer[0])
        elif not self.is_heard:
            return
        else:
            self.front.note("keepAlive", "keep-alive ran out [MQTT-3.1.2-24]", who=self.client_id)
        self.abort()

    def publish_request(self, execution_id: str, payload: bytes, *, again: bool) -> bool:
        """Write a request; return whether a PUBACK will follow."""
        topic = self._topics.request(execution_id)
        if not self.subscriptions.qos[_REQUEST]:
            self.write(packets.encode_publish(topic, payload))
            return False
        if len(self._in_flight) >= self.limits.in_flight:
            self.offended("inFlight", "acknowledges nothing: dropped")
            self.abort()
            return True
        behind = self.behind
        packet_id = self._in_flight.add(execution_id, None if behind is None else behind.is_taken)
        self.write(packets.encode_publish(topic, payload, qos=1, packet_id=packet_id, dup=again))
        return True

    def publish_cancel(self, execution_id: str) -> None:
        """Write a cancel, if the client listens for it."""
        qos = self.subscriptions.qos.get(Kind.CANCEL)
        if qos is not None and self.thing is not None:
            topic = self.front.topics.cancel(self.thing, execution_id).encode()
            behind = self.behind
            is_taken = None if behind is None else behind.is_taken
            packet_id = self._in_flight.add(CANCEL, is_taken) if qos else 0
            self.write(packets.encode_publish(topic, EMPTY_OBJECT, qos=qos, packet_id=packet_id))

    # Called by the handshake.

    @property
    def certificate(self) -> tuple[str, ...]:
        """The names in the client's certificate; none without TLS, or without a certificate."""
        return names_of(self._transport.get_extra_info("peercert"))

    def admit(self, connect: Connect, admission: Admission) -> None:
        """Let the client in; nobody else has its client id."""
        self._connect = connect
        self._handshake = None
        self.client_id = connect.client_id
        self.thing = thing = admission.thing
        if thing is not None:
            self._topics = self.front.topics.of_thing(thing)
            self._shortcut = Shortcut(self, thing, self._topics, self._in_flight, self.front.service)
        self._acl = admission.acl
        self.keeps_session = not connect.clean_session
        self.heard_at = self.front.time()
        self.patience = connect.keep_alive * PATIENCE if connect.keep_alive else float("inf")
        self._scanner.limit = self.limits.packet_bytes
        resumes = self.front.resumes_amqtt_session(connect)
        kept = self.front.admitted(self)
        if kept is not None:
            self.subscriptions = kept
        self.write(packets.encode_connack(ConnackCode.ACCEPTED, session_present=resumes or kept is not None))
        if connect.will is not None or resumes:
            # A will is amqtt's to publish; a session that it keeps is its to resume.
            self._open_behind()
        if kept is not None:
            self._serve(tell_time=True)

    def refuse(self, refusal: Refused) -> None:
        """Turn the client away."""
        self.front.note("refused", "connection refused", who=self.peer[0], reason=refusal.text)
        self.write(packets.encode_connack(refusal.code))
        self.finish()

    def read_on(self) -> None:
        """Go on where reading stopped at the CONNECT."""
        unread, self._unread = self._unread, None
        if unread is not None:
            self._take(unread)

    # Packets.

    def _take(self, frames: Iterator[Frame]) -> None:
        try:
            for frame in frames:
                if self._connect is None:
                    if not self._begin(frame):
                        self._unread = frames
                        return
                elif frame.first & 0xF0 == 0x30:
                    self._on_publish(frame)
                else:
                    self._on_packet(frame)
                if self._closed:
                    return
        except MalformedPacket as fault:
            self._fault(fault)

    def _begin(self, frame: Frame) -> bool:
        """Take the CONNECT; False: what follows it must wait."""
        packets.check_shape(frame)
        handshake = Handshake(self)
        if handshake.begin(frame):
            return True
        self._handshake = handshake
        return False

    def _on_packet(self, frame: Frame) -> None:
        kind = packets.check_shape(frame)
        match kind:
            case PacketType.PUBACK | PacketType.PUBREC | PacketType.PUBCOMP:
                self._on_answer(kind, frame)
            case PacketType.PUBREL:
                self._on_pubrel(frame)
            case PacketType.SUBSCRIBE:
                self._on_subscribe(frame)
            case PacketType.UNSUBSCRIBE:
                self._on_unsubscribe(frame)
            case PacketType.PINGREQ:
                self.write(packets.PINGRESP)
            case PacketType.DISCONNECT:
                if self.behind is not None:
                    self.behind.disconnect(frame.packet)
                self.finish()
            case _:
                raise MalformedPacket("MQTT-3.1.0-2", "a second CONNECT")

    def _on_publish(self, frame: Frame) -> None:
        publish = packets.parse_publish(frame)
        topic = publish.topic
        if self.front.topics.owns(topic):
            self._on_command_publish(publish)
        elif topic.startswith("$"):
            self._refuse_publish(publish, "a client may not publish under $")
        elif not is_topic(topic):
            raise MalformedPacket("MQTT-3.3.2-2", f"topic {topic[:80]!a}")
        elif self._acl is not None and not self._acl.may_publish(topic):
            self._refuse_publish(publish, "no rule lets this thing publish it")
        elif publish.retain and not self.front.may_retain(topic, publish.payload):
            self._refuse_publish(publish, "no room to retain it")
        elif publish.qos < 2:
            self._amqtt().feed(frame.packet)
        elif self._may_hold_another():
            self._amqtt().feed_qos2(frame.packet, publish.packet_id)

    def _on_command_publish(self, publish: Publish) -> None:
        topic = self.front.topics.parse(publish.topic)
        if topic is None or topic.kind not in DEVICE_KINDS or topic.thing != self.thing:
            self._refuse_publish(publish, "not a topic that this client may publish")
            return
        if publish.qos == 2:
            if publish.packet_id in self._qos2:  # sent again: it was handled [MQTT-4.3.3-2], if not kept yet
                self.front.service.journal.then(partial(self._acknowledge, publish.qos, publish.packet_id))
                return
            if not self._may_hold_another():
                return
            self._qos2.add(publish.packet_id)
        kept = partial(self._acknowledge, publish.qos, publish.packet_id)
        if topic.kind is Kind.RESPONSE:
            assert topic.execution_id is not None
            self.front.service.respond(self.thing, topic.execution_id, publish.payload, kept)
        else:
            if topic.kind is Kind.ACTIONS:  # its presence is seen here, and need not be said
                self.front.service.announce(self.thing, publish.payload)
            kept()

    def _refuse_publish(self, publish: Publish, text: str) -> None:
        # MQTT 3.1.1 cannot refuse a PUBLISH: it is acknowledged and dropped [section 3.3.5].
        self.front.service.dropped(
            self.thing or self.client_id, "forbiddenTopic", f"{text}: {publish.topic[:200]!a}"
        )
        # At QoS 2 its PUBREL is answered like any that is not known.
        self._acknowledge(publish.qos, publish.packet_id)

    def _may_hold_another(self) -> bool:
        """Whether the client may begin another QoS 2 exchange; if not, it is dropped."""
        held = len(self._qos2) + (self.behind.qos2_held if self.behind is not None else 0)
        if held < self.limits.qos2_held:
            return True
        self.offended("qos2Held", "releases nothing: dropped")
        self.abort()
        return False

    def _acknowledge(self, qos: int, packet_id: int) -> None:
        if qos == 1:
            self.write(packets.encode_puback(packet_id))
        elif qos == 2:
            self.write(packets.encode_pubrec(packet_id))

    def _on_answer(self, kind: PacketType, frame: Frame) -> None:
        packet_id = packets.parse_packet_id(frame)
        execution_id = self._in_flight.acknowledged(packet_id) if kind is PacketType.PUBACK else None
        if execution_id is None:
            if self.behind is not None:
                self.behind.feed_answer(kind, packet_id)
        elif execution_id != CANCEL and self.thing is not None:
            self.front.service.acknowledged(self.thing, execution_id)

    def _on_pubrel(self, frame: Frame) -> None:
        packet_id = packets.parse_packet_id(frame)
        if packet_id in self._qos2:
            self._qos2.remove(packet_id)
        elif self.behind is not None and self.behind.feed_pubrel(frame.packet, packet_id):
            return
        # What is not known is complete [MQTT-4.3.3-2].
        self.write(packets.encode_pubcomp(packet_id))

    # Subscriptions.

    def _on_subscribe(self, frame: Frame) -> None:
        packet_id, wanted = packets.parse_subscribe(frame)
        told_time = {Kind.TIME, Kind.REQUEST} <= self.subscriptions.qos.keys()
        most = self.limits.subscriptions + self.limits.other_subscriptions
        codes: list[int | None] = [self._subscribe(topic_filter, qos) for topic_filter, qos in wanted[:most]]
        codes += [SUBSCRIPTION_REFUSED] * (len(wanted) - len(codes))
        theirs = [want for want, code in zip(wanted, codes, strict=True) if code is None]
        if theirs:
            self._amqtt().subscribe(packet_id, theirs, codes)
        else:
            self.write(packets.encode_suback(packet_id, [code for code in codes if code is not None]))
        self._serve(tell_time=not told_time)

    def _subscribe(self, topic_filter: str, qos: int) -> int | None:
        """Grant or refuse a filter of the command namespace; None: it is amqtt's."""
        topics = self.front.topics
        if not is_filter(topic_filter):
            return SUBSCRIPTION_REFUSED
        if not topics.owns(topic_filter):
            if topic_filter.startswith("$share/") or topics.reaches_into(topic_filter):
                return SUBSCRIPTION_REFUSED  # amqtt would grant it and stay silent
            if not self._may_hear(topic_filter):
                self._refuse_filter(topic_filter)
                return SUBSCRIPTION_REFUSED
            if not self._amqtt().may_subscribe(topic_filter, self.limits.other_subscriptions):
                self.offended("subscriptions", "has too many subscriptions: refused")
                return SUBSCRIPTION_REFUSED
            return None
        mine = self.subscriptions
        granted = None
        if self.thing is not None and (topic_filter in mine or len(mine) < self.limits.subscriptions):
            granted = mine.grant(topic_filter, qos, topics=topics, thing=self.thing)
        if granted is None:
            self._refuse_filter(topic_filter)
            return SUBSCRIPTION_REFUSED
        return granted

    def _may_hear(self, topic_filter: str) -> bool:
        """Whether the client may have an ordinary filter. What the broker tells of itself is no thing's."""
        if self._acl is not None:
            return self._acl.may_subscribe(topic_filter)
        return self.thing is None or not topic_filter.startswith("$")

    def _refuse_filter(self, topic_filter: str) -> None:
        self.front.service.dropped(
            self.thing or self.client_id, "forbiddenFilter", f"not for this client: {topic_filter[:200]!a}"
        )

    def _on_unsubscribe(self, frame: Frame) -> None:
        packet_id, filters = packets.parse_unsubscribe(frame)
        owns = self.front.topics.owns
        theirs = [f for f in filters if not self.subscriptions.remove(f) and not owns(f)]
        if self.behind is None or not self.behind.unsubscribe(packet_id, theirs):
            self.write(packets.encode_unsuback(packet_id))
        self._serve(tell_time=False)

    def _serve(self, *, tell_time: bool) -> None:
        """Take the thing's requests from now on, or no longer, as the subscriptions are."""
        self.subscriptions.sum_up()
        qos = self.subscriptions.qos
        if self._closed or Kind.REQUEST not in qos or self.thing is None:
            self.front.released(self)
            return
        if tell_time and Kind.TIME in qos:
            now = encode_time(self.front.service.unix())
            self.write(packets.encode_publish(self.front.topics.time(self.thing).encode(), now))
        self.front.serves(self)

    # amqtt.

    def _amqtt(self) -> Behind:
        return self.behind if self.behind is not None else self._open_behind()

    def _open_behind(self) -> Behind:
        assert self._connect is not None
        self.behind = Behind(
            broker=self.front.broker,
            connect=self._connect,
            peer=self.peer,
            write=self.write,
            drain=self.drain,
            close=self.close,
            set_full=self._set_full,
            taken_ids=self._in_flight,
        )
        return self.behind

    def _set_full(self, full: bool) -> None:
        self.hold_reading(stop=full)
        self.heard_at = self.front.time()  # while it was not read from it could not be heard

    def _fault(self, fault: MalformedPacket) -> None:
        self.front.note("malformed", str(fault), who=self.client_id or self.peer[0])
        self.abort()
