"""``POST /api/v1/mqtt/authentication`` over real HTTP."""

from __future__ import annotations

import pytest

PATH = "/api/v1/mqtt/authentication"
PASSWORD = "correct horse battery staple"


@pytest.fixture
def lamp(api):
    """A thing with a password."""
    reply = api.post("/api/v1/things", {"name": "desk-lamp", "password": PASSWORD})
    assert reply.status == 201, reply
    return "desk-lamp"


def asked(api, **fields):
    reply = api.post(PATH, fields)
    assert reply.status == 200, reply
    assert reply.json["is_superuser"] is False
    return reply.json["result"]


def test_the_right_password_is_the_things_and_no_other(api, lamp):
    assert asked(api, username=lamp, password=PASSWORD, clientid="c", peerhost="192.0.2.1") == "allow"
    assert asked(api, username=lamp, password=PASSWORD) == "allow"
    assert asked(api, username=lamp, password="wrong") == "deny"
    assert asked(api, username=lamp, password="") == "deny"
    assert asked(api, username=lamp) == "deny"


@pytest.mark.parametrize("name", ["nobody", "", "a/b", "undefined", "@admin", "lamp"])
def test_who_is_no_thing_with_a_password_is_left_to_others(api, lamp, name):
    assert asked(api, username=name, password=PASSWORD) == "ignore"


def test_a_disabled_thing_and_a_removed_password_let_nobody_in(api, lamp):
    assert api.request("PATCH", f"/api/v1/things/{lamp}", {"enabled": False}).status == 200
    assert asked(api, username=lamp, password=PASSWORD) == "deny"
    assert api.request("PATCH", f"/api/v1/things/{lamp}", {"enabled": True}).status == 200
    assert asked(api, username=lamp, password=PASSWORD) == "allow"
    assert api.request("DELETE", f"/api/v1/things/{lamp}/password").status == 204
    assert asked(api, username=lamp, password=PASSWORD) == "ignore"


def test_guessing_at_a_thing_from_one_address_is_slowed_down_and_nobody_else(api, lamp):
    for _ in range(25):
        asked(api, username=lamp, password="wrong", peerhost="192.0.2.66")
    assert api.post("/api/v1/things", {"name": "other", "password": PASSWORD}).status == 201
    assert asked(api, username=lamp, password=PASSWORD, peerhost="192.0.2.66") == "deny"
    assert asked(api, username="other", password=PASSWORD, peerhost="192.0.2.66") == "allow"
    assert asked(api, username=lamp, password=PASSWORD, peerhost="192.0.2.1") == "allow"


def test_a_token_for_it_may_do_nothing_else(api, lamp):
    made = api.post("/api/v1/tokens", {"name": "emqx", "scopes": ["mqtt:authenticate"]})
    assert made.status == 201, made
    headers = {"Authorization": f"Bearer {made.json['token']}", "Content-Type": "application/json"}
    body = {"username": lamp, "password": PASSWORD}
    assert api.post(PATH, body, headers=headers).json["result"] == "allow"
    assert api.get("/api/v1/things", headers=headers).status == 403
    reader = api.post("/api/v1/tokens", {"name": "reader", "scopes": ["things:read"]}).json["token"]
    headers = {"Authorization": f"Bearer {reader}", "Content-Type": "application/json"}
    assert api.post(PATH, body, headers=headers).status == 403


def test_what_is_no_question_is_refused_with_its_place(api):
    reply = api.post(PATH, {"username": 1, "password": "x"})
    assert (reply.status, reply.json["pointer"]) == (400, "/username")
