"""The server's clients as operators see them: who is connected, whose session is kept, and what waits."""

from __future__ import annotations

from collections import Counter
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Final

from thingctl_broker.errors import ClientAway
from thingctl_broker.mqtt.auth.token_auth import MARK
from thingctl_broker.mqtt.protocol.packets import NEVER
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.system.addresses import Address
from thingctl_broker.things.mqtt_clients import (
    ClientQuery,
    ClientSort,
    ClientSubscription,
    MqttClient,
    MqttFigures,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from thingctl_broker.mqtt.engine.session import Session
    from thingctl_broker.mqtt.server.client import ServerConnection, ServerPort
    from thingctl_broker.things.mqtt_clients import ListPlace

VERSIONS: Final = {3: "3.1", 4: "3.1.1", 5: "5"}
"""Names of the protocol levels."""

EVERY: Final = ClientQuery()

_KICKED: Final = "an operator has ended the connection"


class ClientList:
    """Implements :class:`~thingctl_broker.things.mqtt_clients.MqttClients`."""

    def __init__(self, server: ServerPort, connections: Mapping[str, ServerConnection]) -> None:
        """``connections``: of the admitted clients, by client id."""
        self._server = server
        self._sessions = server.engine.sessions
        self._connections = connections

    def select(self, query: ClientQuery, limit: int, after: str = "") -> tuple[list[MqttClient], str | None]:
        """The first clients behind the cursor ``after``, without filters; and a cursor if there are more.

        Raises ValueError for a cursor of another order.
        """
        start = query.start(after)
        if query.sort is ClientSort.CLIENT_ID:
            found = nsmallest(limit + 1, self._ids(query, after))
        else:
            found = [place.client_id for place in nsmallest(limit + 1, self._places(query, start))]
        clients = [self._client(self._sessions.get(client_id)) for client_id in found[:limit]]
        return clients, query.cursor(clients[-1]) if len(found) > limit else None

    def get(self, client_id: str) -> MqttClient | None:
        """One client, with its filters."""
        session = self._sessions.get(client_id)
        return None if session is None else self._client(session, filters=_filters(session))

    def kick(self, client_id: str, *, session: bool = False) -> None:
        """End the connection of a client, with MQTT 5's reason 0x98; ``session``: its session, too.

        Raises :class:`ClientAway` when it has none and its session is to stay.
        """
        connection = self._connections.get(client_id)
        if connection is not None:
            connection.close(_KICKED, Reason.ADMINISTRATIVE_ACTION)
        elif not session:
            raise ClientAway(
                f"the client {ascii(client_id)[:140]} is not connected; with session=true "
                "(thingctl clients kick --session) the session that is kept for it ends"
            )
        kept = self._sessions.get(client_id)
        if session and kept is not None:
            self._server.engine.end(kept, self._server.time())

    def figures(self) -> MqttFigures:
        """What is measured."""
        engine, server = self._server.engine, self._server
        totals = engine.totals
        versions = Counter(connection.version for connection in self._connections.values())
        return MqttFigures(
            connected={name: versions[level] for level, name in VERSIONS.items()},
            away=self._sessions.away,
            subscriptions=len(engine.tree),
            retained=len(engine.retained),
            retained_bytes=engine.retained.bytes,
            waiting_bytes=totals.waiting_bytes,
            counters={
                "messages": {"received": totals.received, "sent": totals.sent},
                "bytes": {"received": server.bytes_received, "sent": server.bytes_sent},
                "dropped": _of_family("dropped.", totals.counters),
                "sessions": _of_family("sessions.", totals.counters),
            },
            commits=server.store.commits,
            is_keeping=server.store.accepting,
        )

    # How a session becomes a client.

    def _ids(self, query: ClientQuery, after: str) -> Iterator[str]:
        is_every = query == EVERY  # asked for most of the time, of up to a hundred thousand
        return (
            session.client_id
            for session in self._sessions
            if session.client_id > after and (is_every or self._is_asked(session, query))
        )

    def _places(self, query: ClientQuery, start: ListPlace | None) -> Iterator[ListPlace]:
        for session in self._sessions:
            if self._is_asked(session, query):
                dropped = 0 if session.drops is None else session.drops.total()
                place = query.place(session.client_id, self._waiting_bytes(session), dropped)
                if start is None or place > start:
                    yield place

    def _waiting_bytes(self, session: Session) -> int:
        connection = self._connections.get(session.client_id)
        return session.waiting_bytes + (0 if connection is None else connection.unsent_bytes)

    def _is_asked(self, session: Session, query: ClientQuery) -> bool:
        connection = self._connections.get(session.client_id)
        username = session.owner if connection is None else connection.username
        return query.admits(session.client_id, username, session.thing, connected=connection is not None)

    def _client(self, session: Session | None, *, filters: tuple[ClientSubscription, ...] = ()) -> MqttClient:
        assert session is not None
        client_id, connection = session.client_id, self._connections.get(session.client_id)
        username = session.owner if connection is None else connection.username
        return MqttClient(
            client_id=client_id,
            connected=connection is not None,
            username=username,
            thing=session.thing,
            token=_token(session, username),
            session_expiry=None if session.expiry == NEVER else session.expiry,
            away_since=self._unix(session.away_since) if connection is None else None,
            subscriptions=len(session.subscriptions) + len(session.commands),
            filters=filters,
            queued_messages=len(session.queue),
            in_flight=len(session.in_flight),
            waiting_bytes=self._waiting_bytes(session),
            dropped={} if session.drops is None else dict(session.drops),
            **({} if connection is None else self._connected(connection)),
        )

    def _connected(self, connection: ServerConnection) -> dict[str, Any]:
        """What only a connection has."""
        return {
            "version": VERSIONS.get(connection.version, str(connection.version)),
            "address": str(Address(*connection.peer)),
            "carrier": connection.carrier,
            "connected_at": self._unix(connection.connected_at),
            "heard_at": self._unix(connection.heard_at),
            "keep_alive": connection.keep_alive,
            "requests_in_flight": len(connection.requests_in_flight),
            "bytes_received": connection.bytes_received,
            "bytes_sent": connection.bytes_sent,
        }

    def _unix(self, at: float) -> float:
        """A monotonic time in Unix seconds."""
        return self._server.service.unix() - (self._server.time() - at)


def _filters(session: Session) -> tuple[ClientSubscription, ...]:
    commands = session.commands.by_filter()
    return (
        *(ClientSubscription(name, qos, command=True) for name, qos in commands.items()),
        *(
            ClientSubscription(name, options.qos, False, *options[1:])
            for name, options in session.subscriptions.items()
        ),
    )


def _token(session: Session, username: str | None) -> str | None:
    """The name of the token by which a client was let in: its client id begins with it (``token_auth``)."""
    is_backend = username is not None and username.startswith(MARK) and session.thing is None
    return (
        username[len(MARK) :]
        if is_backend and username and session.client_id.startswith(f"{username}/")
        else None
    )


def _of_family(prefix: str, counters: Mapping[str, int]) -> dict[str, int]:
    return {name[len(prefix) :]: count for name, count in counters.items() if name.startswith(prefix)}
