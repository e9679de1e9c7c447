"""Navixy's dialect: what its guide prints, byte for byte, and what it leaves open."""

from __future__ import annotations

import json

import pytest

from broker.http.running import TOKEN, until
from thingctl_broker.http.dialects.navixy import CODES, WORDS
from thingctl_protocol.statuses import Status


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    return either


JSON = {"Content-Type": "application/json"}
SEND, RAW, STATUS = (
    "/v2/tracker/send_command",
    "/v2/tracker/raw_command/send",
    "/v2/tracker/get_command_status",
)
# The bodies as the guide prints them, with the API key filled in.
PRINTED_SEND = f"""{{
          "hash": "{TOKEN}",
          "device_id": "1234567890",
          "command": "request_location"
        }}"""
PRINTED_STATUS = f"""{{
          "hash": "{TOKEN}",
          "device_id": "1234567890"
        }}"""
PRINTED_QUEUED = b"""{
  "success": true,
  "queued": true
}"""
PRINTED_ERROR = b"""{
  "success": false,
  "status": {
    "code": 4,
    "description": "Device not found"
  }
}"""
PRINTED_EXECUTED = b"""{
  "success": true,
  "status": "executed"
}"""


@pytest.fixture
def device(api):
    api.know("1234567890")
    return "1234567890"


def call(api, path, **fields):
    return api.post(path, {"hash": TOKEN, "device_id": "1234567890", **fields}, headers={})


def newest(api):
    return api.newest()


def answer(api, **response):
    execution = newest(api)
    payload = json.dumps(response).encode()
    api.answer(execution.thing, execution.execution_id, payload)


def test_the_guide_step_by_step(api, device):
    reply = api.post(SEND, PRINTED_SEND, headers=JSON)
    assert (reply.status, reply.content) == (200, PRINTED_QUEUED)
    assert reply.headers["content-type"] == "application/json"
    execution = newest(api)
    assert (execution.thing, execution.action, execution.params) == (device, "request_location", b"{}")
    assert execution.requested_by == "admin"
    answer(api, status="SUCCEEDED")
    reply = api.post(STATUS, PRINTED_STATUS, headers=JSON)
    assert (reply.status, reply.content) == (200, PRINTED_EXECUTED)


def test_the_error_of_the_guide(api):
    for path, body in ((SEND, PRINTED_SEND), (STATUS, PRINTED_STATUS)):
        reply = api.post(path, body, headers=JSON)
        assert (reply.status, reply.content) == (400, PRINTED_ERROR)


def test_a_raw_command_is_an_action_of_its_own(api, device):
    fields = {"tracker_id": 1234567890, "command": "setdigout 1?", "type": "text", "reliable": True}
    reply = api.post(RAW, {"hash": TOKEN, **fields}, headers={})
    assert (reply.status, reply.content) == (200, b'{\n  "success": true\n}')
    assert newest(api).action == "rawCommand"
    assert json.loads(newest(api).params) == {"command": "setdigout 1?", "type": "text"}


def test_a_form_is_as_good_as_json(api, device):
    body = f"hash={TOKEN}&device_id={device}&command=reboot&reliable=true&params=%7B%22a%22%3A1%7D&ttl=9"
    reply = api.post(SEND, body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (reply.status, reply.content) == (200, PRINTED_QUEUED)
    assert (newest(api).params, newest(api).ttl) == (b'{"a":1}', 9)


@pytest.mark.parametrize("body", ["hash=%ff", "a=1&a=2", "ttl=soon&hash=" + TOKEN])
def test_a_form_that_is_none(api, device, body):
    reply = api.post(SEND, body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (reply.status, reply.json["status"]["code"]) == (400, 7)


def test_a_command_that_is_not_reliable_does_not_wait(api, device):
    reply = call(api, SEND, command="reboot", reliable=False)
    assert (reply.status, reply.json["status"]["code"]) == (400, 213)
    assert len(api.executions()) == 0
    api.connect(device)
    assert call(api, SEND, command="reboot", reliable=False).status == 200
    until(lambda: len(api.requested) == 1)


def test_a_command_that_the_device_has_not_announced_is_not_supported(api, device):
    api.announce(device, b'{"actions":[{"name":"reboot"}]}')
    assert call(api, SEND, command="reboot").status == 200
    reply = call(api, SEND, command="explode")
    assert (reply.status, reply.json["status"]["code"]) == (400, 214)


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({}, "command"),
        ({"command": 1}, "command"),
        ({"command": "no good"}, "command"),
        ({"command": "reboot", "ttl": 0}, "ttl"),
        ({"command": "reboot", "params": 1}, "params"),
        ({"command": "reboot", "sooner": 1}, "sooner"),
        ({"command": "reboot", "tracker_id": 1}, "device_id"),
        ({"command": "reboot", "device_id": None}, "device_id"),
    ],
)
def test_wrong_parameters_are_named(api, device, fields, parameter):
    reply = call(api, SEND, **fields)
    assert reply.status == 400
    assert reply.json["status"] == {"code": 7, "description": "Invalid parameters"}
    (error,) = reply.json["errors"]
    assert error["parameter"] == parameter
    assert error["error"]


