"""Dry runs of commands to many things: who would get one, and who would be refused."""

from __future__ import annotations

import json

import pytest

COMMANDS = "/api/v1/commands"
SCHEMA = {"type": "object", "properties": {"value": {"type": "number", "maximum": 30}}}
BODY = {"targets": {"all": True}, "action": "dim", "params": {"value": 99}}


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    return either


def announce(api, thing, *actions):
    api.announce(thing, json.dumps({"actions": list(actions)}).encode())


@pytest.mark.parametrize("asked", [("?validate=only", {}), ("", {"dryRun": True})], ids=["query", "body"])
def test_params_are_checked_for_each_thing(api, asked):
    query, fields = asked
    for thing in ("lamp", "lock"):
        announce(api, thing, {"name": "dim", "paramsSchema": SCHEMA})
    reply = api.post(COMMANDS + query, BODY | fields)
    assert reply.status == 200, reply.json
    detail = "by what the thing announced: 99 is greater than the maximum of 30"
    assert reply.json == {
        "dryRun": True,
        "targeted": 2,
        "things": ["lamp", "lock"],
        "refused": 2,
        "refusals": [{"detail": detail, "things": 2, "example": "lamp", "pointer": "/params/value"}],
        "unannounced": 0,
    }
    assert len(api.executions()) == 0


def test_each_reason_is_told_with_its_number(api):
    announce(api, "lamp", {"name": "dim", "paramsSchema": SCHEMA})
    announce(api, "lock", {"name": "open"})
    assert api.request("PATCH", "/api/v1/things/lock", {"enabled": False}).status == 200
    told = api.post(f"{COMMANDS}?validate=only", BODY).json
    assert (told["refused"], told["unannounced"]) == (2, 1)
    assert [(refusal["things"], refusal["example"]) for refusal in told["refusals"]] == [
        (1, "lamp"),
        (1, "lock"),
    ]
    assert told["refusals"][1]["detail"] == "the thing is disabled: it takes no commands"
    right = api.post(f"{COMMANDS}?validate=only", BODY | {"params": {"value": 3}}).json
    assert (right["refused"], [refusal["example"] for refusal in right["refusals"]]) == (1, ["lock"])


def test_what_no_thing_could_be_sent_is_an_error(api):
    reply = api.post(f"{COMMANDS}?validate=only", BODY | {"ttl": 0})
    assert (reply.status, reply.json["pointer"]) == (400, "/ttl")


def test_a_parameter_that_was_not_sent_is_not_named(api):
    reply = api.post(f"{COMMANDS}?wait=1&validate=only", BODY)
    assert (reply.status, reply.json["parameter"]) == (400, "wait")
    reply = api.post(f"{COMMANDS}?validate=yes", BODY)
    assert (reply.status, reply.json["parameter"]) == (400, "validate")
