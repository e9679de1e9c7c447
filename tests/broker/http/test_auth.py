"""Bearer tokens, as they stand in a request."""

from __future__ import annotations

import json
import socket

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from broker.http.running import AUTHORIZED, TOKEN, RunningApi
from broker.http.test_problems import check_problem
from thingctl_broker.commands.events import Counters
from thingctl_broker.http.auth import FAILURES, Callers, authenticate
from thingctl_broker.http.problems import RATE_LIMITED, UNAUTHORIZED, Problem
from thingctl_broker.security import login_throttle
from thingctl_broker.security.caller import origin
from thingctl_broker.security.rate_limit import KEYS_MAX, Rate
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.security.tokens import Token

SECRET = "0123456789abcdef0123"
STORE = TokenStore.open(None, SECRET)


def ask(*values):
    return authenticate({"headers": [(b"authorization", value) for value in values]}, STORE)


def test_a_valid_token_says_who_calls():
    assert ask(b"Bearer " + SECRET.encode()).name == "admin"


def test_two_authorization_headers_are_refused():
    """A proxy might have checked the other one."""
    header = b"Bearer " + SECRET.encode()
    with pytest.raises(Problem) as raised:
        ask(header, header)
    assert raised.value.kind is UNAUTHORIZED


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: b"Bearer " + tail))
def test_whatever_else_is_sent_is_401_with_a_challenge(value):
    with pytest.raises(Problem) as raised:
        ask(value)
    assert raised.value.kind is UNAUTHORIZED
    assert raised.value.headers[0][0] == b"www-authenticate"


RIGHT = TOKEN.encode()
ELSEWHERE = "192.0.2.7"


class World:
    """Callers at a time that stands until it is moved."""

    def __init__(self, rate=None):
        self.now = 1000.0
        self.tokens = TokenStore.open(None, TOKEN)
        self.counters = Counters()
        self.callers = Callers(self.tokens, rate, self.counters, lambda: self.now)

    def admit(self, token=RIGHT, host="127.0.0.1"):
        """The status that a request gets: 200 for let in; and its Retry-After."""
        scope = {"headers": [(b"authorization", b"Bearer " + token)], "client": (host, 1)}
        try:
            self.callers.admit(scope)
        except Problem as problem:
            return problem.kind.status, dict(problem.headers).get(b"retry-after")
        return 200, None


def test_one_reason_for_a_refusal_does_not_hide_another():
    world = World(Rate(1.0, 1))
    with structlog.testing.capture_logs() as logs:
        for event in ("too many", "too many", "something else"):
            world.callers._say(event, token="admin", address=ELSEWHERE)
    assert [log["event"] for log in logs] == ["too many", "something else"]


def test_a_token_has_a_burst_and_a_rate():
    world = World(Rate(0.5, 3))
    assert [world.admit() for _ in range(4)] == [(200, None)] * 3 + [(429, b"2")]
    world.now += 1.5
    assert world.admit() == (429, b"1")
    assert world.admit(host=ELSEWHERE) == (429, b"1")  # it is the token that counts
    world.now += 0.5
    assert world.admit() == (200, None)
    assert world.counters == {"http.tokenRate": 3}


def test_whoever_is_known_is_admitted_at_once_within_the_rate_and_that_can_be_taken_back():
    world = World(Rate(1.0, 2))
    right = {"headers": [(b"authorization", b"Bearer " + RIGHT)], "client": ("127.0.0.1", 1)}
    wrong = {"headers": [(b"authorization", b"Bearer x")], "client": ("127.0.0.1", 1)}
    assert world.callers.admit_at_once(right) is None  # it has not called yet
    assert world.admit() == (200, None)
    token = world.callers.admit_at_once(right)
    assert token == world.tokens.get("admin")
    assert [world.callers.admit_at_once(scope) for scope in (right, wrong)] == [None, None]
    assert world.callers.admit_at_once(right | {"client": (ELSEWHERE, 1)}) is None
    assert world.counters == {}  # whatever is to be said is said, and counted, by `admit`
    world.callers.forget(token)
    assert world.callers.admit_at_once(right) == token
    assert world.admit() == (429, b"1")