def test_hex_is_hex(api, device):
    assert call(api, RAW, command="0AfF", type="hex").status == 200
    for command in ("0", "0g", ""):
        assert call(api, RAW, command=command, type="hex").json["errors"][0]["parameter"] == "command"


@pytest.mark.parametrize("body", [{}, {"hash": ""}, {"hash": "wrong", "x": 1}, {"hash": "ä"}])
@pytest.mark.parametrize("path", [SEND, RAW, STATUS])
def test_without_a_valid_hash_nothing_is_told(api, path, body):
    reply = api.post(path, body, headers={})
    assert reply.status == 400
    assert reply.json == {"success": False, "status": {"code": 3, "description": "Wrong hash"}}


def test_a_device_that_was_sent_nothing_has_no_status(api, device):
    reply = call(api, STATUS)
    assert (reply.status, reply.json["status"]["code"]) == (404, 204)


@pytest.mark.parametrize(
    ("response", "word"),
    [
        (None, "pending"),
        ({"status": "IN_PROGRESS"}, "pending"),
        ({"status": "FAILED"}, "failed"),
        ({"status": "REJECTED"}, "rejected"),
        ({"status": "CANCELED"}, "canceled"),
    ],
)
def test_a_word_for_each_status(api, device, response, word):
    call(api, SEND, command="reboot")
    if response is not None:
        answer(api, **response)
    assert call(api, STATUS).json == {"success": True, "status": word}


def test_the_status_is_of_the_latest_command(api, device):
    call(api, SEND, command="reboot", ttl=1)
    api.clock.advance(1)
    api.expire()
    assert call(api, STATUS).json["status"] == "timed_out"
    call(api, SEND, command="reboot")
    assert call(api, STATUS).json["status"] == "pending"


def test_there_is_a_word_for_every_status():
    assert WORDS.keys() == set(Status)


def test_what_is_not_there_is_told_in_the_same_envelope(api, device):
    authorized = {"Authorization": f"Bearer {TOKEN}"}
    assert api.post("/v2/nowhere", {}, headers=authorized).json["status"]["code"] == 111
    assert api.get(SEND, headers={}).json["status"]["code"] == 112
    assert api.post("/v2/nowhere", {}, headers={}).json["status"]["code"] == 3


