"""The server starts and stops inside somebody else's loop, and leaves the process alone."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time

import pytest

from broker.http.running import AUTHORIZED, RunningApi, until
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.http.server.server import HttpServer

BODY = b'{"thingId":"lamp","action":"turnOn"}'
WAITING = (
    b"POST /api/v1/commands?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\nContent-Length: %d\r\n\r\n%b"
    % (AUTHORIZED["Authorization"].encode(), len(BODY), BODY)
)


def stop_in_time(api):
    begun = time.monotonic()
    api.run(api.server.stop())
    assert time.monotonic() - begun < 1.0
    assert connections(api) == set()
    assert api.server._server.server_state.tasks == set()


def test_stop_ends_waiting_callers_with_what_there_is():
    api = RunningApi()
    socks = [api.raw() for _ in range(20)]
    for sock in socks:
        sock.sendall(WAITING)
    until(lambda: api.waiting() == 20)
    stop_in_time(api)
    for sock in socks:
        answer = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 202 Accepted\r\n")
        assert b"connection: close\r\n" in answer
        assert b'"status":"SENT"' in answer
        sock.close()
    api.close()


def test_stop_closes_idle_and_half_open_connections():
    api = RunningApi()
    socks = [api.raw() for _ in range(4)]
    socks[1].sendall(b"GET / HT")
    socks[2].sendall(WAITING[:-1])
    socks[3].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert socks[3].recv(65536)
    until(lambda: len(api.call(lambda: list(api.server._server.server_state.connections))) == 4)
    stop_in_time(api)
    for sock in socks:
        sock.close()
    api.close()


def test_stop_does_not_wait_for_a_client_that_does_not_read():
    api = RunningApi()
    for _ in range(20):
        api.send(params={"text": "x" * 100_000})
    with api.raw() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        get = b"GET /api/v1/commands HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n"
        sock.sendall(get % AUTHORIZED["Authorization"].encode() * 2)
        until(lambda: any(c.flow.write_paused for c in api.call(lambda: list(connections(api)))))
        stop_in_time(api)
    api.close()


def connections(api):
    return api.server._server.server_state.connections


def test_stop_does_not_wait_for_a_journal_that_got_stuck(caplog):
    journal = NullJournal()
    api = RunningApi(journal=journal)
    journal.then = lambda kept, lost=None: None
    with api.raw() as sock:
        sock.sendall(WAITING.replace(b"?wait=60", b""))
        until(lambda: len(api.service.table) == 1)
        stop_in_time(api)
    api.close()
    assert caplog.records == []


def test_stop_refuses_new_connections_and_may_be_repeated():
    api = RunningApi()
    stop_in_time(api)
    stop_in_time(api)
    with pytest.raises(ConnectionRefusedError):
        api.raw()
    api.close()


def test_the_server_leaves_signals_logging_and_tasks_as_they_were():
    signals = (signal.SIGINT, signal.SIGTERM)
    names = ("", "uvicorn", "uvicorn.access", "uvicorn.error", "uvicorn.asgi")
    before = [(logging.getLogger(n).level, list(logging.getLogger(n).handlers)) for n in names]

    async def run():
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        tasks = asyncio.all_tasks()
        handlers = [signal.getsignal(sig) for sig in signals]
        server = HttpServer(RunningNothing(), sock)
        await server.start()
        assert [signal.getsignal(sig) for sig in signals] == handlers
        await server.stop()
        assert asyncio.all_tasks() == tasks
        assert sock.fileno() == -1

    asyncio.run(run())
    assert [(logging.getLogger(n).level, list(logging.getLogger(n).handlers)) for n in names] == before
    assert logging.getLogger("uvicorn.access").propagate


class RunningNothing:
    async def __call__(self, scope, receive, send):
        raise NotImplementedError

    def stop(self):
        pass


def test_requests_are_not_worth_a_line_in_the_log(caplog):
    api = RunningApi()
    with caplog.at_level(logging.DEBUG, "uvicorn"):
        assert api.get("/healthz").status == 200
        assert api.request("HEAD", "/healthz").status == 200
        assert api.get("/nowhere").status == 404
    api.close()
    assert caplog.records == []


def test_the_server_runs_in_any_thread():
    """Where uvicorn's own would ask for signals, which only the main thread may."""
    found = []

    def run():
        api = RunningApi()
        found.append(api.get("/healthz").status)
        api.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [200]


async def test_a_socket_that_cannot_listen_is_an_error():
    sock = socket.socket()
    sock.close()
    with pytest.raises((OSError, ValueError)):
        await HttpServer(RunningNothing(), sock).start()
