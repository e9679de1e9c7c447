"""How much any one client may ask of the MQTT server."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from thingctl_broker.mqtt.protocol.packets import NEVER
from thingctl_broker.mqtt.server.inflight import IDENTIFIERS
from thingctl_broker.security.rate_limit import Rate

_LONGEST_PACKET: Final = 1 + 4 + 0xFFF_FFFF

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Identifiers: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=IDENTIFIERS)]
PacketBytes: TypeAlias = Annotated[int, msgspec.Meta(ge=1024, le=_LONGEST_PACKET)]
Aliases: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
ClientBytes: TypeAlias = Annotated[int, msgspec.Meta(ge=64 * 1024)]
Expiry: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=NEVER)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
SlowReaders: TypeAlias = Literal["drop", "stop"]


class MqttLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the MQTT server. Times in seconds, sizes in bytes."""

    connections: Count = 20_000
    """Connections together."""
    connections_per_address: Count = 5000
    """Connections from one address, loopback excepted."""
    connection_rate: Seconds = 200.0
    """Connections a second that one address may open, loopback excepted."""
    connection_burst: Seconds = 1000.0
    """Connections that an address may open in a row after a quiet time."""
    connect_timeout: Seconds = 10.0
    """How long a connection may take until its CONNECT is accepted."""
    packet_bytes: PacketBytes = 1024 * 1024
    """The largest packet taken from a client."""
    connect_bytes: PacketBytes = 64 * 1024
    """The largest CONNECT: its client is not authenticated yet."""
    write_buffer: Count = 1024 * 1024
    """Bytes in the socket's buffer of a client that does not read, at which a request drops it."""
    write_timeout: Seconds = 30.0
    """How long a client may be behind with reading."""
    client_bytes: ClientBytes = 8 * 1024 * 1024
    """Bytes of ordinary messages that wait for one client, wherever they wait; beyond, the oldest goes."""
    total_bytes: ClientBytes = 256 * 1024 * 1024
    """Bytes that wait for all clients together; beyond, what comes is dropped."""
    slow_readers: SlowReaders = "drop"
    """What happens when a client reads too slowly: its messages are dropped, or its publishers stopped."""
    in_flight: Identifiers = 1024
    """Requests written to a client that it has not acknowledged, at which it is dropped."""
    qos2_held: Identifiers = 1024
    """QoS 2 messages that a client has not released, at which it is dropped."""
    subscriptions: Count = 100
    """Command subscriptions of one client."""
    other_subscriptions: Count = 1000
    """All its others."""
    filters: Count = 1100
    """Filters in one SUBSCRIBE or UNSUBSCRIBE: more than a client can have subscriptions."""
    subscribe_bytes: PacketBytes = 66 * 1024  # the longest filter fits
    """The largest SUBSCRIBE and UNSUBSCRIBE: each byte of one may be a level of a filter."""
    topic_aliases: Aliases = 16
    """Topic aliases that an MQTT 5 client may use."""
    observers: Count = 16
    """Clients that watch the command traffic."""
    observed: Count = 10
    """Filters of one of them: each message is held against all of them."""
    retained: Count = 10_000
    """Retained messages of all clients together, beyond the commands."""
    retained_bytes: Count = 64 * 1024 * 1024
    """Bytes of all of them together."""
    kept_sessions: Count = 100_000
    """Clients whose sessions are kept while they are away."""
    kept_sessions_per_thing: Count = 5
    """Those of one thing. When the limit is reached, the session offline the longest is discarded."""
    away_messages: Count = 1000
    """Messages kept for one client while it is away; beyond, the oldest goes."""
    session_expiry: Expiry = 7 * 24 * 3600
    """Seconds that a session is kept at most while its client is away."""

    @property
    def connection_opening(self) -> Rate:
        """How fast one address may open connections."""
        return Rate(self.connection_rate, max(1, int(self.connection_burst)))
