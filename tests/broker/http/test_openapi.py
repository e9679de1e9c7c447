"""The description of the API is valid, complete, and true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from broker.http import api_checks
from broker.http.api_checks import REPLACED
from broker.http.running import TOKEN, ClusterApi, RunningApi
from thingctl_broker.http.api.events import EVENTS
from thingctl_broker.http.endpoint_specs import OPERATIONS, Text
from thingctl_broker.http.openapi import _camel, describe
from thingctl_broker.security.tokens import Scope
from thingctl_broker.things.mqtt_clients import ClientSubscription, MqttClient
from thingctl_protocol.limits import TTL_MAX

EXAMPLES = 3
NO_ID = "0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f"


def routes_of(app):
    routes = [*app.routes, *(route for dialect in app.dialects for route in dialect.routes())]
    return {(method, route.path) for route in routes for method in route.methods - {"HEAD"}}


def describe_a_broker():
    running = RunningApi()
    try:
        return json.loads(running.get("/openapi.json", headers={}).content), routes_of(running.app)
    finally:
        running.close()


DESCRIPTION, ROUTES = describe_a_broker()
STREAMS = {
    key for key, known in OPERATIONS.items() if any(isinstance(a, Text) for a in known.answers.values())
}


def test_it_is_openapi_3_1():
    assert DESCRIPTION["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(DESCRIPTION).validate()


def test_the_longest_ttl_is_that_of_the_settings():
    described = json.loads(describe([], 60))
    assert described["components"]["schemas"] == {}
    running = RunningApi()
    try:
        document = json.loads(describe(running.app.routes, 120))
    finally:
        running.close()

    def maxima(schemas):
        ttls = [schema.get("properties", {}).get("ttl", {}) for schema in schemas.values()]
        return [c["maximum"] for ttl in ttls for c in (ttl, *ttl.get("anyOf", ())) if "maximum" in c]

    assert set(maxima(document["components"]["schemas"])) == {120}
    assert set(maxima(DESCRIPTION["components"]["schemas"])) == {TTL_MAX}


def test_every_route_is_described_and_nothing_else():
    described = {
        (method.upper(), path) for path, methods in DESCRIPTION["paths"].items() for method in methods
    }
    assert described == {(method, _camel(path)) for method, path in ROUTES}
    assert OPERATIONS.keys() == ROUTES


def test_every_call_has_a_name_of_its_own_and_a_summary():
    calls = [call for methods in DESCRIPTION["paths"].values() for call in methods.values()]
    names = [call["operationId"] for call in calls]
    assert len(set(names)) == len(names)
    for call in calls:
        assert call["summary"], call["operationId"]
        assert len(call["responses"]) > 1, call["operationId"]


def schemas_in(value):
    """Every schema and part of one, at any depth."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from schemas_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from schemas_in(inner)


def properties(schema):
    return DESCRIPTION["components"]["schemas"][schema]["properties"]


def test_generators_take_what_may_be_left_out_for_optional():
    """openapi-typescript takes a property with a ``default`` for always there."""
    found = DESCRIPTION["components"]["schemas"].values()
    told = [one for schema in found for one in schema.get("properties", {}).values()]
    assert not [one for one in told if "default" in one]
    assert properties("NewThingBody")["enabled"]["description"] == "When left out: true."
    assert DESCRIPTION["components"]["schemas"]["NewThingBody"]["required"] == ["name"]


def test_generators_take_free_objects_for_free():
    """Without ``additionalProperties`` openapi-typescript takes an object for an empty one."""
    objects = [one for one in schemas_in(DESCRIPTION["components"]) if one.get("type") == "object"]
    assert objects
    assert not [one for one in objects if "properties" not in one and not one.get("additionalProperties")]
    assert properties("ExecutionResource")["params"] == {"type": "object", "additionalProperties": True}


def test_times_are_told_as_times():
    told = {
        name: one
        for schema in DESCRIPTION["components"]["schemas"].values()
        for name, one in schema.get("properties", {}).items()
        if name.endswith(("At", "Seen", "Until")) or name in {"at", "since"}
    }
    assert {"at", "createdAt", "expiresAt", "lastSeen", "since", "validUntil"} <= told.keys()
    assert not [name for name, one in told.items() if "date-time" not in json.dumps(one)]


def test_the_limits_of_requests_are_told():
    command, token = properties("CommandBody"), properties("TokenBody")
    assert command["thingId"]["pattern"] == "^[A-Za-z0-9:_.-]{1,128}$"
    assert command["action"]["pattern"] == "^[A-Za-z0-9:_./-]{1,128}$"
    assert command["ttl"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 604_800}
    assert set(token["scopes"]["items"]["enum"]) == set(Scope)
    assert properties("NewThingBody")["password"]["anyOf"][0]["minLength"] == 16
    assert properties("LaunchUriBody")["type"]["enum"] == ["LaunchUri"]


