"""Sends one post: resolved once, to a public address, without following anybody anywhere.

The address that was looked at is the one that is connected to, so a name that resolves
differently a moment later leads nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from thingctl_broker.security.outbound_urls import is_public

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT: Final = 10.0
"""Seconds that a post may take, from the name's resolution to the status."""

_LINE_MAX: Final = 8192
_HEADERS_MAX: Final = 100
_PATIENCE: Final = frozenset({429, 503})
"""Statuses whose Retry-After counts."""


class NotAllowed(Exception):
    """The post may not go there: every address of the host is private."""


class AskedToWait(Exception):
    """The answer was 429 or 503 with Retry-After. ``seconds``: from now, never negative."""

    def __init__(self, status: int, seconds: float) -> None:
        super().__init__(f"the answer was {status}: not before {seconds:.0f} s have passed")
        self.seconds = seconds


class PostClient(Protocol):
    """Sends posts."""

    async def post(self, uri: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the HTTP status.

        Raises OSError, TimeoutError, ValueError, :class:`NotAllowed` or :class:`AskedToWait`.
        """
        ...


class WebhookClient:
    """Sends posts, each over a connection of its own."""

    def __init__(self, *, allow_private: bool = False, timeout: float = TIMEOUT) -> None:
        self._allow_private = allow_private
        self._timeout = timeout
        self._tls: ssl.SSLContext | None = None

    async def post(self, uri: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the HTTP status.

        Raises OSError, TimeoutError, ValueError, :class:`NotAllowed` or :class:`AskedToWait`.
        """
        async with asyncio.timeout(self._timeout):
            return await self._post(uri, body, headers)

    async def _post(self, uri: str, body: bytes, headers: Mapping[str, str]) -> int:
        parts = urlsplit(uri)
        host = parts.hostname
        if host is None:
            raise ValueError("a URI without a host")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        address = await self._resolve(host, port)
        reader, writer = await asyncio.open_connection(
            address,
            port,
            limit=_LINE_MAX,
            ssl=self._context() if secure else None,
            server_hostname=host if secure else None,
        )
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            head = [f"POST {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
            head += [f"{name}: {value}" for name, value in headers.items()]
            head += [f"Content-Length: {len(body)}", "", ""]
            writer.write("\r\n".join(head).encode("ascii") + body)
            await writer.drain()
            return await _status(reader)
        finally:
            writer.transport.abort()  # nothing that comes behind the status matters
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    async def _resolve(self, host: str, port: int) -> str:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if self._allow_private or is_public(address):
                return address
        raise NotAllowed(f"{host} is at {', '.join(addresses)[:200]}, which is not public")

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


async def _status(reader: asyncio.StreamReader) -> int:
    line = await reader.readline()
    parts = line.split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise ValueError("what answers does not speak HTTP/1.1")
    status = int(parts[1])
    if status in _PATIENCE:
        seconds = _seconds(await _retry_after(reader), time.time())
        if seconds:
            raise AskedToWait(status, seconds)
    return status


async def _retry_after(reader: asyncio.StreamReader) -> str:
    """The value of Retry-After; empty when it is not among the first headers."""
    for _ in range(_HEADERS_MAX):
        name, colon, value = (await reader.readline()).partition(b":")
        if not colon:
            break
        if name.strip().lower() == b"retry-after":
            return value.strip().decode("latin-1")
    return ""


def _seconds(text: str, unix: float) -> float:
    """How long Retry-After asks to wait (RFC 9110 10.2.3), from ``unix`` on; 0.0: it asks for nothing.

    >>> _seconds("30", 0.0), _seconds("Thu, 01 Jan 1970 00:01:00 GMT", 20.0), _seconds("soon", 0.0)
    (30.0, 40.0, 0.0)
    """
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - unix)
    except (ValueError, OverflowError):
        return 0.0
