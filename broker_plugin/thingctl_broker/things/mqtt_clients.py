"""MQTT clients: what the MQTT server knows of each one, and what operators ask of it. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TEXT_MAX: Final = 256
"""Characters of a text to search for."""

_DIGITS: Final = 18


class Carrier(StrEnum):
    """How a client's packets come. TLS of a WebSocket is the HTTP listener's."""

    TCP = "tcp"
    TLS = "tls"
    WEBSOCKET = "websocket"


class ClientSubscription(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A filter that a client has subscribed to, with its options. ``command``: it covers command topics."""

    filter: str
    qos: int
    command: bool = False
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    subscription_id: int = 0


class MqttClient(msgspec.Struct, frozen=True, kw_only=True):
    """A client that is connected, or whose session is kept. Times: Unix seconds; sizes: bytes."""

    client_id: str
    connected: bool
    username: str | None = None
    thing: str | None = None
    token: str | None = None
    """The name of the API token that it signed in with."""
    version: str | None = None
    """Of MQTT: 3.1, 3.1.1 or 5; None while it is away."""
    address: str | None = None
    carrier: Carrier | None = None
    connected_at: float | None = None
    heard_at: float | None = None
    """When its last packet came."""
    keep_alive: int = 0
    """Seconds; 0: none."""
    session_expiry: int | None = 0
    """Seconds that its session outlives the connection; None: it never expires."""
    away_since: float | None = None
    subscriptions: int = 0
    filters: tuple[ClientSubscription, ...] = ()
    queued_messages: int = 0
    in_flight: int = 0
    """Messages that it has not acknowledged."""
    requests_in_flight: int = 0
    """Requests of commands that it has not acknowledged."""
    waiting_bytes: int = 0
    """Of everything that waits for it: queued, in flight, and for its socket."""
    bytes_received: int = 0
    bytes_sent: int = 0
    """Of this connection."""
    dropped: Mapping[str, int] = {}
    """Messages that it did not get, or that were not retained for it, by reason."""


class MqttFigures(NamedTuple):
    """What the MQTT server measures. ``counters``: since the start, by family, then by kind."""

    connected: Mapping[str, int]
    """Clients by MQTT version."""
    away: int
    subscriptions: int
    retained: int
    retained_bytes: int
    waiting_bytes: int
    counters: Mapping[str, Mapping[str, int]]
    commits: int = 0
    """Of sessions and messages to the disk, since the start."""
    is_keeping: bool = True
    """Whether the last of these commits succeeded."""


class ClientSort(StrEnum):
    """In which order to list clients: by their ids, or those with the most first."""

    CLIENT_ID = "clientId"
    WAITING_BYTES = "-waitingBytes"
    DROPPED = "-dropped"


class ListPlace(NamedTuple):
    """Where a client stands in a list. ``rank``: the number that counts first, negative; 0: its id alone."""

    rank: int
    client_id: str


class ClientQuery(NamedTuple):
    """Which clients to list; None: any. ``text``: a part of the client id or user name, in any case."""

    thing: str | None = None
    connected: bool | None = None
    text: str = ""
    visible: Callable[[str], bool] | None = None
    """Whether the caller may see the thing of that name; None: it sees every client."""
    sort: ClientSort = ClientSort.CLIENT_ID

    def place(self, client_id: str, waiting_bytes: int, dropped: int) -> ListPlace:
        """Where a client stands of which so many bytes wait, and which lost so many messages."""
        if self.sort is ClientSort.CLIENT_ID:
            return ListPlace(0, client_id)
        return ListPlace(-waiting_bytes if self.sort is ClientSort.WAITING_BYTES else -dropped, client_id)

    def cursor(self, client: MqttClient) -> str:
        """What the list goes on behind the client with."""
        place = self.place(client.client_id, client.waiting_bytes, sum(client.dropped.values()))
        return place.client_id if self.sort is ClientSort.CLIENT_ID else f"{-place.rank}/{place.client_id}"

    def start(self, cursor: str) -> ListPlace | None:
        """The place that a cursor names; None for an empty one. Raises ValueError when it is none."""
        if not cursor:
            return None
        if self.sort is ClientSort.CLIENT_ID:
            return ListPlace(0, cursor)
        count, slash, client_id = cursor.partition("/")
        if not (slash and count.isascii() and count.isdecimal() and len(count) <= _DIGITS):
            raise ValueError(cursor)
        return ListPlace(-int(count), client_id)

    def admits(self, client_id: str, username: str | None, thing: str | None, *, connected: bool) -> bool:
        """Whether the client is asked for."""
        return (
            (self.connected is None or connected == self.connected)
            and (self.thing is None or thing == self.thing)
            and (not self.text or _has(client_id, self.text) or _has(username or "", self.text))
            and self.shows(thing)
        )

    def shows(self, thing: str | None) -> bool:
        """Whether the caller may see a client of that thing; None: of no thing."""
        return self.visible is None or (thing is not None and self.visible(thing))


class MqttClients(Protocol):
    """The clients of an MQTT server."""

    def select(self, query: ClientQuery, limit: int, after: str = "") -> tuple[list[MqttClient], str | None]:
        """The first clients behind the cursor ``after``, without filters; and a cursor if there are more.

        Raises ValueError for a cursor of another order.
        """
        ...

    def get(self, client_id: str) -> MqttClient | None:
        """One client, with its filters."""
        ...

    def kick(self, client_id: str, *, session: bool = False) -> None:
        """End the connection of a client, with MQTT 5's reason 0x98; ``session``: its session, too.

        Raises :class:`~thingctl_broker.errors.ClientAway` when it has none and its session is to stay.
        """
        ...

    def figures(self) -> MqttFigures:
        """What is measured."""
        ...


def _has(text: str, part: str) -> bool:
    return part.casefold() in text.casefold()