def test_a_new_password_needs_no_body():
    described = DESCRIPTION["paths"]["/api/v1/things/{name}/password"]["post"]
    assert described["requestBody"]["required"] is False
    assert DESCRIPTION["paths"]["/api/v1/things"]["post"]["requestBody"]["required"] is True


def test_no_text_has_markup():
    told = [
        one[key]
        for one in schemas_in(DESCRIPTION)
        for key in ("summary", "description")
        if isinstance(one.get(key), str)
    ]
    assert not [text for text in told if "`" in text or ":class:" in text]


def fill(path):
    path = path.replace("{client_id:path}", "lamp%2F1")
    return path.replace("{name}", "lamp").replace("{device_id}", "lamp").replace("{command_id}", NO_ID)


def closed(schema):
    """The schema without room for what it does not tell."""
    if isinstance(schema, dict):
        inner = {key: closed(value) for key, value in schema.items()}
        if "properties" in schema:
            inner.setdefault("additionalProperties", False)
        return inner
    return [closed(value) for value in schema] if isinstance(schema, list) else schema


def prepare(running):
    """Let there be one of each kind of resource."""
    running.connect("lamp")
    running.announce("lamp", b'{"agentVersion":"1","actions":[{"name":"turnOn"}]}')
    running.execution = running.send("lamp", "turnOn", ttl=600)
    running.respond(running.execution, status="SUCCEEDED", result={"on": True})
    assert running.request("PUT", "/api/v1/thing-types/lamp", {"actions": []}).status == 201
    assert running.post("/api/v1/tokens", {"name": "lamp", "scopes": ["things:read"]}).status == 201
    if running.clients is not None:
        running.clients.all["lamp/1"] = MqttClient(
            client_id="lamp/1", connected=True, filters=(ClientSubscription("news/#", 2, no_local=True),)
        )


@pytest.fixture(scope="module")
def running():
    running = RunningApi(things=("lamp", "lock"))
    prepare(running)
    yield running
    running.close()


def schemathesis(running, folder, *options):
    """Run schemathesis with all its checks; return what it found."""
    (folder / "openapi.json").write_text(json.dumps(closed(DESCRIPTION)))
    command = [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", running.url]
    checks = ["--checks", "all", "--exclude-checks", ",".join(REPLACED), "--exclude-path", EVENTS]
    quiet = ["--no-color", "--no-shrink", "--continue-on-failure", "--warnings", "off", "--seed", "1"]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": api_checks.__name__,
        "THINGCTL_TEST_TOKEN": TOKEN,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    return subprocess.run(
        [*command, *checks, *quiet, "--header", f"Authorization: Bearer {TOKEN}", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("of", [RunningApi, ClusterApi], ids=["embedded", "cluster"])
def test_schemathesis_finds_nothing(of, tmp_path):
    """``THINGCTL_SCHEMATHESIS=180`` lets it search for so many seconds in every way it knows."""
    seconds = os.environ.get("THINGCTL_SCHEMATHESIS")
    options = (
        ["--max-time", seconds]
        if seconds
        else ["--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES)]
    )
    running = of()
    try:
        prepare(running)
        found = schemathesis(running, tmp_path, *options)
    finally:
        running.close()
    print(found.stdout)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("method", "path"),
    sorted(key for key in ROUTES if key[0] == "GET" and key not in STREAMS),
    ids=lambda value: value,
)
def test_one_success_shape(running, method, path):
    """What is read is one JSON object, with nothing in it that is not described."""
    target = fill(path).replace(NO_ID, "{id}").replace("{execution_id}", "{id}")
    wanted = "commandId" if "/groups/" in path else "executionId"
    reply = running.get(target.replace("{id}", running.execution[wanted]))
    assert reply.status == 200, reply
    assert reply.headers["content-type"] == "application/json"
    assert isinstance(reply.json, dict)
    answer = OPERATIONS[method, path].answers[200]
    if answer is not None:
        from jsonschema import Draft202012Validator

        whole = closed(DESCRIPTION)
        Draft202012Validator(
            {"$ref": f"#/components/schemas/{answer.__name__}", "components": whole["components"]}
        ).validate(reply.json)


def test_the_server_is_where_the_description_is():
    """A proxy may serve both under a path of its own."""
    assert DESCRIPTION["servers"] == [{"url": "./"}]
