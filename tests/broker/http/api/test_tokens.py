"""Tokens and what they may do, over the real server."""

from __future__ import annotations

import re
from contextlib import closing

import pytest

from broker.http.running import AUTHORIZED, RunningApi
from broker.http.test_problems import check_problem
from thingctl_broker.http import problems
from thingctl_broker.http.app import OPEN_PATHS
from thingctl_broker.http.auth import scope_of
from thingctl_broker.security.tokens import Scope

COMMANDS = "/api/v1/commands"
THINGS = "/api/v1/things"
TOKENS = "/api/v1/tokens"


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def make(api, name, *scopes, **limits):
    """Make a token over the API; return the headers that carry it."""
    reply = api.post(TOKENS, {"name": name, "scopes": list(scopes), **limits})
    assert reply.status == 201, reply
    return bearer(reply.json["token"])


def endpoints():
    api = RunningApi()
    api.close()
    return [
        (method, route.path, scope_of(route.endpoint))
        for route in api.app.routes
        if route.path not in OPEN_PATHS
        for method in sorted(route.methods - {"HEAD"})
    ]


ENDPOINTS = endpoints()


def test_every_endpoint_has_the_scope_that_its_name_promises():
    """A change here is a change of who may do what: think twice."""
    assert {(method, path.removeprefix("/api/v1")): scope for method, path, scope in ENDPOINTS} == {
        ("GET", "/commands"): "commands:read",
        ("POST", "/commands"): "commands:send",
        ("GET", "/commands/{execution_id}"): "commands:read",
        ("POST", "/commands/{execution_id}/cancel"): "commands:cancel",
        ("GET", "/actions"): "things:read",
        ("GET", "/groups"): "commands:read",
        ("GET", "/groups/{command_id}"): "commands:read",
        ("POST", "/groups/{command_id}/pause"): "commands:send",
        ("POST", "/groups/{command_id}/resume"): "commands:send",
        ("POST", "/groups/{command_id}/cancel"): "commands:cancel",
        ("GET", "/metrics"): "commands:read",
        ("GET", "/events"): "commands:read",
        ("GET", "/overview"): "commands:read",
        ("GET", "/enrolment"): "things:read",
        ("GET", "/things"): "things:read",
        ("POST", "/things"): "things:write",
        ("GET", "/things/{name}"): "things:read",
        ("PUT", "/things/{name}"): "things:write",
        ("PATCH", "/things/{name}"): "things:write",
        ("DELETE", "/things/{name}"): "things:write",
        ("POST", "/things/{name}/password"): "things:write",
        ("DELETE", "/things/{name}/password"): "things:write",
        ("GET", "/thing-types"): "things:read",
        ("GET", "/thing-types/{name}"): "things:read",
        ("PUT", "/thing-types/{name}"): "things:write",
        ("PATCH", "/thing-types/{name}"): "things:write",
        ("DELETE", "/thing-types/{name}"): "things:write",
        ("POST", "/mqtt/authentication"): "mqtt:authenticate",
        ("GET", "/mqtt/clients"): "things:read",
        ("GET", "/mqtt/clients/{client_id:path}"): "things:read",
        ("DELETE", "/mqtt/clients/{client_id:path}"): "things:write",
        ("GET", "/tokens"): "admin",
        ("POST", "/tokens"): "admin",
        ("GET", "/tokens/{name}"): "admin",
        ("DELETE", "/tokens/{name}"): "admin",
        ("POST", "/tokens/{name}/renew"): "admin",
        ("GET", "/me"): None,
        ("POST", "/sign-in-codes"): None,
    }


def test_no_endpoint_answers_a_token_without_its_scope(api):
    for i, (method, path, scope) in enumerate(ENDPOINTS):
        if scope is None:
            continue
        others = [other for other in Scope if other not in {scope, Scope.ADMIN}]
        headers = make(api, f"without-{i}", *others)
        target = re.sub(r"\{[^}]+\}", "lamp", path)
        reply = api.request(method, target, {}, headers=headers)
        check_problem(reply, problems.FORBIDDEN)
        assert f'scope="{scope}"' in reply.headers["www-authenticate"]
    assert len(api.service.table) == 0
    assert {thing.name for thing in api.service.things} == {"lamp", "lock"}


def test_every_endpoint_answers_a_token_with_just_its_scope(api):
    for i, (method, path, scope) in enumerate(ENDPOINTS):
        headers = make(api, f"with-{i}", scope or Scope.THINGS_READ)
        asked = "HEAD" if path == "/api/v1/events" else method  # which would go on and on
        reply = api.request(asked, re.sub(r"\{[^}]+\}", "nosuch", path), {}, headers=headers)
        assert reply.status not in {401, 403}, (asked, path, reply)


