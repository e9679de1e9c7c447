"""How much any one client may ask of the front."""

from __future__ import annotations

import msgspec


class FrontLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the front. Times in seconds, sizes in bytes."""

    connections: int = 20_000
    """Connections at once."""
    connect_timeout: float = 10.0
    """How long a connection may take to its CONNECT."""
    packet_bytes: int = 1024 * 1024
    """The largest packet taken from a client."""
    connect_bytes: int = 64 * 1024
    """The largest CONNECT: nobody has been authenticated yet."""
    write_buffer: int = 1024 * 1024
    """Bytes waiting for a client that does not read, at which it is dropped."""
    write_timeout: float = 30.0
    """How long a client may be behind with reading, while amqtt waits for it."""
    in_flight: int = 1024
    """Requests written to a client that it has not acknowledged, at which it is dropped."""
    qos2_held: int = 1024
    """QoS 2 messages that a client has not released, at which it is dropped."""
    subscriptions: int = 100
    """Command subscriptions of one client."""
    other_subscriptions: int = 1000
    """All its others."""
    kept_sessions: int = 100_000
    """Clients whose command subscriptions are kept while they are away."""
