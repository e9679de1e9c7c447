"""A shortcut for the call that is made most: ``POST /api/v1/commands`` for one thing, whole, and in order.

Of what such a request costs, more than half would go into a scope, a task, and events and
futures between them, for an answer that no coroutine is needed for: the command is accepted
at once, and the answer written when the journal has it. So a request that came in one piece
and asks for nothing special is answered from where it came in.

The same code parses, admits, decodes, checks and answers as in ``app``. Anything unusual, and
anything that would fail, falls back to ``app`` with no side effects. A property test holds that
both give the same answers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import httptools

from thingctl_broker.commands.execution_resource import command_body_decoder
from thingctl_broker.errors import ServiceError
from thingctl_broker.http.api.commands import COMMANDS, accepted
from thingctl_broker.http.auth import require, require_command
from thingctl_broker.http.forwarding import read_forwarded
from thingctl_broker.http.problems import Problem
from thingctl_broker.http.request_body import BODY_MAX, decode_body
from thingctl_broker.security.caller import Caller, origin
from thingctl_broker.security.tokens import Scope
from thingctl_broker.system.addresses import NO_NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.commands.operations import SendsAtOnce
    from thingctl_broker.http.auth import Callers
    from thingctl_broker.http.response import ApiResponse
    from thingctl_broker.security.tokens import Token
    from thingctl_broker.system.addresses import Networks
    from thingctl_broker.system.proxy_protocol import Peer

HEADS_KEPT: Final = 256
"""Heads that are known by their bytes: a client's differ by their Content-Length at most."""

_URL: Final = COMMANDS.encode()
_START: Final = b"POST %b HTTP/1.1\r\n" % _URL
_END: Final = b"\r\n\r\n"
_SEND: Final = Scope.COMMANDS_SEND


class PostFastPath:
    """The shortcut of one API; every connection asks it."""

    def __init__(
        self, operations: SendsAtOnce, callers: Callers, tell: Callable[[Exception], ApiResponse]
    ) -> None:
        """``tell``: makes the answer to a command that was accepted and then went wrong."""
        self._operations = operations
        self._callers = callers
        self._tell = tell
        self._head = lru_cache(HEADS_KEPT)(read_head)
        self._behind = lru_cache(HEADS_KEPT)(self._read_behind)

    def take(
        self,
        data: bytes,
        client: Peer | None,
        answered: Callable[[ApiResponse], None],
        trusted: Networks = NO_NETWORKS,
    ) -> bool:
        """Answer the request that ``data`` is, now or later; False: it is for the other way.

        Then nothing has happened, and ``answered`` is not called. ``trusted``: the proxies, if the
        client is one of them.
        """
        if not data.startswith(_START):
            return False
        end = data.find(_END, 0, HEAD_MAX) + len(_END)
        head = self._head(data[:end], _URL)
        if head is None or end + head.length != len(data):
            return False
        if trusted and client is not None:
            client = self._behind(data[:end], client[0], trusted), 0
        scope = {"headers": head.headers, "client": client}
        token = self._callers.admit_at_once(scope)
        if token is None:
            return False
        try:
            taken = self._send(data[end:], token, client, answered)
        except (Problem, ServiceError):
            taken = False
        except Exception as error:
            answered(self._tell(error))
            return True
        if not taken:
            self._callers.forget(token)
        return taken

    def _read_behind(self, encoded: bytes, peer: str, trusted: Networks) -> str:
        """The address of the client behind a trusted proxy, by a head that is known."""
        head = self._head(encoded, _URL)
        assert head is not None
        return read_forwarded(head.headers, peer, trusted).client

    def _send(
        self,
        encoded: bytes,
        token: Token,
        client: Peer | None,
        answered: Callable[[ApiResponse], None],
    ) -> bool:
        require(token, _SEND)
        body = decode_body(command_body_decoder, encoded)  # a command to many things is none to it
        if body.post_back_uri is not None:
            return False
        if token.is_limited:
            require_command(token, body.thing_id, body.action)
        # Calls that come in share a context, so what is set is taken back.
        before = origin.set(Caller(token.name, client[0] if client else ""))
        try:
            self._operations.send_then(
                body.thing_id,
                body.action,
                body.params_json(),
                body.ttl,
                accepted,
                told=answered,
                lost=lambda error: answered(self._tell(error)),
                requested_by=token.name,
            )
        finally:
            origin.reset(before)
        return True


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
