"""Who may do what over HTTP and HTTPS: a broker process, tokens, and every trick that comes to mind."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from support.operators import Operator
from support.processes import BIN, TOKEN, output, serving
from support.waits import soon

pytestmark = pytest.mark.system

COMMANDS = "/api/v1/commands"
THINGS = "/api/v1/things"
TOKENS = "/api/v1/tokens"


class World:
    """A closed broker with two things, and callers with tokens."""

    def __init__(self, serve, tls):
        self.serve = serve
        self.tls = tls
        self.operator = Operator(serve.http_address, tls)
        for name in ("lamp", "lock"):
            assert self.operator.call("POST", THINGS, {"name": name}).status == 201

    def token(self, name, *scopes, **limits):
        answer = self.operator.call("POST", TOKENS, {"name": name, "scopes": list(scopes), **limits})
        assert answer.status == 201, answer
        return answer.body["token"]

    def connection(self):
        if self.tls is None:
            return http.client.HTTPConnection(*self.serve.http_address, timeout=20)
        return http.client.HTTPSConnection(*self.serve.http_address, timeout=20, context=self.tls)

    def ask(self, token, method, path, body=None):
        """The status and the body of the answer that a token gets."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        with closing(self.connection()) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"{}")

    def send(self, token, thing="lamp", action="turnOn"):
        return self.ask(token, "POST", COMMANDS, {"thingId": thing, "action": action})


@pytest.fixture(scope="module", params=["http", "https"])
def world(request, tmp_path_factory):
    directory, options, tls = tmp_path_factory.mktemp(request.param), ["--in-memory"], None
    if request.param == "https":
        command = [BIN / "thingctl", "tls", "init", "--dir", directory / "tls", "--name", "127.0.0.1"]
        subprocess.run(command, check=True, capture_output=True)
        options += ["--tls-dir", str(directory / "tls")]
        tls = ssl.create_default_context(cafile=directory / "tls" / "ca.crt")
    with serving(directory / "data", *options, enrolment="--closed") as serve:
        world = World(serve, tls)
        yield world
        world.operator.close()
        said = output(serve.process)
        assert "Traceback" not in said
        assert TOKEN not in said


@pytest.mark.parametrize(
    "token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "admin", "Bearer " + TOKEN, "*", "\xe4"]
)
def test_nothing_but_a_token_is_one(world, token):
    for method, path in [("GET", COMMANDS), ("POST", COMMANDS), ("GET", "/metrics"), ("GET", "/nowhere")]:
        assert world.ask(token, method, path)[0] == 401
    assert world.operator.call("GET", COMMANDS).status == 200


def test_a_revoked_token_is_nobodys_at_once_and_its_stream_ends(world):
    token = world.token("night", "commands:read")
    with closing(world.connection()) as connection:
        connection.request("GET", "/api/v1/events", headers={"Authorization": f"Bearer {token}"})
        stream = connection.getresponse()
        while stream.readline() != b"event: ready\n":
            pass
        assert world.operator.call("DELETE", f"{TOKENS}/night").status == 204
        assert world.ask(token, "GET", COMMANDS)[0] == 401
        world.send(TOKEN, action="afterwards")
        assert b"afterwards" not in stream.read()  # up to its end


def test_an_expired_token_is_nobodys(world):
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    token = world.token("brief", "commands:read", expiresAt=ends.isoformat())
    assert world.ask(token, "GET", COMMANDS)[0] == 200
    soon(lambda: world.ask(token, "GET", COMMANDS)[0] == 401)
    assert time.time() >= ends.timestamp()


