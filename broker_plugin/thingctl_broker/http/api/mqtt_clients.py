"""``/api/v1/mqtt/clients``: the clients of the MQTT server; a DELETE ends the connection of one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.routing import Route

from thingctl_broker.commands.execution_resource import encode_page
from thingctl_broker.commands.field_types import Time  # noqa: TC001 msgspec reads it
from thingctl_broker.errors import UnknownClient
from thingctl_broker.http.auth import needs, visible_things
from thingctl_broker.http.problems import CLIENTS_ELSEWHERE, Problem
from thingctl_broker.http.query import Parameters, is_boolean
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.audit_events import Event
from thingctl_broker.security.tokens import Scope
from thingctl_broker.system.timestamps import rfc3339
from thingctl_broker.things.mqtt_clients import (
    TEXT_MAX,
    Carrier,
    ClientQuery,
    ClientSort,
    ClientSubscription,
    MqttClient,
    MqttClients,
)
from thingctl_protocol.identifiers import is_thing_name

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.security.audit_events import Note

CLIENTS: Final = "/api/v1/mqtt/clients"
CLIENT: Final = CLIENTS + "/{client_id:path}"

_NONE: Final[frozenset[str]] = frozenset()
_LIST: Final = frozenset({"connected", "cursor", "limit", "sort", "text", "thingId"})
_SORTS: Final = tuple(sort.value for sort in ClientSort)
_CURSOR: Final = "the nextCursor of an earlier answer in this order"
_KICK: Final = frozenset({"session"})


class ClientResource(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An MQTT client that is connected, or whose session is kept. Sizes in bytes, ``keepAlive`` in seconds.

    ``sessionExpiry``: seconds that its session outlives the connection; null: it never expires.
    ``filters``: in the answer about one client only.
    """

    client_id: str
    connected: bool
    session_expiry: int | None
    subscriptions: int
    queued_messages: int
    in_flight: int
    waiting_bytes: int
    dropped: dict[str, int]
    username: str | None = None
    thing_id: str | None = None
    token: str | None = None
    mqtt_version: str | None = None
    address: str | None = None
    transport: Carrier | None = None
    connected_at: Time | None = None
    last_heard_at: Time | None = None
    keep_alive: int | None = None
    requests_in_flight: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    away_since: Time | None = None
    session_expires_at: Time | None = None
    filters: tuple[ClientSubscription, ...] | None = None


class Clients:
    """The endpoints of MQTT clients. ``clients``: None where another broker serves them."""

    def __init__(self, clients: MqttClients | None, note: Note) -> None:
        self._clients = clients
        self._note = note

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(CLIENTS, self.list, methods=["GET"]),
            Route(CLIENT, self.show, methods=["GET"]),
            Route(CLIENT, self.kick, methods=["DELETE"]),
        ]

    @needs(Scope.THINGS_READ)
    async def list(self, request: Request) -> ApiResponse:
        """``GET /api/v1/mqtt/clients``: list MQTT clients, by client id."""
        asked = Parameters(request.scope["query_string"], _LIST)
        connected = asked.text("connected", is_boolean, "true or false")
        query = ClientQuery(
            thing=asked.text("thingId", is_thing_name, "the name of a thing"),
            connected=None if connected is None else connected == "true",
            text=asked.text("text", _is_text, f"1 to {TEXT_MAX} characters") or "",
            visible=visible_things(request.scope["token"]),
            sort=ClientSort(
                asked.text("sort", _SORTS.__contains__, f"one of {', '.join(_SORTS)}") or _SORTS[0]
            ),
        )
        limit, cursor = asked.limit(), asked.text("cursor", partial(_is_cursor, query), _CURSOR) or ""
        found, more = self._served().select(query, limit, cursor)
        items = ((query.cursor(client), client_resource(client)) for client in found)
        return ApiResponse(200, encode_page("clients", items, more))

    @needs(Scope.THINGS_READ)
    async def show(self, request: Request) -> ApiResponse:
        """``GET /api/v1/mqtt/clients/{clientId}``: one MQTT client, with its subscriptions."""
        Parameters(request.scope["query_string"], _NONE)
        client = self._asked_client(request)
        return ApiResponse(200, msgspec.json.encode(client_resource(client, client.filters)))

    @needs(Scope.THINGS_WRITE)
    async def kick(self, request: Request) -> ApiResponse:
        """``DELETE /api/v1/mqtt/clients/{clientId}``: end the connection of an MQTT client."""
        asked = Parameters(request.scope["query_string"], _KICK)
        ends_session = asked.text("session", is_boolean, "true or false") == "true"
        client = self._asked_client(request)
        self._served().kick(client.client_id, session=ends_session)
        what = "its session, too" if ends_session else "its connection"
        self._note(Event.CLIENT_KICKED, thing=client.thing or "", detail=f"{client.client_id}: {what}")
        return ApiResponse(204, b"")

    def _served(self) -> MqttClients:
        if self._clients is None:
            raise Problem(
                CLIENTS_ELSEWHERE,
                "the clients are those of the MQTT cluster behind this worker: ask its own API or console",
            )
        return self._clients

    def _asked_client(self, request: Request) -> MqttClient:
        """The client in the path; one that the caller may not see is as if it were not there."""
        client_id: str = request.path_params["client_id"]
        client = self._served().get(client_id)
        query = ClientQuery(visible=visible_things(request.scope["token"]))
        if client is None or not query.shows(client.thing):
            raise UnknownClient(f"no MQTT client has the id {ascii(client_id)[:140]}")
        return client


def client_resource(
    client: MqttClient, filters: tuple[ClientSubscription, ...] | None = None
) -> ClientResource:
    """Return the client as the API shows it."""
    away, expiry = client.away_since, client.session_expiry
    return ClientResource(
        client_id=client.client_id,
        connected=client.connected,
        session_expiry=expiry,
        subscriptions=client.subscriptions,
        queued_messages=client.queued_messages,
        in_flight=client.in_flight,
        waiting_bytes=client.waiting_bytes,
        dropped=dict(client.dropped),
        username=client.username,
        thing_id=client.thing,
        token=client.token,
        mqtt_version=client.version,
        address=client.address,
        transport=client.carrier,
        connected_at=_time(client.connected_at),
        last_heard_at=_time(client.heard_at),
        keep_alive=client.keep_alive if client.connected else None,
        requests_in_flight=client.requests_in_flight,
        bytes_received=client.bytes_received,
        bytes_sent=client.bytes_sent,
        away_since=_time(away),
        session_expires_at=None if away is None or expiry is None else rfc3339(away + expiry),
        filters=filters,
    )


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def _is_cursor(query: ClientQuery, text: str) -> bool:
    try:
        return query.start(text) is not None
    except ValueError:
        return False


def _is_text(text: str) -> bool:
    return 0 < len(text) <= TEXT_MAX
