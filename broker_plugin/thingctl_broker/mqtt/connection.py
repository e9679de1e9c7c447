"""One client's connection: its packets, in order, each to where it belongs.

Command packets are handled here, synchronously. Everything else goes to amqtt, whole.
"""

from __future__ import annotations

import logging
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt import packets
from thingctl_broker.mqtt.behind import Behind
from thingctl_broker.mqtt.certificates import names_of
from thingctl_broker.mqtt.frames import Frame, FrameScanner, MalformedPacket
from thingctl_broker.mqtt.handshake import Handshake
from thingctl_broker.mqtt.inflight import CANCEL, InFlight
from thingctl_broker.mqtt.packets import ConnackCode, Connect, PacketType, Refused
from thingctl_broker.mqtt.receiving import Receiver
from thingctl_broker.mqtt.shortcut import Shortcut
from thingctl_broker.mqtt.subscribing import Subscriber
from thingctl_broker.mqtt.subscriptions import CommandSubscriptions
from thingctl_broker.mqtt.wire import Wire
from thingctl_protocol.messages import EMPTY_OBJECT
from thingctl_protocol.topics import Kind

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from thingctl_broker.mqtt.front import Admission, Front
    from thingctl_protocol.topics import ThingTopics

PATIENCE: Final = 1.5
"""A client may be silent for this many times its keep-alive [MQTT-3.1.2-24]."""

# The standard one: where nobody has configured structlog, it would print what is meant for --debug only.
_log = logging.getLogger("thingctl.front")

_REQUEST: Final = Kind.REQUEST
"""Looked up once: it is a call of a function in Python 3.11."""


class Connection(Wire):
    """A client, from its first byte to its last."""

    __slots__ = (
        "_connect",
        "_handshake",
        "_in_flight",
        "_observing",
        "_receiver",
        "_scanner",
        "_shortcut",
        "_stands",
        "_subscriber",
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
        self._observing = front.observers.watching  # nobody, most of the time
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
        self._receiver: Receiver  # of a client that has been let in
        self._subscriber: Subscriber  # the same
        self._stands: Callable[[], bool] | None = None

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
            if self._shortcut is not None and not self._observing and not self._scanner.buffered:
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
        if self._connect is not None:
            # They know this connection: with them it would stay until the collector comes.
            self._shortcut = None
            del self._receiver, self._subscriber

    def offended(self, limit: str, text: str) -> None:
        """Tell of a limit that the client has reached."""
        self.front.note(limit, text, who=self.client_id)

    # Called by the front.

    def close(self, reason: str) -> None:
        """End the connection now; what amqtt has to do about it, it does by itself."""
        if not self._closed:
            self.front.service.counters["front.closed"] += 1
            _log.debug("connection closed: %s (client %s)", reason, ascii(self.client_id))
            self.finish()

    def watch(self, now: float, elapsed: float) -> None:
        """Drop the client if it has been silent, or has not read, for too long."""
        self.check_stall(elapsed)
        if self._stands is not None and not self._closed and not self._stands():
            self.front.note("revoked", "the token is revoked or has expired: dropped", who=self.client_id)
            self.abort()
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
        if self._observing:
            self.front.observers.tell(topic.decode(), payload)
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
            topic = self.front.topics.cancel(self.thing, execution_id)
            if self._observing:
                self.front.observers.tell(topic, EMPTY_OBJECT)
            behind = self.behind
            is_taken = None if behind is None else behind.is_taken
            packet_id = self._in_flight.add(CANCEL, is_taken) if qos else 0
            self.write(packets.encode_publish(topic.encode(), EMPTY_OBJECT, qos=qos, packet_id=packet_id))

    # Called by the handshake.

    @property
    def certificate(self) -> tuple[str, ...]:
        """The names in the client's certificate; none without TLS, or without a certificate."""
        return names_of(self._transport.get_extra_info("peercert"))

    def admit(self, connect: Connect, admission: Admission) -> None:
        """Let the client in; nobody else has its client id."""
        self._handshake = None
        self.client_id = connect.client_id
        self.thing = thing = admission.thing
        if thing is not None:
            self._topics = self.front.topics.of_thing(thing)
            self._shortcut = Shortcut(self, thing, self._topics, self._in_flight, self.front.service)
        self._receiver = Receiver(self, admission)
        self._subscriber = Subscriber(self, admission)
        if admission.thing is None:
            self._stands = admission.stands  # of a thing, whoever changes it tells the front
            if admission.acl is not None and not admission.observes:
                connect = connect._replace(clean_session=True)  # it may subscribe to nothing
        self._connect = connect
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
            self.amqtt()
        if kept is not None and not self._closed:
            self._subscriber.resume()

    def refuse(self, refusal: Refused) -> None:
        """Turn the client away."""
        self.front.note(refusal.fault, "connection refused", who=self.peer[0], reason=refusal.text)
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
                    self._receiver.publish(frame)
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
                self._receiver.release(frame)
            case PacketType.SUBSCRIBE:
                self._subscriber.subscribe(frame)
            case PacketType.UNSUBSCRIBE:
                self._subscriber.unsubscribe(frame)
            case PacketType.PINGREQ:
                self.write(packets.PINGRESP)
            case PacketType.DISCONNECT:
                if self.behind is not None:
                    self.behind.disconnect(frame.packet)
                self.finish()
            case _:
                raise MalformedPacket("MQTT-3.1.0-2", "a second CONNECT")

    def _on_answer(self, kind: PacketType, frame: Frame) -> None:
        packet_id = packets.parse_packet_id(frame)
        execution_id = self._in_flight.acknowledged(packet_id) if kind is PacketType.PUBACK else None
        if execution_id is None:
            if self.behind is not None:
                self.behind.feed_answer(kind, packet_id)
        elif execution_id != CANCEL and self.thing is not None:
            self.front.service.acknowledged(self.thing, execution_id)

    # amqtt.

    def amqtt(self) -> Behind:
        """What of amqtt is behind this connection; opened when it is first needed."""
        if self.behind is not None:
            return self.behind
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
            bound_kept=partial(self.front.bound_kept, self.client_id),
        )
        return self.behind

    def _set_full(self, full: bool) -> None:
        self.hold_reading(stop=full)
        self.heard_at = self.front.time()  # while it was not read from it could not be heard

    def _fault(self, fault: MalformedPacket) -> None:
        kind = "tooLarge" if fault.rule == "limit" else "malformed"
        self.front.note(kind, str(fault), who=self.client_id or self.peer[0])
        self.abort()
