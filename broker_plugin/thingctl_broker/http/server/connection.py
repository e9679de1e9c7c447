"""One HTTP connection: uvicorn's protocol, with the bounds that it lacks.

uvicorn leaves the size of a request's head, the time that a request may take to arrive,
the time that an answer may take to leave, and the number of connections unbounded, and
says what it refuses in plain text.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from thingctl_broker.http.api.fast_path import fault_of
from thingctl_broker.http.forwarding import read_forwarded
from thingctl_broker.http.links import FORWARDED
from thingctl_broker.http.problems import (
    HEAD_TOO_LARGE,
    INVALID_REQUEST,
    REQUEST_TIMEOUT,
    TOO_MANY_CONNECTIONS,
    Problem,
    ProblemKind,
)
from thingctl_broker.http.request_body import BODY_MAX, DRAIN_MAX
from thingctl_broker.http.response import WHOLE
from thingctl_broker.security.connection_limits import ConnectionLimiter
from thingctl_broker.security.rate_limit import Rate
from thingctl_broker.system.addresses import NO_NETWORKS

if TYPE_CHECKING:
    import asyncio

    from thingctl_broker.http.api.fast_path import PostFastPath
    from thingctl_broker.http.response import ApiResponse
    from thingctl_broker.system.addresses import Networks
    from thingctl_broker.system.proxy_protocol import Peer

CLOSE: Final = (b"connection", b"close")
_CLOSE_LINE: Final = b"%b: %b\r\n" % CLOSE

HEAD_MAX: Final = 32 * 1024
"""Bytes of a request line and its headers, with one space behind each colon."""

REQUEST_MAX: Final = HEAD_MAX + BODY_MAX + 2 * DRAIN_MAX
"""Bytes of a whole request, chunk framing and trailers and all. Whoever sends more was told before."""

REQUEST_TIMEOUT_SECONDS: Final = 20.0
"""Seconds that a request may take to arrive, from the connection's opening or the first byte."""

STALL_TIMEOUT_SECONDS: Final = 30.0
"""Seconds that an answer may lie unread."""

CONNECTIONS_MAX: Final = 2000
"""Open connections: each costs a file descriptor that a thing could have had."""

CONNECTIONS_PER_ADDRESS: Final = 500
"""Open connections from one address, loopback excepted."""

OPENING: Final = Rate(per_second=200.0, burst=1000)
"""New connections from one address, loopback excepted."""

_TOO_LONG: Final = f"they are longer than {HEAD_MAX} bytes"
_LINE: Final = len("GET  HTTP/1.1\r\n\r\n")
_HEADER: Final = len(": \r\n")


class _Unheard:
    """An event that nobody waits for."""

    def set(self) -> None:
        """Nothing happens."""


class _FastPathCycle:
    """A request that the shortcut has taken, where uvicorn looks for a cycle of its own."""

    __slots__ = ("_connection", "disconnected", "keep_alive", "response_complete", "response_started")

    message_event: Final = _Unheard()

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self.disconnected = False
        self.keep_alive = True
        self.response_started = self.response_complete = False

    def answered(self, answer: ApiResponse) -> None:
        """This is the answer; also when the client does not read, it is one and no more."""
        if not self.disconnected and not self.response_complete:
            self._connection.put(self, answer)


