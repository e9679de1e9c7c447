"""A bare MQTT 3.1.1 client for tests that care about single packets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct

from support.waits import Deadline
from support.websockets import WebSocketStream
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.frames import Frame, FrameScanner
from thingctl_broker.mqtt.protocol.packets import Connect, PacketType

DEADLINE = 5.0
_open_clients: set[RawClient] = set()


class RawClient:
    """Sends exactly what it is told, and hands out what comes, packet by packet."""

    def __init__(
        self, reader: asyncio.StreamReader | WebSocketStream, writer: asyncio.StreamWriter | WebSocketStream
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._scanner = FrameScanner(16 * 1024 * 1024)
        self._frames: list[Frame] = []
        self.bytes_sent = self.bytes_received = 0
        _open_clients.add(self)

    @classmethod
    async def open(cls, address: tuple[str, int], tls: ssl.SSLContext | None = None) -> RawClient:
        return cls(*await asyncio.open_connection(*address, ssl=tls))

    @classmethod
    async def open_websocket(cls, address: tuple[str, int], tls: ssl.SSLContext | None = None) -> RawClient:
        """The same over WebSocket, on the HTTP port."""
        stream = await WebSocketStream.open(address, tls)
        return cls(stream, stream)

    @classmethod
    async def connected(cls, address: tuple[str, int], client_id: str, **options: object) -> RawClient:
        """Open, CONNECT, and expect to be let in."""
        client = await cls.open(address)
        answer = await client.connect(client_id, **options)
        assert answer.packet[3] == 0, answer
        return client

    async def connect(
        self,
        client_id: str,
        *,
        clean: bool = True,
        keep_alive: int = 60,
        username: str | None = None,
        password: bytes | None = None,
        will: packets.Will | None = None,
    ) -> Frame:
        self.send(packets.encode_connect(Connect(client_id, clean, keep_alive, username, password, will)))
        return await self.expect(PacketType.CONNACK)

    def send(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self._writer.write(data)

    async def receive(self) -> Frame | None:
        """The next packet; None when the connection has ended."""
        deadline = Deadline(DEADLINE)
        while not self._frames:
            try:
                async with asyncio.timeout(DEADLINE):
                    data = await self._reader.read(65536)
            except TimeoutError:
                if deadline.has_passed():
                    raise
                continue
            except ConnectionError:
                return None
            if not data:
                return None
            self.bytes_received += len(data)
            self._frames.extend(self._scanner.feed(data))
        return self._frames.pop(0)

    async def expect(self, kind: PacketType) -> Frame:
        frame = await self.receive()
        assert frame is not None, f"the connection ended; {kind.name} was expected"
        assert frame.first >> 4 == kind, f"{PacketType(frame.first >> 4).name} instead of {kind.name}"
        return frame

    async def expect_publish(self) -> packets.Publish:
        return packets.parse_publish(await self.expect(PacketType.PUBLISH))

    async def expect_end(self) -> None:
        frame = await self.receive()
        assert frame is None, f"{frame} instead of the end"

    async def subscribe(self, *filters: str, qos: int = 1, packet_id: int = 1) -> list[int]:
        self.send(packets.encode_subscribe(packet_id, [(f, qos) for f in filters]))
        frame = await self.expect(PacketType.SUBACK)
        assert frame.packet[frame.start : frame.start + 2] == packet_id.to_bytes(2, "big")
        return list(frame.packet[frame.start + 2 :])

    async def ping(self) -> None:
        """Prove that everything sent before has been taken in."""
        self.send(b"\xc0\x00")
        await self.expect(PacketType.PINGRESP)

    async def close(self) -> None:
        _open_clients.discard(self)
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:  # TLS has words of its own for it
            pass

    @staticmethod
    async def close_all() -> None:
        """Close every client that a test has left open."""
        for client in tuple(_open_clients):
            await client.close()

    def reset(self) -> None:
        """Vanish without a word: the peer sees a reset, not an end."""
        sock = self._writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
