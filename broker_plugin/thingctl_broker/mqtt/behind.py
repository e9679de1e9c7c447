"""amqtt behind the front: one of these for each connection that needs it.

Most devices only take commands and never trouble amqtt. The first packet that is
amqtt's to handle opens this: amqtt is handed the CONNECT (which the front has already
answered), then every such packet, whole, through its public external-listener API.

What comes back is looked at packet by packet, because the two share one connection:

- amqtt's CONNACK is swallowed, the client has had one;
- packet identifiers: the front counts down from 65535, amqtt up from 1. Should they meet,
  amqtt's is exchanged for a free one on the way out and back again on the way in;
- a SUBACK for a SUBSCRIBE of which the front took some filters is merged.

Until amqtt's message loop runs it loses a DISCONNECT, or the end of the connection, and
keeps the session as a zombie. So an UNSUBSCRIBE of nothing goes ahead as a probe, and
everything but acknowledgements is held until its UNSUBACK shows that the loop runs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog
from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.errors import AMQTTError

from thingctl_broker.mqtt.packets import PacketType, encode_connect, encode_suback, encode_unsubscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from thingctl_broker.mqtt.packets import Connect

LISTENER: Final = "default"
"""The amqtt listener, of type ``external``, that connections are handed to."""

_PROBE: Final = encode_unsubscribe(0xFFFF, ["thingctl/ready"])

HIGH_WATER: Final = 256 * 1024
"""Bytes waiting for amqtt at which the client is no longer read from; at half of it, again."""

_log = structlog.get_logger("thingctl.front")


class Inlet(ReaderAdapter):  # type: ignore[misc] # amqtt ships no types
    """What amqtt reads from."""

    def __init__(self, set_full: Callable[[bool], None]) -> None:
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._eof = False
        self._full = False
        self._set_full = set_full

    def feed(self, packet: bytes) -> None:
        """Hand amqtt a whole packet."""
        if self._eof:
            return
        self._buffer += packet
        self._wake()
        if not self._full and len(self._buffer) > HIGH_WATER:
            self._full = True
            self._set_full(True)

    def feed_eof(self) -> None:
        """The client has gone."""
        self._eof = True
        self._wake()

    async def read(self, n: int = -1) -> bytes:
        """Read exactly ``n`` bytes, as amqtt's own adapter does."""
        while len(self._buffer) < n or (n < 0 and not self._eof):
            if self._eof:
                raise asyncio.IncompleteReadError(bytes(self._buffer), n)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        n = len(self._buffer) if n < 0 else n
        data = bytes(self._buffer[:n])
        del self._buffer[:n]
        if self._full and len(self._buffer) < HIGH_WATER // 2:
            self._full = False
            self._set_full(False)
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Outlet(WriterAdapter):  # type: ignore[misc] # amqtt ships no types
    """What amqtt writes to. It writes one whole packet a call (a contract test holds that)."""

    def __init__(
        self,
        peer: tuple[str, int],
        write: Callable[[bytes], None],
        drain: Callable[[], Any],
        close: Callable[[], None],
    ) -> None:
        self._peer = peer
        self._write = write
        self._drain = drain
        self._close = close

    def write(self, data: bytes) -> None:
        """Take a packet for the client."""
        self._write(data)

    async def drain(self) -> None:
        """Wait while the client is slow."""
        await self._drain()

    def get_peer_info(self) -> tuple[str, int]:
        """Address and port of the client."""
        return self._peer

    def get_ssl_info(self) -> None:
        """Nothing: the front has authenticated."""

    async def close(self) -> None:
        """Close the connection; as often as amqtt likes."""
        self._close()


