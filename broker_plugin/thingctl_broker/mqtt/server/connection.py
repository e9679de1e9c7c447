"""One client's connection: its packets, in order, each to where it belongs.

Command packets are handled here, synchronously. Everything else is the engine's.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.protocol.codec import ConnackProperties
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.frames import Frame, FrameScanner, MalformedPacket
from thingctl_broker.mqtt.protocol.packets import PINGRESP, PacketType
from thingctl_broker.mqtt.protocol.reason_codes import Reason, camel_case
from thingctl_broker.mqtt.server.client import PATIENCE, ServerConnection
from thingctl_broker.mqtt.server.connect import Handshake
from thingctl_broker.mqtt.server.fast_path import ResponseFastPath
from thingctl_broker.mqtt.server.inflight import CANCEL
from thingctl_broker.mqtt.server.message_fast_path import MessageFastPath, MessageFastPath5
from thingctl_broker.mqtt.server.publish import Receiver
from thingctl_broker.mqtt.server.reason_strings import with_words
from thingctl_broker.mqtt.server.request_properties import RequestProperties
from thingctl_broker.mqtt.server.rights_lookup import RightsLookup
from thingctl_broker.mqtt.server.subscribe import Subscriber
from thingctl_broker.security.topic_acl import UndecidedRights

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from thingctl_broker.mqtt.auth.authenticator import Identity
    from thingctl_broker.mqtt.protocol.packets import Connect, ConnectRefused, Disconnect
    from thingctl_broker.mqtt.server.client import ServerPort

_MQTT_5: Final = b"\x00\x04MQTT\x05"
"""What the variable header of a CONNECT of MQTT 5 begins with."""


class DeviceConnection(ServerConnection):
    """A client, from its first byte to its last."""

    __slots__ = (
        "_handshake",
        "_last_words",
        "_messages",
        "_receiver",
        "_scanner",
        "_shortcut",
        "_subscriber",
        "_unread",
    )

    def __init__(self, server: ServerPort) -> None:
        super().__init__(server)
        self._scanner = FrameScanner(server.limits.connect_bytes)
        self._handshake: Handshake | RightsLookup | None = None  # while packets have to wait
        self._last_words: Disconnect | None = None
        self._unread: Iterator[Frame] | None = None
        self._shortcut: ResponseFastPath | None = None
        self._messages: MessageFastPath | None = None
        self._receiver: Receiver  # of a client that has been let in
        self._subscriber: Subscriber  # the same

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a CONNECT."""
        super().connection_made(transport)
        self.heard_at = self.server.time()
        if not self.server.opened(self):
            self._closed = True
            transport.abort()  # type: ignore[attr-defined] # a Transport, whatever its annotation

    def data_received(self, data: bytes) -> None:
        """Take in what came, packet by packet."""
        if self._closed:
            return  # it came in one piece with what ended the connection
        self.bytes_received += len(data)
        if self._handshake is not None:
            self._unread = chain(self._unread or (), self._scanner.feed(data))
            if self._handshake.leaves_unread(len(data)):
                self.hold_reading(stop=True)
            return
        if self._connect is not None:
            self.heard_at = self.server.time()
            taken = 0
            if self._shortcut is not None and not self._observing and not self._scanner.buffered:
                taken = self._shortcut.take(data)
                if taken == len(data):
                    return
            data = self._take_messages(data, taken)
            if not data or self._closed:
                return
        elif not self._scanner.buffered and data[0] >> 4 != PacketType.CONNECT:
            self._fault(MalformedPacket("MQTT-3.1.0-1", "the first packet is not a CONNECT"))
            return
        self._take(self._scanner.feed(data))

    def _take_messages(self, data: bytes, taken: int) -> bytes:
        """Handle what the shortcut for messages knows, behind what is ``taken``; return what is left."""
        if self._scanner.buffered:
            data = self._scanner.join(data)
        if self._messages is not None and not self._closed:
            taken = self._messages.take(data, taken)
            if self._held_packets:
                self.release_held()
        return data[taken:] if taken else data

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
        self.server.closed(self)
        if self._connect is not None:
            # They know this connection: with them it would stay until the collector comes.
            self._shortcut = self._messages = None
            del self._receiver, self._subscriber

    @property
    def publishes_will(self) -> bool:
        """Whether the end of the connection publishes the client's will."""
        words = self._last_words
        return words is None or words.reason == Reason.DISCONNECT_WITH_WILL

    @property
    def changed_expiry(self) -> int | None:
        """The session expiry that the client has set with its DISCONNECT; None: as it was."""
        return None if self._last_words is None else self._last_words.session_expiry

    # Called by the handshake.

    def takes_answer(self, connect: Connect, assigned: str) -> bool:
        """Whether the CONNACK that lets the client in is one that it takes."""
        most = connect.maximum_packet_size
        if most is None:
            return True
        expiry = min(connect.session_expiry, self.limits.session_expiry)
        about = self._about(connect, expiry, assigned, self._keep_alive(connect))
        return len(self.codec.encode_connack(Reason.SUCCESS, properties=about)) <= most

    def admit(self, connect: Connect, admission: Identity, assigned: str) -> None:
        """Let the client in; there is no other connection with its client id."""
        self._handshake = None
        self.client_id = connect.client_id
        self.username = connect.username
        self.codec = CODEC_5 if connect.version == 5 else CODEC_3
        self.thing = thing = admission.thing
        if thing is not None:
            self._topics = self.server.topics.of_thing(thing)
            if connect.version == 5:
                self._properties = RequestProperties(self._topics)
            else:
                self._shortcut = ResponseFastPath(
                    self, thing, self._topics, self._in_flight, self.server.service
                )
        expiry = min(connect.session_expiry, self.limits.session_expiry)
        if admission.thing is None:
            self._stands = admission.stands  # of a thing, a change closes its connections
            if admission.acl is not None and not admission.observes:
                expiry = 0  # it may subscribe to nothing
                connect = connect._replace(clean_session=True)
        self._connect = connect
        self.connected_at = self.heard_at = self.server.time()
        keep_alive = self._keep_alive(connect)
        self.patience = keep_alive * PATIENCE if keep_alive else float("inf")
        self._scanner.limit = self.limits.packet_bytes
        is_present = self.server.admitted(self, connect, expiry)
        session = self.session
        assert session is not None
        self._receiver = receiver = Receiver(self, session, admission)
        self._messages = (MessageFastPath5 if connect.version == 5 else MessageFastPath)(
            self, session, receiver
        )
        self._subscriber = Subscriber(self, session, admission)
        self.write(
            self.codec.encode_connack(
                Reason.SUCCESS,
                session_present=is_present,
                properties=self._about(connect, expiry, assigned, keep_alive),
            )
        )
        if is_present:
            self._subscriber.resume()
        session.resume(self.connected_at)

    def _keep_alive(self, connect: Connect) -> int:
        """The keep-alive that counts; only an MQTT 5 client can be given another than it asked for."""
        most = self.server.keep_alive
        if connect.version < 5 or not most:
            return connect.keep_alive
        return min(connect.keep_alive or most, most)

    def _about(
        self, connect: Connect, expiry: int, assigned: str, keep_alive: int
    ) -> ConnackProperties | None:
        """What the CONNACK says of this server to an MQTT 5 client."""
        if connect.version < 5:
            return None
        return ConnackProperties(
            session_expiry=None if expiry == connect.session_expiry else expiry,
            receive_maximum=self.limits.qos2_held,
            maximum_packet_size=self.limits.packet_bytes,
            assigned_client_id=assigned,
            topic_alias_maximum=self.limits.topic_aliases,
            server_keep_alive=None if keep_alive == connect.keep_alive else keep_alive,
        )

    def refuse(self, refusal: ConnectRefused, connect: Connect | None) -> None:
        """Turn the client away."""
        kind = refusal.fault if refusal.fault != "refused" else camel_case(refusal.code)
        self.server.service.counters[f"refused.{kind}"] += 1
        self.server.note(refusal.fault, "connection refused", who=self.peer[0], reason=refusal.text)
        self.write(with_words(connect, partial(self._connack, refusal.code), refusal.text, always=True))
        self.finish()

    def _connack(self, reason: Reason, text: str) -> bytes:
        return self.codec.encode_connack(reason, reason_string=text)

    def read_on(self) -> None:
        """Go on where reading stopped at the CONNECT."""
        unread, self._unread = self._unread, None
        if unread is not None:
            self._take(unread)

    def resume(self) -> None:
        """Go on with the packet whose rights were looked up, and with those behind it."""
        self._handshake = None
        self.read_on()

    def end_input(self) -> None:
        """The client has closed its side: end the connection when all that it has sent is read."""
        if self._handshake is not None:
            self._handshake.is_last_word = True
        elif not self._closed:
            self.finish()

    # Packets.

    def _take(self, frames: Iterator[Frame]) -> None:
        try:
            for frame in frames:
                self.server.packets_received += 1
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
        except UndecidedRights as undecided:
            self.server.packets_received -= 1  # it is taken again
            self._unread = chain((frame,), frames)
            self._handshake = RightsLookup(self, undecided.lookup)

    def _begin(self, frame: Frame) -> bool:
        """Take the CONNECT; False: what follows it must wait."""
        if frame.packet.startswith(_MQTT_5, frame.start):
            self.codec = CODEC_5  # of an answer, should the rest be wrong
        self.codec.check_shape(frame)
        handshake = Handshake(self)
        if handshake.begin(frame):
            return True
        self._handshake = handshake
        return False

    def _on_packet(self, frame: Frame) -> None:
        kind = self.codec.check_shape(frame)
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
                self.send(PINGRESP)
            case PacketType.DISCONNECT:
                self._on_disconnect(frame)
            case _:
                raise MalformedPacket("MQTT-3.1.0-2", "a second CONNECT", Reason.PROTOCOL_ERROR)

    def _on_disconnect(self, frame: Frame) -> None:
        words = self.codec.parse_disconnect(frame)
        if words.session_expiry and self._connect is not None and not self._connect.session_expiry:
            raise MalformedPacket(
                "MQTT5 section 3.14.2.2.2",
                "a session expiry, and the CONNECT had none",
                Reason.PROTOCOL_ERROR,
            )
        if words.session_expiry is not None:
            words = words._replace(session_expiry=min(words.session_expiry, self.limits.session_expiry))
        self._last_words = words
        self.finish()

    def _on_answer(self, kind: PacketType, frame: Frame) -> None:
        answer = self.codec.parse_acknowledgement(frame)
        session = self.session
        assert session is not None
        if kind is PacketType.PUBACK:
            execution_id = self._in_flight.acknowledged(answer.packet_id)
            if execution_id is None:
                session.on_puback(answer.packet_id, self.server.time())
            elif execution_id != CANCEL and self.thing is not None:
                self.server.acknowledged(self.thing, execution_id, answer)
        elif kind is PacketType.PUBREC:
            session.on_pubrec(answer.packet_id, answer.reason, self.server.time())
        else:
            session.on_pubcomp(answer.packet_id, self.server.time())
        if self._properties is not None:
            self.release_held()

    def _fault(self, fault: MalformedPacket) -> None:
        kind = "tooLarge" if fault.rule == "limit" else "malformed"
        self.server.note(kind, str(fault), who=self.client_id or self.peer[0])
        if self._connect is None and self.codec.version == 5:
            self.write(self.codec.encode_connack(fault.reason, reason_string=fault.text))
            self.finish()
        else:
            self.drop(fault.reason, fault.text)