def test_a_token_is_told_once_and_shown_without_its_secret(api):
    reply = api.post(
        TOKENS, {"name": "night", "scopes": ["commands:send", "commands:read"], "things": ["l*"]}
    )
    assert reply.link == f"{TOKENS}/night"
    secret = reply.json.pop("token")
    shown = api.get(f"{TOKENS}/night")
    assert shown.json["scopes"] == ["commands:read", "commands:send"]
    assert shown.json["things"] == ["l*"]
    assert secret not in shown.content.decode()
    page = api.get(TOKENS).json
    assert [token["name"] for token in page["tokens"]] == ["admin", "night"]
    assert secret not in str(page)
    me = api.get("/api/v1/me", headers=bearer(secret)).json
    assert me == shown.json


def test_a_revoked_token_is_refused_at_once(api):
    headers = make(api, "night", "commands:read")
    assert api.get(COMMANDS, headers=headers).status == 200
    assert api.request("DELETE", f"{TOKENS}/night").status == 204
    check_problem(api.get(COMMANDS, headers=headers), problems.UNAUTHORIZED)
    check_problem(api.get(f"{TOKENS}/night"), problems.UNKNOWN_TOKEN)


def test_a_renewed_token_has_another_secret_and_the_same_rights(api):
    old = make(api, "night", "commands:read", things=["lamp"])
    reply = api.post(f"{TOKENS}/night/renew")
    new = bearer(reply.json["token"])
    check_problem(api.get(COMMANDS, headers=old), problems.UNAUTHORIZED)
    assert api.get("/api/v1/me", headers=new).json["things"] == ["lamp"]


def test_a_token_that_the_settings_give_is_not_renewed(api):
    check_problem(api.post(f"{TOKENS}/admin/renew"), problems.MANAGED_ELSEWHERE)


def test_an_expired_token_is_refused(api):
    headers = make(api, "brief", "commands:read", expiresAt="2100-01-01T00:00:00+00:00")
    assert api.get(COMMANDS, headers=headers).status == 200
    api.tokens._now = lambda: 4_102_444_800.0
    check_problem(api.get(COMMANDS, headers=headers), problems.UNAUTHORIZED)


def test_the_last_admin_stays(api):
    check_problem(api.request("DELETE", f"{TOKENS}/admin"), problems.IN_USE)
    other = make(api, "other", "admin")
    api.request("DELETE", f"{TOKENS}/admin", headers=other)
    check_problem(api.get(COMMANDS), problems.UNAUTHORIZED)
    check_problem(api.request("DELETE", f"{TOKENS}/other", headers=other), problems.IN_USE)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": "a/b"}, "/name"),
        ({"name": ""}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["commands:*"]}, "/scopes"),
        ({"scopes": ["root"]}, "/scopes"),
        ({"scopes": ["admin"], "things": ["lamp"]}, "/scopes"),
        ({"things": ["lamp", ".*|a"]}, "/things/1"),
        ({"things": [""]}, "/things/0"),
        ({"things": ["[a-z]"]}, "/things/0"),
        ({"actions": ["a?"]}, "/actions/0"),
        ({"actions": ["a"] * 101}, "/actions"),
        ({"expiresAt": "tomorrow"}, "/expiresAt"),
        ({"expiresAt": "2100-01-01T00:00:00"}, "/expiresAt"),
        ({"expiresAt": "2001-01-01T00:00:00Z"}, "/expiresAt"),
        ({"token": "mine"}, "/token"),
    ],
)
def test_what_cannot_be_a_token(api, fields, pointer):
    body = {"name": "t", "scopes": ["commands:read"]} | fields
    check_problem(api.post(TOKENS, body), problems.INVALID_BODY, pointer=pointer)
    assert [token.name for token in api.tokens] == ["admin"]


def test_a_name_is_given_once(api):
    make(api, "night", "commands:read")
    check_problem(api.post(TOKENS, {"name": "night", "scopes": ["admin"]}), problems.ALREADY_EXISTS)


def test_a_limited_token_sends_to_its_things_and_actions_only(api):
    headers = make(api, "t", "commands:send", things=["la*"], actions=["turn*"])

    def status(thing, action, query=""):
        body = {"thingId": thing, "action": action}
        return api.post(f"{COMMANDS}{query}", body, headers=headers).status

    assert status("lamp", "turnOn") == 201
    for query in ("", "?validate=only"):
        assert status("lock", "turnOn", query) == 403
        assert status("lamp", "reboot", query) == 403
        assert status("xla", "turnOn", query) == 403
        assert status("nosuch", "turnOn", query) == 403  # whether it is there is not told either
    assert status("laxx", "turnOn") == 404


