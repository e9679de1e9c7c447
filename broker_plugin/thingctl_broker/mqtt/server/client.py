"""A client as the others see it: who it is, what is written to it, and when it is dropped.

The front holds one for each client, and so do the parts of its connection. What comes from
it is in ``connection``.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from thingctl_broker.commands.broker_time import ToldTime
from thingctl_broker.mqtt.amqtt.bridge import AmqttBridge
from thingctl_broker.mqtt.auth.device_auth import names_of
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.server.inflight import CANCEL, InFlight
from thingctl_broker.mqtt.server.subscriptions import CommandSubscriptions
from thingctl_broker.mqtt.server.transport import Transport
from thingctl_protocol.messages import EMPTY_OBJECT, encode_time
from thingctl_protocol.topics import Kind

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from thingctl_broker.commands.service import CommandService
    from thingctl_broker.mqtt.amqtt.patches import AmqttBroker
    from thingctl_broker.mqtt.auth.authenticator import Authenticator
    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.mqtt.server.limits import MqttLimits
    from thingctl_broker.mqtt.server.traffic_monitors import TrafficMonitors
    from thingctl_protocol.topics import ThingTopics, Topics

# The standard one: where nobody has configured structlog, it would print what is meant for --debug only.
_log = logging.getLogger("thingctl.front")

_REQUEST: Final = Kind.REQUEST
"""Looked up once: it is a call of a function in Python 3.11."""

_TIME: Final = Kind.TIME


class FrontSide(Protocol):
    """What a connection needs of :class:`~thingctl_broker.mqtt.server.server.MqttServer`."""

    topics: Topics
    limits: MqttLimits
    gatekeeper: Authenticator
    service: CommandService
    broker: AmqttBroker
    observers: TrafficMonitors
    time: Callable[[], float]
    """The loop's monotonic time."""

    def opened(self, connection: ServerConnection) -> bool:
        """A client has opened a connection; False: there is no room for it."""
        ...

    def closed(self, connection: ServerConnection) -> None:
        """A connection is gone, or as good as gone."""
        ...

    def predecessor(self, client_id: str, host: str) -> asyncio.Task[None] | None:
        """Close whoever has this client id [MQTT-3.1.4-2]; return what must end before it is free."""
        ...

    def resumes_amqtt_session(self, connect: Connect) -> bool:
        """Whether amqtt has a session that this client goes on with."""
        ...

    def admitted(self, connection: ServerConnection) -> CommandSubscriptions | None:
        """A client is in; return the command subscriptions that were kept for it."""
        ...

    def serves(self, connection: ServerConnection) -> None:
        """A connection has subscribed to its thing's requests."""
        ...

    def released(self, connection: ServerConnection) -> None:
        """A connection no longer takes its thing's requests."""
        ...

    def may_retain(self, topic: str, payload: bytes) -> bool:
        """Whether there is room for a retained message."""
        ...

    def bound_kept(self, client_id: str, session: Any) -> None:
        """Bound what amqtt keeps for a client while it is away."""
        ...

    def note(self, fault: str, text: str, *, who: str = "", **details: object) -> None:
        """Count a fault, and log it at most once a minute for whoever caused it."""
        ...


class ServerConnection(Transport):
    """One connected client, admitted or not yet."""

    __slots__ = (
        "_connect",
        "_in_flight",
        "_observing",
        "_stands",
        "_told_time",
        "_topics",
        "behind",
        "client_id",
        "front",
        "heard_at",
        "keeps_session",
        "patience",
        "subscriptions",
        "thing",
    )

    def __init__(self, front: FrontSide) -> None:
        super().__init__(front.limits)
        self.front = front
        self._observing = front.observers.watching  # nobody, most of the time
        self.client_id = ""
        self.thing: str | None = None
        self.keeps_session = False
        self.subscriptions = CommandSubscriptions()
        self.behind: AmqttBridge | None = None
        self.heard_at = 0.0
        """When the client last sent anything; before it is let in: when it opened the connection."""
        self.patience = front.limits.connect_timeout
        """Seconds that the client may be silent."""
        self._connect: Connect | None = None  # None: it is not admitted yet
        self._in_flight = InFlight()
        self._told_time = ToldTime()
        self._topics: ThingTopics  # of a thing only, and so are requests
        self._stands: Callable[[], bool] | None = None

    @property
    def certificate(self) -> tuple[str, ...]:
        """The names in the client's certificate; none without TLS, or without a certificate."""
        return names_of(self._transport.get_extra_info("peercert"))

    def offended(self, limit: str, text: str, **details: object) -> None:
        """Tell of a limit that the client has reached."""
        self.front.note(limit, text, who=self.client_id, **details)

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
        self.tell_time()
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

    def tell_time(self, *, anew: bool = False) -> None:
        """Write the broker's time, if the client listens for it and was not told of late.

        ``anew``: also when it was.
        """
        thing = self.thing
        if thing is None or _TIME not in self.subscriptions.qos:
            return
        service = self.front.service
        now, unix = service.monotonic(), service.unix()
        if anew or self._told_time.is_due(now, unix):
            self._told_time.tell(now, unix)
            self.write(packets.encode_publish(self.front.topics.time(thing).encode(), encode_time(unix, now)))

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

    # amqtt.

    def amqtt(self) -> AmqttBridge:
        """What of amqtt is behind this connection; opened when it is first needed."""
        if self.behind is not None:
            return self.behind
        assert self._connect is not None
        self.behind = AmqttBridge(
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
