"""Commands to many things over HTTP."""

from __future__ import annotations

import time

import pytest

from broker.http.running import AUTHORIZED, RunningApi, until
from thingctl_broker.http.api.groups import is_for_many
from thingctl_broker.security.tokens import Scope, Token


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    return either


COMMANDS, GROUPS = "/api/v1/commands", "/api/v1/groups"


def group(targets, **fields):
    return {"targets": targets, "action": "turnOn", **fields}


def finished(api, reply):
    location = reply.link
    until(lambda: api.get(location).json["state"] == "FINISHED")
    return api.get(location).json


def test_a_command_to_many_things(api):
    reply = api.post(COMMANDS, group({"things": ["lamp", "lock"]}, params={"a": 1}, ttl=9))
    assert reply.status == 202
    assert reply.link == f"{GROUPS}/{reply.json['commandId']}"
    assert reply.json["targeted"] == 2
    told = finished(api, reply)
    assert told["statuses"] == {"SENT": 2}
    assert (told["pending"], told["ended"], told["percent"]) == (0, 0, 0.0)
    listed = api.get(f"{COMMANDS}?commandId={reply.json['commandId']}").json["executions"]
    assert {execution["thingId"] for execution in listed} == {"lamp", "lock"}
    api.respond(listed[0], status="SUCCEEDED")
    assert api.get(reply.link).json["percent"] == 50.0


def test_outcomes_are_put_together(api):
    reply = api.post(COMMANDS, group({"things": ["lamp", "lock"]}))
    assert reply.json["outcomes"] == []
    assert finished(api, reply)["outcomes"] == [{"status": "SENT", "count": 2, "examples": ["lamp", "lock"]}]
    lock, lamp = sorted(
        api.get(f"{COMMANDS}?commandId={reply.json['commandId']}").json["executions"],
        key=lambda one: one["thingId"],
        reverse=True,
    )
    api.respond(lamp, status="SUCCEEDED", result={"litres": 1.50})
    api.respond(lock, status="FAILED", statusReason={"reasonCode": "VALVE", "reasonDescription": "stuck"})
    told = api.get(reply.link)
    assert told.json["outcomes"] == [
        {"status": "FAILED", "count": 1, "examples": ["lock"], "reasonCode": "VALVE"},
        {"status": "SUCCEEDED", "count": 1, "examples": ["lamp"], "result": {"litres": 1.50}},
    ]


def test_each_execution_posts_back():
    api = RunningApi()
    try:
        uri = "https://hooks.example/x"
        reply = api.post(COMMANDS, group({"all": True}, postBackUri=uri))
        finished(api, reply)
        assert {execution.post_back_uri for execution in api.service.table} == {uri}
        for body in (
            group({"all": True}, postBackUri="x"),
            {"thingId": "lamp", "action": "a", "postBackUri": "x"},
        ):
            reply = api.post(COMMANDS, body)
            assert (reply.status, reply.json["pointer"]) == (400, "/postBackUri")
        api.send(postBackUri=uri)
        assert api.newest().post_back_uri == uri
    finally:
        api.close()


def test_a_dry_run_sends_nothing(api):
    reply = api.post(COMMANDS, group({"all": True}, dryRun=True))
    assert (reply.status, reply.json) == (
        200,
        {
            "dryRun": True,
            "targeted": 2,
            "things": ["lamp", "lock"],
            "refused": 0,
            "refusals": [],
            "unannounced": 0,
        },
    )
    assert len(api.executions()) == 0


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        (group({"things": ["lamp", "ghost"]}), "/targets/things/1"),
        (group({}), "/targets"),
        (group({"all": True}, rollout={"rate": 0}), "/rollout/rate"),
        (group({"all": True}, rollout={"maxFailures": 0}), "/rollout/maxFailures"),
        (group({"all": True}, rollout={"pace": 1}), "/rollout"),
        (group({"all": True}, ttl=0), "/ttl"),
        (group({"all": True}, params=[]), "/params"),
        (group({"all": True}, params=[], dryRun=True), "/params"),
        ({"targets": {"all": True}}, "/action"),
        (group({"all": True}, thingId="lamp"), "/thingId"),
    ],
)
def test_what_is_wrong_is_pointed_at(api, fields, pointer):
    reply = api.post(COMMANDS, fields)
    assert (reply.status, reply.json["pointer"]) == (400, pointer)
    assert len(api.executions()) == 0


def test_what_is_for_one_thing_only(api):
    assert api.post(COMMANDS + "?wait=1", group({"all": True})).json["parameter"] == "wait"


def test_pause_resume_cancel(api):
    reply = api.post(COMMANDS, group({"all": True}, rollout={"batch": 1}))
    location = reply.link
    until(lambda: api.get(location).json["statuses"] == {"SENT": 1})
    assert api.post(location + "/pause").json["state"] == "PAUSED"
    assert api.post(location + "/resume").json["state"] == "RUNNING"
    reply = api.post(location + "/cancel")
    assert (reply.status, reply.json["state"]) == (200, "CANCELED")
    until(lambda: api.get(location).json["statuses"] == {"CANCELED": 1})
    assert api.get(location).json["pending"] == 1
    reply = api.post(location + "/resume")
    assert (reply.status, reply.json["type"]) == (409, "urn:thingctl:problem:wrong-move")


