"""uvicorn inside the broker's own loop, quick to stop."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import uvicorn

from thingctl_broker.http.server.connection import CONNECTIONS_PER_ADDRESS, OPENING, HttpConnection
from thingctl_broker.security.connection_limits import ConnectionLimiter
from thingctl_broker.system.addresses import NO_PROXIES
from thingctl_broker.system.listeners import ignore_refused, listen

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from thingctl_broker.system.addresses import Proxies
    from thingctl_broker.system.listeners import Listener, Refused
    from thingctl_broker.system.proxy_protocol import Peer

STOP_GRACE: Final = 0.5
"""Seconds that answers under way have when the server stops."""

KEEP_ALIVE: Final = 60
"""Seconds that an idle connection stays open after an answer."""

STRICT_TRANSPORT: Final = ("strict-transport-security", "max-age=31536000")
"""Over TLS: a browser that has been here once never asks in the clear again (RFC 6797)."""

_SWEEP_TICKS: Final = 10
"""Connections are looked at every so many ticks of 0.1 s."""


class StoppableApp(Protocol):
    """An ASGI application that can be asked to let its waiting callers go."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        ...

    def stop(self) -> None:
        """Let waiting callers go."""
        ...


class HttpServer:
    """Serves one application on one listening socket.

    ``sock`` is a TCP socket, bound already; the server listens on it and closes it at the end.
    """

    def __init__(
        self,
        app: StoppableApp,
        sock: socket.socket,
        websocket: Callable[..., asyncio.Protocol] | None = None,
        tls: ssl.SSLContext | None = None,
        *,
        proxies: Proxies = NO_PROXIES,
        refused: Refused = ignore_refused,
    ) -> None:
        """``websocket`` makes the protocol that takes a connection over which asks for WebSocket.

        ``tls``: serve HTTPS with it. ``refused`` hears of connections without their PROXY header.
        """
        self._app = app
        self._sock = sock
        self._server = _Server(
            uvicorn.Config(
                app,
                http=partial(  # type: ignore[arg-type] # called, whatever it is
                    HttpConnection,
                    limiter=ConnectionLimiter(CONNECTIONS_PER_ADDRESS, OPENING, proxies.named),
                    trusted=proxies.trusted,
                ),
                ws="none" if websocket is None else websocket,  # type: ignore[arg-type] # called, whatever it is
                lifespan="off",
                interface="asgi3",
                log_config=None,  # logging is the broker's
                workers=1,  # else $WEB_CONCURRENCY would have a say
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE,
                headers=[] if tls is None else [STRICT_TRANSPORT],
            )
        )
        self._server.listening = partial(listen, tls=tls, proxies=proxies.speaking, refused=refused)
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on."""
        host, port = self._sock.getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Listen; returns when connections are accepted. Raises OSError when it cannot."""
        await self._server.open(self._sock)
        self._task = asyncio.create_task(self._server.main_loop(), name="http")

    async def stop(self) -> None:
        """Stop accepting, let waiting callers go, finish what is under way; takes less than a second."""
        if self._task is None:
            return
        self._app.stop()
        self._server.should_exit = True
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        await self._server.shutdown([self._sock])


class _Server(uvicorn.Server):
    """uvicorn without what belongs to a process of its own: signals, logging, exit.

    Those live in its ``serve``, which is never called.
    """

    listening: Callable[..., Awaitable[Listener]] = listen
    """What listens on a socket."""

    async def open(self, sock: socket.socket) -> None:
        """Listen on ``sock``."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        self._listener = await self.listening(sock, self._protocol, backlog=self.config.backlog)
        self.started = True

    def _protocol(self, peer: Peer | None) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg] # the class is ours
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, peer=peer
        )

    async def on_tick(self, counter: int) -> bool:
        """Every 0.1 s: keep the Date header; now and then close connections that got stuck."""
        if counter % _SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                assert isinstance(connection, HttpConnection)
                connection.close_if_stuck(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything: idle connections now, busy ones when answered, stuck ones after the grace."""
        self._listener.close()
        for sock in sockets or ():
            sock.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        await _settle(lambda: not state.connections and not state.tasks, STOP_GRACE)
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        await _settle(lambda: not state.connections and not state.tasks, STOP_GRACE / 5)


async def _settle(settled: Callable[[], bool], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not settled() and loop.time() < end:  # noqa: ASYNC110 uvicorn has no event for it
        await asyncio.sleep(0.005)
