"""``GET /api/v1/events``: every change of an execution, as it happens (Server-Sent Events).

An event is an execution as it stands when it is told, so whoever reads slowly gets fewer
events, never older ones and never a queue. The connection's write buffer is all that a
reader who does not read can hold, and the connection is cut when that lies unread.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog
from starlette.routing import Route

from thingctl_broker.commands.change_feed import ChangeFeed
from thingctl_broker.commands.execution_resource import encode_execution
from thingctl_broker.http.api.event_ids import EventIds
from thingctl_broker.http.auth import needs
from thingctl_broker.http.problems import TOO_MANY_STREAMS, Problem
from thingctl_broker.http.query import Parameters, executions_asked
from thingctl_broker.http.response import SECURITY_HEADERS
from thingctl_broker.security.tokens import Scope
from thingctl_broker.system.timestamps import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Send
    from starlette.types import Scope as AsgiScope

    from thingctl_broker.commands.change_feed import Changed
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.operations import Operations
    from thingctl_broker.commands.table import Query
    from thingctl_broker.security.token_store import TokenStore
    from thingctl_broker.security.tokens import Token

EVENTS: Final = "/api/v1/events"

STREAMS_MAX: Final = 100
"""Streams at once."""

HEARTBEAT: Final = 15.0
"""Seconds of silence after which a sign of life is sent."""

LINGER: Final = 60.0
"""Seconds for which changes are still noted when the last reader has left: it may come back."""

LIFETIME: Final = 600.0
"""Seconds after which a stream ends: its reader comes back, and its token is looked at again."""

PACE: Final = 0.1
"""Seconds between two writes to one reader; what happens meanwhile is told together."""

PACE_MAX: Final = 2.0
SHARE: Final = 0.25
"""Of the loop's time, what all streams together may take."""

BATCH: Final = 200
"""Executions looked at for one write."""

BATCH_BYTES: Final = 256 * 1024
"""A write ends behind the event that passes this."""

_KNOWN: Final = frozenset({"thingId", "action", "status", "commandId"})
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    *SECURITY_HEADERS,
    (b"x-accel-buffering", b"no"),  # a proxy in front is to pass on what it gets
]


