"""Listening sockets whose connections may begin with a PROXY header.

The header stands before everything else on the connection, TLS included, so it is read from the
bare socket. Only then does the loop get the socket, and the protocol the address that it names.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import structlog

from thingctl_broker.system.addresses import NO_NETWORKS
from thingctl_broker.system.proxy_protocol import HEADER_MAX, Peer, ProxyHeaderError, read_header

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from thingctl_broker.system.addresses import Networks

HEADER_SECONDS: Final = 5.0
"""How long a PROXY header may take to arrive."""

PENDING_MAX: Final = 1000
"""Connections of one listener whose header has not arrived yet."""

_ACCEPTED_AT_ONCE: Final = 100
_PAUSE: Final = 1.0
"""Seconds without accepting, after the system has run out of descriptors or memory."""

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


Refused: TypeAlias = "Callable[[str, DoorReason], None]"
"""Hears of a connection from a named address that is refused: the address, and why."""

_log = structlog.get_logger("thingctl.proxies")


class DoorReason(StrEnum):
    """Why a connection from a named address is refused."""

    LATE = "late"
    MALFORMED = "malformed"
    MISSING = "missing"
    TOO_MANY = "tooMany"


class _Refusal(Exception):
    """The connection gets no protocol. ``reason`` None: it asked for none."""

    def __init__(self, reason: DoorReason | None) -> None:
        super().__init__()
        self.reason = reason


def ignore_refused(host: str, reason: DoorReason) -> None:
    """Hear of refused connections, and do nothing."""


class Listener(Protocol):
    """What listens, until it is closed. Its socket is the owner's to close."""

    def close(self) -> None:
        """Accept no more."""


async def listen(
    sock: socket.socket,
    make: Callable[[Peer | None], asyncio.BaseProtocol],
    *,
    tls: ssl.SSLContext | None = None,
    tls_timeout: float | None = None,
    proxies: Networks = NO_NETWORKS,
    refused: Refused = ignore_refused,
    backlog: int = 2048,
) -> Listener:
    """Listen on ``sock``, which is bound; ``make`` the protocol of each connection.

    ``make`` gets the client's address from the PROXY header, or None where the socket's own holds.
    ``tls_timeout``: seconds of a handshake. ``proxies``: the addresses whose connections begin with a
    PROXY header. ``refused`` hears of each that does not. Raises OSError.
    """
    loop = asyncio.get_running_loop()
    timeout = None if tls is None else tls_timeout
    if not proxies:
        return await loop.create_server(
            partial(make, None),
            sock=sock,
            ssl=tls,
            backlog=backlog,
            ssl_handshake_timeout=timeout,
            ssl_shutdown_timeout=timeout,
        )

    async def hand_over(accepted: socket.socket, peer: Peer | None) -> None:
        await loop.connect_accepted_socket(
            partial(make, peer),
            accepted,
            ssl=tls,
            ssl_handshake_timeout=timeout,
            ssl_shutdown_timeout=timeout,
        )

    sock.listen(backlog)
    return _ProxyListener(sock, proxies, refused, hand_over)


class _ProxyListener:
    """Accepts by itself, and reads the header of each connection from a named address."""

    def __init__(
        self,
        sock: socket.socket,
        proxies: Networks,
        refused: Refused,
        hand_over: Callable[[socket.socket, Peer | None], Awaitable[None]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._proxies = proxies
        self._refused = refused
        self._hand_over = hand_over
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending = 0
        self._pause: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Accept no more, and drop the connections that have not got a protocol yet."""
        self._loop.remove_reader(self._sock)
        if self._pause is not None:
            self._pause.cancel()
        for task in self._tasks:
            task.cancel()

    def _resume(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                _log.error("connections are not accepted for a second", fault=error.strerror)
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(_PAUSE, self._resume)
                return
            accepted.setblocking(False)
            task = self._loop.create_task(self._serve(accepted, address[0]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, accepted: socket.socket, host: str) -> None:
        try:
            peer = await self._peer(accepted, host) if host in self._proxies else None
        except _Refusal as refusal:
            accepted.close()
            if refusal.reason is not None:
                self._refused(host, refusal.reason)
            return
        except BaseException:
            accepted.close()
            raise
        with contextlib.suppress(OSError):  # the client is gone, or its handshake failed: see ``tls``
            await self._hand_over(accepted, peer)

    async def _peer(self, accepted: socket.socket, host: str) -> Peer | None:
        """The client that the header names; raises :class:`_Refusal`."""
        if self._pending >= PENDING_MAX:
            raise _Refusal(DoorReason.TOO_MANY)
        self._pending += 1
        try:
            async with asyncio.timeout(HEADER_SECONDS):
                return await _read_peer(accepted)
        except TimeoutError:
            raise _Refusal(DoorReason.LATE) from None
        except ProxyHeaderError as error:
            _log.debug("no PROXY header", proxy=host, fault=str(error))
            raise _Refusal(DoorReason.MISSING if error.is_missing else DoorReason.MALFORMED) from None
        except OSError:
            raise _Refusal(None) from None
        finally:
            self._pending -= 1


async def _read_peer(accepted: socket.socket) -> Peer | None:
    """Take exactly the header off a connection; raises ProxyHeaderError, OSError."""
    taken = b""
    while True:
        await _readable(accepted)
        try:
            ahead = accepted.recv(HEADER_MAX, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            continue
        if not ahead:
            if taken:
                raise ProxyHeaderError("the connection ended within the header")
            raise ConnectionResetError  # as proxies do that only look whether a port is open
        header = read_header(taken + ahead)
        taken += accepted.recv(len(ahead) if header is None else header.length - len(taken))
        if header is not None:
            return header.peer


async def _readable(accepted: socket.socket) -> None:
    """Return when something can be read, or the connection has ended."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(accepted, wake)
    try:
        await ready
    finally:
        loop.remove_reader(accepted)
