"""A whole response in memory, with the headers that every answer of the API carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

WHOLE: Final = "thingctl.whole"
"""In a scope: ``write(answer) -> bool``, where the server can write an answer in one piece."""

JSON: Final = b"application/json"

SECURITY_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)
"""Answers are data about devices: not to be cached, run, framed, or taken for a document."""


_SECURITY_LINES: Final = b"".join(b"%b: %b\r\n" % header for header in SECURITY_HEADERS)
_CONTENT_LINES: Final = b"content-type: %b\r\ncontent-length: %d\r\n" + _SECURITY_LINES


class ApiResponse:
    """A response: status, body, headers. An ASGI application that always says the same."""

    __slots__ = ("body", "headers", "media_type", "status")

    def __init__(
        self,
        status: int,
        body: bytes,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        media_type: bytes = JSON,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.media_type = media_type

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Every header, names in lower case."""
        if self.status == 204:  # has no content to describe: RFC 9110 section 8.6
            return [*SECURITY_HEADERS, *self.headers]
        return [
            (b"content-type", self.media_type),
            (b"content-length", b"%d" % len(self.body)),
            *SECURITY_HEADERS,
            *self.headers,
        ]

    def lines(self) -> bytes:
        """Every header as it goes over the wire, each line with its end."""
        lines = _SECURITY_LINES if self.status == 204 else _CONTENT_LINES % (self.media_type, len(self.body))
        for header in self.headers:
            lines += b"%b: %b\r\n" % header
        return lines

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it; in one piece where the server can."""
        write = scope.get(WHOLE)
        if write is not None and write(self):
            return
        await send({"type": "http.response.start", "status": self.status, "headers": self.all_headers()})
        await send({"type": "http.response.body", "body": self.body})
