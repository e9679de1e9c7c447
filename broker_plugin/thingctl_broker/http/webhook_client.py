"""Sends one post: resolved once, to a public address, without following anybody anywhere.

The address that was looked at is the one that is connected to, so a name that resolves
differently a moment later leads nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from thingctl_broker.webhooks import is_public

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT: Final = 10.0
"""Seconds that a post may take, from the name's resolution to the status."""

_LINE_MAX: Final = 8192


class NotAllowed(Exception):
    """The post may not go there: every address of the host is private."""


class Client(Protocol):
    """Sends posts."""

    async def post(self, uri: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the HTTP status; raises OSError, TimeoutError, ValueError, or :class:`NotAllowed`."""
        ...


class WebhookClient:
    """Sends posts, each over a connection of its own."""

    def __init__(self, *, allow_private: bool = False, timeout: float = TIMEOUT) -> None:
        self._allow_private = allow_private
        self._timeout = timeout
        self._tls: ssl.SSLContext | None = None

    async def post(self, uri: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the HTTP status; raises OSError, TimeoutError, ValueError, or :class:`NotAllowed`."""
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
    return int(parts[1])