def test_without_a_rate_whoever_is_known_is_admitted_at_once():
    world = World()
    world.admit()
    scope = {"headers": [(b"authorization", b"Bearer " + RIGHT)], "client": ("127.0.0.1", 1)}
    for _ in range(3):
        token = world.callers.admit_at_once(scope)
        assert token is not None
        world.callers.forget(token)


async def test_each_token_has_its_own():
    world = World(Rate(1.0, 1))
    other = await world.tokens.add(Token("other", frozenset({"commands:read"})))
    assert [world.admit()[0] for _ in range(2)] == [200, 429]
    assert [world.admit(other.encode())[0] for _ in range(2)] == [200, 429]


def test_without_a_limit_there_is_none():
    world = World(None)
    assert {world.admit() for _ in range(1000)} == {(200, None)}


def test_who_tries_wrong_tokens_has_to_wait():
    world = World()
    for _ in range(FAILURES.burst):
        assert world.admit(b"wrong", ELSEWHERE) == (401, None)
    assert world.admit(b"wrong", ELSEWHERE) == (429, b"1")
    assert world.admit(b"", ELSEWHERE)[0] == 429
    assert world.admit(b"wrong", "192.0.2.8")[0] == 401
    world.now += 1.01 / FAILURES.per_second
    assert [world.admit(b"wrong", ELSEWHERE)[0] for _ in range(2)] == [401, 429]
    assert world.counters["http.unauthorized"] == FAILURES.burst + 5
    assert world.counters["http.addressRate"] == 3


def test_who_has_to_wait_learns_nothing_by_the_right_token_either():
    world = World(Rate(1.0, 1))
    for _ in range(FAILURES.burst):
        world.admit(b"wrong", ELSEWHERE)
    assert world.admit(RIGHT, ELSEWHERE) == world.admit(b"wrong", ELSEWHERE) == (429, b"1")
    assert world.admit(RIGHT, "192.0.2.8") == (200, None)  # nothing was taken from the token's own
    world.now += 60.0
    assert world.admit(RIGHT, ELSEWHERE) == (200, None)


def test_who_shares_the_address_of_a_guesser_goes_on():
    world = World()
    assert world.admit(RIGHT, ELSEWHERE)[0] == 200
    for _ in range(FAILURES.burst + 1):
        world.admit(b"wrong", ELSEWHERE)
    assert world.admit(b"wrong", ELSEWHERE)[0] == 429
    assert world.admit(RIGHT, ELSEWHERE)[0] == 200


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_a_network_of_one_is_one_address(one, another, same):
    world = World()
    for _ in range(FAILURES.burst):
        world.admit(b"wrong", one)
    assert world.admit(b"wrong", another)[0] == (429 if same else 401)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", ""])
def test_this_machine_may_be_wrong_as_often_as_it_likes(host):
    """It may be a proxy that stands for everybody."""
    world = World()
    assert {world.admit(b"wrong", host)[0] for _ in range(FAILURES.burst * 3)} == {401}
    assert world.admit(RIGHT, host)[0] == 200


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(login_throttle, "KNOWN_MAX", 10)
    world = World(Rate(1e6, 1_000_000))
    for i in range(100):
        assert world.admit(RIGHT, f"192.0.2.{i}")[0] == 200
        assert len(world.callers._known) <= 10
    for i in range(KEYS_MAX + 100):
        world.admit(b"wrong", f"10.0.{i >> 8}.{i & 255}")
    assert len(world.callers._failures) <= KEYS_MAX


def test_a_line_a_minute_says_so_and_no_token():
    world = World(Rate(1.0, 1))
    with structlog.testing.capture_logs() as lines:
        for _ in range(10):
            world.admit()
        for _ in range(FAILURES.burst + 10):
            world.admit(b"wrong-secret", ELSEWHERE)
        world.now += 61.0
        for _ in range(10):
            world.admit()
    assert [(line["log_level"], line.get("token"), line["address"]) for line in lines] == [
        ("warning", "admin", "127.0.0.1"),
        ("warning", None, ELSEWHERE),
        ("warning", "admin", "127.0.0.1"),
    ]
    assert TOKEN not in str(lines)
    assert "wrong-secret" not in str(lines)


