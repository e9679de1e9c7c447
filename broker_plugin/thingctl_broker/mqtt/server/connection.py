"""One client's connection: its packets, in order, each to where it belongs.

Command packets are handled here, synchronously. Everything else goes to amqtt, whole.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.frames import Frame, FrameScanner, MalformedPacket
from thingctl_broker.mqtt.protocol.packets import PacketType
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.mqtt.server.client import ServerConnection
from thingctl_broker.mqtt.server.connect import Handshake
from thingctl_broker.mqtt.server.fast_path import ResponseFastPath
from thingctl_broker.mqtt.server.inflight import CANCEL
from thingctl_broker.mqtt.server.publish import Receiver
from thingctl_broker.mqtt.server.subscribe import Subscriber

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from thingctl_broker.mqtt.auth.authenticator import Identity
    from thingctl_broker.mqtt.protocol.packets import Connect, ConnectRefused
    from thingctl_broker.mqtt.server.client import FrontSide

PATIENCE: Final = 1.5
"""A client may be silent for this many times its keep-alive [MQTT-3.1.2-24]."""


class DeviceConnection(ServerConnection):
    """A client, from its first byte to its last."""

    __slots__ = (
        "_handshake",
        "_receiver",
        "_scanner",
        "_shortcut",
        "_subscriber",
        "_unread",
    )

    def __init__(self, front: FrontSide) -> None:
        super().__init__(front)
        self._scanner = FrameScanner(front.limits.connect_bytes)
        self._handshake: Handshake | None = None
        self._unread: Iterator[Frame] | None = None
        self._shortcut: ResponseFastPath | None = None
        self._receiver: Receiver  # of a client that has been let in
        self._subscriber: Subscriber  # the same

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

    # Called by the handshake.

    def admit(self, connect: Connect, admission: Identity) -> None:
        """Let the client in; nobody else has its client id."""
        self._handshake = None
        self.client_id = connect.client_id
        self.thing = thing = admission.thing
        if thing is not None:
            self._topics = self.front.topics.of_thing(thing)
            self._shortcut = ResponseFastPath(self, thing, self._topics, self._in_flight, self.front.service)
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
        self.write(CODEC_3.encode_connack(Reason.SUCCESS, session_present=resumes or kept is not None))
        if connect.will is not None or resumes:
            # A will is amqtt's to publish; a session that it keeps is its to resume.
            self.amqtt()
        if kept is not None and not self._closed:
            self._subscriber.resume()

    def refuse(self, refusal: ConnectRefused) -> None:
        """Turn the client away."""
        self.front.note(refusal.fault, "connection refused", who=self.peer[0], reason=refusal.text)
        self.write(CODEC_3.encode_connack(refusal.code))
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

    def _fault(self, fault: MalformedPacket) -> None:
        kind = "tooLarge" if fault.rule == "limit" else "malformed"
        self.front.note(kind, str(fault), who=self.client_id or self.peer[0])
        self.abort()