class _Refused(Exception):
    """The head is there, and the request is refused for it."""

    def __init__(self, kind: ProblemKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class HttpConnection(HttpToolsProtocol):
    """One connection, bounded in size and time."""

    def __init__(
        self,
        *args: Any,
        limiter: ConnectionLimiter | None = None,
        trusted: Networks = NO_NETWORKS,
        peer: Peer | None = None,
        **kwargs: Any,
    ) -> None:
        """``limiter``: of the connections of each address; None: of this one alone.

        ``trusted``: the proxies whose ``X-Forwarded-`` headers count. ``peer``: the client by the PROXY
        protocol; None: by the socket.
        """
        super().__init__(*args, **kwargs)
        self._trusted = trusted
        """Trusted proxies; once there is a client that is none of them: none."""
        self._peer = peer
        self._limiter = ConnectionLimiter(CONNECTIONS_PER_ADDRESS, OPENING) if limiter is None else limiter
        self._admitted_host: str | None = None
        """What the limiter counts this connection under, while it does."""
        self.access_log = False
        self._received = 0
        """Bytes of the request that is arriving."""
        self._chunk = 0
        """Bytes of what came last."""
        self._shared = 0
        """Bytes of what ended the request before, and may hold some of this one."""
        self._begun = False
        """Whether something of that request is there already."""
        self._head_complete = False
        self._asked = False
        """Whether the application has been asked for what is arriving."""
        self._arriving_since: float | None = self.loop.time()
        self._shortcut: PostFastPath | None = getattr(self.config.app, "shortcut", None)
        self._stalled_since: float | None = None
        self._idle_since: float | None = None
        """Since when nothing has come behind an answer."""
        self._refusal: tuple[ProblemKind, str] | None = None
        """Why what came behind requests that are not answered yet is refused."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection in, or refuse it if there are too many.

        When all places are taken, a connection that has not asked for anything makes room.
        """
        super().connection_made(transport)
        if self._peer is not None:
            self.client = self._peer
        host = self.client[0] if self.client else ""
        if host not in self._trusted:
            self._trusted = NO_NETWORKS
        if self._limiter.admit(host, self.loop.time()) is not None:
            self.refuse(TOO_MANY_CONNECTIONS, "too many come from this address")
            return
        self._admitted_host = host
        if len(self.connections) > CONNECTIONS_MAX and not self._displace_silent():
            self.refuse(TOO_MANY_CONNECTIONS, f"{CONNECTIONS_MAX} are open already")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._release()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Another protocol takes the connection over, and counts it."""
        self._release()
        make: Any = self.ws_protocol_class
        self.ws_protocol_class = partial(make, peer=self.scope["client"])  # type: ignore[assignment] # it is called
        super().handle_websocket_upgrade()

    def _release(self) -> None:
        if self._admitted_host is not None:
            self._limiter.release(self._admitted_host)
            self._admitted_host = None

    @property
    def silent_since(self) -> float | None:
        """Since when the client has sent nothing at all, in the loop's time; None: it has sent something."""
        asked: Any = self.cycle  # uvicorn declares it, and sets None until there is one
        return None if self._begun or self._received or asked is not None else self._arriving_since

    def _displace_silent(self) -> bool:
        """Close the connection that has been silent the longest; return whether there was one."""
        silent = [
            (connection.silent_since, id(connection), connection)
            for connection in self.connections
            if isinstance(connection, HttpConnection)
            and connection is not self
            and connection.silent_since is not None
            and not connection.transport.is_closing()
        ]
        if not silent:
            return False
        min(silent)[-1].transport.abort()
        return True

    def data_received(self, data: bytes) -> None:
        """Take the shortcut, or feed the parser, within bounds."""
        if self._refusal is not None:
            return
        if self._shortcut is not None and self._take(data, self._shortcut):
            return
        self._idle_since = None
        self._chunk = len(data)
        self._received += self._chunk
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._shortcut = None  # who knows where the parser stands
            if self._should_upgrade():
                self.handle_websocket_upgrade()
                return
            # To anything else the request is answered as if it had not asked.
        except httptools.HttpParserError as error:
            refused = error.__context__
            if isinstance(refused, _Refused):
                self._refuse_in_turn(refused.kind, refused.detail)
            else:
                self._refuse_in_turn(INVALID_REQUEST, "what was received is not an HTTP/1.1 request")
            return
        if self._received > HEAD_MAX and not self._head_complete:
            self._refuse_head()
        elif self._received > REQUEST_MAX:
            self.transport.abort()

    def _take(self, data: bytes, shortcut: PostFastPath) -> bool:
        """Whether the shortcut has taken what came: only where the parser awaits a request."""
        before: Any = self.cycle
        if self._begun or self._is_answering:
            return False
        if self.flow.write_paused or self.transport.is_closing():
            return False
        taken: Any = _FastPathCycle(self)
        self.cycle = taken
        if not shortcut.take(data, self.client, taken.answered, self._trusted):
            self.cycle = before
            return False
        self._received = self._shared = 0
        self._arriving_since = None
        if not taken.response_complete:
            self._idle_since = None
        return True

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._begun = True
        if self._arriving_since is None:
            self._arriving_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in one header; trailers, which come behind the body, are dropped."""
        if not self._head_complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there: the application starts."""
        self._head_complete = True
        # However it came: all in one piece, it may be longer than what is refused while it comes.
        if self._received + self._shared > HEAD_MAX and self._head_size() > HEAD_MAX:
            raise _Refused(HEAD_TOO_LARGE, _TOO_LONG)
        fault = fault_of(self.headers, self.parser.get_http_version())
        if fault is not None:
            raise _Refused(INVALID_REQUEST, fault)
        if self._trusted:
            self._look_behind_proxy()
        super().on_headers_complete()
        self._asked = True
        # The application starts in a turn of its own, so this is in time.
        self.scope[WHOLE] = partial(self._write_whole, self.cycle)  # type: ignore[typeddict-unknown-key]

    def _look_behind_proxy(self) -> None:
        """Take from a trusted proxy who has sent the request, and under which address."""
        assert self.client is not None
        told = read_forwarded(self.headers, self.client[0], self._trusted)
        self.scope[FORWARDED] = told  # type: ignore[typeddict-unknown-key]
        if told.client != self.client[0]:
            self.scope["client"] = told.client, 0

    def _head_size(self) -> int:
        headers = sum(len(name) + len(value) + _HEADER for name, value in self.headers)
        return _LINE + len(self.url) + headers

    def _refuse_head(self) -> None:
        self._refuse_in_turn(HEAD_TOO_LARGE, _TOO_LONG)

    def on_message_complete(self) -> None:
        """The request is there."""
        self._received = 0
        self._shared = self._chunk
        self._begun = False
        self._head_complete = False
        self._asked = False
        self._arriving_since = None
        super().on_message_complete()

    def _write_whole(self, cycle: RequestResponseCycle, answer: ApiResponse) -> bool:
        """Write an answer in one piece, and end the request; False: not this time.

        What uvicorn does with two messages and two writes, for an answer that is all there:
        the headers are ours, so they need no checking either.
        """
        stalled = cycle.disconnected or self.flow.write_paused
        if stalled or cycle.response_started or cycle.scope["method"] == "HEAD":
            return False
        cycle.waiting_for_100_continue = False
        self.put(cycle, answer)
        return True

    def put(self, cycle: RequestResponseCycle | _FastPathCycle, answer: ApiResponse) -> None:
        """Write an answer and end the request."""
        cycle.response_started = cycle.response_complete = True
        lines = answer.lines()
        if CLOSE in answer.headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            lines += _CLOSE_LINE
        default = _lines(tuple(self.server_state.default_headers))
        self.transport.write(b"".join((STATUS_LINE[answer.status], default, lines, b"\r\n", answer.body)))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one; as uvicorn does, but without a timer for each."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self.refuse(*self._refusal)
        else:
            self._idle_since = self.loop.time()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._stalled_since = None
        super().resume_writing()

    def close_if_stuck(self, now: float) -> None:
        """End the connection if a request arrives, or an answer leaves, too slowly; or if nothing comes."""
        if self._stalled_since is not None and now - self._stalled_since > STALL_TIMEOUT_SECONDS:
            self.transport.abort()
        elif self._arriving_since is None:
            if self._idle_since is not None and now - self._idle_since > self.timeout_keep_alive:
                self.transport.close()
        elif self.flow.read_paused:
            self._arriving_since = now  # it is we who do not read
        elif now - self._arriving_since <= REQUEST_TIMEOUT_SECONDS:
            return
        elif not self._begun:
            self.transport.close()  # it asks for nothing
        else:
            self.refuse(REQUEST_TIMEOUT, f"it took more than {REQUEST_TIMEOUT_SECONDS:g} seconds")

    @property
    def _is_answering(self) -> bool:
        asked: Any = self.cycle
        return asked is not None and not asked.response_complete

    def _refuse_in_turn(self, kind: ProblemKind, detail: str) -> None:
        """Refuse what has come; requests before it are answered first."""
        is_own = self._asked and not self.pipeline  # its body is wrong, and the application waits for it
        if self._is_answering and not is_own:
            self._refusal = kind, detail
        else:
            self.refuse(kind, detail)

    def refuse(self, kind: ProblemKind, detail: str) -> None:
        """Answer before any application could, and close."""
        answer = Problem(kind, detail).answer()
        head = _lines(tuple(self.server_state.default_headers)) + answer.lines()
        self.transport.write(STATUS_LINE[kind.status] + head + _CLOSE_LINE + b"\r\n" + answer.body)
        self.transport.close()


@lru_cache(8)  # the date among them is another every second
def _lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)
