"""A client as the others see it: who it is, what is written to it, and when it is dropped.

The server holds one for each client, and so do the parts of its connection. What comes from
it is in ``connection``.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from math import isinf
from typing import TYPE_CHECKING, Final, Protocol

from thingctl_broker.commands.broker_time import ToldTime
from thingctl_broker.mqtt.auth.device_auth import names_of
from thingctl_broker.mqtt.engine.command_subscriptions import CommandSubscriptions
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import Acknowledgement
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.mqtt.server.inflight import CANCEL, InFlight
from thingctl_broker.mqtt.server.reason_strings import with_words
from thingctl_broker.mqtt.server.transport import Transport
from thingctl_protocol.messages import EMPTY_OBJECT, encode_time
from thingctl_protocol.topics import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.commands.service import CommandService
    from thingctl_broker.mqtt.auth.authenticator import Authenticator
    from thingctl_broker.mqtt.engine.engine import Engine
    from thingctl_broker.mqtt.engine.message import Message
    from thingctl_broker.mqtt.engine.session import Session
    from thingctl_broker.mqtt.engine.store import RecordStore
    from thingctl_broker.mqtt.protocol.codec import Codec
    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.mqtt.server.events import ServerEvents
    from thingctl_broker.mqtt.server.limits import MqttLimits
    from thingctl_broker.mqtt.server.request_properties import RequestProperties
    from thingctl_broker.mqtt.server.traffic_monitors import TrafficMonitors
    from thingctl_protocol.topics import ThingTopics, Topics

# The standard one: where structlog is not configured, it would print what is meant for --debug only.
_log = logging.getLogger("thingctl.mqtt")

_REQUEST: Final = Kind.REQUEST
"""Looked up once: it is a call of a function in Python 3.11."""

_TIME: Final = Kind.TIME

PATIENCE: Final = 1.5
"""A client may be silent for this many times its keep-alive [MQTT-3.1.2-24]."""

FLUSH_BYTES: Final = 256 * 1024
"""What is given to the socket in one go; it may ask to wait between two."""


class ServerPort(Protocol):
    """What a connection needs of :class:`~thingctl_broker.mqtt.server.server.MqttServer`."""

    topics: Topics
    limits: MqttLimits
    gatekeeper: Authenticator
    service: CommandService
    engine: Engine
    store: RecordStore
    observers: TrafficMonitors
    events: list[ServerEvents]
    keep_alive: int
    """Seconds that an MQTT 5 client may have between two packets; 0: as many as it likes."""
    packets_received: int
    packets_sent: int
    """Of all clients, since the start."""
    time: Callable[[], float]
    """The loop's monotonic time."""

    @property
    def bytes_received(self) -> int:
        """Of all clients, since the start."""
        ...

    @property
    def bytes_sent(self) -> int:
        """Of all clients, since the start."""
        ...

    def opened(self, connection: ServerConnection) -> bool:
        """A client has opened a connection; False: there is no room for it."""
        ...

    def closed(self, connection: ServerConnection) -> None:
        """A connection is gone, or as good as gone."""
        ...

    def end_predecessor(self, client_id: str, host: str) -> None:
        """Close the connection that has this client id [MQTT-3.1.4-2]. ``host``: of the client that comes."""
        ...

    def admitted(self, connection: ServerConnection, connect: Connect, expiry: int) -> bool:
        """A client is in: give it its session of ``expiry`` seconds; return whether there was one."""
        ...

    def serves(self, connection: ServerConnection) -> None:
        """A connection has subscribed to its thing's requests."""
        ...

    def released(self, connection: ServerConnection) -> None:
        """A connection no longer takes its thing's requests."""
        ...

    def published(self, connection: ServerConnection, message: Message) -> None:
        """A client has published an ordinary message: tell the host; hold the client if readers are slow."""
        ...

    def has_caught_up(self, connection: ServerConnection) -> None:
        """A client has read what waited for it: those that it held up are read from again."""
        ...

    def let_publish(self, connection: ServerConnection) -> None:
        """A client has been held for long enough."""
        ...

    def acknowledged(self, thing: str, execution_id: str, answer: Acknowledgement) -> None:
        """A thing has answered a request with a PUBACK."""
        ...

    def seconds_left(self, execution_id: str) -> int | None:
        """Seconds until an execution times out, at least 1; None: it is not known."""
        ...

    def note(self, fault: str, text: str, *, who: str = "", **details: object) -> None:
        """Count a fault, and log it at most once a minute for each client."""
        ...


