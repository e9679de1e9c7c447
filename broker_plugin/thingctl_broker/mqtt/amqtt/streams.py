"""What amqtt reads a connection from, and writes it to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from amqtt.adapters import ReaderAdapter, WriterAdapter

if TYPE_CHECKING:
    from collections.abc import Callable

HIGH_WATER: Final = 256 * 1024
"""Bytes waiting for amqtt at which the client is no longer read from; at half of it, again."""


_YIELD_EVERY: Final = 128
"""Single bytes read (a packet has two or so) after which what was read is let through."""

_STEPS_TO_QUEUE: Final = 4
"""Steps of the loop in which a packet that was read comes into amqtt's queue: a task, or two."""

_BRAKE: Final = 0.005
"""Seconds between two looks at whether amqtt has caught up."""


class Inlet(ReaderAdapter):  # type: ignore[misc] # amqtt ships no types
    """What amqtt reads from.

    amqtt takes whatever there is, and queues it without a bound. So it gets nothing to
    read while it is behind with that; then this fills up, and the client is held back.
    And it forgets what it has queued, and acknowledged, when the client leaves. So it
    does not hear of that before its queue is empty.
    """

    def __init__(
        self,
        set_full: Callable[[bool], None],
        is_behind: Callable[[], bool],
        is_idle: Callable[[], bool],
    ) -> None:
        """``is_idle``: whether amqtt has handled every message of this client that it has read."""
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._eof = False
        self._full = False
        self._set_full = set_full
        self._is_behind = is_behind
        self._is_idle = is_idle
        self._last_packet = 0
        self._bytes_read = 0

    def feed(self, packet: bytes) -> None:
        """Hand amqtt a whole packet."""
        if self._eof:
            return
        self._buffer += packet
        self._wake()
        if not self._full and len(self._buffer) > HIGH_WATER:
            self._full = True
            self._set_full(True)

    def feed_last(self, packet: bytes) -> None:
        """Hand amqtt the client's goodbye."""
        self._last_packet = len(packet)
        self.feed(packet)

    def feed_eof(self) -> None:
        """The client has gone."""
        self._eof = True
        self._wake()

    async def read(self, n: int = -1) -> bytes:
        """Read exactly ``n`` bytes, as amqtt's own adapter does."""
        if n == 1:
            await self._let_amqtt_work()
        while len(self._buffer) < n or (n < 0 and not self._eof):
            if self._eof:
                await self._let_amqtt_finish()
                raise asyncio.IncompleteReadError(bytes(self._buffer), n)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if len(self._buffer) <= self._last_packet:
            await self._let_amqtt_finish()
        n = len(self._buffer) if n < 0 else n
        data = bytes(self._buffer[:n])
        del self._buffer[:n]
        if self._full and len(self._buffer) < HIGH_WATER // 2:
            self._full = False
            self._set_full(False)
        return data

    async def _let_amqtt_work(self) -> None:
        self._bytes_read += 1
        if self._bytes_read % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
        while self._is_behind():  # noqa: ASYNC110 amqtt has no event for it
            await asyncio.sleep(_BRAKE)

    async def _let_amqtt_finish(self) -> None:
        for _ in range(_STEPS_TO_QUEUE):
            await asyncio.sleep(0)
        while not self._is_idle():  # noqa: ASYNC110 amqtt has no event for it
            await asyncio.sleep(_BRAKE)

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