@pytest.mark.parametrize("pattern", ["l", "lam", "amp", "LAMP", "lamp.", "*lamp*x", "l.mp", "lam|lock"])
def test_a_pattern_covers_no_more_than_it_says(api, pattern):
    reply = api.post(TOKENS, {"name": "t", "scopes": ["commands:send"], "things": [pattern]})
    if reply.status == 201:
        body = {"thingId": "lamp", "action": "x"}
        assert api.post(COMMANDS, body, headers=bearer(reply.json["token"])).status == 403


def test_a_limited_token_sees_its_things_and_actions_only(api):
    mine = api.send("lamp", "turnOn")
    others = [api.send("lock", "turnOn"), api.send("lamp", "reboot")]
    headers = make(
        api,
        "t",
        *(s for s in Scope if not s.startswith(("admin", "mqtt:"))),
        things=["lamp"],
        actions=["turn*"],
    )
    listed = api.get(COMMANDS, headers=headers).json["executions"]
    assert [execution["executionId"] for execution in listed] == [mine["executionId"]]
    assert api.get(f"{COMMANDS}?thingId=lock", headers=headers).json["executions"] == []
    assert api.get(f"{COMMANDS}/{mine['executionId']}", headers=headers).status == 200
    for other in others:
        target = f"{COMMANDS}/{other['executionId']}"
        told = check_problem(api.get(target, headers=headers), problems.UNKNOWN_EXECUTION)
        assert told.replace(other["executionId"], "") == api.get(
            f"{COMMANDS}/0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f", headers=headers
        ).json["detail"].replace("0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f", "")
        check_problem(api.post(f"{target}/cancel", headers=headers), problems.UNKNOWN_EXECUTION)
        assert api.get(target).json["status"] == "SENT"
    things = api.get(THINGS, headers=headers).json["things"]
    assert [thing["name"] for thing in things] == ["lamp"]
    assert api.get(f"{THINGS}/lamp", headers=headers).status == 200
    check_problem(api.get(f"{THINGS}/lock", headers=headers), problems.UNKNOWN_THING)


def test_a_limited_token_changes_its_things_only(api):
    headers = make(api, "t", "things:write", things=["la*"])
    assert api.post(THINGS, {"name": "lava"}, headers=headers).status == 201
    check_problem(api.post(THINGS, {"name": "x"}, headers=headers), problems.FORBIDDEN)
    check_problem(api.request("PUT", f"{THINGS}/x", {}, headers=headers), problems.FORBIDDEN)
    check_problem(api.request("PATCH", f"{THINGS}/lock", {}, headers=headers), problems.UNKNOWN_THING)
    check_problem(api.request("DELETE", f"{THINGS}/lock", headers=headers), problems.UNKNOWN_THING)
    check_problem(api.post(f"{THINGS}/lock/password", headers=headers), problems.UNKNOWN_THING)
    check_problem(api.request("PUT", "/api/v1/thing-types/x", {}, headers=headers), problems.FORBIDDEN)
    assert {thing.name for thing in api.service.things} == {"lamp", "lock", "lava"}


def test_only_admins_make_tokens(api):
    headers = make(api, "t", *(s for s in Scope if s != "admin"))
    check_problem(api.post(TOKENS, {"name": "x", "scopes": ["admin"]}, headers=headers), problems.FORBIDDEN)
    assert api.get(TOKENS, headers=AUTHORIZED).status == 200


def test_what_is_about_all_things_is_not_for_a_limited_token(api):
    headers = make(api, "t", "commands:read", things=["lamp"])
    check_problem(api.get("/api/v1/overview", headers=headers), problems.FORBIDDEN)


def test_a_limited_token_hears_of_its_things_only_and_a_revoked_one_of_nothing(api):
    headers = make(api, "t", "commands:read", things=["lamp"])
    with closing(api.client()) as connection:
        connection.request("GET", "/api/v1/events", headers=headers)
        stream = connection.getresponse()
        read_until(stream, b"event: ready")
        other, mine = api.send("lock")["executionId"], api.send("lamp")["executionId"]
        told = read_until(stream, mine.encode())
        assert other.encode() not in told
        api.request("DELETE", f"{TOKENS}/t")
        api.send("lamp", "afterwards")
        assert b"afterwards" not in stream.read()


def read_until(stream, text):
    told = b""
    while text not in told:
        line = stream.readline()
        assert line, told
        told += line
    return told