class Behind:
    """amqtt's side of one connection."""

    def __init__(
        self,
        *,
        broker: Any,
        connect: Connect,
        peer: tuple[str, int],
        write: Callable[[bytes], None],
        drain: Callable[[], Any],
        close: Callable[[str], None],
        set_full: Callable[[bool], None],
        taken_ids: Container[int],
    ) -> None:
        """``taken_ids``: packet identifiers that the front has in flight to the client."""
        self._write = write
        self._close = close
        self._taken_ids = taken_ids
        self._connected = False
        self._held: list[bytes] | None = []  # None: amqtt's message loop runs
        self._gone = False
        self._left = False
        self._wire_ids: dict[int, int] = {}  # on the wire -> amqtt's, where they differ
        self._merges: dict[int, list[int | None]] = {}
        self._inlet = Inlet(set_full)
        # Keep-alive is the front's to enforce, and amqtt's timer would lose bytes.
        self._inlet.feed(encode_connect(connect._replace(keep_alive=0)))
        self._inlet.feed(_PROBE)
        outlet = Outlet(peer, self._from_amqtt, drain, lambda: close("amqtt closed the connection"))
        self.task = asyncio.get_running_loop().create_task(
            self._run(broker.external_connected(self._inlet, outlet, LISTENER)),
        )
        """Ends when amqtt has done with the connection."""

    def feed(self, packet: bytes) -> None:
        """Hand amqtt a packet from the client."""
        if self._held is None:
            self._inlet.feed(packet)
        else:
            self._held.append(packet)

    def feed_answer(self, packet: bytes, start: int, packet_id: int) -> None:
        """Hand amqtt a PUBACK, PUBREC, PUBCOMP: its own identifier put back in."""
        kind = packet[0] >> 4
        original = self._wire_ids.get(packet_id)
        if original is not None:
            if kind in {PacketType.PUBACK, PacketType.PUBCOMP}:
                del self._wire_ids[packet_id]
            packet = packet[:start] + original.to_bytes(2, "big") + packet[start + 2 :]
        self._inlet.feed(packet)

    def feed_eof(self) -> None:
        """The client has gone."""
        self._gone = not self._left
        if self._gone and self._held is None:
            self._inlet.feed_eof()

    def disconnect(self, packet: bytes) -> None:
        """The client has said goodbye: amqtt forgets its will [MQTT-3.14.4-3].

        The end of the connection is not told after it: amqtt would drop the DISCONNECT,
        which it has read but not handled yet. It ends the session by itself.
        """
        self._left = True
        self.feed(packet)

    def is_taken(self, packet_id: int) -> bool:
        """Whether an exchanged identifier of amqtt's is on the wire."""
        return packet_id in self._wire_ids

    def merge_suback(self, packet_id: int, codes: list[int | None]) -> None:
        """When amqtt acknowledges ``packet_id``, fill its codes into the gaps of ``codes``."""
        self._merges[packet_id] = codes

    async def _run(self, handling: Any) -> None:
        try:
            await handling
        except asyncio.CancelledError:
            raise
        except (AMQTTError, OSError) as error:
            _log.info("amqtt ended a connection", error=str(error))
        except Exception:
            # Nothing a client does may take the broker down; that it happened must be seen.
            _log.exception("amqtt failed on a connection")
        finally:
            with suppress(RuntimeError):  # the loop is closing
                self._close("amqtt has ended the session")

    def _from_amqtt(self, packet: bytes) -> None:
        kind = packet[0] >> 4
        if kind == PacketType.CONNACK and not self._connected:
            self._connected = True
            if packet[3]:
                self._close(f"amqtt refused the connection (code {packet[3]})")
            return
        if kind == PacketType.UNSUBACK and self._held is not None:
            self._runs()
            return
        if kind == PacketType.SUBACK and self._merges:
            start = _body_start(packet)
            codes = self._merges.pop(int.from_bytes(packet[start : start + 2], "big"), None)
            if codes is not None:
                theirs = iter(packet[start + 2 :])
                merged = [next(theirs) if code is None else code for code in codes]
                packet = encode_suback(int.from_bytes(packet[start : start + 2], "big"), merged)
        elif kind == PacketType.PUBLISH and packet[0] & 0x06:
            packet = self._with_free_id(packet)
        elif kind == PacketType.PUBREL and self._wire_ids:
            start = _body_start(packet)
            theirs_id = int.from_bytes(packet[start : start + 2], "big")
            for wire_id, original in self._wire_ids.items():
                if original == theirs_id:
                    packet = packet[:start] + wire_id.to_bytes(2, "big")
                    break
        self._write(packet)

    def _runs(self) -> None:
        held, self._held = self._held or [], None
        for packet in held:
            self._inlet.feed(packet)
        if self._gone:
            self._inlet.feed_eof()

    def _with_free_id(self, packet: bytes) -> bytes:
        start = _body_start(packet)
        at = start + 2 + int.from_bytes(packet[start : start + 2], "big")
        packet_id = int.from_bytes(packet[at : at + 2], "big")
        if packet_id not in self._taken_ids:
            return packet
        free = next(
            candidate
            for candidate in range(0xFFFF, 0, -1)
            if candidate not in self._taken_ids and candidate not in self._wire_ids
        )
        self._wire_ids[free] = packet_id
        return packet[:at] + free.to_bytes(2, "big") + packet[at + 2 :]


def _body_start(packet: bytes) -> int:
    at = 1
    while packet[at] & 0x80:
        at += 1
    return at + 1
