"""The socket's side of a connection: what is written to it, when it is read, and that it ends once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from thingctl_broker.things.mqtt_clients import Carrier

if TYPE_CHECKING:
    from thingctl_broker.mqtt.server.limits import MqttLimits

LINGER: Final = 5.0
"""Seconds that a client has for the last of what was written to it, once the connection counts no more."""

_NO_PEER: Final = ("", 0)


class Transport(asyncio.Protocol):
    """Bounds what waits for a client, and lets several parties stop reading from it."""

    __slots__ = (
        "_closed",
        "_most_buffered",
        "_reading_stops",
        "_stalled",
        "_transport",
        "_write_paused",
        "bytes_received",
        "bytes_sent",
        "limits",
        "peer",
    )

    def __init__(self, limits: MqttLimits) -> None:
        self.limits = limits
        # What the engine has written is bounded by itself, but for one packet of the longest kind.
        self._most_buffered = limits.write_buffer + limits.packet_bytes
        self.peer = _NO_PEER
        """Address and port of the client: by the PROXY protocol, or else by the transport."""
        self.bytes_received = self.bytes_sent = 0
        self._transport: asyncio.Transport
        self._closed = False
        self._reading_stops = 0
        self._write_paused = False
        self._stalled = 0.0

    # What a connection makes of it.

    def left(self) -> None:
        """The connection has ended; called once."""
        raise NotImplementedError

    def offended(self, limit: str, text: str, **details: object) -> None:
        """The client has reached a limit, and is dropped for it."""
        raise NotImplementedError

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = transport  # type: ignore[assignment] # uvloop's is one by behaviour only
        peer = transport.get_extra_info("peername")
        if peer and self.peer is _NO_PEER:  # a client that has reset the connection already has none
            self.peer = (str(peer[0]), int(peer[1]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 why does not matter
        """The connection is gone."""
        self.leave()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_paused = False

    @property
    def carrier(self) -> Carrier:
        """How the client's packets come."""
        extra = self._transport.get_extra_info
        return extra("carrier") or (Carrier.TLS if extra("sslcontext") else Carrier.TCP)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._transport.get_write_buffer_size()

    # Writing.

    def write(self, data: bytes) -> None:
        """Write packets; a client that already lets too much wait is dropped."""
        if self._closed:
            return
        if self._write_paused and self._transport.get_write_buffer_size() > self._most_buffered:
            self.offended("writeBuffer", "reads too slowly: dropped")
            self.abort()
            return
        self.bytes_sent += len(data)
        self._transport.write(data)

    @property
    def is_behind(self) -> bool:
        """Whether the client reads more slowly than it is written to."""
        return self._write_paused

    def check_stall(self, elapsed: float) -> None:
        """Drop a client that has been behind with reading at every look for too long."""
        self._stalled = self._stalled + elapsed if self._write_paused else 0.0
        if self._stalled > self.limits.write_timeout:
            self.offended("writeTimeout", "does not read: dropped")
            self.abort()

    # Reading.

    @property
    def is_heard(self) -> bool:
        """Whether the client is read from."""
        return not self._reading_stops

    def hold_reading(self, *, stop: bool) -> None:
        """Stop reading, or undo one earlier stop. Reading goes on when no stop is left."""
        self._reading_stops += 1 if stop else -1
        if self._closed:
            return
        if stop and self._reading_stops == 1:
            self._transport.pause_reading()
        elif not stop and self._reading_stops == 0:
            self._transport.resume_reading()

    # The end.

    def is_closed(self) -> bool:
        """Whether the connection has ended for this side."""
        return self._closed

    def finish(self) -> None:
        """End the connection when what was written has gone out, or has waited long enough."""
        self.leave()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            # A client that never reads would keep its socket, and what waits for it, for ever.
            asyncio.get_running_loop().call_later(LINGER, self._transport.abort)

    def abort(self) -> None:
        """End the connection now."""
        self.leave()
        self._transport.abort()

    def leave(self) -> None:
        """The connection counts no more, whether or not its socket has closed."""
        if not self._closed:
            self._closed = True
            self.left()
