"""The shortcut and the way that every request can take come to the same, whatever comes and however it is cut."""

from __future__ import annotations

import asyncio
import hashlib
import json
from functools import cache
from http.client import HTTPResponse
from itertools import count
from typing import NamedTuple

import msgspec
import pytest
import uvicorn
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from uvicorn.server import ServerState

from broker.http.running import AUTHORIZED, RunningApi
from broker_support import HeldJournal
from support.pieces import KeptTransport, cut, damaged
from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.operations import SendsAtOnce
from thingctl_broker.http.api.fast_path import Head, PostFastPath, read_head
from thingctl_broker.http.app import create_app
from thingctl_broker.http.request_body import BODY_MAX
from thingctl_broker.http.server.connection import HttpConnection
from thingctl_broker.rollouts.runner import RolloutRunner
from thingctl_broker.security.caller import origin
from thingctl_broker.security.login_throttle import KnownCallers
from thingctl_broker.security.rate_limit import Rate
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.security.tokens import Scope, Token
from thingctl_broker.system.addresses import NO_NETWORKS, Networks
from thingctl_broker.testing import service_with_fakes
from thingctl_broker.things.service import ThingService

TURN_ON = b'{"thingId":"lamp","action":"turnOn"}'
TOKENS = {
    name: f"tctl_{name}-0123456789abcdef0123456789abcdef".encode()
    for name in ("admin", "sender", "reader", "limited", "gone", "nobody")
}
RATE = Rate(0.001, 4)
TURNS = 12
"""Turns of the loop in which a request is answered that nothing holds up."""


@cache
def tokens() -> TokenStore:
    """The same in every world, so that the requests are."""
    sends = frozenset({Scope.COMMANDS_SEND})
    known = [
        Token("admin", frozenset({Scope.ADMIN})),
        Token("sender", sends),
        Token("reader", frozenset({Scope.COMMANDS_READ})),
        Token("limited", sends, things=("la*",), actions=("turn*",)),
        Token("gone", sends, expires_at=1.0),
    ]
    return TokenStore({hashlib.sha256(TOKENS[token.name]).digest(): token for token in known})


class NoSocket:
    family = None

    def setsockopt(self, *_: object) -> None:
        pass

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 80

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 1024


class World:
    """An API with one connection to it, from an address that every good token has called from."""

    def __init__(self, *, shortcut: bool, held: bool, trusted: Networks = NO_NETWORKS) -> None:
        self.journal = HeldJournal() if held else NullJournal()
        self.service, self.link, _ = service_with_fakes(("lamp", "lock"), self.journal)
        entropy = count(1)
        self.service._entropy = lambda _: next(entropy)
        self.service.connected("lamp", "client")
        self.service.reachable("lamp")
        self.origins: list[object] = []
        self.service.events.subscribe(lambda _, change: self.origins.append((change, origin.get())))
        operations = EmbeddedOperations(self.service)
        directory = ThingService(operations, None)
        self.app = create_app(operations, RolloutRunner(self.service), tokens(), directory, rate=RATE)
        callers = self.app._callers
        callers._clock = lambda: 0.0
        callers._known = KnownCallers.fromkeys(
            (token.name, address)
            for token in tokens()
            if token.name != "limited"
            for address in ("127.0.0.1", "192.0.2.7")
        )
        config = uvicorn.Config(
            self.app, http=HttpConnection, ws="none", lifespan="off", log_config=None, proxy_headers=False
        )
        config.load()
        self.server = ServerState()
        self.server.default_headers = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
        self.connection, self.transport = (
            HttpConnection(config, self.server, {}, trusted=trusted),
            KeptTransport(socket=NoSocket()),
        )
        self.connection.connection_made(self.transport)
        self.taken = 0
        if shortcut:
            self.connection._shortcut.take = self._counting(self.connection._shortcut.take)
        else:
            self.connection._shortcut = None

    def _counting(self, take):
        def counting(*arguments):
            is_taken = take(*arguments)
            self.taken += is_taken
            return is_taken

        return counting

    async def receive(self, data: bytes) -> None:
        if not self.transport.end:
            self.connection.data_received(data)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def commit(self, fails: bool = False) -> None:
        """Until nothing is to be kept: each answer lets the request behind it begin."""
        for _ in range(8):
            if isinstance(self.journal, HeldJournal):
                self.journal.fail() if fails else self.journal.commit()
            await self.settle()

    def state(self) -> dict[str, object]:
        """All that could differ."""
        connection, callers = self.connection, self.app._callers
        return {
            "written": self.transport.written,
            "end": self.transport.end,
            "counters": dict(self.service.counters),
            "executions": [msgspec.structs.asdict(execution) for execution in self.service.table],
            "published": self.link.published,
            "origins": list(self.origins),
            "origin": origin.get(),
            "recorded": getattr(self.journal, "recorded", None),
            "forgotten": getattr(self.journal, "forgotten", None),
            "left of the rate": {key: bucket._left for key, bucket in callers._requests._buckets.items()},
            "left of failures": {key: bucket._left for key, bucket in callers._failures._buckets.items()},
            "known": list(callers._known),
            "requests": self.server.total_requests,
            "tasks": len(self.server.tasks),
            "pipeline": len(connection.pipeline),
            "begun": connection._begun,
            "received": connection._received,
            "arriving": connection._arriving_since is not None,
            "idle": connection._idle_since is not None,
            "reading": not connection.flow.read_paused,
            "answered": connection.cycle is None or connection.cycle.response_complete,
        }


