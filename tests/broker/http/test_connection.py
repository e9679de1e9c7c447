"""The bounds of one connection, over real sockets."""

from __future__ import annotations

import json
import socket
import struct
from http.client import HTTPConnection, HTTPResponse

import pytest

from broker.http.running import AUTHORIZED, until
from thingctl_broker.http import connection as limits

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
        while True:
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


def test_a_client_that_aborts_costs_nothing(api):
    for cut in (0, 1, 30, 100, len(post()) - 1):
        sock = api.raw()
        sock.sendall(post()[:cut])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    until(lambda: not api.call(lambda: list(api.server._server.server_state.connections)))
    until(lambda: not api.call(lambda: list(api.server._server.server_state.tasks)))
    assert len(api.service.table) == 0


def test_a_request_that_takes_too_long_is_refused(api, monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_TIMEOUT_SECONDS", 0.0)
    for data in (b"GET /", post()[:-1]):
        with api.raw() as sock:
            sock.sendall(data)
            status, problem, _ = read(sock)
            assert (status, problem["type"]) == (408, "urn:thingctl:problem:request-timeout")
            assert eof(sock)


def test_a_connection_that_asks_for_nothing_is_closed_without_a_word(api, monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_TIMEOUT_SECONDS", 0.0)
    with api.raw() as sock:
        assert eof(sock)


def test_a_caller_that_waits_is_not_taken_for_slow(api, monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_TIMEOUT_SECONDS", 0.0)
    with api.raw() as sock:
        sock.sendall(post(query=b"?wait=1.5"))
        assert read(sock)[0] == 202


def test_a_client_that_does_not_read_is_cut_off(api, monkeypatch):
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