def test_a_renewed_token_leaves_the_old_secret_nobodys(world):
    old = world.token("rolled", "commands:read")
    new = world.operator.call("POST", f"{TOKENS}/rolled/renew").body["token"]
    assert world.ask(old, "GET", COMMANDS)[0] == 401
    assert world.ask(new, "GET", COMMANDS)[0] == 200


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("commands:send", {"send"}),
        ("commands:read", {"list"}),
        ("commands:cancel", {"cancel"}),
        ("things:read", {"things"}),
        ("things:write", {"change"}),
        ("admin", {"send", "list", "cancel", "things", "change", "tokens"}),
    ],
)
def test_a_scope_allows_what_it_says(world, scope, allowed):
    execution = world.operator.send("lamp", "turnOn")
    calls = {
        "send": ("POST", COMMANDS, {"thingId": "lamp", "action": "turnOn"}),
        "list": ("GET", COMMANDS, None),
        "cancel": ("POST", f"{COMMANDS}/{execution}/cancel", None),
        "things": ("GET", THINGS, None),
        "change": ("PATCH", f"{THINGS}/lamp", {"description": "x"}),
        "tokens": ("GET", TOKENS, None),
    }
    token = world.token(f"only-{scope}", scope)
    statuses = {name: world.ask(token, *call)[0] for name, call in calls.items()}
    assert {name for name, status in statuses.items() if status != 403} == allowed, statuses
    assert all(statuses[name] < 300 for name in allowed), statuses


def test_nobody_makes_a_token_stronger_than_an_admin_lets_them(world):
    token = world.token("writer", "things:write", "commands:send")
    assert world.ask(token, "POST", TOKENS, {"name": "mine", "scopes": ["admin"]})[0] == 403
    assert world.ask(token, "POST", f"{TOKENS}/admin/renew")[0] == 403
    assert world.ask(token, "DELETE", f"{TOKENS}/admin")[0] == 403


@pytest.mark.parametrize(
    "name",
    [
        "LAMP",
        "lamp ",
        " lamp",
        "lamp/../lock",
        "lamp%00lock",
        "lamp\x00",
        "lock",
        "*",
        "lam",
        "lampx",
        "+",
        "#",
    ],
)
def test_a_limited_token_reaches_no_other_thing_by_any_spelling(world, name):
    token = world.token(
        f"t{abs(hash(name))}", "commands:send", "commands:read", things=["lamp"], actions=["turnOn"]
    )
    status, answer = world.send(token, name)
    assert status in {400, 403}, answer
    assert world.send(token, "lamp", "unlock")[0] == 403
    assert world.send(token, "lamp", "turnOn/../unlock")[0] in {400, 403}
    assert world.send(token)[0] == 201
    other = world.operator.send("lock", "turnOn")
    assert world.ask(token, "GET", f"{COMMANDS}/{other}")[0] == 404
    listed = world.ask(token, "GET", f"{COMMANDS}?thingId=lock")
    assert listed[0] in {200, 403}
    assert not listed[1].get("executions")
    assert {e["thingId"] for e in world.ask(token, "GET", COMMANDS)[1]["executions"]} == {"lamp"}


BAD_NAMES = [
    "a/b",
    "a/../lock",
    "../lock",
    "+",
    "a+",
    "#",
    "a#",
    "a\x00",
    "x" * 129,
    "",
    "caf\xe9",
    "cafe\u0301",
]


@pytest.mark.parametrize("name", [*BAD_NAMES, "a b", "a\n", "\u202elock", "\uff0e\uff0e"])
def test_no_trick_is_a_name(world, name):
    before = world.operator.call("GET", THINGS).body["things"]
    assert world.operator.call("POST", THINGS, {"name": name}).status == 400
    answer = world.operator.call("POST", COMMANDS, {"thingId": name, "action": "turnOn"})
    assert answer.status in {400, 404}
    assert world.operator.call("POST", TOKENS, {"name": name, "scopes": ["admin"]}).status == 400
    assert world.operator.call("GET", THINGS).body["things"] == before


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/things/lamp/../lock",
        "/api/v1/things/lamp%2F..%2Flock",
        "/api/v1/things/%2e%2e/tokens",
        "/api/v1/things/../tokens",
        "/healthz/../api/v1/tokens",
        "/console/../api/v1/tokens",
        "/console/%2e%2e/api/v1/tokens",
        "//api/v1/tokens",
        "/API/v1/tokens",
        "/api/v1/tokens/",
        "/api/v1/tokens%00",
        "/api/v1/tokens;x=/healthz",
        "/openapi.json/../api/v1/tokens",
    ],
)
def test_no_trick_in_a_path_goes_round_a_check(world, path):
    token = world.token(f"p{abs(hash(path))}", "things:read", things=["lamp"])
    for who in ("", token):
        status, answer = world.ask(who, "GET", path)
        assert status in {401, 403, 404}, answer
