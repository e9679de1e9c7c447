"""For tests of the link: a worker that remembers, and a cluster played by hand, packet by packet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from thingctl_broker.cluster.link_port import PresenceReport, Source
from thingctl_broker.mqtt.cluster.settings import LinkSettings
from thingctl_protocol.topics import Topics

TOPICS = Topics("fleet")  # mosquitto matches no $share/…/$…
DEADLINE = 10.0

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
UNSUBSCRIBE, UNSUBACK, PINGREQ, DISCONNECT = 10, 11, 12, 14


async def _nothing(*_: object) -> None:
    pass


class Worker:
    """An Incoming that remembers; ``before`` is awaited before a message counts as handled."""

    def __init__(self, before: Callable[..., Awaitable[None]] = _nothing) -> None:
        self.before = before
        self.responses: list[tuple[str, str, bytes]] = []
        self.announcements: list[tuple[str, bytes, Source]] = []
        self.presences: list[PresenceReport] = []
        self.drops: list[tuple[str, str, str]] = []

    async def responded(self, thing: str, execution_id: str, payload: bytes) -> None:
        await self.before(thing, execution_id)
        self.responses.append((thing, execution_id, payload))

    async def announced(self, thing: str, payload: bytes, source: Source) -> None:
        await self.before(thing)
        self.announcements.append((thing, payload, source))

    async def present(self, presence: PresenceReport) -> None:
        await self.before(presence.thing)
        self.presences.append(presence)

    def dropped(self, thing: str, reason: str, text: str) -> None:
        self.drops.append((thing, reason, text))

    @property
    def ids(self) -> list[str]:
        return [execution_id for _, execution_id, _ in self.responses]

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.drops]


def settings(url: str, worker: str = "w1", **fields: Any) -> LinkSettings:
    return LinkSettings(urls=(url,), group="g", worker=worker, **fields)


def remaining_length(length: int) -> bytes:
    encoded = bytearray()
    while True:
        length, low = length >> 7, length & 0x7F
        encoded.append(low | (0x80 if length else 0))
        if not length:
            return bytes(encoded)


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    return bytes([kind << 4 | flags]) + remaining_length(len(body)) + body


def publish(
    topic: str | bytes, payload: bytes, packet_id: int = 0, *, properties: bytes = b"", flags: int = 0
) -> bytes:
    """A PUBLISH of MQTT 5, QoS 1 if it has a packet id."""
    name = topic.encode() if isinstance(topic, str) else topic
    body = len(name).to_bytes(2) + name + (packet_id.to_bytes(2) if packet_id else b"")
    body += remaining_length(len(properties)) + properties + payload
    return packet(PUBLISH, body, flags | (2 if packet_id else 0))


class Packet(NamedTuple):
    kind: int
    first: int
    body: bytes

    @property
    def packet_id(self) -> int:
        """Of a PUBACK, SUBSCRIBE, UNSUBSCRIBE; of a PUBLISH with QoS 1."""
        at = 2 + int.from_bytes(self.body[:2]) if self.kind == PUBLISH else 0
        return int.from_bytes(self.body[at : at + 2])


class Peer:
    """One connection, from the cluster's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def has_sent(self) -> bool:
        """Whether there is something to :meth:`receive`."""
        return bool(self._reader._buffer)  # type: ignore[attr-defined]

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self) -> Packet:
        """The next packet; EOFError (IncompleteReadError) when the connection has ended."""
        async with asyncio.timeout(DEADLINE):
            first = (await self._reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self._reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            return Packet(first >> 4, first, await self._reader.readexactly(length))

    async def expect(self, kind: int) -> Packet:
        found = await self.receive()
        assert found.kind == kind, found
        return found

    async def welcome(self, *, present: bool = False, properties: bytes = b"") -> Packet:
        """Take the CONNECT, send CONNACK."""
        connect = await self.expect(CONNECT)
        self.send(packet(CONNACK, bytes([present, 0]) + remaining_length(len(properties)) + properties))
        return connect

    async def grant(self, kind: int = SUBSCRIBE, count: int = 3) -> Packet:
        """Take a SUBSCRIBE (UNSUBSCRIBE) for ``count`` filters and say yes."""
        asked = await self.expect(kind)
        yes = b"\x01" if kind == SUBSCRIBE else b"\x00"
        self.send(packet(kind + 1, asked.packet_id.to_bytes(2) + b"\0" + yes * count))
        return asked

    def puback(self, packet_id: int, code: int | None = None) -> None:
        self.send(packet(PUBACK, packet_id.to_bytes(2) + (b"" if code is None else bytes([code, 0]))))

    def drop(self) -> None:
        """End the connection without a word."""
        self._writer.transport.abort()


class HandPlayed:
    """Listens where a cluster would; each connection is taken by the test."""

    def __init__(self) -> None:
        self.url = ""
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._all: list[Peer] = []

    async def accept(self) -> Peer:
        """The next connection, with its CONNECT not read yet."""
        async with asyncio.timeout(DEADLINE):
            return await self._peers.get()

    async def attached(self, **welcome: Any) -> Peer:
        """The next connection, welcomed and its subscriptions granted."""
        peer = await self.accept()
        await peer.welcome(**welcome)
        await peer.grant()
        return peer

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self._all.append(peer)
        self._peers.put_nowait(peer)


@asynccontextmanager
async def hand_played() -> AsyncIterator[HandPlayed]:
    cluster = HandPlayed()
    server = await asyncio.start_server(cluster._connected, "127.0.0.1", 0)
    cluster.url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cluster
    finally:
        server.close()
        for peer in cluster._all:
            peer.drop()
        await server.wait_closed()