class Streams:
    """The endpoint of live events."""

    def __init__(self, operations: Operations, feed: ChangeFeed | None = None) -> None:
        self._operations = operations
        self._feed = ChangeFeed() if feed is None else feed
        self._ids = EventIds()
        self._log = structlog.get_logger("thingctl.http")
        self._pumps: set[asyncio.Task[None]] = set()
        self._sleeping: list[asyncio.Future[None]] = []
        self._unsubscribe: Callable[[], None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._pumps)

    @property
    def noting(self) -> bool:
        """Whether changes are noted at present: somebody listens, or may come back."""
        return self._unsubscribe is not None

    def routes(self) -> list[Route]:
        """The endpoint with its path."""
        return [Route(EVENTS, self.open, methods=["GET"])]

    @needs(Scope.COMMANDS_READ)
    async def open(self, request: Request) -> Stream:
        """``GET /api/v1/events``: changes of executions, as they happen or from ``Last-Event-ID`` on."""
        asked = Parameters(request.scope["query_string"], _KNOWN)
        query = executions_asked(asked, request.scope["token"])
        if len(self._pumps) >= STREAMS_MAX:
            raise Problem(
                TOO_MANY_STREAMS, f"{STREAMS_MAX} are open already", headers=((b"retry-after", b"10"),)
            )
        permit = Permit(request.scope["tokens"], request.scope["token"])
        return Stream(self, query, request.headers.get("last-event-id"), permit)

    def wake(self) -> None:
        """Let every stream look at its token again: the tokens have changed."""
        sleeping, self._sleeping = self._sleeping, []
        for sleeper in sleeping:
            if not sleeper.done():
                sleeper.set_result(None)

    def stop(self) -> None:
        """End every stream, and note nothing any more."""
        self._stopped = True
        for pump in self._pumps:
            pump.cancel()
        self._rest()

    async def run(
        self,
        query: Query,
        last_event_id: str | None,
        permit: Permit,
        receive: Receive,
        send: Send,
    ) -> None:
        """Tell one reader what happens until it goes, the stream has lived its time, or the broker stops.

        It ends when its token is revoked, renewed, or expires.
        """
        if self._stopped:
            return
        position = self._join(last_event_id)
        pump = asyncio.create_task(self._pump(query, position, permit, send))
        gone = asyncio.create_task(_gone(receive))
        self._pumps.add(pump)
        try:
            done, _ = await asyncio.wait((pump, gone), timeout=LIFETIME, return_when=asyncio.FIRST_COMPLETED)
            if pump in done and not pump.cancelled() and pump.exception() is not None:
                self._log.error("event stream failed", exc_info=pump.exception())
        finally:
            pump.cancel()
            gone.cancel()
            self._pumps.discard(pump)
            self._leave()

    def _join(self, last_event_id: str | None) -> int | None:
        """A reader comes; return where it begins, None: it has missed something."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._unsubscribe is None:
            self._unsubscribe = self._operations.watch(self._on_change)
        if last_event_id is None:
            return self._feed.position
        position = self._ids.decode(last_event_id)
        return None if position is None else self._feed.resume(position)

    def _leave(self) -> None:
        if not self._pumps and not self._stopped and self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER, self._rest)

    def _rest(self) -> None:
        """Nobody listens: note nothing."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
            self._feed.forget()

    def _on_change(self, execution_id: str) -> None:
        self._feed.note(execution_id)
        if self._sleeping:
            self.wake()

    async def _pump(self, query: Query, position: int | None, permit: Permit, send: Send) -> None:
        """Write to one reader, for as long as its token stands."""
        feed = self._feed
        told, at = ("reset", feed.position) if position is None else ("ready", position)
        await _write(send, self._mark(told, at))
        written = monotonic()
        while permit.stands():
            changed = feed.since(at, BATCH)
            body, spent = b"", 0.0
            if changed is None:
                at = feed.position
                body = self._mark("reset", at)
            elif changed:
                ids = [one.execution_id for one in changed]
                tell = partial(self._batch, query, changed)
                body, at, spent = await self._operations.read_many(ids, tell)
            if not body and monotonic() - written >= HEARTBEAT:
                # With the position, so that whoever hears little can still resume from late.
                body = b": \nid: %b\n\n" % self._ids.encode(at)
            if body:
                await _write(send, body)
                written = monotonic()
            if changed:
                await asyncio.sleep(min(PACE_MAX, max(PACE, spent * len(self._pumps) / SHARE)))
            elif changed is not None:
                await self._news(permit.seconds(written + HEARTBEAT - monotonic()))

    def _batch(
        self, query: Query, changed: Sequence[Changed], there: Mapping[str, Execution]
    ) -> tuple[bytes, int, float]:
        """Events for what ``query`` asks for, within ``BATCH_BYTES``.

        With the position behind them, and how many seconds it took to make them.
        """
        began = perf_counter()
        parts: list[bytes] = []
        size = 0
        position = 0
        for position, execution_id in changed:
            execution = there.get(execution_id)
            if execution is not None and query.admits(execution):
                event_id = self._ids.encode(position)
                parts.append(b"event: execution\nid: %b\ndata: %b\n\n" % (event_id, _one_line(execution)))
                size += len(parts[-1])
                if size > BATCH_BYTES:
                    break
        return b"".join(parts), position, perf_counter() - began

    async def _news(self, seconds: float) -> None:
        """Wait for the next change, or for so many seconds."""
        sleeper = asyncio.get_running_loop().create_future()
        self._sleeping.append(sleeper)
        try:
            async with asyncio.timeout(seconds):
                await sleeper
        except TimeoutError:
            pass
        finally:
            if sleeper in self._sleeping:
                self._sleeping.remove(sleeper)

    def _mark(self, event: str, position: int) -> bytes:
        data = msgspec.json.encode({"at": rfc3339(self._operations.unix())})
        event_id = self._ids.encode(position)
        return b"event: %b\nid: %b\nretry: 1000\ndata: %b\n\n" % (event.encode(), event_id, data)


class Permit(NamedTuple):
    """The token that a stream was opened with, and the store that knows how it stands."""

    tokens: TokenStore
    token: Token

    def stands(self) -> bool:
        """Whether the token is still valid."""
        return self.tokens.stands(self.token)

    def seconds(self, most: float) -> float:
        """Seconds until the token expires, at most ``most``."""
        return max(0.0, min(most, self.tokens.seconds_left(self.token)))


class Stream:
    """One answer that goes on."""

    def __init__(self, streams: Streams, query: Query, last_event_id: str | None, permit: Permit) -> None:
        self._streams = streams
        self._query = query
        self._last_event_id = last_event_id
        self._permit = permit

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        if scope["method"] != "HEAD":
            await self._streams.run(self._query, self._last_event_id, self._permit, receive, send)
        await send({"type": "http.response.body", "body": b""})


def _one_line(execution: Execution) -> bytes:
    """The execution as the API shows it, without line breaks: they would end a line of the stream.

    There may be some between the tokens of params and result; within its strings JSON has none.
    """
    encoded = encode_execution(execution)
    return (
        encoded.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in encoded or b"\r" in encoded else encoded
    )


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
