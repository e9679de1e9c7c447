"""The front: every device connects here, and the command path ends here.

It owns the connections, knows which one serves which thing, and is the service's link.
What a connection does with its packets is in ``connection``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import structlog

from thingctl_broker.commands.events import RateLimit
from thingctl_broker.mqtt.amqtt.offline_queue import bound
from thingctl_broker.mqtt.amqtt.patches import drop_session, steady_subscriptions
from thingctl_broker.mqtt.server.connection import DeviceConnection
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.mqtt.server.persistent_sessions import PersistentSessions
from thingctl_broker.mqtt.server.traffic_monitors import TrafficMonitors
from thingctl_broker.security.connection_limits import ConnectionLimiter
from thingctl_broker.system.addresses import NO_NETWORKS
from thingctl_broker.system.listeners import ignore_refused, listen
from thingctl_protocol.topics import Topics

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from thingctl_broker.commands.service import CommandService
    from thingctl_broker.mqtt.amqtt.patches import AmqttBroker
    from thingctl_broker.mqtt.auth.authenticator import Authenticator
    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.mqtt.server.client import ServerConnection
    from thingctl_broker.mqtt.server.subscriptions import CommandSubscriptions
    from thingctl_broker.mqtt.server.transport import Transport
    from thingctl_broker.system.addresses import Networks
    from thingctl_broker.system.listeners import Listener, Refused
    from thingctl_broker.system.proxy_protocol import Peer

WATCH_INTERVAL: Final = 0.5
"""Seconds between two looks at who has been silent for too long."""

WATCH_TURN: Final = 250
"""Connections looked at before others have their turn: at ten thousand it would be felt."""

_log = structlog.get_logger("thingctl.front")


class MqttServer:
    """The listeners and the connections."""

    def __init__(
        self,
        *,
        gatekeeper: Authenticator,
        topics: Topics | None = None,
        limits: MqttLimits | None = None,
        proxies: Networks = NO_NETWORKS,
    ) -> None:
        """``proxies``: the addresses that no limit of connections by address is for."""
        self.topics = Topics() if topics is None else topics
        self.limits = MqttLimits() if limits is None else limits
        self.gatekeeper = gatekeeper
        self.service: CommandService
        self.broker: AmqttBroker
        self.time: Callable[[], float]
        """The loop's monotonic time."""
        self._limiter = ConnectionLimiter(
            self.limits.connections_per_address, self.limits.connection_opening, proxies
        )
        self.log_limit = RateLimit(60.0)
        self.connections: set[ServerConnection] = set()
        self.observers = TrafficMonitors(self.limits.observers, self._missed)
        self._clients: dict[str, ServerConnection] = {}
        self._serving: dict[str, ServerConnection] = {}
        self._standing_by: dict[str, dict[ServerConnection, None]] = {}  # in the order of serving
        self._present: Counter[str] = Counter()
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._kept = PersistentSessions(self.limits.kept_sessions, self.limits.kept_sessions_per_thing)
        self._listeners: list[Listener] = []
        self._watcher: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop

    async def start(
        self,
        service: CommandService,
        broker: AmqttBroker,
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
        self.broker = broker
        steady_subscriptions(broker)
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
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
        """Stop listening, close every connection, and wait for amqtt to let them go."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        for connection in tuple(self.connections):
            connection.close("the broker is stopping")
        if self._leaving:
            await asyncio.wait(self._leaving.values(), timeout=1.0)

    # The service's link.

    def publish_request(self, thing: str, execution_id: str, payload: bytes, *, again: bool) -> bool:
        """Write a request to the connection that serves the thing."""
        connection = self._serving.get(thing)
        if connection is None:  # pragma: no cover - the service is told before the connection is forgotten
            return True
        return connection.publish_request(execution_id, payload, again=again)

    def publish_cancel(self, thing: str, execution_id: str) -> None:
        """Ask the thing to stop, if it has subscribed to cancels."""
        connection = self._serving.get(thing)
        if connection is not None:
            connection.publish_cancel(execution_id)

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
        return True

    def closed(self, connection: ServerConnection) -> None:
        """A connection is gone, or as good as gone."""
        if connection in self.connections:
            self.connections.remove(connection)
            self._limiter.release(connection.peer[0])
        client_id, thing = connection.client_id, connection.thing
        if connection.behind is not None:
            self._amqtt_leaves(client_id, connection.behind.task)
        self.observers.leave(connection)
        if self._clients.get(client_id) is not connection:
            return
        del self._clients[client_id]
        if connection.keeps_session:
            self._keep(connection)
        if thing is None:
            return
        self.released(connection)
        self._present[thing] -= 1
        if self._present[thing] <= 0:
            del self._present[thing]
            self.service.disconnected(thing)

    def _keep(self, connection: ServerConnection) -> None:
        """Keep the session of a client that has gone, if it has one, here or in amqtt."""
        client_id = connection.client_id
        has_amqtt = connection.behind is not None or client_id in self.broker.sessions
        if not (has_amqtt or len(connection.subscriptions)):
            return
        oldest = self._kept.keep(client_id, connection.thing, connection.subscriptions)
        if oldest is not None:
            text = "too many sessions are kept: the session offline the longest is discarded"
            self.note("keptSessions", text, who=connection.thing or client_id, gone=oldest)
            self._let_go(oldest)

    def _let_go(self, client_id: str) -> None:
        """Have amqtt forget a session that is no longer kept."""
        leaving = self._leaving.get(client_id)
        if leaving is not None:  # amqtt may be about to make it
            leaving.add_done_callback(lambda _: self._let_go(client_id))
        elif client_id in self.broker.sessions and not (
            client_id in self._clients or client_id in self._kept
        ):
            drop_session(self.broker, client_id)

    def predecessor(self, client_id: str, host: str) -> asyncio.Task[None] | None:
        """Close whoever has this client id [MQTT-3.1.4-2]; return what must end before it is free.

        ``host``: of the client that comes.

        amqtt shares one session object between two connections of the same id (its take-over
        leaves the new one deaf), so the second must not reach it before the first has left.
        """
        previous = self._clients.get(client_id)
        if previous is not None:
            self._taken_over(previous, host)
            previous.close("taken over by a new connection")
        return self._leaving.get(client_id)

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

    def resumes_amqtt_session(self, connect: Connect) -> bool:
        """Whether amqtt has a session that this client goes on with. One that it may not is dropped.

        A clean session of amqtt's outlives its client a little; to go on with it would make
        a clean one of this client's too. And what one user left no other may take up.
        """
        session, _ = self.broker.sessions.get(connect.client_id, (None, None))
        if session is None:
            return False
        if not connect.clean_session and not session.clean_session and session.username == connect.username:
            return True
        drop_session(self.broker, connect.client_id)
        return False

    def admitted(self, connection: ServerConnection) -> CommandSubscriptions | None:
        """A client is in; return the command subscriptions that were kept for it."""
        self._clients[connection.client_id] = connection
        kept = self._kept.take(connection.client_id)
        thing = connection.thing
        if thing is not None:
            self._present[thing] += 1
            self.service.connected(thing, connection.client_id)
        if kept is None or kept.thing != thing or not connection.keeps_session:
            return None
        return kept.subscriptions if len(kept.subscriptions) else None

    def serves(self, connection: ServerConnection) -> None:
        """A connection has subscribed to its thing's requests. The latest one gets them."""
        thing = connection.thing
        assert thing is not None
        serving = self._serving.get(thing)
        if serving is connection:
            return
        others = self._standing_by.get(thing)
        if others is not None and connection in others:
            return
        if serving is not None:
            self._standing_by.setdefault(thing, {})[serving] = None
        self._serve(thing, connection)

    def released(self, connection: ServerConnection) -> None:
        """A connection no longer takes its thing's requests; the latest of any others does."""
        thing = connection.thing
        if thing is None:
            return
        others = self._standing_by.get(thing)
        if others is not None and connection in others:
            del others[connection]
        elif self._serving.get(thing) is connection:
            del self._serving[thing]
            self.service.unreachable(thing)
            if others:
                self._serve(thing, others.popitem()[0])
        if not others:
            self._standing_by.pop(thing, None)

    def expel(self, thing: str, reason: str, *, forget: bool = False) -> None:
        """Close every connection of a thing: it is disabled, removed, or has other credentials.

        ``forget``: what was kept for it goes, too; another device may get the name.
        """
        for connection in tuple(self._clients.values()):
            if connection.thing == thing:
                connection.keeps_session = connection.keeps_session and not forget
                connection.close(reason)
        if forget:
            self._kept.forget(thing)
            own = f"{thing}/"
            for client_id in [client_id for client_id in self.broker.sessions if client_id.startswith(own)]:
                drop_session(self.broker, client_id)

    def _serve(self, thing: str, connection: ServerConnection) -> None:
        self._serving[thing] = connection
        self.service.reachable(thing)

    def may_retain(self, topic: str, payload: bytes) -> bool:
        """Whether there is room for a retained message; replacing and clearing one always has."""
        retained = self.broker.retained_messages
        if not payload or topic in retained:
            return len(payload) <= self.limits.retained_bytes
        return len(retained) < self.limits.retained and len(payload) <= self.limits.retained_bytes

    def bound_kept(self, client_id: str, session: Any) -> None:
        """Bound what amqtt keeps for a client while it is away."""
        text = "too much is kept for it while it is away: the oldest goes"

        def lost(topic: str) -> None:
            self.note("awayLost", text, who=client_id, topic=topic[:200])

        bound(session, self.limits.away_messages, self.limits.away_bytes, lost)

    def note(self, fault: str, text: str, *, who: str = "", **details: object) -> None:
        """Count a fault, and log it at most once a minute for whoever caused it."""
        self.service.counters[f"front.{fault}"] += 1
        # One reason does not hide another. What a client chooses is quoted in it, and makes no new one.
        reason = str(details.get("reason", "")).replace('"', "'").partition("'")[0]
        if self.log_limit.allows(f"{fault} {who} {reason}", self.time()):
            _log.warning(text, fault=fault, client=who, **details)

    def _missed(self, observer: Transport, topic: str) -> None:
        text = "reads too slowly: it misses what it wanted to watch"
        observer.offended("observerBehind", text, topic=topic[:200])

    # What time does.

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            now = self.time()
            for looked, connection in enumerate(tuple(self.connections), 1):
                connection.watch(now, WATCH_INTERVAL)
                if not looked % WATCH_TURN:
                    await asyncio.sleep(0)

    def _amqtt_leaves(self, client_id: str, task: asyncio.Task[None]) -> None:
        if task.done():
            return
        self._leaving[client_id] = task

        def left(task: asyncio.Task[None]) -> None:
            if self._leaving.get(client_id) is task:
                del self._leaving[client_id]

        task.add_done_callback(left)
