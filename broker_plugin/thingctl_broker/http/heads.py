"""Heads of requests as most clients send them, over and over, byte for byte."""

from __future__ import annotations

from typing import Final, NamedTuple

import httptools

from thingctl_broker.http.bodies import BODY_MAX

HEAD_MAX: Final = 2048
"""Bytes of a head that is looked at here, its empty line and all."""

MEANINGLESS: Final = frozenset(
    {
        b"host",
        b"user-agent",
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
    }
)
"""Headers that no answer to a command depends on. What trusted proxies forward tells only who has sent it."""

_NEEDED: Final = frozenset({b"host", b"authorization", b"content-length"})
_ONE_VALUE: Final = {b"content-type": b"application/json", b"connection": b"keep-alive"}


class Head(NamedTuple):
    """A head that asks for nothing special. ``length``: of the body, bytes, at least 1."""

    headers: list[tuple[bytes, bytes]]
    """As in an ASGI scope: names in lower case."""
    length: int


class _Told:
    """What the parser tells of a head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.ends: list[str] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.ends.append("head")

    def on_body(self, _: bytes) -> None:
        self.ends.append("body")

    def on_message_complete(self) -> None:
        self.ends.append("message")


def read_head(head: bytes, url: bytes) -> Head | None:
    """Read the head of a POST to ``url``, by the parser that reads every request.

    None when it is not exactly that, or has a header that may mean more than that a JSON body of
    so many bytes comes, and that the connection stays open: a second one of a name, too.
    """
    told = _Told()
    parser = httptools.HttpRequestParser(told)
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    # The head must end where it ends here: nothing of it may be taken for a body.
    if told.ends != ["head"] or told.url != url or parser.get_method() != b"POST":
        return None
    if parser.get_http_version() != "1.1" or not parser.should_keep_alive() or parser.should_upgrade():
        return None
    headers = dict(told.headers)
    if len(headers) < len(told.headers) or not headers.keys() >= _NEEDED:
        return None
    for name, value in told.headers:
        if name not in MEANINGLESS and name not in _NEEDED and _ONE_VALUE.get(name) != value.lower():
            return None
    digits = headers[b"content-length"]
    if not digits.isdigit() or not 0 < int(digits) <= BODY_MAX:
        return None
    return Head(told.headers, int(digits))


def fault_of(headers: list[tuple[bytes, bytes]], version: str) -> str | None:
    """Why others might frame or route a request in another way; None: they will not.

    ``version``: of HTTP, such as ``1.1``. Names are in lower case.
    """
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return "the only Transfer-Encoding here is chunked"
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return "HTTP/1.1 wants one Host header [RFC 9112 3.2]"
    return None