class Fate(NamedTuple):
    """``held``: commits wait for ``commits`` (behind each piece) or the end; ``fails``: they do.

    ``trusted``: the client is a proxy whose headers count. ``at``: behind that piece the client goes, the server stops, or the client stops reading.
    """

    held: bool = False
    commits: bool = False
    fails: bool = False
    at: int = -1
    what: str = ""
    trusted: bool = False


async def play(pieces: list[bytes], fate: Fate, *, shortcut: bool) -> tuple[list[object], int]:
    """What is written after each piece that comes, and what the world is like at the end; how many were taken."""
    trusted = Networks(["127.0.0.1"]) if fate.trusted else NO_NETWORKS
    world = World(shortcut=shortcut, held=fate.held, trusted=trusted)
    seen: list[object] = []
    lost = False
    for number, piece in enumerate(pieces):
        if not lost:
            await world.receive(piece)
        if number == fate.at:
            if fate.what == "goes" and not lost:
                world.connection.connection_lost(None)
                lost = True
            elif fate.what == "stops":
                world.app.stop()
                world.connection.shutdown()
            elif fate.what == "pauses":
                world.connection.pause_writing()
            await world.settle()
        if fate.commits:
            await world.commit(fate.fails)
        if fate.what != "pauses":  # what is written to one that does not read may wait, or not
            seen.append((world.transport.written, world.transport.end))
    world.connection.resume_writing()
    await world.commit(fate.fails)
    await world.commit()
    seen.append(world.state())
    for task in list(world.server.tasks):
        task.cancel()
    await asyncio.gather(*world.server.tasks, return_exceptions=True)
    return seen, world.taken


def request(
    body: bytes = TURN_ON,
    *headers: bytes,
    token: str = "sender",
    line: bytes = b"POST /api/v1/commands HTTP/1.1",
    length: int | None = None,
) -> bytes:
    """As it goes over the wire."""
    authorization = b"Authorization: Bearer " + TOKENS[token]
    size = b"Content-Length: %d" % (len(body) if length is None else length)
    return b"\r\n".join((line, b"Host: x", authorization, *headers, size, b"", body))