@pytest.mark.parametrize("hash_in", ["header", "query", "body", "form"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_hash_is_taken_from_each_place_that_the_guide_names(api, device, hash_in, slash):
    headers = {"Authorization": f"NVX {TOKEN}"} if hash_in == "header" else {}
    query = f"?hash={TOKEN}" if hash_in == "query" else ""
    fields = {"device_id": device, "command": "reboot"} | (
        {"hash": TOKEN} if hash_in in {"body", "form"} else {}
    )
    if hash_in == "form":
        body = "&".join(f"{name}={value}" for name, value in fields.items()) + "&reliable=True"
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    else:
        body = fields
    reply = api.post(SEND + slash + query, body, headers=headers)
    assert (reply.status, reply.content) == (200, PRINTED_QUEUED)
    known = [
        api.post("/v2/tracker/list" + slash + query, body, headers=headers),
        api.get(SEND + query, headers=headers),
    ]
    assert [reply.json["status"]["code"] for reply in known] == [111, 112]


def test_the_header_goes_before_the_body(api, device):
    body = {"hash": TOKEN, "device_id": device, "command": "reboot"}
    assert api.post(SEND, body, headers={"Authorization": "NVX wrong"}).json["status"]["code"] == 3
    assert api.post(SEND, body | {"hash": "wrong"}, headers={"authorization": f"nvx {TOKEN}"}).status == 200


def test_a_command_that_is_an_object_is_its_name_with_its_params(api, device):
    command = '{"name": "electronic_lock_command", "command": "unlock", "n": 1.10}'
    body = f'{{"hash": "{TOKEN}", "device_id": "{device}", "command": {command}}}'
    assert api.post(SEND, body, headers=JSON).content == PRINTED_QUEUED
    assert (newest(api).action, newest(api).params) == (
        "electronic_lock_command",
        b'{"command":"unlock","n":1.10}',
    )
    for wrong in ({}, {"name": 1}, {"name": "x", "y": 1}):
        extra = {"params": {}} if "y" in wrong else {}
        reply = call(api, SEND, command=wrong, **extra)
        assert reply.json["errors"][0]["parameter"] == ("params" if extra else "command")


def test_params_pass_digit_for_digit(api, device):
    body = f'{{"hash":"{TOKEN}","device_id":"{device}","command":"a","params":{{"n":1.10,"m":12345678901234567890.123}}}}'
    assert api.post(SEND, body, headers=JSON).status == 200
    assert newest(api).params == b'{"n":1.10,"m":12345678901234567890.123}'


@pytest.mark.parametrize(("text", "reliable"), [("True", True), ("1", True), ("false", False), ("0", False)])
def test_reliable_in_a_form_is_what_clients_make_of_it(api, device, text, reliable):
    body = f"hash={TOKEN}&device_id={device}&command=reboot&reliable={text}"
    reply = api.post(SEND, body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status == (200 if reliable else 400)  # nobody is connected: 213


def test_a_limited_token_learns_no_device_beside_its_own(api, device):
    api.know("other")
    api.post(
        "/api/v1/tokens", {"name": "t", "scopes": ["commands:send", "commands:read"], "things": [device]}
    )
    token = api.post("/api/v1/tokens/t/renew", {}).json["token"]
    for path, fields in ((SEND, {"command": "reboot"}), (STATUS, {})):
        there, nowhere = (
            api.post(path, {"hash": token, "device_id": name} | fields, headers={})
            for name in ("other", "none")
        )
        assert (there.status, there.content) == (nowhere.status, nowhere.content)


def test_a_full_queue_is_a_rate_limit(api, device):
    api.bound_queue(1)
    call(api, SEND, command="reboot")
    reply = call(api, SEND, command="reboot")
    assert (reply.status, reply.json["status"]["code"]) == (429, 15)
    assert reply.headers["retry-after"] == "30"


def test_a_body_that_is_too_large_or_no_json(api, device):
    assert call(api, SEND, command="a" * 200_000).json["status"]["code"] == 9
    assert api.post(SEND, b"{", headers=JSON).json["status"]["code"] == 7
    assert api.post(SEND, b"{}", headers={"Content-Type": "text/plain"}).json["status"]["code"] == 5


def test_a_broker_that_fails_says_so_in_the_envelope(api, device, monkeypatch):
    monkeypatch.setattr(api.operations, "send", lambda *_, **__: 1 / 0)
    reply = call(api, SEND, command="reboot")
    assert (reply.status, reply.json) == (
        500,
        {"success": False, "status": {"code": 6, "description": "Unexpected error"}},
    )


def test_codes_and_statuses_are_those_of_the_guide():
    assert {code: status for code, _, status in CODES.values() if status != 400} == {
        6: 500, 8: 503, 9: 412, 13: 403, 15: 429, 204: 404, 208: 403
    }  # fmt: skip
