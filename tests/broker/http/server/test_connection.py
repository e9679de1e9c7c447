"""The bounds of one connection, over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from http.client import HTTPConnection, HTTPResponse

import pytest
import uvicorn
from uvicorn.server import ServerState

from broker.http.running import AUTHORIZED, until
from thingctl_broker.http.server import connection as limits
from thingctl_broker.http.server import server
from thingctl_broker.security.connection_limits import ConnectionLimiter
from thingctl_broker.system.addresses import Networks

COMMANDS = "/api/v1/commands"
AUTHORIZATION = f"Authorization: {AUTHORIZED['Authorization']}\r\n".encode()


def post(body=b'{"thingId":"lamp","action":"turnOn"}', query=b"", head=b""):
    """A request as it goes over the wire."""
    return (
        b"POST /api/v1/commands%b HTTP/1.1\r\nHost: x\r\n%b%bContent-Length: %d\r\n\r\n"
        % (query, AUTHORIZATION, head, len(body))
    ) + body


def read(sock):
    """One response off a connection."""
    response = HTTPResponse(sock)
    response.begin()
    content = response.read()
    return response.status, json.loads(content), response


def eof(sock):
    """Whether the server has closed."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_accepted_sockets_do_not_wait_for_more_to_send(api):
    with api.raw() as sock:
        sock.sendall(post())
        read(sock)
        (found,) = api.call(lambda: list(api.server._server.server_state.connections))
        accepted = found.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_request_that_arrives_byte_by_byte(api):
    with api.raw() as sock:
        for i in range(len(post())):
            sock.sendall(post()[i : i + 1])
        assert read(sock)[0] == 201