class ServerConnection(Transport):
    """One connected client, admitted or not yet."""

    __slots__ = (
        "_connect",
        "_held_packets",
        "_held_since",
        "_in_flight",
        "_observing",
        "_properties",
        "_stands",
        "_told_time",
        "_topics",
        "client_id",
        "codec",
        "connected_at",
        "heard_at",
        "patience",
        "server",
        "session",
        "stopped_publishers",
        "subscriptions",
        "thing",
        "username",
    )

    def __init__(self, server: ServerPort) -> None:
        super().__init__(server.limits)
        self.server = server
        self._observing = server.observers.watching  # empty, most of the time
        self.client_id = ""
        self.username: str | None = None
        self.thing: str | None = None
        self.codec: Codec = CODEC_3
        self.session: Session | None = None
        """From the time that the client is admitted."""
        self.subscriptions = CommandSubscriptions()
        self.connected_at = 0.0
        self.heard_at = 0.0
        """When the client last sent anything; before it is let in: when it opened the connection."""
        self.patience = server.limits.connect_timeout
        """Seconds that the client may be silent."""
        self.stopped_publishers: dict[ServerConnection, None] = {}
        """Clients that are not read from because this one reads too slowly."""
        self._held_since = 0.0
        self._held_packets: dict[int, bytes] = {}  # by packet identifier, until the client takes more
        self._connect: Connect | None = None  # None: it is not admitted yet
        self._in_flight = InFlight()
        self._told_time = ToldTime()
        self._properties: RequestProperties | None = None
        self._topics: ThingTopics  # of a thing only, and so are requests
        self._stands: Callable[[], bool] | None = None

    @property
    def certificate(self) -> tuple[str, ...]:
        """The names in the client's certificate; none without TLS, or without a certificate."""
        return names_of(self._transport.get_extra_info("peercert"))

    @property
    def version(self) -> int:
        """The client's MQTT version: 3, 4 (3.1.1) or 5; 0 before its CONNECT."""
        return 0 if self._connect is None else self._connect.version

    @property
    def keep_alive(self) -> int:
        """Seconds between two packets of the client at most; 0: as many as it likes."""
        return 0 if isinf(self.patience) else round(self.patience / PATIENCE)

    @property
    def requests_in_flight(self) -> InFlight:
        """Requests and cancels that the client has not acknowledged, and those that are held for it."""
        return self._in_flight

    @property
    def window(self) -> int:
        """Messages of QoS 1 and 2 that the client takes before it acknowledges one, requests among them."""
        return 0xFFFF if self._connect is None else self._connect.receive_maximum

    @property
    def packet_bytes(self) -> int | None:
        """Bytes of the longest packet that the client takes; None: any."""
        return None if self._connect is None else self._connect.maximum_packet_size

    def offended(self, limit: str, text: str, **details: object) -> None:
        """The client has reached a limit: count it, and log it now and then."""
        self.server.note(limit, text, who=self.client_id, **details)

    # Called by the server.

    def close(self, text: str, reason: Reason = Reason.SUCCESS, reference: str = "") -> None:
        """End the connection. ``reason``: for an MQTT 5 client; ``reference``: where it is to go instead."""
        if not self._closed:
            self.server.service.counters["front.closed"] += 1
            _log.debug("connection closed: %s (client %s)", text, ascii(self.client_id))
            self.flush()
            self.say_goodbye(reason, text, reference)
            self.finish()

    def say_goodbye(self, reason: Reason, text: str = "", reference: str = "") -> None:
        """Write a DISCONNECT with a reason, if the client's MQTT has one."""
        if self._connect is not None and reason is not Reason.SUCCESS:
            encode = partial(self.codec.encode_disconnect, reason, server_reference=reference)
            packet = self.in_words(encode, text)
            if packet:
                self.write(packet)

    def in_words(self, encode: Callable[[str], bytes], text: str) -> bytes:
        """A packet with a reason string, if the client wants and takes it; ``encode``: of that string."""
        return with_words(self._connect, encode, text)

    def watch(self, now: float, elapsed: float) -> None:
        """Drop the client if it has been silent, or has not read, for too long."""
        self.check_stall(elapsed)
        if self._held_since and now - self._held_since > HOLD_TIMEOUT:
            self.server.let_publish(self)
        if self._stands is not None and not self._closed and not self._stands():
            self.server.note("revoked", "the token is revoked or has expired: dropped", who=self.client_id)
            self.drop(Reason.NOT_AUTHORIZED)
        if self._closed or now <= self.heard_at + self.patience:
            return
        if self._connect is None:
            self.server.note("connectTimeout", "no CONNECT in time", who=self.peer[0])
            self.abort()
        elif self.is_heard:
            self.server.note("keepAlive", "keep-alive ran out [MQTT-3.1.2-24]", who=self.client_id)
            self.drop(Reason.KEEP_ALIVE_TIMEOUT)

    def drop(self, reason: Reason, text: str = "") -> None:
        """End the connection for a fault of the client; one that speaks MQTT 5 gets the reason."""
        if self.version < 5 or self.is_behind:
            self.abort()
            return
        self.flush()
        self.say_goodbye(reason, text)
        self.finish()

    @property
    def publishes_will(self) -> bool:
        """Whether the end of the connection publishes the client's will."""
        return True

    @property
    def changed_expiry(self) -> int | None:
        """The session expiry that the client has set with its DISCONNECT; None: as it was."""
        return None

    def publish_request(self, execution_id: str, payload: bytes, *, again: bool) -> bool:
        """Write a request; return whether a PUBACK will follow."""
        self.tell_time()
        topic = self._topics.request(execution_id)
        if self._properties is not None and not self._takes(topic, execution_id, payload):
            return True
        if self._observing:
            self.server.observers.tell(topic.decode(), payload)
        if not self.subscriptions.qos[_REQUEST]:
            self.write(self._request(topic, execution_id, payload))
            return False
        if len(self._in_flight) >= self.limits.in_flight:
            self.offended("inFlight", "acknowledges nothing: dropped")
            self.abort()
            return True
        packet_id = self._in_flight.add(execution_id)
        if self._properties is None:
            self.write(CODEC_3.encode_publish(topic, payload, qos=1, packet_id=packet_id, dup=again))
        else:
            packet = self._request(topic, execution_id, payload, qos=1, packet_id=packet_id, dup=again)
            self._write_in_turn(packet, packet_id)
        return True

    def _takes(self, topic: bytes, execution_id: str, payload: bytes) -> bool:
        """Whether the client takes a request of this length; if not, it is refused [MQTT5-3.1.2-24]."""
        most, thing = self.packet_bytes, self.thing
        if most is None or thing is None:
            return True
        size = len(self._request(topic, execution_id, payload, qos=1, packet_id=1))
        if size > most:
            text = f"the request has {size} bytes, and the device takes {most}"
            answer = Acknowledgement(0, Reason.PACKET_TOO_LARGE, text)
            # Not before the service has heard that the request was published.
            asyncio.get_running_loop().call_soon(self.server.acknowledged, thing, execution_id, answer)
        return size <= most

    def _write_in_turn(self, packet: bytes, packet_id: int) -> None:
        """Write a packet of QoS 1 when the client takes one more [MQTT5-3.3.4-9]."""
        self._held_packets[packet_id] = packet
        self.release_held()

    def release_held(self) -> None:
        """Write what was held, as far as the client takes more; then the engine may go on, too."""
        session, held = self.session, self._held_packets
        if session is None:
            return
        while held and len(self._in_flight) - len(held) + session.unacknowledged < self.window:
            packet_id = next(iter(held))
            packet = held.pop(packet_id)
            execution_id = self._in_flight.get(packet_id)
            if execution_id and self.server.seconds_left(execution_id) is None:
                self._in_flight.acknowledged(packet_id)  # it has ended while it was held
            else:
                self.write(packet)
        if session.has_backlog:
            session.pump(self.server.time())

    def _request(
        self,
        topic: bytes,
        execution_id: str,
        payload: bytes,
        *,
        qos: int = 0,
        packet_id: int = 0,
        dup: bool = False,
    ) -> bytes:
        properties = self._properties
        if properties is None:
            return CODEC_3.encode_publish(topic, payload, qos=qos, packet_id=packet_id, dup=dup)
        return self.codec.encode_publish(
            topic,
            payload,
            qos=qos,
            packet_id=packet_id,
            dup=dup,
            properties=properties.of(execution_id),
            message_expiry=self.server.seconds_left(execution_id),
        )

    def tell_time(self, *, anew: bool = False) -> None:
        """Write the broker's time, if the client listens for it and was not told of late.

        ``anew``: also when it was.
        """
        thing = self.thing
        if thing is None or _TIME not in self.subscriptions.qos:
            return
        service = self.server.service
        now, unix = service.monotonic(), service.unix()
        if anew or self._told_time.is_due(now, unix):
            self._told_time.tell(now, unix)
            topic = self.server.topics.time(thing).encode()
            self.write(self.codec.encode_publish(topic, encode_time(unix, now)))

    def publish_cancel(self, execution_id: str) -> None:
        """Write a cancel, if the client listens for it."""
        qos = self.subscriptions.qos.get(Kind.CANCEL)
        if qos is not None and self.thing is not None:
            topic = self.server.topics.cancel(self.thing, execution_id)
            if self._observing:
                self.server.observers.tell(topic, EMPTY_OBJECT)
            packet_id = self._in_flight.add(CANCEL) if qos else 0
            packet = self.codec.encode_publish(topic.encode(), EMPTY_OBJECT, qos=qos, packet_id=packet_id)
            if qos and self._properties is not None:
                self._write_in_turn(packet, packet_id)
            else:
                self.write(packet)

    def show(self, message: Message) -> bytes:
        """A message that this client watches, as its MQTT has it."""
        assert self.session is not None
        return self.session.encoder.unacknowledged(message, self.server.time(), retain=False, ids=())

    def write(self, data: bytes, packets: int = 1) -> None:
        """Write so many packets ahead of those that wait in the session."""
        if self._closed:
            return
        self.server.packets_sent += packets
        if self._write_paused:
            super().write(data)
        else:  # most of the time, and a call less
            self.bytes_sent += len(data)
            self._transport.write(data)

    # The engine.

    def send(self, packet: bytes) -> None:
        """Give the client a packet with the next ones; nothing if it has gone."""
        if self.session is not None and not self._closed:
            self.session.write(packet)

    def answer(self, packet: bytes) -> None:
        """Acknowledge what came on the command path: behind earlier answers, ahead of later messages."""
        session = self.session
        if self._closed or self._write_paused or session is None or session.outgoing:
            self.flush()
            self.write(packet)
            return
        self.server.packets_sent += 1  # most of the time, and a call less
        self.bytes_sent += len(packet)
        self._transport.write(packet)

    def flush(self) -> None:
        """Give the socket what waits, as long as it takes more."""
        session = self.session
        if session is None or self._closed:
            return
        while True:
            while session.outgoing and not self._write_paused:
                count = len(session.outgoing)
                packets = session.take_outgoing(FLUSH_BYTES)
                self.bytes_sent += len(packets)
                self.server.packets_sent += count - len(session.outgoing)
                self._transport.write(packets)
            if self._write_paused or not session.has_backlog:
                break
            session.pump(self.server.time())
            if not session.outgoing:
                break
        if self.stopped_publishers and session.waiting_bytes < self.limits.client_bytes >> 2:
            self.server.has_caught_up(self)

    def finish(self) -> None:
        """End the connection when what waits and what was written has gone out."""
        self.flush()
        super().finish()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self.flush()

    def hold_publisher(self, *, stop: bool) -> None:
        """Read nothing more from the client while another one reads too slowly, or read again."""
        now = self.server.time()
        if stop == bool(self._held_since):
            return
        self._held_since = now if stop else 0.0
        self.hold_reading(stop=stop)
        self.heard_at = now  # while it was not read from it could not be heard


HOLD_TIMEOUT: Final = 5.0
"""Seconds that a publisher is held at most: two that hold each other would never go on."""
