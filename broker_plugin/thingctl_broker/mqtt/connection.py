"""One client's connection: its packets, in order, each to where it belongs.

Command packets are handled here, synchronously. Everything else goes to amqtt, whole.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from uuid import uuid4

from thingctl_broker.mqtt import packets
from thingctl_broker.mqtt.behind import Behind
from thingctl_broker.mqtt.frames import Frame, FrameScanner, MalformedPacket
from thingctl_broker.mqtt.packets import (
    SUBSCRIPTION_REFUSED,
    ConnackCode,
    Connect,
    PacketType,
    Publish,
    Refused,
)
from thingctl_protocol.messages import EMPTY_OBJECT, encode_time
from thingctl_protocol.topics import DEVICE_KINDS, Kind, is_filter, is_topic

if TYPE_CHECKING:
    from thingctl_broker.mqtt.front import Admission, Front

PATIENCE: Final = 1.5
"""A client may be silent for this many times its keep-alive [MQTT-3.1.2-24]."""


class Granted(NamedTuple):
    """A command subscription: what it covers, and at which QoS."""

    kinds: frozenset[Kind]
    qos: int


Subscriptions: TypeAlias = dict[str, Granted]
"""By filter."""


class Connection(asyncio.Protocol):
    """A client, from its first byte to its last."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.client_id = ""
        self.thing: str | None = None
        self.keeps_session = False
        self.subscriptions: Subscriptions = {}
        self.behind: Behind | None = None
        self.heard_at = 0.0
        self.patience = front.limits.connect_timeout
        """Seconds that the client may be silent."""
        self._transport: asyncio.Transport
        self._scanner = FrameScanner(front.limits.connect_bytes)
        self.peer = ("", 0)
        self._connect: Connect | None = None
        self._admission: asyncio.Task[None] | None = None
        self._held: list[Frame] = []
        self._in_flight: dict[int, str] = {}
        self._qos2: set[int] = set()
        self._packet_id = 0
        self._qos: dict[Kind, int] = {}
        self._closed = False
        self._reading_stops = 0
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a CONNECT."""
        self._transport = transport  # type: ignore[assignment] # uvloop's is one by behaviour only
        self.heard_at = self.front.time()
        peer = transport.get_extra_info("peername")
        self.peer = (str(peer[0]), int(peer[1])) if peer else ("", 0)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # 40 ms a round trip otherwise
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not self.front.opened(self):
            self._closed = True
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take in what came, packet by packet."""
        self.heard_at = self.front.time()
        try:
            if self._connect is None and not self._scanner.buffered and data[0] >> 4 != PacketType.CONNECT:
                raise MalformedPacket("MQTT-3.1.0-1", "the first packet is not a CONNECT")  # noqa: TRY301
            for frame in self._scanner.feed(data):
                if self._closed:
                    return
                if self._admission is not None:
                    self._held.append(frame)
                elif frame.first & 0xF0 == 0x30 and self._connect is not None:
                    self._on_publish(frame)
                else:
                    self._on_packet(frame)
        except MalformedPacket as fault:
            self._fault(fault)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 why does not matter
        """The connection is gone."""
        self._leave()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # Called by the front.

    def close(self, reason: str) -> None:
        """End the connection now; what amqtt has to do about it, it does by itself."""
        if not self._closed:
            self.front.service.counters["front.closed"] += 1
            self._leave()
            del reason  # kept in the signature: it tells the reader why, and a debugger when
            self._transport.close()

    def is_closed(self) -> bool:
        """Whether the connection has ended for this side."""
        return self._closed

    def run_out_of_patience(self) -> None:
        """The client has been silent for too long."""
        if self._connect is None:
            self.front.note("connectTimeout", "no CONNECT in time", who=self.peer[0])
        else:
            self.front.note("keepAlive", "keep-alive ran out [MQTT-3.1.2-24]", who=self.client_id)
        self._abort()

    def publish_request(self, execution_id: str, payload: bytes, *, again: bool) -> bool:
        """Write a request; return whether a PUBACK will follow."""
        assert self.thing is not None
        topic = self.front.topics.request(self.thing, execution_id).encode()
        if not self._qos[Kind.REQUEST]:
            self._write(packets.encode_publish(topic, payload))
            return False
        if len(self._in_flight) >= self.front.limits.in_flight:
            self.front.note("inFlight", "acknowledges nothing: dropped", who=self.client_id)
            self._abort()
            return True
        packet_id = self._next_packet_id()
        self._in_flight[packet_id] = execution_id
        self._write(packets.encode_publish(topic, payload, qos=1, packet_id=packet_id, dup=again))
        return True

    def publish_cancel(self, execution_id: str) -> None:
        """Write a cancel, if the client listens for it."""
        qos = self._qos.get(Kind.CANCEL)
        if qos is not None and self.thing is not None:
            topic = self.front.topics.cancel(self.thing, execution_id).encode()
            packet_id = 0
            if qos:
                packet_id = self._next_packet_id()
                self._in_flight[packet_id] = ""
            self._write(packets.encode_publish(topic, EMPTY_OBJECT, qos=qos, packet_id=packet_id))

    # Packets.

    def _on_packet(self, frame: Frame) -> None:
        if self._connect is None:
            packets.check_shape(frame)
            self._on_connect(frame)
            return
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
                self._write(packets.PINGRESP)
            case PacketType.DISCONNECT:
                if self.behind is not None:
                    self.behind.disconnect(frame.packet)
                self._leave()
                self._transport.close()
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
        else:
            self._to_amqtt(frame.packet)

    def _on_command_publish(self, publish: Publish) -> None:
        topic = self.front.topics.parse(publish.topic)
        if topic is None or topic.kind not in DEVICE_KINDS or topic.thing != self.thing:
            self._refuse_publish(publish, "not a topic that this client may publish")
            return
        if publish.qos == 2:
            if publish.packet_id in self._qos2:  # sent again: it was handled [MQTT-4.3.3-2]
                self._write(packets.encode_pubrec(publish.packet_id))
                return
            if len(self._qos2) >= self.front.limits.qos2_held:
                self.front.note("qos2Held", "releases nothing: dropped", who=self.client_id)
                self._abort()
                return
            self._qos2.add(publish.packet_id)
        kept = partial(self._acknowledge, publish.qos, publish.packet_id)
        if topic.kind is Kind.RESPONSE:
            assert topic.execution_id is not None
            self.front.service.respond(self.thing, topic.execution_id, publish.payload, kept)
        else:
            self.front.service.announce(self.thing, publish.payload)
            kept()

    def _refuse_publish(self, publish: Publish, text: str) -> None:
        # MQTT 3.1.1 cannot refuse a PUBLISH: it is acknowledged and dropped [section 3.3.5].
        self.front.service.dropped(
            self.thing or self.client_id, "forbiddenTopic", f"{text}: {publish.topic[:200]!a}"
        )
        if publish.qos == 2:
            self._qos2.add(publish.packet_id)
        self._acknowledge(publish.qos, publish.packet_id)

    def _acknowledge(self, qos: int, packet_id: int) -> None:
        if qos == 1:
            self._write(packets.encode_puback(packet_id))
        elif qos == 2:
            self._write(packets.encode_pubrec(packet_id))

    def _on_answer(self, kind: PacketType, frame: Frame) -> None:
        packet_id = packets.parse_packet_id(frame)
        execution_id = self._in_flight.get(packet_id) if kind is PacketType.PUBACK else None
        if execution_id is not None:
            del self._in_flight[packet_id]
            if execution_id and self.thing is not None:
                self.front.service.acknowledged(self.thing, execution_id)
        elif self.behind is not None:
            self.behind.feed_answer(frame.packet, frame.start, packet_id)

    def _on_pubrel(self, frame: Frame) -> None:
        packet_id = packets.parse_packet_id(frame)
        if packet_id in self._qos2:
            self._qos2.remove(packet_id)
            self._write(packets.encode_pubcomp(packet_id))
        elif self.behind is not None:
            self.behind.feed(frame.packet)
        else:
            # Nothing is known of it, so it is complete [MQTT-4.3.3-2].
            self._write(packets.encode_pubcomp(packet_id))

    # Subscriptions.

    def _on_subscribe(self, frame: Frame) -> None:
        packet_id, wanted = packets.parse_subscribe(frame)
        codes: list[int | None] = [self._subscribe(topic_filter, qos) for topic_filter, qos in wanted]
        theirs = [want for want, code in zip(wanted, codes, strict=True) if code is None]
        if theirs:
            self._to_amqtt(packets.encode_subscribe(packet_id, theirs))
            if len(theirs) < len(wanted) and self.behind is not None:
                self.behind.merge_suback(packet_id, codes)
        else:
            self._write(packets.encode_suback(packet_id, [code for code in codes if code is not None]))
        self._subscriptions_changed()

    def _subscribe(self, topic_filter: str, qos: int) -> int | None:
        """Grant or refuse a filter of the command namespace; None: it is amqtt's."""
        topics = self.front.topics
        if not is_filter(topic_filter):
            return SUBSCRIPTION_REFUSED
        if not topics.owns(topic_filter):
            if topic_filter.startswith("$share/"):
                return SUBSCRIPTION_REFUSED  # amqtt has none: it would grant it and stay silent
            return None
        own = self.thing is not None and topics.is_within(topic_filter, self.thing)
        kinds = topics.kinds(topic_filter, self.thing) - DEVICE_KINDS if own and self.thing else frozenset()
        if not kinds or (
            topic_filter not in self.subscriptions
            and len(self.subscriptions) >= self.front.limits.subscriptions
        ):
            self.front.service.dropped(
                self.thing or self.client_id,
                "forbiddenFilter",
                f"not for this client: {topic_filter[:200]!a}",
            )
            return SUBSCRIPTION_REFUSED
        granted = min(qos, 1)
        self.subscriptions[topic_filter] = Granted(kinds, granted)
        return granted

    def _on_unsubscribe(self, frame: Frame) -> None:
        packet_id, filters = packets.parse_unsubscribe(frame)
        theirs = [
            f for f in filters if self.subscriptions.pop(f, None) is None and not self.front.topics.owns(f)
        ]
        if theirs and self.behind is not None:
            self._to_amqtt(packets.encode_unsubscribe(packet_id, theirs))  # whose UNSUBACK serves for all
        else:
            self._write(packets.encode_unsuback(packet_id))
        self._subscriptions_changed()

    def _subscriptions_changed(self) -> None:
        told_time = Kind.TIME in self._qos and Kind.REQUEST in self._qos
        self._qos = {}
        for granted in self.subscriptions.values():
            for kind in granted.kinds:
                self._qos[kind] = max(granted.qos, self._qos.get(kind, 0))
        if Kind.REQUEST not in self._qos:
            self.front.released(self)
            return
        if Kind.TIME in self._qos and not told_time and self.thing is not None:
            now = encode_time(self.front.service.unix())
            self._write(packets.encode_publish(self.front.topics.time(self.thing).encode(), now))
        self.front.serves(self)

    # CONNECT.

    def _on_connect(self, frame: Frame) -> None:
        try:
            connect = packets.parse_connect(frame)
            if connect.will is not None and (
                connect.will.topic.startswith("$") or not is_topic(connect.will.topic)
            ):
                raise Refused(ConnackCode.NOT_AUTHORIZED, f"a will on topic {connect.will.topic[:80]!a}")  # noqa: TRY301
            if not connect.client_id:
                connect = connect._replace(client_id=f"auto-{uuid4().hex}")  # [MQTT-3.1.3-6]
            admission = self.front.gatekeeper.admit(connect, self.peer)
        except Refused as refusal:
            self._refuse(refusal)
            return
        self._connect = connect
        if isawaitable(admission) or self.front.predecessor(connect.client_id) is not None:
            self._hold_reading(stop=True)
            self._admission = asyncio.get_running_loop().create_task(self._admit_later(connect, admission))
        else:
            self._admit(connect, admission)

    async def _admit_later(self, connect: Connect, admission: Admission | object) -> None:
        try:
            admitted: Admission = await admission if isawaitable(admission) else admission  # type: ignore[assignment]
        except Refused as refusal:
            self._refuse(refusal)
            return
        while not self._closed and (leaving := self.front.predecessor(connect.client_id)) is not None:
            await asyncio.wait([leaving])
        self._admission = None
        if self.is_closed():
            return
        held, self._held = self._held, []
        try:
            self._admit(connect, admitted)
            for frame in held:
                if self._closed:
                    return
                if frame.first & 0xF0 == 0x30:
                    self._on_publish(frame)
                else:
                    self._on_packet(frame)
        except MalformedPacket as fault:
            self._fault(fault)
        self._hold_reading(stop=False)

    def _admit(self, connect: Connect, admission: Admission) -> None:
        self.client_id = connect.client_id
        self.thing = admission.thing
        self.keeps_session = not connect.clean_session
        self.patience = connect.keep_alive * PATIENCE if connect.keep_alive else float("inf")
        self._scanner.limit = self.front.limits.packet_bytes
        amqtt_knows = self.front.has_amqtt_session(connect.client_id)
        self.subscriptions = self.front.admitted(self)
        present = self.keeps_session and (amqtt_knows or bool(self.subscriptions))
        self._write(packets.encode_connack(ConnackCode.ACCEPTED, session_present=present))
        if connect.will is not None or amqtt_knows:
            # A will is amqtt's to publish; a session it keeps is its to resume or to end.
            self._open_behind()
        if self.subscriptions:
            self._subscriptions_changed()

    def _refuse(self, refusal: Refused) -> None:
        self.front.note("refused", "connection refused", who=self.peer[0], reason=refusal.text)
        self._write(packets.encode_connack(refusal.code))
        self._leave()
        self._transport.close()

    # amqtt.

    def _to_amqtt(self, packet: bytes) -> None:
        if self.behind is None:
            self._open_behind()
        assert self.behind is not None
        self.behind.feed(packet)

    def _open_behind(self) -> None:
        assert self._connect is not None
        self.behind = Behind(
            broker=self.front.broker,
            connect=self._connect,
            peer=self.peer,
            write=self._write,
            drain=self._drain,
            close=self.close,
            set_full=lambda full: self._hold_reading(stop=full),
            taken_ids=self._in_flight,
        )

    # The wire.

    def _write(self, data: bytes) -> None:
        if self._closed:
            return
        self._transport.write(data)
        if self._write_paused and self._transport.get_write_buffer_size() > self.front.limits.write_buffer:
            self.front.note("writeBuffer", "reads too slowly: dropped", who=self.client_id)
            self._abort()

    async def _drain(self) -> None:
        while self._write_paused and not self._closed:
            if self._writable is None or self._writable.done():
                self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def _hold_reading(self, *, stop: bool) -> None:
        """Stop reading, or undo one earlier stop. Reading goes on when no stop is left."""
        self._reading_stops += 1 if stop else -1
        if self._closed:
            return
        if stop and self._reading_stops == 1:
            self._transport.pause_reading()
        elif not stop and self._reading_stops == 0:
            self._transport.resume_reading()

    def _next_packet_id(self) -> int:
        """Counts down from 65535, amqtt counts up from 1 [MQTT-2.3.1-4]."""
        while True:
            self._packet_id = self._packet_id - 1 if self._packet_id > 1 else 0xFFFF
            if self._packet_id not in self._in_flight and not (
                self.behind is not None and self.behind.is_taken(self._packet_id)
            ):
                return self._packet_id

    def _fault(self, fault: MalformedPacket) -> None:
        self.front.note("malformed", str(fault), who=self.client_id or self.peer[0])
        self._abort()

    def _abort(self) -> None:
        self._leave()
        self._transport.abort()

    def _leave(self) -> None:
        """Undo everything this connection is to others; once."""
        if self._closed:
            return
        self._closed = True
        if self._admission is not None:
            self._admission.cancel()
        if self.behind is not None:
            self.behind.feed_eof()
        self.resume_writing()
        self.front.closed(self)
