"""A limited token gets the same answer for what it must not see and for what does not exist."""

from __future__ import annotations

import re

import pytest

from broker.http.running import TOKEN, ClusterApi, RunningApi
from thingctl_broker.http.endpoint_specs import OPERATIONS
from thingctl_broker.things.mqtt_clients import MqttClient

HIDDEN, ABSENT = "vault", "vxxlt"
"""A thing that exists beyond the token, and one that does not exist; names of one length."""

NO_ID = "0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f"
LIMITED_SCOPES = ["commands:send", "commands:read", "commands:cancel", "things:read", "things:write"]
COMMANDS, GROUPS, THINGS = "/api/v1/commands", "/api/v1/groups", "/api/v1/things"

DOORS = {
    "GET /api/v1/commands": [
        ("GET", COMMANDS + "?thingId={thing}", None),
        ("GET", COMMANDS + "?commandId={command}", None),
        ("GET", COMMANDS + "?tag={tag}", None),
        ("GET", COMMANDS + "?cursor={execution}", None),
    ],
    "POST /api/v1/commands": [
        ("POST", COMMANDS, {"thingId": "{thing}", "action": "open"}),
        ("POST", COMMANDS + "?validate=only", {"thingId": "{thing}", "action": "open"}),
        ("POST", COMMANDS + "?wait=1", {"thingId": "{thing}", "action": "open"}),
        *(
            ("POST", COMMANDS, {"action": "open", "dryRun": dry, "targets": targets})
            for dry in (True, False)
            for targets in (
                {"things": ["{thing}"]},
                {"things": ["lamp", "{thing}"]},
                {"type": "{type}"},
                {"tags": ["{tag}"]},
            )
        ),
    ],
    "GET /api/v1/commands/{execution_id}": [
        ("GET", COMMANDS + "/{execution}", None),
        ("GET", COMMANDS + "/{execution}?wait=1", None),
    ],
    "POST /api/v1/commands/{execution_id}/cancel": [("POST", COMMANDS + "/{execution}/cancel", None)],
    "GET /api/v1/groups/{command_id}": [
        ("GET", GROUPS + "/{command}", None),
        ("GET", GROUPS + "/{group}", None),
    ],
    **{
        f"POST /api/v1/groups/{{command_id}}/{verb}": [
            ("POST", GROUPS + "/{command}/" + verb, None),
            ("POST", GROUPS + "/{group}/" + verb, None),
        ]
        for verb in ("pause", "resume", "cancel")
    },
    "GET /api/v1/actions": [
        ("GET", "/api/v1/actions?thingId={thing}", None),
        ("GET", "/api/v1/actions?type={type}", None),
        ("GET", "/api/v1/actions?tag={tag}", None),
    ],
    "GET /api/v1/things": [
        ("GET", THINGS + "?tag={tag}", None),
        ("GET", THINGS + "?type={type}", None),
        ("GET", THINGS + "?cursor={thing}", None),
    ],
    "POST /api/v1/things": [
        ("POST", THINGS, {"name": "{thing}"}),
        ("POST", THINGS, {"name": "{thing}", "type": "nothing"}),
    ],
    "GET /api/v1/things/{name}": [("GET", THINGS + "/{thing}", None)],
    "PUT /api/v1/things/{name}": [("PUT", THINGS + "/{thing}", {}), ("PUT", THINGS + "/{thing}", {"x": 1})],
    "PATCH /api/v1/things/{name}": [
        ("PATCH", THINGS + "/{thing}", {}),
        ("PATCH", THINGS + "/{thing}", {"x": 1}),
    ],
    "DELETE /api/v1/things/{name}": [("DELETE", THINGS + "/{thing}", None)],
    "POST /api/v1/things/{name}/password": [
        ("POST", THINGS + "/{thing}/password", None),
        ("POST", THINGS + "/{thing}/password", {"password": "short"}),
    ],
    "DELETE /api/v1/things/{name}/password": [("DELETE", THINGS + "/{thing}/password", None)],
    "PUT /api/v1/thing-types/{name}": [("PUT", "/api/v1/thing-types/{type}", {})],
    "PATCH /api/v1/thing-types/{name}": [("PATCH", "/api/v1/thing-types/{type}", {})],
    "DELETE /api/v1/thing-types/{name}": [("DELETE", "/api/v1/thing-types/{type}", None)],
    "POST /api/v1/mqtt/authentication": [
        ("POST", "/api/v1/mqtt/authentication", {"username": "{thing}", "password": "x"})
    ],
    "GET /api/v1/mqtt/clients": [
        ("GET", "/api/v1/mqtt/clients", None),
        ("GET", "/api/v1/mqtt/clients?thingId={thing}", None),
        ("GET", "/api/v1/mqtt/clients?text={thing}", None),
        ("GET", "/api/v1/mqtt/clients?cursor={thing}", None),
    ],
    **{
        f"{method} /api/v1/mqtt/clients/{{client_id:path}}": [
            (method, "/api/v1/mqtt/clients/{thing}%2Fdoor", None),
            (method, "/api/v1/mqtt/clients/{thing}/door", None),
            (method, "/api/v1/mqtt/clients/%40{token}%2Fdash", None),
        ]
        for method in ("GET", "DELETE")
    },
    "GET /api/v1/overview": [("GET", "/api/v1/overview", None)],
    "GET /metrics": [("GET", "/metrics", None)],
    **{
        f"{method} /api/v1/tokens{path}": [
            (method, "/api/v1/tokens" + path.replace("{name}", "{token}"), body)
        ]
        for method, path, body in (
            ("GET", "", None),
            ("POST", "", {"name": "{token}", "scopes": ["admin"]}),
            ("GET", "/{name}", None),
            ("DELETE", "/{name}", None),
            ("POST", "/{name}/renew", None),
        )
    },
    **{
        f"{method} {version}/me/devices{path}": [
            (
                method,
                version + "/me/devices" + path.format(device_id="{thing}", command_id="{execution}"),
                body,
            )
        ]
        for version in ("/beta", "/v1.0")
        for method, path, body in (
            ("POST", "/{device_id}/commands", {"type": "LaunchUri", "payload": {"uri": "https://x.example"}}),
            ("GET", "/{device_id}/commands/{command_id}", None),
            ("GET", "/{device_id}/commands/{command_id}/responsePayload", None),
        )
    },
    "GET /beta/me/devices": [("GET", "/beta/me/devices?$filter=name%20eq%20'{thing}'", None)],
    "GET /v1.0/me/devices": [("GET", "/v1.0/me/devices?$filter=name%20eq%20'{thing}'", None)],
    "POST /v2/tracker/send_command": [
        ("POST", "/v2/tracker/send_command", {"hash": "{secret}", "device_id": "{thing}", "command": "open"})
    ],
    "POST /v2/tracker/raw_command/send": [
        ("POST", "/v2/tracker/raw_command/send", {"hash": "{secret}", "device_id": "{thing}", "command": "x"})
    ],
    "POST /v2/tracker/get_command_status": [
        ("POST", "/v2/tracker/get_command_status", {"hash": "{secret}", "device_id": "{thing}"})
    ],
}
"""By endpoint: requests with holes for names."""

