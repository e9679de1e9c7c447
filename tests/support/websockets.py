"""MQTT's bytes in WebSocket frames, behind the two halves of a connection that asyncio has."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri


class WebSocketStream:
    """A reader and a writer at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = ClientProtocol(parse_uri("ws://broker/mqtt"), subprotocols=["mqtt"])  # type: ignore[list-item]
        self.transport = writer.transport

    @classmethod
    async def open(cls, address: tuple[str, int], tls: ssl.SSLContext | None) -> WebSocketStream:
        """Connect and upgrade."""
        stream = cls(*await asyncio.open_connection(*address, ssl=tls))
        protocol = stream._protocol
        protocol.send_request(protocol.connect())
        stream._flush()
        while not protocol.events_received():
            protocol.receive_data(await stream._reader.read(1))  # no byte of a frame with it
        assert protocol.handshake_exc is None, protocol.handshake_exc
        return stream

    async def read(self, size: int) -> bytes:
        """What came in the next frames; nothing: the end."""
        content = b""
        while not content:
            data = await self._reader.read(size)
            if not data:
                break
            self._protocol.receive_data(data)
            self._flush()
            for frame in self._protocol.events_received():
                assert isinstance(frame, Frame)
                assert frame.opcode in {Opcode.BINARY, Opcode.CLOSE}, frame
                content += frame.data if frame.opcode is Opcode.BINARY else b""
        return content

    def write(self, data: bytes) -> None:
        with contextlib.suppress(InvalidState):  # the broker has said goodbye: nobody reads it
            self._protocol.send_binary(data)
            self._flush()

    def close(self) -> None:
        self._writer.close()

    async def wait_closed(self) -> None:
        await self._writer.wait_closed()

    def get_extra_info(self, name: str) -> Any:
        return self._writer.get_extra_info(name)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data and not self._writer.is_closing():
                self._writer.write(data)
