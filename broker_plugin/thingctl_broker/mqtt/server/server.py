"""The MQTT server: every client connects here, and the command path ends here.

It owns the connections, knows which one serves which thing, is the service's link, and gives the
engine's packets to the sockets. What a connection does with its packets is in ``connection``.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.mqtt.engine.encoder import encoder_for
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.message import Message
from thingctl_broker.mqtt.engine.outbox import WINDOW
from thingctl_broker.mqtt.engine.restore import restore
from thingctl_broker.mqtt.engine.store import NullRecords
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.mqtt.server.client_list import ClientList
from thingctl_broker.mqtt.server.connection import DeviceConnection
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.mqtt.server.request_link import RequestLink
from thingctl_broker.mqtt.server.slow_readers import SlowReaders
from thingctl_broker.mqtt.server.traffic_monitors import Monitor, TrafficMonitors
from thingctl_broker.security.connection_limits import ConnectionLimiter
from thingctl_broker.security.rate_limit import ONCE_A_MINUTE, TokenBuckets
from thingctl_broker.system.addresses import NO_NETWORKS
from thingctl_broker.system.listeners import ignore_refused, listen
from thingctl_protocol.topics import Topics

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from thingctl_broker.commands.service import CommandService
    from thingctl_broker.mqtt.auth.authenticator import Authenticator
    from thingctl_broker.mqtt.engine.session import Session
    from thingctl_broker.mqtt.engine.store import RecordStore
    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.mqtt.server.client import ServerConnection
    from thingctl_broker.mqtt.server.events import ServerEvents
    from thingctl_broker.system.addresses import Networks
    from thingctl_broker.system.listeners import Listener, Refused
    from thingctl_broker.system.proxy_protocol import Peer

WATCH_INTERVAL: Final = 0.5
"""Seconds between two looks at who has been silent for too long."""

WATCH_TURN: Final = 250
"""Connections looked at before others have their turn: at ten thousand it would be felt."""

_log = structlog.get_logger("thingctl.mqtt")


class MqttServer(RequestLink):
    """The listeners, the connections, and the engine behind them."""

    def __init__(
        self,
        *,
        gatekeeper: Authenticator,
        topics: Topics | None = None,
        limits: MqttLimits | None = None,
        proxies: Networks = NO_NETWORKS,
        store: RecordStore | None = None,
        keep_alive: int = 0,
        server_reference: str = "",
    ) -> None:
        """``proxies``: the addresses that no limit of connections by address is for.

        ``store``: where sessions and retained messages are kept; None: nowhere. ``keep_alive``: the most
        seconds of an MQTT 5 client; 0: as it likes. ``server_reference``: where they go when this one stops.
        """
        super().__init__()
        self.topics = Topics() if topics is None else topics
        self.limits = MqttLimits() if limits is None else limits
        self.gatekeeper = gatekeeper
        self.keep_alive = keep_alive
        self.server_reference = server_reference
        self.store = NullRecords() if store is None else store
        self.engine = Engine(self.limits, store, wall=time.time() - time.monotonic())
        self.engine.totals.wake = self._flush_soon
        self.engine.totals.on_drop = self._dropped
        self.engine.will_published = self._tell
        self.events: list[ServerEvents] = []
        """Who else hears of clients and messages; empty, most of the time."""
        self.time: Callable[[], float] = time.monotonic
        """Monotonic time."""
        self._limiter = ConnectionLimiter(
            self.limits.connections_per_address, self.limits.connection_opening, proxies
        )
        self.log_limit = TokenBuckets(ONCE_A_MINUTE)
        self.connections: set[ServerConnection] = set()
        self.observers = TrafficMonitors(self.limits.observers, self._missed)
        self._clients: dict[str, ServerConnection] = {}
        self._slow_readers = SlowReaders(self._clients, stops=self.limits.slow_readers == "stop")
        self._present: Counter[str] = Counter()
        self._listeners: list[Listener] = []
        self._watcher: asyncio.Task[None] | None = None
        self.packets_received = self.packets_sent = 0
        """Of all clients, since the start."""
        self.clients = ClientList(self, self._clients)
        self._gone_received = self._gone_sent = 0  # bytes of connections that are gone
        self._sockets = self._connects = self._most_clients = self._own_messages = 0
        self._started_at = self.time()
        self._loop: asyncio.AbstractEventLoop

    def restore(self, now: float) -> int:
        """Take up the sessions and retained messages that the store has; return how many sessions.

        Raises :class:`~thingctl_broker.mqtt.engine.restore.DamagedRecord`.
        """
        return restore(self.engine, self.store, now, self._subscribe_commands)

    def _subscribe_commands(self, session: Session, topic_filter: str, qos: int) -> None:
        if session.thing is None:
            session.commands.observe(topic_filter)
        else:
            session.commands.grant(topic_filter, qos, topics=self.topics, thing=session.thing)

    async def start(
        self,
        service: CommandService,
        sockets: list[socket.socket],
        tls: ssl.SSLContext | None = None,
        *,
        proxies: Networks = NO_NETWORKS,
        refused: Refused = ignore_refused,
    ) -> None:
        """Listen on ``sockets``, which are bound; ``tls``: with it, and not without.

        ``proxies``: the addresses whose connections begin with a PROXY header; ``refused`` hears of each
        that does not.
        """
        self.service = service
        self._loop = asyncio.get_running_loop()
        for sock in sockets:
            listener = await listen(
                sock,
                self.connection,
                tls=tls,
                tls_timeout=self.limits.connect_timeout,
                proxies=proxies,
                refused=refused,
                backlog=4096,
            )
            self._listeners.append(listener)
        self._watcher = self._loop.create_task(self._watch())

    async def stop(self) -> None:
        """Stop listening, and close every connection."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        reference = self.server_reference
        reason = Reason.USE_ANOTHER_SERVER if reference else Reason.SERVER_SHUTTING_DOWN
        for connection in tuple(self.connections):
            connection.close("the broker is stopping", reason, reference)

    # The host.

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, publisher: str = ""
    ) -> None:
        """Publish an ordinary message of the broker's own, or of the host's side."""
        self._own_messages += 1
        self.engine.publish(Message(topic, payload, qos, retain, publisher), self.time())

    def retain(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        """Retain a message, or with an empty payload clear it, and deliver it to no one."""
        self.engine.retain(Message(topic, payload, qos, retain=True))

    def retained(self, topic_filter: str) -> list[Message]:
        """The retained messages that match a filter."""
        return self.engine.retained.match(topic_filter, self.time())

    @property
    def bytes_received(self) -> int:
        """Of all clients, since the start."""
        return self._gone_received + sum(connection.bytes_received for connection in self.connections)

    @property
    def bytes_sent(self) -> int:
        """Of all clients, since the start."""
        return self._gone_sent + sum(connection.bytes_sent for connection in self.connections)

    def figures(self) -> dict[str, float]:
        """What ``$SYS`` tells, by the names in ``sys_topics``."""
        connected, engine_figures = len(self._clients), self.engine.figures()
        return {
            "bytes_received": self.bytes_received,
            "bytes_sent": self.bytes_sent,
            "clients_connected": connected,
            "clients_maximum": self._most_clients,
            "clients_total": connected + self.engine.sessions.away,
            "connects": self._connects,
            "messages_received": self.packets_received,
            "messages_sent": self.packets_sent,
            "sockets": self._sockets,
            "uptime": self.time() - self._started_at,
            **engine_figures,
            "publish_received": engine_figures["publish_received"] - self._own_messages,
        }

    def published(self, connection: ServerConnection, message: Message) -> None:
        """A client has published an ordinary message: tell the host; hold the client if readers are slow."""
        self._tell(message)
        if self.engine.totals.slow:
            self._slow_readers.hold(connection, self.engine.take_slow())

    def _tell(self, message: Message) -> None:
        for host in self.events:
            host.message_received(message.publisher, message)

    def has_caught_up(self, connection: ServerConnection) -> None:
        """A client has read what waited for it: those that it held up are read from again."""
        self._slow_readers.catch_up(connection)

    def let_publish(self, connection: ServerConnection) -> None:
        """A client has been held for long enough."""
        self._slow_readers.let_publish(connection)

    # What connections tell.

    def connection(self, peer: Peer | None = None) -> DeviceConnection:
        """One for a client that is about to be accepted. ``peer``: its address; None: the transport's."""
        connection = DeviceConnection(self)
        if peer is not None:
            connection.peer = peer
        return connection

    def opened(self, connection: ServerConnection) -> bool:
        """A client has opened a connection; False: there is no room for it."""
        if len(self.connections) >= self.limits.connections:
            self.note("connections", "too many connections", limit=self.limits.connections)
            return False
        host = connection.peer[0]
        rejection = self._limiter.admit(host, self.time())
        if rejection is not None:
            self.note(rejection, "a connection was turned away", who=host)
            return False
        self.connections.add(connection)
        self._sockets += 1
        return True

    def closed(self, connection: ServerConnection) -> None:
        """A connection is gone, or as good as gone."""
        if connection in self.connections:
            self.connections.remove(connection)
            self._gone_received += connection.bytes_received
            self._gone_sent += connection.bytes_sent
            self._limiter.release(connection.peer[0])
        self.observers.leave(connection)
        if connection.stopped_publishers:
            self.has_caught_up(connection)
        client_id, thing = connection.client_id, connection.thing
        if self._clients.get(client_id) is not connection:
            return
        del self._clients[client_id]
        if thing is not None:
            self.released(connection)
            self._present[thing] -= 1
            if self._present[thing] <= 0:
                del self._present[thing]
                self.service.disconnected(thing)
        if connection.session is not None:
            displaced = self.engine.disconnect(
                connection.session,
                self.time(),
                publishes_will=connection.publishes_will,
                expiry=connection.changed_expiry,
            )
            if displaced is not None:
                text = "too many sessions are kept: the session offline the longest is discarded"
                self.note("keptSessions", text, who=thing or client_id, gone=displaced.client_id)
        for host in self.events:
            host.client_disconnected(client_id)

    def end_predecessor(self, client_id: str, host: str) -> None:
        """Close the connection that has this client id [MQTT-3.1.4-2]. ``host``: of the client that comes."""
        previous = self._clients.get(client_id)
        if previous is not None:
            self._taken_over(previous, host)
            previous.close("taken over by a new connection", Reason.SESSION_TAKEN_OVER)

    def _taken_over(self, previous: ServerConnection, host: str) -> None:
        """Tell of it: a device whose old connection hangs comes back so, and so does another of its name."""
        self.note(
            "takenOver",
            "another client took the session: it is the same one again, or two devices use one name",
            who=previous.client_id,
            address=host,
            previousAddress=previous.peer[0],
            previousHeard=round(self.time() - previous.heard_at, 1),
        )
        if previous.thing is not None:
            self.service.things.taken_over(previous.thing)

    def admitted(self, connection: ServerConnection, connect: Connect, expiry: int) -> bool:
        """A client is in: give it its session of ``expiry`` seconds; return whether there was one."""
        thing = connection.thing
        session, is_present = self.engine.connect(
            connection.client_id,
            owner=connect.username if thing is None else thing,
            thing=thing,
            clean=connect.clean_session,
            expiry=expiry,
            will=connect.will,
            encoder=encoder_for(connect),
            window=WINDOW if connect.version < 5 else connect.receive_maximum,
            outlet=connection,
            others=None if connect.version < 5 else connection.requests_in_flight,
            now=self.time(),
        )
        connection.session = session
        connection.subscriptions = session.commands
        self._clients[connection.client_id] = connection
        self._connects += 1
        self._most_clients = max(self._most_clients, len(self._clients))
        if thing is not None:
            self._present[thing] += 1
            self.service.connected(thing, connection.client_id)
        for host in self.events:
            host.client_connected(connection.client_id, connect.username)
        return is_present

    def serves(self, connection: ServerConnection) -> None:
        """A connection has subscribed to its thing's requests. The latest one gets them."""
        thing = connection.thing
        if thing is not None and self._serving.add(thing, connection):
            self.service.reachable(thing, connection.window)

    def released(self, connection: ServerConnection) -> None:
        """A connection no longer takes its thing's requests; the latest of any others does."""
        thing = connection.thing
        if thing is None or not self._serving.remove(thing, connection):
            return
        self.service.unreachable(thing)
        heir = self._serving.get(thing)
        if heir is not None:
            self.service.reachable(thing, heir.window)

    def expel(self, thing: str, reason: str, *, forget: bool = False) -> None:
        """Close every connection of a thing: it is disabled, removed, or has other credentials.

        ``forget``: what was kept for it goes, too; another device may get the name.
        """
        for connection in tuple(self._clients.values()):
            if connection.thing == thing:
                connection.close(reason, Reason.ADMINISTRATIVE_ACTION)
        if forget:
            for session in self.engine.sessions:
                if session.thing == thing:
                    self.engine.end(session, self.time())

    def note(self, fault: str, text: str, *, who: str = "", **details: object) -> None:
        """Count a fault, and log it at most once a minute for each client."""
        self.service.counters[f"front.{fault}"] += 1
        # One reason does not hide another. What a client chooses is quoted in it, and makes no new one.
        reason = str(details.get("reason", "")).replace('"', "'").partition("'")[0]
        if self.log_limit.allows(f"{fault} {who} {reason}", self.time()):
            _log.warning(text, fault=fault, client=who, **details)

    def _dropped(self, reason: str, client_id: str, topic: str) -> None:
        """A client does not get a message: count it, and log it at most once a minute for each client."""
        session = self.engine.sessions.get(client_id)
        if session is not None:
            session.count_drop(reason)
        if self.log_limit.allows(f"dropped {reason} {client_id}", self.time()):
            text = (
                "messages for a client are dropped" if reason != "retained" else "no room to retain a message"
            )
            _log.warning(text, reason=reason, client=client_id, topic=topic[:200])

    def _missed(self, observer: Monitor, topic: str) -> None:
        text = "reads too slowly: it misses what it wanted to watch"
        observer.offended("observerBehind", text, topic=topic[:200])

    # What time does.

    def _flush_soon(self) -> None:
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        for session in self.engine.take_dirty():
            if session.outlet is not None:
                session.outlet.flush()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            now = self.time()
            self.engine.tick(now)
            for looked, connection in enumerate(tuple(self.connections), 1):
                connection.watch(now, WATCH_INTERVAL)
                if not looked % WATCH_TURN:
                    await asyncio.sleep(0)
