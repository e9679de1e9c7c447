"""HTTP/1.1 over W keep-alive connections, one request outstanding on each, as cheap as Python makes it."""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READ_MAX = 64 * 1024


class Exchange(NamedTuple):
    """A request, and whatever its sender wants to know it by."""

    request: bytes
    tag: Any


class _Connection:
    __slots__ = ("received", "sent_at", "sock", "tag")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.tag: Any = None
        self.received = b""
        self.sent_at = 0


class HttpClient:
    """W connections to one server, or to several in turn."""

    def __init__(self, host: str, ports: Sequence[int], connections: int) -> None:
        self.epoll = select.epoll()
        self.connections: dict[int, _Connection] = {}
        for i in range(connections):
            sock = socket.create_connection((host, ports[i % len(ports)]), timeout=10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections[sock.fileno()] = _Connection(sock)
            self.epoll.register(sock.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Close every connection."""
        for connection in self.connections.values():
            connection.sock.close()
        self.epoll.close()

    def run(
        self,
        next_exchange: Callable[[], Exchange | None],
        done: Callable[[Any, int, bytes, int], None],
        seconds: float,
    ) -> None:
        """Exchange until ``next_exchange`` has no more and every answer is here.

        ``done(tag, status, body, nanoseconds)`` is called for each answer. Raises
        :class:`BenchError` when the server closes a connection or ``seconds`` are over.
        """
        outstanding = sum(self._send_next(c, next_exchange) for c in self.connections.values())
        end = time.monotonic() + seconds
        while outstanding:
            left = end - time.monotonic()
            if left <= 0:
                raise BenchError(f"the server left {outstanding} requests unanswered")
            for fd, _ in self.epoll.poll(left):
                connection = self.connections[fd]
                data = connection.sock.recv(READ_MAX)
                if not data:
                    raise BenchError("the server closed a connection")
                if connection.received:
                    data = connection.received + data
                answer = parse(data)
                if answer is None:
                    connection.received = data
                    continue
                connection.received = b""
                took = time.perf_counter_ns() - connection.sent_at
                done(connection.tag, *answer, took)
                outstanding -= not self._send_next(connection, next_exchange)

    def _send_next(self, connection: _Connection, next_exchange: Callable[[], Exchange | None]) -> bool:
        exchange = next_exchange()
        if exchange is None:
            return False
        connection.tag = exchange.tag
        connection.sent_at = time.perf_counter_ns()
        connection.sock.sendall(exchange.request)
        return True


def parse(data: bytes) -> tuple[int, bytes] | None:
    """(status, body) of an answer with a Content-Length; None while it is not all here.

    >>> parse(b"HTTP/1.1 201 Created\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
    (201, b'{}')
    """
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return None
    headers = data[:head].lower()
    at = headers.find(b"\r\ncontent-length:")
    if at < 0:
        raise BenchError(f"an answer without Content-Length: {data[:200]!r}")
    line_end = headers.find(b"\r\n", at + 2)
    size = int(headers[at + 17 : line_end if line_end > 0 else head])
    body = data[head + 4 :]
    if len(body) < size:
        return None
    return int(data[9:12]), body
