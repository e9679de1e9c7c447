"""One error shape, over every endpoint and every fault."""

from __future__ import annotations

import json
import re
import socket
import ssl

import pytest

from broker.http.running import AUTHORIZED, RunningApi
from thingctl_broker.errors import NotAccepting, QueueFull, ServiceError, TableFull
from thingctl_broker.http import problems
from thingctl_broker.http.app import OPEN_PATHS
from thingctl_broker.http.problems import KINDS, Problem, ProblemKind, problem_of
from thingctl_broker.http.request_body import BODY_MAX
from thingctl_broker.http.response import SECURITY_HEADERS
from thingctl_protocol.limits import PAYLOAD_MAX, TTL_MAX

COMMANDS = "/api/v1/commands"
JSON = AUTHORIZED | {"Content-Type": "application/json"}
GOOD = {"thingId": "lamp", "action": "turnOn"}
NO_ID = "0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f"


def check_problem(reply, kind: ProblemKind, **place):
    """Hold a reply to the one shape of an error: RFC 9457, and nothing that was not promised."""
    assert reply.status == kind.status, reply
    assert reply.headers["content-type"] == "application/problem+json"
    details = reply.json
    assert (
        details
        == {
            "type": kind.type,
            "title": kind.title,
            "status": kind.status,
            "detail": details["detail"],
        }
        | place
    )
    assert details["detail"]
    assert details["detail"].isprintable()
    for name, value in SECURITY_HEADERS:
        assert reply.headers[name.decode()] == value.decode()
    return details["detail"]


def every_endpoint():
    api = RunningApi()
    api.close()
    return [
        (method, re.sub(r"\{\w+\}", NO_ID, route.path), route.path)
        for route in api.app.routes
        for method in sorted(route.methods - {"HEAD"})
    ]


ENDPOINTS = every_endpoint()
CLOSED = [(method, target) for method, target, path in ENDPOINTS if path not in OPEN_PATHS]


@pytest.mark.parametrize(("method", "target"), CLOSED)
@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, 'Bearer realm="thingctl"'),
        ({"Authorization": "Basic YTpi"}, 'Bearer realm="thingctl"'),
        ({"Authorization": "Bearer"}, 'Bearer realm="thingctl"'),
        ({"Authorization": "Bearer wrong"}, 'Bearer realm="thingctl", error="invalid_token"'),
        ({"Authorization": "Bearer \xe4\xff"}, 'Bearer realm="thingctl", error="invalid_token"'),
        (
            {"Authorization": AUTHORIZED["Authorization"] + "x"},
            'Bearer realm="thingctl", error="invalid_token"',
        ),
    ],
    ids=["none", "basic", "empty", "wrong", "latin-1", "longer"],
)
def test_every_endpoint_needs_a_token(api, method, target, headers, challenge):
    reply = api.request(
        method, target, GOOD if target == COMMANDS and method == "POST" else None, headers=headers
    )
    check_problem(reply, problems.UNAUTHORIZED)
    assert reply.headers["www-authenticate"] == challenge
    assert len(api.service.table) == 0


@pytest.mark.parametrize(("method", "target"), [(method, target) for method, target, _ in ENDPOINTS])
def test_every_endpoint_refuses_other_methods_and_says_which_it_takes(api, method, target):
    taken = {m for m, t, _ in ENDPOINTS if t == target}
    other = next(m for m in ("PUT", "DELETE", "PATCH", "POST", "QUERY") if m not in taken)
    reply = api.request(other, target)
    check_problem(reply, problems.METHOD_NOT_ALLOWED)
    assert set(reply.headers["allow"].split(", ")) - {"HEAD"} == taken


@pytest.mark.parametrize(("method", "target"), CLOSED)
def test_every_endpoint_refuses_a_parameter_that_it_does_not_know(api, method, target):
    reply = api.request(method, target + "?colour=red", GOOD if method == "POST" else None)
    check_problem(reply, problems.INVALID_PARAMETER, parameter="colour")
    assert len(api.service.table) == 0


@pytest.mark.parametrize(
    "target", ["/api/v1/command", "/api/v1", COMMANDS + "/", COMMANDS + "/a/b", "//", "/%00"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_none(api, method, target):
    check_problem(api.request(method, target), problems.NOT_FOUND)
    check_problem(api.request(method, target, headers={}), problems.UNAUTHORIZED)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"{COMMANDS}/{NO_ID}"),
        ("GET", f"{COMMANDS}/{NO_ID}?wait=1"),
        ("POST", f"{COMMANDS}/{NO_ID}/cancel"),
        ("GET", f"{COMMANDS}/%1b%5b2J"),
        ("GET", f"{COMMANDS}/{'x' * 5000}"),
    ],
)
def test_an_execution_that_is_none(api, method, target):
    assert len(check_problem(api.request(method, target), problems.UNKNOWN_EXECUTION)) < 300


