"""MQTT clients without an MQTT server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from thingctl_broker.errors import ClientAway
from thingctl_broker.things.mqtt_clients import MqttFigures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thingctl_broker.things.mqtt_clients import ClientQuery, MqttClient


class InMemoryClients:
    """The clients that a test puts into ``all``, by client id; ``kicked``: those whose connection was ended.

    >>> from thingctl_broker.things.mqtt_clients import ClientQuery, MqttClient
    >>> clients = InMemoryClients([MqttClient(client_id="lamp/a", connected=True, session_expiry=60)])
    >>> clients.kick("lamp/a")
    >>> [client.connected for client in clients.select(ClientQuery(), 10)[0]]
    [False]
    """

    def __init__(self, clients: Iterable[MqttClient] = ()) -> None:
        self.all = {client.client_id: client for client in clients}
        self.kicked: list[str] = []

    def select(self, query: ClientQuery, limit: int, after: str = "") -> tuple[list[MqttClient], str | None]:
        """The first clients behind the cursor ``after``, without filters; and a cursor if there are more."""
        start = query.start(after)
        placed = sorted(
            (query.place(client.client_id, client.waiting_bytes, sum(client.dropped.values())), client)
            for client in self.all.values()
            if query.admits(client.client_id, client.username, client.thing, connected=client.connected)
        )
        found = [client for place, client in placed if start is None or place > start]
        shown = [msgspec.structs.replace(client, filters=()) for client in found[:limit]]
        return shown, query.cursor(shown[-1]) if len(found) > limit else None

    def get(self, client_id: str) -> MqttClient | None:
        """One client, with its filters."""
        return self.all.get(client_id)

    def kick(self, client_id: str, *, session: bool = False) -> None:
        """Let the client be away from now on, or with ``session`` gone; raises :class:`ClientAway`."""
        client = self.all[client_id]
        if client.connected:
            self.kicked.append(client_id)
        elif not session:
            raise ClientAway(f"the client {client_id!r} is not connected")
        if session or not client.session_expiry:
            del self.all[client_id]
        else:
            self.all[client_id] = msgspec.structs.replace(client, connected=False)

    def figures(self) -> MqttFigures:
        """How many there are; nothing was counted."""
        connected = [client for client in self.all.values() if client.connected]
        versions = {
            version: sum(client.version == version for client in connected)
            for version in ("3.1", "3.1.1", "5")
        }
        return MqttFigures(versions, len(self.all) - len(connected), 0, 0, 0, 0, {})