BODIES = (
    TURN_ON,
    TURN_ON,
    b'{"thingId":"lock","action":"turnOff","params":{"a":[1,"\xc3\xa9"]},"ttl":5}',
    b'{"thingId":"lamp","action":"say","params":{"targets":1},"ttl":null}',
    b'{"thingId":"lamp","action":"say","params":null,"postBackUri":null}',
    b'{"thingId":"lamp","action":"say","postBackUri":"https://192.0.2.1/x"}',
    b'{"thingId":"lamp","action":"say","postBackUri":"nowhere"}',
    b'{"targets":{"things":["lamp","lock"]},"action":"turnOn","dryRun":true}',
    b'{"thingId":"nowhere","action":"turnOn"}',
    b'{"thingId":"a b","action":"turnOn"}',
    b'{"thingId":"lamp","action":""}',
    b'{"thingId":"lamp","action":"turnOn","params":[]}',
    b'{"thingId":"lamp","action":"turnOn","params":{"a":%b}}' % (b"[" * 2000),
    b'{"thingId":"lamp","action":"turnOn","ttl":0}',
    b'{"thingId":"lamp","action":"turnOn","ttl":"x"}',
    b'{"thingId":"lamp","action":"turnOn","more":1}',
    b'{"thingId":"lamp"}',
    b'{"thingId":"\xff","action":"turnOn"}',
    b"not json",
    b"[]",
    b"",
    TURN_ON + b" " * (BODY_MAX - len(TURN_ON)),
    TURN_ON + b" " * (BODY_MAX + 1 - len(TURN_ON)),
)
HEADERS = (
    b"User-Agent: test",
    b"accept: */*",
    b"Accept-Encoding: gzip",
    b"Content-Type: application/json",
    b"Content-Type: Application/JSON",
    b"Content-Type: application/json; charset=utf-8",
    b"Content-Type: text/plain",
    b"Content-Encoding: gzip",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
    b"Transfer-Encoding: chunked",
    b"Content-Length: 36",
    b"Content-Length: 5",
    b"Authorization: Bearer x",
    b"Idempotency-Key: k",
    b"X-Anything: y",
    b"X-Long: " + b"y" * 3000,
    b"X-Longer: " + b"y" * 33_000,
    b"X-Folded: a\r\n b",
    b"no header",
)
FORWARDED = (
    b"X-Forwarded-For: 192.0.2.7",
    b"x-forwarded-for: 192.0.2.8, 127.0.0.1",
    b"X-Forwarded-For: 127.0.0.2, unknown",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Prefix: /thingctl",
)
LINES = (
    b"POST /api/v1/commands HTTP/1.1",
    b"POST /api/v1/commands HTTP/1.0",
    b"POST /api/v1/commands?validate=only HTTP/1.1",
    b"POST /api/v1/command%73 HTTP/1.1",
    b"GET /api/v1/commands HTTP/1.1",
    b"PUT /api/v1/commands HTTP/1.1",
    b"POST /healthz HTTP/1.1",
    b"POST http://x/api/v1/commands HTTP/1.1",
)
PLAIN = st.builds(
    lambda body, headers, token: request(body, *headers, token=token),
    st.sampled_from(BODIES[:4]),
    st.lists(st.sampled_from(HEADERS[:4] + FORWARDED), unique=True, max_size=4),
    st.sampled_from(["sender", "sender", "admin"]),
)
ODD = st.builds(
    lambda body, headers, **others: request(body, *headers, **others),
    st.sampled_from(BODIES),
    st.lists(st.sampled_from(HEADERS + FORWARDED), max_size=2),
    token=st.sampled_from(list(TOKENS)),
    line=st.sampled_from([LINES[0], LINES[0], LINES[0], *LINES]),
    length=st.sampled_from([None, None, None, None, 0, 5, 36, 37, 2_000_000]),
)
CHUNKED = request(b"24\r\n%b\r\n0\r\n\r\n" % TURN_ON, b"Transfer-Encoding: chunked").replace(
    b"Content-Length: 47\r\n", b""
)
assert len(TURN_ON) == 0x24


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """What a client sends: mostly what is looked for, and its neighbours."""
    if draw(st.integers(0, 3)):
        return draw(PLAIN)
    return draw(ODD | st.just(CHUNKED) | st.just(b"\r\n"))


@st.composite
def pieces(draw: st.DrawFn) -> list[bytes]:
    """Requests, each alone, or as it may come; now and then damaged."""
    requests = draw(st.lists(messages(), min_size=1, max_size=5))
    if draw(st.integers(0, 2)):
        return requests
    data = damaged(draw, b"".join(requests), [0, 0, 1, 2], within=600)
    places = draw(st.just(range(300)) | st.lists(st.integers(0, 100_000), max_size=5))
    return list(cut(data, list(places)))