@pytest.mark.parametrize("name", ["nobody", "%1b%5b2J", "x" * 5000])
def test_a_thing_that_is_none(api, name):
    assert len(check_problem(api.get(f"/api/v1/things/{name}"), problems.UNKNOWN_THING)) < 300


def test_a_command_for_a_thing_that_is_none(api):
    reply = api.post(COMMANDS, GOOD | {"thingId": "nobody"})
    check_problem(reply, problems.UNKNOWN_THING, pointer="/thingId")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", ""),
        (b"{", ""),
        (b"nonsense", ""),
        (b"\xff\xfe", ""),
        (b'{"thingId":"\xff","action":"x"}', ""),
        (b"[]", ""),
        (b"null", ""),
        (b'"lamp"', ""),
        (b"[" * 5000, ""),
        (b'{"thingId":"lamp","action":"x"} {}', ""),
        (b'{"thingId":"lamp","action":"x","params":%b' % (b"[" * 100_000), ""),
        (b"{}", "/thingId"),
        (b'{"thingId":"lamp"}', "/action"),
        (b'{"action":"x"}', "/thingId"),
        (b'{"thingId":1,"action":"x"}', "/thingId"),
        (b'{"thingId":null,"action":"x"}', "/thingId"),
        (b'{"thingId":"a b","action":"x"}', "/thingId"),
        (b'{"thingId":"","action":"x"}', "/thingId"),
        (b'{"thingId":"lamp","action":["x"]}', "/action"),
        (b'{"thingId":"lamp","action":"#"}', "/action"),
        (b'{"thingId":"lamp","action":"%b"}' % (b"x" * 129), "/action"),
        (b'{"thingId":"lamp","action":"x","ttl":"30"}', "/ttl"),
        (b'{"thingId":"lamp","action":"x","ttl":1.5}', "/ttl"),
        (b'{"thingId":"lamp","action":"x","ttl":0}', "/ttl"),
        (b'{"thingId":"lamp","action":"x","ttl":-1}', "/ttl"),
        (b'{"thingId":"lamp","action":"x","ttl":%d}' % (TTL_MAX + 1), "/ttl"),
        (b'{"thingId":"lamp","action":"x","ttl":%d}' % 10**40, "/ttl"),
        (b'{"thingId":"lamp","action":"x","params":[]}', "/params"),
        (b'{"thingId":"lamp","action":"x","params":"{}"}', "/params"),
        (b'{"thingId":"lamp","action":"x","params":%b}' % (b'{"a":' * 65 + b"1" + b"}" * 65), "/params"),
        (b'{"thingId":"lamp","action":"x","params":{"a":"\xff"}}', "/params"),
        (b'{"thingId":"lamp","action":"x","params":{"a":"%b"}}' % (b"x" * PAYLOAD_MAX), "/params"),
        (b'{"thingId":"lamp","action":"x","parms":{}}', "/parms"),
        (b'{"thingId":"lamp","action":"x","a/b~c":1}', "/a~1b~0c"),
        (b'{"thingId":"lamp","action":"x","\\u001b[2J":1}', "/\x1b[2J"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_a_pointer_to_the_fault(api, body, pointer):
    reply = api.post(COMMANDS, body, headers=JSON)
    check_problem(reply, problems.INVALID_BODY, pointer=pointer)
    assert len(api.service.table) == 0


@pytest.mark.parametrize(
    ("target", "parameter"),
    [
        ("?wait=0", "wait"),
        ("?wait=60.1", "wait"),
        ("?wait=-1", "wait"),
        ("?wait=", "wait"),
        ("?wait=nan", "wait"),
        ("?wait=1e2", "wait"),
        ("?wait=1_0", "wait"),
        ("?wait=%201", "wait"),
        ("?wait=1&wait=2", "wait"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_wait_that_is_wrong(api, method, target, parameter):
    execution = api.send()
    place = COMMANDS if method == "POST" else f"{COMMANDS}/{execution['executionId']}"
    reply = api.request(method, place + target, GOOD if method == "POST" else None)
    check_problem(reply, problems.INVALID_PARAMETER, parameter=parameter)
    assert len(api.service.table) == 1


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("limit=0", {"parameter": "limit"}),
        ("limit=501", {"parameter": "limit"}),
        ("limit=ten", {"parameter": "limit"}),
        ("limit=%D9%A1", {"parameter": "limit"}),
        ("limit=1&limit=1", {"parameter": "limit"}),
        ("cursor=", {"parameter": "cursor"}),
        ("cursor=a%20b", {"parameter": "cursor"}),
        ("cursor=" + "x" * 200, {"parameter": "cursor"}),
        ("status=DONE", {"parameter": "status"}),
        ("status=", {"parameter": "status"}),
        ("status=SENT,", {"parameter": "status"}),
        ("status=sent", {"parameter": "status"}),
        ("thingId=a%20b", {"parameter": "thingId"}),
        ("thingId=", {"parameter": "thingId"}),
        ("action=%23", {"parameter": "action"}),
        ("action=%ff", {}),
        ("thingid=lamp", {"parameter": "thingid"}),
    ],
)
def test_a_list_parameter_that_is_wrong(api, query, place):
    check_problem(api.get(f"{COMMANDS}?{query}"), problems.INVALID_PARAMETER, **place)


def test_an_execution_that_has_ended_cannot_be_canceled(api):
    execution = api.send()
    api.respond(execution, status="SUCCEEDED")
    reply = api.post(f"{COMMANDS}/{execution['executionId']}/cancel")
    check_problem(reply, problems.ALREADY_ENDED)


def test_a_full_queue_says_when_to_come_again(api):
    api.service._deliveries.queue_max = 1
    api.send()
    reply = api.post(COMMANDS, GOOD)
    check_problem(reply, problems.QUEUE_FULL)
    assert reply.headers["retry-after"] == "30"


def test_a_full_table_says_when_to_come_again(api):
    api.service.table.capacity = 1
    api.send()
    reply = api.post(COMMANDS, GOOD)
    check_problem(reply, problems.TABLE_FULL)
    assert reply.headers["retry-after"] == "10"


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"]
)
def test_a_body_that_is_not_said_to_be_json(api, media_type):
    reply = api.post(COMMANDS, json.dumps(GOOD), headers=AUTHORIZED | {"Content-Type": media_type})
    check_problem(reply, problems.UNSUPPORTED_MEDIA_TYPE)


def test_a_compressed_body(api):
    reply = api.post(COMMANDS, b"\x1f\x8b", headers=JSON | {"Content-Encoding": "gzip"})
    check_problem(reply, problems.UNSUPPORTED_MEDIA_TYPE)


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"]
)
def test_other_ways_to_say_json(api, media_type):
    reply = api.post(COMMANDS, json.dumps(GOOD), headers=AUTHORIZED | {"Content-Type": media_type})
    assert reply.status == 201