def test_whoever_is_let_in_is_the_origin_of_what_follows():
    world = World()
    world.admit(RIGHT, ELSEWHERE)
    assert origin.get() == ("admin", ELSEWHERE)


# Through the server.


@pytest.fixture
def limited():
    """An API that lets each token in ten times, and then hardly ever again."""
    running = RunningApi(rate=Rate(0.01, 10))
    yield running
    running.close()


def exhaust(api):
    for _ in range(10):
        assert api.get("/api/v1/me").status == 200


def test_every_call_behind_a_token_is_refused_and_nothing_done(limited):
    exhaust(limited)
    reply = limited.post("/api/v1/commands", {"thingId": "lamp", "action": "turnOn"})
    assert "admin" in check_problem(reply, RATE_LIMITED)
    assert 1 <= int(reply.headers["retry-after"]) <= 100
    for method, target in [("GET", "/api/v1/events"), ("GET", "/metrics"), ("GET", "/nowhere")]:
        check_problem(limited.request(method, target), RATE_LIMITED)
    assert len(limited.service.table) == 0


def test_the_probes_and_the_console_are_never_refused(limited):
    exhaust(limited)
    for _ in range(20):
        for path in ("/healthz", "/readyz", "/openapi.json", "/"):
            assert limited.get(path).status == 200
            assert limited.get(path, headers={}).status == 200


def test_nothing_of_the_body_is_waited_for(limited):
    exhaust(limited)
    with limited.raw() as sock:
        head = f"POST /api/v1/commands HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        sock.sendall(head.encode() + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 429 ")


def test_a_stream_is_one_request(limited):
    for _ in range(9):
        assert limited.get("/api/v1/me").status == 200
    with limited.raw() as sock:
        sock.sendall(
            f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        seen = b""
        while b"event: ready" not in seen:
            seen += sock.recv(4096)
        for i in range(50):
            limited.call(limited.service.send, "lamp", f"action-{i}")
        while b"action-49" not in seen:
            seen += sock.recv(65536)
        assert limited.get("/api/v1/me").status == 429
        sock.shutdown(socket.SHUT_WR)


def test_the_dialects_say_it_in_their_own_words(limited):
    exhaust(limited)
    body = {"hash": TOKEN, "device_id": "lamp", "command": "x"}
    reply = limited.post("/v2/tracker/send_command", body, headers={})
    assert reply.status == 429
    assert "retry-after" in reply.headers
    assert reply.json["status"] == {"code": 15, "description": "Too many requests (rate limit exceeded)"}
    reply = limited.get("/v1.0/me/devices")
    assert reply.status == 429
    assert "retry-after" in reply.headers
    assert reply.json["error"]["code"] == "activityLimitReached"
    assert len(limited.service.table) == 0


async def test_wrong_hashes_and_bodies_without_one_count_as_wrong_tokens(api):
    """In Navixy's dialect the token is in the body."""
    statuses = []
    for body in (b'{"hash": "wrong"}', b"{", b'{"device_id": 1}') * 40:
        sent = []

        async def receive(body=body):
            return {"type": "http.request", "body": body}

        async def send(message, sent=sent):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v2/tracker/send_command",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "client": (ELSEWHERE, 1),
        }
        await api.app(scope, receive, send)
        statuses.append(sent[0]["status"])
    assert set(statuses[: FAILURES.burst]) == {400}
    assert set(statuses[FAILURES.burst + 2 :]) == {429}
    assert json.loads(sent[1]["body"])["status"]["code"] == 15


def test_the_counts_are_metrics(limited):
    assert limited.get("/api/v1/me", headers={}).status == UNAUTHORIZED.status
    text = limited.get("/metrics", headers=AUTHORIZED).content.decode()
    assert 'thingctl_http_total{kind="unauthorized"} 1.0' in text