def test_requests_that_arrive_all_at_once_are_answered_in_order(api):
    bodies = [b'{"thingId":"lamp","action":"a%d"}' % i for i in range(50)]
    with api.raw() as sock:
        sock.sendall(b"".join(map(post, bodies)))
        reader = sock.makefile("rb")
        answers = []
        for _ in bodies:
            length = 0
            while (line := reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            answers.append(json.loads(reader.read(length)))
        reader.close()
    assert [answer["action"] for answer in answers] == [f"a{i}" for i in range(50)]


def test_one_connection_takes_many_requests(api):
    connection = HTTPConnection(api.host, api.port)
    for _ in range(200):
        connection.request("POST", COMMANDS, '{"thingId":"lamp","action":"x"}', AUTHORIZED)
        response = connection.getresponse()
        assert response.status == 201
        response.read()
    connection.close()


def test_a_chunked_body(api):
    connection = HTTPConnection(api.host, api.port)
    parts = [b'{"thingId":"la', b'mp","action":"x"', b"}"]
    connection.request("POST", COMMANDS, iter(parts), AUTHORIZED | {"Content-Type": "application/json"})
    assert connection.getresponse().status == 201
    connection.close()


def test_trailers_are_no_headers(api):
    """A token behind the body authorizes nothing."""
    with api.raw() as sock:
        sock.sendall(b"POST /api/v1/commands HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.sendall(b"0\r\n" + AUTHORIZATION + b"\r\n")
        assert read(sock)[0] == 401
        sock.sendall(post())
        assert read(sock)[0] == 201


def test_a_client_that_waits_for_100_continue_is_told_to_go_on_or_refused_at_once(api):
    body = b'{"thingId":"lamp","action":"turnOn"}'
    with api.raw() as sock:
        sock.sendall(post(body, head=b"Expect: 100-continue\r\n")[: -len(body)])
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert read(sock)[0] == 201
    with api.raw() as sock:
        head = AUTHORIZATION + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
        sock.sendall(b"POST /api/v1/commands HTTP/1.1\r\nHost: x\r\n" + head)
        assert read(sock)[0] == 413
        assert eof(sock)


def test_an_oversized_body_is_heard_out_and_the_connection_lives_on(api):
    with api.raw() as sock:
        sock.sendall(post(b" " * 500_000))
        status, problem, response = read(sock)
        assert (status, problem["status"]) == (413, 413)
        assert response.getheader("connection") is None
        sock.sendall(post())
        assert read(sock)[0] == 201


def test_a_body_without_end_is_cut_off(api):
    def send_on(sock):
        for _ in range(300):  # 20 MB: long before a slow one would be cut off
            sock.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")

    with api.raw() as sock:
        sock.sendall(b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_on(sock)


def test_a_wish_to_upgrade_is_not_heard(api):
    with api.raw() as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert read(sock)[0] == 200


def test_a_head_may_be_long_but_not_endless(api):
    with api.raw() as sock:
        sock.sendall(post(head=b"X: " + b"y" * 20_000 + b"\r\n"))
        assert read(sock)[0] == 201
    with api.raw() as sock:
        sock.sendall(b"GET /" + b"y" * 40_000)
        assert read(sock)[0] == 431
        assert eof(sock)


def head_of(size):
    """A request of that many bytes without a body."""
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n"
    return head % (b"y" * (size - len(head % b"")))


@pytest.mark.parametrize("cuts", ["whole", "late", "early", "pipelined"])
@pytest.mark.parametrize(
    ("size", "status"), [(limits.HEAD_MAX, 200), (limits.HEAD_MAX + 1, 431), (limits.HEAD_MAX * 2, 431)]
)
async def test_how_long_a_head_may_be_does_not_depend_on_how_it_comes(connection, cuts, size, status):
    """As the loop may hand it over."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    connection.app = app
    head = head_of(size)
    assert len(head) == size
    if cuts == "whole":
        pieces = [head]
    elif cuts == "late":
        pieces = [head[:-1], head[-1:]]
    elif cuts == "early":
        pieces = [head[:50], head[50:]]
    else:
        pieces = [head_of(30_000), head_of(100) + head[:20_000], head[20_000:]]
    for piece in pieces:
        connection.data_received(piece)
        for _ in range(5):
            await asyncio.sleep(0)
    answers = [
        int(line[9:12]) for line in connection.transport.written.split(b"\r\n") if line[:5] == b"HTTP/"
    ]
    assert answers == [200] * (2 if cuts == "pipelined" else 0) + [status]
    assert bool(connection.transport.fate) == (status == 431)


def test_a_client_that_aborts_costs_nothing_and_is_not_worth_a_line(api, capsys):
    for cut in (0, 1, 30, 100, len(post()) - 1):
        sock = api.raw()
        sock.sendall(post()[:cut])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    assert api.get("/healthz").status == 200  # connections are accepted in order: the others were
    state = api.server._server.server_state
    until(lambda: api.call(lambda: not state.connections and not state.tasks))
    assert capsys.readouterr() == ("", "")
    assert len(api.service.table) == 0


@pytest.fixture
def often(monkeypatch):
    """Connections are looked at every 0.1 s."""
    monkeypatch.setattr(server, "_SWEEP_TICKS", 1)


def test_a_request_that_takes_too_long_is_refused(api, often, monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_TIMEOUT_SECONDS", 0.0)
    for data in (b"GET /", post()[:-1]):
        with api.raw() as sock:
            sock.sendall(data)
            status, problem, _ = read(sock)
            assert (status, problem["type"]) == (408, "urn:thingctl:problem:request-timeout")
            assert eof(sock)


def test_a_connection_that_asks_for_nothing_is_closed_without_a_word(api, often, monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_TIMEOUT_SECONDS", 0.0)
    with api.raw() as sock:
        assert eof(sock)


def test_a_caller_that_waits_is_not_taken_for_slow(api, often, monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_TIMEOUT_SECONDS", 0.0)
    with api.raw() as sock:
        sock.sendall(post(query=b"?wait=0.5"))
        assert read(sock)[0] == 202


def test_a_client_that_does_not_read_is_cut_off(api, often, monkeypatch):
    monkeypatch.setattr(limits, "STALL_TIMEOUT_SECONDS", 0.0)
    for _ in range(20):
        api.send(params={"text": "x" * 100_000})
    with api.raw() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /api/v1/commands HTTP/1.1\r\nHost: x\r\n" + AUTHORIZATION + b"\r\n")
        sock.sendall(b"GET /api/v1/commands HTTP/1.1\r\nHost: x\r\n" + AUTHORIZATION + b"\r\n")
        until(lambda: not api.call(lambda: list(api.server._server.server_state.connections)))


def test_connections_beyond_the_bound_are_refused(api, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 1)
    with api.raw() as first:
        first.sendall(post())
        assert read(first)[0] == 201
        with api.raw() as second:
            status, problem, _ = read(second)
            assert (status, problem["type"]) == (503, "urn:thingctl:problem:too-many-connections")
            assert eof(second)
        first.sendall(post())
        assert read(first)[0] == 201


@pytest.mark.parametrize("odd", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n"])
def test_what_is_refused_waits_for_the_answers_before_it(api, odd):
    with api.raw() as sock:
        sock.sendall(post(query=b"?wait=0.3") + odd)
        with sock.makefile("rb") as reader:
            statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", reader.read())
        assert statuses in ([b"202", b"400"], [b"202", b"431"])


def test_a_body_that_is_wrong_is_refused_at_once(api):
    head = (
        b"POST /api/v1/commands HTTP/1.1\r\nHost: x\r\n"
        + AUTHORIZATION
        + b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with api.raw() as sock:
        sock.sendall(head + b"zz\r\n")
        assert read(sock)[0] == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"", 400),
        (b"Host: x\r\nhost: y\r\n", 400),
        (b"Host: x\r\nTransfer-Encoding: gzip, chunked\r\n", 400),
        (b"Host: x\r\nTransfer-Encoding: Chunked\r\n", 201),
        (b"Host: x\r\n", 201),
    ],
)
def test_what_could_be_taken_otherwise_elsewhere_is_refused(api, headers, status):
    body = b'{"thingId":"lamp","action":"turnOn"}'
    if b"ransfer" in headers:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        headers += b"Content-Length: %d\r\n" % len(body)
    with api.raw() as sock:
        sock.sendall(b"POST /api/v1/commands HTTP/1.1\r\n" + AUTHORIZATION + headers + b"\r\n" + body)
        assert read(sock)[0] == status


def test_an_older_client_needs_no_host(api):
    with api.raw() as sock:
        sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert read(sock)[0] == 200


def test_silent_connections_do_not_keep_others_out(api, monkeypatch):
    """Whatever address they come from: who asks for something takes the place of who does not."""
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 20)
    silent = [api.raw() for _ in range(30)]
    try:
        for _ in range(30):
            with api.raw() as sock:
                sock.sendall(post())
                assert read(sock)[0] == 201
    finally:
        for sock in silent:
            sock.close()


async def test_an_address_has_a_share_of_the_connections():
    limiter = ConnectionLimiter(2, limits.OPENING)
    made = [make_connection(limiter) for _ in range(3)]
    assert [b" 503 Service Unavailable\r\n" in one.transport.written for one in made] == [False, False, True]
    for one in made:
        one.connection_lost(None)
    again = make_connection(limiter)
    assert again.transport.written == b""
    assert dict(limiter._open) == {"192.0.2.1": 1}


async def test_a_named_proxy_has_more_than_a_share():
    limiter = ConnectionLimiter(2, limits.OPENING, Networks(["192.0.2.0/24"]))
    made = [make_connection(limiter) for _ in range(3)]
    assert [one.transport.written for one in made] == [b""] * 3
    assert make_connection(limiter, peer=("198.51.100.1", 7)).client == ("198.51.100.1", 7)
    assert dict(limiter._open) == {"198.51.100.1": 1}


class FakeSocket:
    def setsockopt(self, *_):
        pass

    def getpeername(self):
        return ("192.0.2.1", 1)

    getsockname = getpeername


class FakeTransport:
    """Remembers what became of it."""

    def __init__(self):
        self.fate = ""
        self.written = b""

    def get_extra_info(self, name, default=None):
        return FakeSocket() if name == "socket" else default

    def write(self, data):
        self.written += data

    def close(self):
        self.fate = self.fate or "closed"

    def abort(self):
        self.fate = "aborted"

    def is_closing(self):
        return bool(self.fate)

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


def make_connection(limiter=None, peer=None):
    """A connection whose application never answers."""
    loop = asyncio.get_running_loop()

    async def app(scope, receive, send):
        await loop.create_future()

    config = uvicorn.Config(app, http=limits.HttpConnection, ws="none", lifespan="off", log_config=None)
    config.load()
    made = limits.HttpConnection(config, ServerState(), {}, loop, limiter=limiter, peer=peer)
    made.connection_made(FakeTransport())
    return made


@pytest.fixture
async def connection():
    """One that opened at time 0."""
    made = make_connection()
    made._arriving_since = 0.0
    yield made
    made.connection_lost(ConnectionAbortedError())
    for task in list(made.server_state.tasks):
        task.cancel()
        await asyncio.wait([task])


async def test_a_connection_is_closed_when_it_asks_for_nothing_for_too_long(connection):
    connection.close_if_stuck(limits.REQUEST_TIMEOUT_SECONDS)
    assert connection.transport.fate == ""
    connection.close_if_stuck(limits.REQUEST_TIMEOUT_SECONDS + 0.1)
    assert (connection.transport.fate, connection.transport.written) == ("closed", b"")


async def test_a_request_has_so_long_to_arrive_and_an_answer_as_long_as_it_takes(connection):
    connection.data_received(post()[:-1])
    connection.close_if_stuck(limits.REQUEST_TIMEOUT_SECONDS)
    assert connection.transport.fate == ""
    connection.data_received(post()[-1:])
    connection.close_if_stuck(1e9)
    assert connection.transport.fate == ""


async def test_a_next_request_has_its_own_time_and_none_runs_while_we_do_not_read(connection):
    connection.data_received(post() + post()[:-1])  # the second waits for its turn: reading is paused
    now = connection._arriving_since
    connection.close_if_stuck(now + 1000)
    assert connection.transport.fate == ""
    connection.flow.resume_reading()
    connection.close_if_stuck(now + 1000 + limits.REQUEST_TIMEOUT_SECONDS)
    assert connection.transport.fate == ""
    connection.close_if_stuck(now + 1000.1 + limits.REQUEST_TIMEOUT_SECONDS)
    assert connection.transport.fate == "closed"
    assert b" 408 Request Timeout\r\n" in connection.transport.written


async def test_an_answer_has_so_long_to_be_read(connection):
    connection.data_received(post())
    connection.pause_writing()
    connection._stalled_since = 0.0
    connection.close_if_stuck(limits.STALL_TIMEOUT_SECONDS)  # exact: it began at 0
    assert connection.transport.fate == ""
    connection.resume_writing()
    connection.close_if_stuck(limits.STALL_TIMEOUT_SECONDS + 0.1)
    assert connection.transport.fate == ""
    connection.pause_writing()
    connection.close_if_stuck(connection._stalled_since + limits.STALL_TIMEOUT_SECONDS + 0.1)
    assert connection.transport.fate == "aborted"


async def test_a_connection_is_idle_from_its_last_answer_to_the_next_byte(connection):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    connection.app = app
    connection.timeout_keep_alive = server.KEEP_ALIVE
    for _ in range(2):
        connection.data_received(head_of(100))
        connection.close_if_stuck(1e9)  # it is answering
        while connection._idle_since is None:
            await asyncio.sleep(0)
        # A hair below: the difference of two floats may be a hair above what was added.
        connection.close_if_stuck(connection._idle_since + server.KEEP_ALIVE - 0.001)
        assert connection.transport.fate == ""
    connection.close_if_stuck(connection._idle_since + server.KEEP_ALIVE + 0.1)
    assert connection.transport.fate == "closed"