WITHOUT_NAMES = {
    "GET /api/v1/events",  # see test_stream: a limited token hears of its own things
    "GET /api/v1/enrolment",
    "GET /api/v1/groups",  # see test_routes_groups: a limited token sees those that it has sent
    "GET /api/v1/me",
    "GET /api/v1/thing-types",  # their counts: see below
    "GET /api/v1/thing-types/{name}",
    "GET /healthz",
    "GET /openapi.json",
    "GET /readyz",
    "POST /api/v1/sign-in",
    "POST /api/v1/sign-in-codes",
}
"""Endpoints whose answer depends on no name of a thing or command."""


class Case:
    """A broker with a hidden thing, its type, tag and commands, and a token for ``lamp`` alone."""

    def __init__(self, running):
        self.running = running
        put = running.request("PUT", "/api/v1/thing-types/safe", {"actions": [{"name": "open"}]})
        assert put.status == 201, put
        defined = {"type": "safe", "tags": ["gold"]}
        assert running.request("PUT", f"/api/v1/things/{HIDDEN}", defined).status == 201
        assert running.request("PUT", "/api/v1/things/other", defined).status == 201
        sent = running.send(HIDDEN, "open", ttl=600)
        group = running.post(COMMANDS, {"action": "open", "targets": {"type": "safe"}, "ttl": 600})
        assert group.status == 202, group
        if running.clients is not None:
            door = MqttClient(client_id=f"{HIDDEN}/door", connected=True, username=HIDDEN, thing=HIDDEN)
            dash = MqttClient(client_id="@spare/dash", connected=True, username="@spare", token="spare")
            running.clients.all = {client.client_id: client for client in (door, dash)}
        spare = running.post("/api/v1/tokens", {"name": "spare", "scopes": ["things:read"]})
        assert spare.status == 201, spare
        made = running.post(
            "/api/v1/tokens", {"name": "limited", "scopes": LIMITED_SCOPES, "things": ["lamp", "lost"]}
        )
        self.secret = made.json["token"]
        self.there = {
            "thing": HIDDEN,
            "type": "safe",
            "tag": "gold",
            "execution": sent["executionId"],
            "command": sent["commandId"],
            "group": group.json["commandId"],
            "token": "spare",
            "secret": self.secret,
        }
        self.absent = {
            **dict.fromkeys(("execution", "command", "group"), NO_ID),
            "thing": ABSENT,
            "type": "sxxe",
            "tag": "gxxd",
            "token": "sxxre",
            "secret": self.secret,
        }

    def ask(self, method, target, body=None):
        return self.running.request(method, target, body, {"Authorization": f"Bearer {self.secret}"})

    def told(self, request, names):
        """The answer, with the names it was asked with blanked."""
        reply = self.ask(*filled(request, names))
        text = reply.content.decode()
        for name in names.values():
            text = re.sub(rf"\b{re.escape(name)}\b", "_", text)
        return reply.status, text, {**reply.headers, "content-length": "", "date": ""}


