"""The endpoint of the actions that things have in common."""

from __future__ import annotations

import json

import pytest

from thingctl_broker.http.api import actions

ACTIONS = "/api/v1/actions"
SCHEMA = {"type": "object", "properties": {"value": {"type": "number"}}}


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    for thing, others in (("lamp", []), ("lock", [{"name": "open"}])):
        dim = {"name": "dim", "description": "Dim it.", "paramsSchema": SCHEMA}
        either.announce(thing, json.dumps({"actions": [dim, *others]}).encode())
    return either


def test_the_actions_of_all_things(api):
    assert api.get(ACTIONS).json == {
        "things": 2,
        "actions": [
            {"name": "dim", "things": 2, "alike": True, "description": "Dim it.", "paramsSchema": SCHEMA},
            {"name": "open", "things": 1, "alike": True},
        ],
    }


@pytest.mark.parametrize(
    ("query", "things"),
    [("tag=red", 1), ("type=bulb", 1), ("thingId=lamp&thingId=lock", 2), ("thingId=lock", 1), ("tag=no", 0)],
)
def test_of_some_things(api, query, things):
    assert api.request("PUT", "/api/v1/thing-types/bulb", {}).status == 201
    assert api.request("PATCH", "/api/v1/things/lamp", {"type": "bulb", "tags": ["red"]}).status == 200
    assert api.get(f"{ACTIONS}?{query}").json["things"] == things


def test_schemas_that_do_not_fit_are_left_out(api, monkeypatch):
    monkeypatch.setattr(actions, "PAGE_BYTES_MAX", 10)
    first = api.get(ACTIONS).json["actions"][0]
    assert first == {"name": "dim", "things": 2, "alike": False}


def test_a_token_sees_the_actions_of_its_things(embedded):
    body = {"name": "narrow", "scopes": ["things:read"], "things": ["lamp"]}
    secret = embedded.post("/api/v1/tokens", body).json["token"]
    embedded.announce("lock", b'{"actions":[{"name":"open"}]}')
    told = embedded.get(ACTIONS, headers={"authorization": f"Bearer {secret}"}).json
    assert told == {"things": 1, "actions": []}