fates = st.builds(
    Fate,
    held=st.booleans(),
    commits=st.booleans(),
    fails=st.sampled_from([False, False, True]),
    at=st.integers(0, 3),
    what=st.sampled_from(["", "", "goes", "stops", "pauses"]),
    trusted=st.booleans(),
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(pieces(), fates)
def test_both_ways_come_to_the_same(data, fate):
    with capture_logs() as logs_through:
        through, taken = asyncio.run(play(data, fate, shortcut=True))
    with capture_logs() as logs_around:
        around, _ = asyncio.run(play(data, fate, shortcut=False))
    for one, other in zip(through, around, strict=True):
        assert one == other
    assert logs_through == logs_around
    event(f"taken: {min(taken, 2)}")


def statuses(written: bytes) -> list[int]:
    """Of the answers, of which no body begins a line like that."""
    return [int(part[:3]) for part in written.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    ("data", "is_taken"),
    [
        (request(), True),
        (request(token="admin"), True),
        *((request(body), True) for body in BODIES[1:5]),
        (request(TURN_ON, *HEADERS[:4], b"Connection: Keep-Alive"), True),
        *((request(TURN_ON, header), True) for header in FORWARDED),
        (request(TURN_ON, *FORWARDED[:2]), False),
        (request(TURN_ON + b" " * (BODY_MAX - len(TURN_ON))), True),
        (request(TURN_ON + b" " * (BODY_MAX + 1 - len(TURN_ON))), False),
        *((request(TURN_ON, header), False) for header in HEADERS[5:] if header != HEADERS[8]),
        *((request(line=line), False) for line in LINES[1:]),
        *((request(body), False) for body in BODIES[5:21]),
        (request(token="nobody"), False),
        (request(token="reader"), False),
        (request(token="gone"), False),
        (request(token="limited"), False),  # it has not called from there yet
        (request()[:-1], False),
        (request() + b"\r\n", False),
        (request() + request(), False),
        (request(b""), False),
        (CHUNKED, False),
        (b"", False),
    ],
)
async def test_it_takes_what_comes_most_and_leaves_the_rest_untouched(data, is_taken):
    """Or else the property above would hold for a shortcut that takes nothing."""
    world = World(shortcut=True, held=False)
    before = world.state()
    answers = []
    assert world.app.shortcut.take(data, ("127.0.0.1", 1), answers.append) is is_taken
    assert [answer.status for answer in answers] == [201] * is_taken
    if not is_taken:
        full = dict.fromkeys(world.app._callers._requests._buckets, RATE.burst)
        assert world.state() == before | {"left of the rate": full}


async def test_a_limited_token_is_held_to_its_limits():
    world = World(shortcut=True, held=False)
    await world.receive(request(token="limited"))
    for body in (TURN_ON, TURN_ON.replace(b"lamp", b"lock"), TURN_ON.replace(b"turnOn", b"say")):
        await world.receive(request(body, token="limited"))
    assert (world.taken, statuses(world.transport.written)) == (1, [201, 201, 403, 403])


async def test_the_rate_holds_and_what_is_refused_elsewhere_counts_once():
    world = World(shortcut=True, held=False)
    for body in (TURN_ON, b"[]", TURN_ON, b'{"thingId":"nowhere","action":"x"}', TURN_ON):
        await world.receive(request(body))
    assert (world.taken, statuses(world.transport.written)) == (2, [201, 400, 201, 404, 429])
    assert world.service.counters["http.tokenRate"] == 1


async def test_an_answer_waits_for_the_disk_and_the_next_request_for_the_answer():
    world = World(shortcut=True, held=True)
    await world.receive(request())
    await world.receive(request(TURN_ON.replace(b"turnOn", b"next")))
    assert (world.taken, world.transport.written, len(world.service.table)) == (1, b"", 1)
    world.journal.commit()
    assert statuses(world.transport.written) == [201]
    await world.commit()
    assert statuses(world.transport.written) == [201, 201]
    assert [execution.action for execution in world.service.table] == ["turnOn", "next"]
    await world.receive(request())
    assert world.taken == 2


async def test_what_could_not_be_kept_is_told_as_ever_and_the_connection_lives_on():
    world = World(shortcut=True, held=True)
    await world.receive(request())
    world.journal.fail()
    head, _, body = world.transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 5" in head
    assert json.loads(body)["type"] == "urn:thingctl:problem:not-accepting"
    assert len(world.service.table) == 0
    await world.commit()
    await world.receive(request())
    await world.commit()
    assert (world.taken, statuses(world.transport.written)) == (2, [503, 201])


async def test_a_client_that_has_gone_is_told_nothing_and_its_command_stands():
    world = World(shortcut=True, held=True)
    await world.receive(request())
    world.connection.connection_lost(ConnectionResetError())
    await world.commit()
    assert (world.taken, world.transport.written, len(world.service.table)) == (1, b"", 1)


async def test_a_server_that_stops_answers_first():
    world = World(shortcut=True, held=True)
    await world.receive(request())
    world.connection.shutdown()
    assert world.transport.end == ""
    await world.commit()
    assert b"\r\nconnection: close\r\n" in world.transport.written
    assert world.transport.end == "closed "


async def test_one_who_does_not_read_is_not_heard_faster_than_they_read():
    world = World(shortcut=True, held=False)
    await world.receive(request())
    world.connection.pause_writing()
    await world.receive(request())
    assert (world.taken, statuses(world.transport.written)) == (1, [201])
    world.connection.resume_writing()
    await world.settle()
    assert statuses(world.transport.written) == [201, 201]


async def test_no_connection_counts_as_idle_while_its_answer_waits_for_the_disk():
    world = World(shortcut=True, held=True)
    for _ in range(2):
        await world.receive(request())
        world.connection.close_if_stuck(1e9)
        assert world.transport.end == ""
        await world.commit()
    assert world.taken == 2
    world.connection.close_if_stuck(1e9)
    assert world.transport.end == "closed "


async def test_a_fault_of_ours_is_told_and_logged_as_ever():
    world = World(shortcut=True, held=False)

    before = origin.get()

    def fail(*_, **__):
        raise ZeroDivisionError

    world.service.send = fail
    with capture_logs() as logs:
        await world.receive(request())
    assert (world.taken, statuses(world.transport.written)) == (1, [500])
    assert [(line["event"], line["path"]) for line in logs] == [("request failed", "/api/v1/commands")]
    assert origin.get() is before


async def test_it_is_there_for_operations_that_have_it_and_for_no_others():
    class Elsewhere:
        """Operations whose table is not at hand, such as a cluster's."""

        def __init__(self, operations):
            self._operations = operations

        def __getattr__(self, name):
            if name == "send_then":
                raise AttributeError(name)
            return getattr(self._operations, name)

    service, _, _ = service_with_fakes(("lamp",))
    embedded = EmbeddedOperations(service)
    assert isinstance(embedded, SendsAtOnce)
    for operations, is_there in ((embedded, True), (Elsewhere(embedded), False)):
        app = create_app(operations, RolloutRunner(service), tokens(), ThingService(embedded, None))
        assert isinstance(app.shortcut, PostFastPath) is is_there


@pytest.mark.parametrize("way", ["http", "https"])
def test_over_a_socket_with_and_without_tls(request, way):
    api = RunningApi(tls=request.getfixturevalue("tls") if way == "https" else None)
    taken = []
    take = api.app.shortcut.take

    def watched(*arguments):
        taken.append(take(*arguments))
        return taken[-1]

    api.app.shortcut.take = watched
    post = b"\r\n".join(
        (
            b"POST /api/v1/commands HTTP/1.1",
            b"Host: x",
            b"Authorization: " + AUTHORIZED["Authorization"].encode(),
            b"Content-Length: %d" % len(TURN_ON),
            b"",
            TURN_ON,
        )
    )
    with api.raw() as sock:
        for _ in range(3):
            sock.sendall(post)
            response = HTTPResponse(sock)
            response.begin()
            assert (response.status, json.loads(response.read())["thingId"]) == (201, "lamp")
    api.close()
    assert taken == [False, True, True]  # at first the token is unknown from there


URL = b"/x"
HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\nAUTHORIZATION: Bearer t\r\nContent-Length: 5\r\n\r\n"
HEAD_HEADERS = [(b"host", b"a"), (b"authorization", b"Bearer t"), (b"content-length", b"5")]


def with_header(line):
    return HEAD.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")


def test_a_head_is_its_headers_and_the_length_of_the_body():
    assert read_head(HEAD, URL) == Head(HEAD_HEADERS, 5)


@pytest.mark.parametrize(
    "line",
    [
        b"User-Agent: x",
        b"Accept: */*",
        b"Content-Type: application/json",
        b"Connection: Keep-Alive",
    ],
)
def test_what_makes_no_difference_is_let_pass(line):
    head = read_head(with_header(line), URL)
    assert head is not None
    assert (head.length, len(head.headers)) == (5, 4)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        HEAD[:-2],
        HEAD + b"12345",
        HEAD.replace(b"POST", b"PUT"),
        HEAD.replace(b"/x", b"/x?y"),
        HEAD.replace(b"/x", b"/X"),
        HEAD.replace(b"1.1", b"1.0"),
        with_header(b"Connection: keep-alive").replace(b"1.1", b"1.0"),
        HEAD.replace(b"Host: a", b"Host: a\n"),
        HEAD.replace(b"Host: a\r\n", b""),
        HEAD.replace(b"AUTHORIZATION: Bearer t\r\n", b""),
        HEAD.replace(b"Content-Length: 5\r\n", b""),
        HEAD.replace(b": 5", b": 0"),
        HEAD.replace(b": 5", b": -5"),
        HEAD.replace(b": 5", b": 5, 5"),
        HEAD.replace(b": 5", b": %d" % (BODY_MAX + 1)),
        *map(
            with_header,
            [
                b"Content-Length: 5",
                b"Authorization: Bearer t",
                b"Host: b",
                b"Transfer-Encoding: chunked",
                b"Connection: close",
                b"Connection: upgrade\r\nUpgrade: websocket",
                b"Expect: 100-continue",
                b"Content-Type: text/plain",
                b"Content-Encoding: gzip",
                b"Idempotency-Key: k",
                b"X-Whatever: y",
                b"not a header",
                b"User-Agent: a\r\n b",
                b"Bad\x00: y",
            ],
        ),
    ],
)
def test_whatever_may_make_a_difference_is_none_of_them(head):
    assert read_head(head, URL) is None