@pytest.mark.parametrize("size", [BODY_MAX + 1, BODY_MAX + 500_000, BODY_MAX + 10_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(api, size, chunked):
    body = b" " * size
    # An iterable without a length makes http.client send chunks.
    parts = iter([body[i : i + 50_000] for i in range(0, size, 50_000)]) if chunked else body
    try:
        reply = api.post(COMMANDS, parts, headers=JSON)
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        assert size > BODY_MAX + 1_000_000  # whoever goes on and on is cut off
    else:
        check_problem(reply, problems.BODY_TOO_LARGE)
    assert api.get("/healthz").status == 200


def test_a_fault_of_our_own_is_logged_and_gives_nothing_away(api, capsys):
    def break_down(*_args, **_kwargs):
        raise RuntimeError("the secret of the house")

    api.service.send = break_down
    reply = api.post(COMMANDS, GOOD)
    check_problem(reply, problems.INTERNAL_ERROR)
    assert b"secret" not in reply.content
    assert "the secret of the house" in capsys.readouterr().out
    assert api.get(COMMANDS).status == 200


def exchange(api, data):
    """What a server says to bytes that are no request, up to its closing the connection."""
    with api.raw() as sock:
        sock.sendall(data)
        if not isinstance(sock, ssl.SSLSocket):  # which has no half that could be shut
            sock.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    return type(api.get("/healthz"))(int(lines[0].split()[1]), headers, content)


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",
    ],
)
def test_what_is_not_http(api, data):
    reply = exchange(api, data)
    check_problem(reply, problems.INVALID_REQUEST)
    assert reply.headers["connection"] == "close"


def test_a_head_that_is_too_large(api):
    reply = exchange(api, b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 40_000)
    check_problem(reply, problems.HEAD_TOO_LARGE)


def test_every_kind_has_a_type_of_its_own():
    assert len({kind.type for kind in KINDS}) == len(KINDS)
    assert {value for value in vars(problems).values() if isinstance(value, ProblemKind)} == set(KINDS)
    assert all(re.fullmatch(r"urn:thingctl:problem:[a-z]+(-[a-z]+)*", kind.type) for kind in KINDS)


def test_every_refusal_of_the_service_has_a_problem():
    for refusal in ServiceError.__subclasses__():
        made = refusal("why", 5) if refusal in {QueueFull, NotAccepting} else refusal("why")
        problem = problem_of(made)
        assert isinstance(problem, Problem)
        assert problem.details.detail == "why"
    assert problem_of(RuntimeError()) is None
    assert problem_of(TableFull("x")).kind is problems.TABLE_FULL