def test_too_many_failures(api):
    reply = api.post(COMMANDS, group({"all": True}, rollout={"batch": 1, "maxFailures": 1}))
    location = reply.link
    until(lambda: len(api.executions()) == 1)
    (execution,) = api.get(f"{COMMANDS}?commandId={reply.json['commandId']}").json["executions"]
    api.respond(execution, status="FAILED")
    until(lambda: api.get(location).json["state"] == "STOPPED")
    told = api.get(location).json
    assert (told["state"], told["pending"], told["statuses"]) == ("STOPPED", 1, {"FAILED": 1})


def test_a_command_to_one_thing_is_a_group_of_one(api):
    execution = api.send()
    told = api.get(f"{GROUPS}/{execution['commandId']}").json
    assert (told["targeted"], told["state"], told["statuses"]) == (1, "UNKNOWN", {"SENT": 1})


def test_who_is_not_known(api):
    for path in ("nothing", "no%20id"):
        reply = api.get(f"{GROUPS}/{path}")
        assert (reply.status, reply.json["type"]) == (404, "urn:thingctl:problem:unknown-command")
    assert api.post(f"{GROUPS}/nothing/pause").status == 404


@pytest.mark.parametrize(
    ("body", "many"),
    [
        (b'{"targets":{}}', True),
        (b'{"thingId":"a","params":{"targets":1}}', False),
        (b'{"targets":', False),
        (b'["targets"]', False),
        (b"{}", False),
        (b'\xff"targets"', False),
    ],
)
def test_what_is_for_many(body, many):
    assert is_for_many(body) is many


def test_ten_thousand_in_one_request_and_nobody_starves():
    """While they go out, other calls are answered at once."""
    names = [f"t{i}" for i in range(10_000)]
    api = RunningApi(things=[*names, "lamp"])
    try:
        reply = api.post(COMMANDS, group({"things": names}))
        assert (reply.status, reply.json["targeted"]) == (202, 10_000)
        slowest = 0.0
        while api.get(reply.link, timeout=30).json["state"] != "FINISHED":
            began = time.monotonic()
            api.send("lamp", ttl=60)
            slowest = max(slowest, time.monotonic() - began)
        assert api.get(reply.link).json["statuses"] == {"SENT": 10_000}
        assert slowest < 2.0
    finally:
        api.close()


def keyed(api, body, key="key-1"):
    return api.post(COMMANDS, body, headers=AUTHORIZED | {"Idempotency-Key": key})


def test_a_key_finds_the_command_of_the_first_time(api):
    body = group({"all": True}, params={"a": 1})
    first = keyed(api, body)
    again = keyed(api, body)
    assert (again.status, again.json["commandId"]) == (202, first.json["commandId"])
    assert again.headers["location"] == first.headers["location"]
    for other in (
        body | {"ttl": 9},
        body | {"targets": {"things": ["lamp"]}},
        body | {"rollout": {"batch": 1}},
    ):
        refused = keyed(api, other)
        assert (refused.status, refused.json["type"]) == (409, "urn:thingctl:problem:idempotency-conflict")
    assert keyed(api, body, "key-2").json["commandId"] != first.json["commandId"]
    assert finished(api, first)["statuses"] == {"SENT": 2}
    assert len(api.executions()) == 4


def test_groups_are_listed_newest_first(api):
    made = [api.post(COMMANDS, group({"things": [name]})).json["commandId"] for name in ("lamp", "lock")]
    held = api.post(COMMANDS, group({"all": True}, rollout={"batch": 1})).json["commandId"]
    until(lambda: api.get(f"{GROUPS}?state=FINISHED").json["groups"][1:])
    listed = api.get(f"{GROUPS}?state=FINISHED").json["groups"]
    assert [one["commandId"] for one in listed] == made[::-1]
    first = api.get(f"{GROUPS}?limit=1").json
    (entry,) = first["groups"]
    assert (entry["commandId"], entry["state"], entry["targeted"]) == (held, "RUNNING", 2)
    assert entry["requestedBy"] == "admin"
    rest = api.get(f"{GROUPS}?cursor={first['nextCursor']}").json
    assert ([one["commandId"] for one in rest["groups"]], rest["nextCursor"]) == (made[::-1], None)
    refused = api.get(f"{GROUPS}?state=DONE")
    assert (refused.status, refused.json["parameter"]) == (400, "state")


def test_a_limited_token_lists_its_own_groups(api):
    limited = Token("lights", frozenset({Scope.COMMANDS_SEND, Scope.COMMANDS_READ}), things=("la*",))
    headers = {"Authorization": f"Bearer {api.run(api.tokens.add(limited))}"}
    api.post(COMMANDS, group({"things": ["lamp"]}))
    own = api.post(COMMANDS, group({"all": True}), headers=headers).json["commandId"]
    assert [one["commandId"] for one in api.get(GROUPS, headers=headers).json["groups"]] == [own]


@pytest.mark.parametrize("cursor", ["x", "zzz", "0193448F-5D1C-7000-9B3C-0A1B2C3D4E5F", "0193448f"])
def test_a_cursor_that_no_answer_has_given_is_refused(api, cursor):
    reply = api.get(f"{GROUPS}?cursor={cursor}")
    assert (reply.status, reply.json["parameter"]) == (400, "cursor")
