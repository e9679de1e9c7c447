"""MQTT over WebSocket [section 6], on the HTTP port at ``/mqtt``.

Between the HTTP server, which hands over the transport at the upgrade, and a
:class:`~thingctl_broker.mqtt.server.connection.DeviceConnection`, which takes this for its transport.
The frames are the ``websockets`` library's business (sans-IO).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from websockets.exceptions import InvalidMessage, NegotiationError, SecurityError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from thingctl_broker.mqtt.server.connection import DeviceConnection
from thingctl_broker.things.mqtt_clients import Carrier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingctl_broker.mqtt.server.origins import AllowedOrigins
    from thingctl_broker.mqtt.server.server import MqttServer
    from thingctl_broker.system.proxy_protocol import Peer

PATH: Final = "/mqtt"

SUBPROTOCOLS: Final = (Subprotocol("mqtt"), Subprotocol("mqttv3.1"))
"""What a client may ask for, the better one first [MQTT-6.0.0-3]. One that asks for none gets none."""

_UNSUPPORTED_DATA: Final = 1003
_NORMAL: Final = 1000


class WebSocket(asyncio.Protocol, asyncio.Transport):
    """A client that speaks MQTT in WebSocket frames.

    To the loop it is a protocol, to the MQTT connection a transport.
    """

    def __init__(self, server: MqttServer, origins: AllowedOrigins, peer: Peer | None = None) -> None:
        """``origins``: of the pages that may connect.

        ``peer``: the client's address, as HTTP knows it; None: the transport's.

        A page from elsewhere that a browser lets connect here could pretend to be a device,
        because to the server it would come from this machine.
        """
        asyncio.Transport.__init__(self)
        self._server = server
        self._origins = origins
        self._peer = peer
        self._protocol = ServerProtocol(
            select_subprotocol=_select_subprotocol, max_size=server.limits.packet_bytes
        )
        self._transport: asyncio.Transport
        self._mqtt: DeviceConnection | None = None

    # The loop's protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over from HTTP."""
        self._transport = transport  # type: ignore[assignment] # uvloop's is one by behaviour only

    def data_received(self, data: bytes) -> None:
        """Take in what came: first the request to upgrade, then frames."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._open(event)
            elif isinstance(event, Frame):
                self._take(event)
        if self._mqtt is None and isinstance(self._protocol.handshake_exc, InvalidMessage):
            self._tell(data, self._protocol.handshake_exc.__cause__)
        self._flush()

    def eof_received(self) -> bool:
        """The client sends no more."""
        self._protocol.receive_eof()
        self._flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._mqtt is not None:
            self._mqtt.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to."""
        if self._mqtt is not None:
            self._mqtt.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._mqtt is not None:
            self._mqtt.resume_writing()

    def shutdown(self) -> None:
        """The HTTP server stops; the front closes its connections itself."""

    # The MQTT connection's transport.

    def write(self, data: Any) -> None:
        """Send MQTT packets, in one binary frame."""
        if not self._transport.is_closing():
            self._protocol.send_binary(data)
            self._flush()

    def close(self) -> None:
        """Say goodbye and close."""
        if not self._transport.is_closing():
            self._protocol.send_close(_NORMAL)
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Close without a word."""
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes that the client has not read yet."""
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport underneath says, unless HTTP knows better."""
        if name == "peername" and self._peer is not None:
            return self._peer
        return Carrier.WEBSOCKET if name == "carrier" else self._transport.get_extra_info(name, default)

    # How it is done.

    def _open(self, request: Request) -> None:
        protocol = self._protocol
        if request.path.partition("?")[0] not in {PATH, f"{PATH}/"}:
            response = protocol.reject(HTTPStatus.NOT_FOUND, f"MQTT over WebSocket is served at {PATH}\n")
        elif not self._origins.admits(origins := request.headers.get_all("Origin")):
            host, *_ = self.get_extra_info("peername") or ("",)
            text = "a page from elsewhere may not connect"
            self._server.note("origin", text, who=str(host), origin=" ".join(origins)[:200])
            words = "pages of this origin may not connect: mqtt.websocket_origins does not name it\n"
            response = protocol.reject(HTTPStatus.FORBIDDEN, words)
        else:
            response = protocol.accept(request)
        protocol.send_response(response)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self._mqtt = DeviceConnection(self._server)
            self._mqtt.connection_made(self)

    def _tell(self, request: bytes, error: BaseException | None) -> None:
        """Say why a request that HTTP let through asks for no WebSocket; the library only closes."""
        if self._transport.is_closing():
            return
        if not request.startswith(b"GET "):
            response = self._protocol.reject(HTTPStatus.METHOD_NOT_ALLOWED, "WebSocket is asked for by GET\n")
            response.headers["Allow"] = "GET"
        elif isinstance(error, SecurityError):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            response = self._protocol.reject(status, f"{error}\n")
        else:
            response = self._protocol.reject(HTTPStatus.BAD_REQUEST, f"{error}\n")
        self._transport.write(response.serialize())

    def _take(self, frame: Frame) -> None:
        mqtt = self._mqtt
        if mqtt is None or mqtt.is_closed():
            return  # bytes received after the close frame are ignored
        # Where the frames are cut means nothing to MQTT [MQTT-6.0.0-2].
        if frame.opcode is Opcode.TEXT:
            self._protocol.fail(_UNSUPPORTED_DATA, "MQTT comes in binary frames [MQTT-6.0.0-1]")
        elif frame.opcode is Opcode.PING:
            # A close frame was already sent because the message exceeded the size limit.
            if self.get_write_buffer_size() > self._server.limits.write_buffer:
                mqtt.offended("writeBuffer", "reads too slowly: dropped")
                mqtt.abort()
        elif frame.opcode in {Opcode.BINARY, Opcode.CONT} and frame.data:
            mqtt.data_received(bytes(frame.data))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
                return
        if self._protocol.close_expected():
            self._transport.close()


def _select_subprotocol(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """What a client is given of what it asks for. Raises NegotiationError when that is nothing of MQTT."""
    found = next((known for known in SUBPROTOCOLS if known in offered), None)
    if found is None and offered:
        raise NegotiationError(f"the subprotocol must be {' or '.join(SUBPROTOCOLS)}, or none")
    return found