def filled(part, names):
    if isinstance(part, dict):
        return {key: filled(value, names) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [filled(value, names) for value in part]
    return re.sub(r"\{(\w+)\}", lambda hole: names[hole[1]], part) if isinstance(part, str) else part


@pytest.fixture(scope="module", params=[RunningApi, ClusterApi], ids=["embedded", "cluster"])
def case(request):
    running = request.param()
    try:
        yield Case(running)
    finally:
        running.close()


def test_every_endpoint_is_in_the_table():
    assert {f"{method} {path}" for method, path in OPERATIONS} == DOORS.keys() | WITHOUT_NAMES


@pytest.mark.parametrize("door", DOORS)
def test_what_is_hidden_looks_like_what_does_not_exist(case, door):
    for request in DOORS[door]:
        hidden, absent = case.told(request, case.there), case.told(request, case.absent)
        assert hidden == absent, request


def test_a_thing_types_count_is_of_the_things_that_the_token_covers(case):
    assert case.running.get("/api/v1/thing-types/safe").json["things"] == 2
    assert case.ask("GET", "/api/v1/thing-types/safe").json["things"] == 0
    listed = case.ask("GET", "/api/v1/thing-types").json["thingTypes"]
    assert [found["things"] for found in listed] == [0]


def test_a_token_finds_out_what_it_covers(case):
    lost = case.ask("POST", COMMANDS, {"action": "x", "dryRun": True, "targets": {"things": ["lost"]}})
    assert (lost.status, lost.json["pointer"]) == (400, "/targets/things/0")
    lamp = case.ask("POST", COMMANDS, {"action": "x", "dryRun": True, "targets": {"all": True}})
    assert lamp.json["things"] == ["lamp"]


def test_keys_of_other_callers_mean_nothing(case):
    """An idempotency key that another caller used is as good as a new one."""
    key = {"Idempotency-Key": "theirs"}
    body = {"thingId": "lamp", "action": "turnOn"}
    theirs = case.running.request("POST", COMMANDS, body, {"Authorization": "Bearer " + TOKEN, **key})
    own = case.running.request("POST", COMMANDS, body, {"Authorization": f"Bearer {case.secret}", **key})
    assert (theirs.status, own.status) == (201, 201)
    assert theirs.json["executionId"] != own.json["executionId"]
