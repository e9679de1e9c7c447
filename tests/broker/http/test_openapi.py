"""The description of the API is valid, complete, and true."""

from __future__ import annotations

import json
import re

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import CHECKS

from broker.http.running import AUTHORIZED, TOKEN, RunningApi
from thingctl_broker.http.calls import OPERATIONS, Text
from thingctl_broker.http.openapi import _camel

EXAMPLES = 4
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


def fill(path):
    return path.replace("{name}", "lamp").replace("{device_id}", "lamp").replace("{command_id}", NO_ID)


def closed(schema):
    """The schema without room for what it does not tell."""
    if isinstance(schema, dict):
        inner = {key: closed(value) for key, value in schema.items()}
        if "properties" in schema:
            inner.setdefault("additionalProperties", False)
        return inner
    return [closed(value) for value in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="module")
def running():
    running = RunningApi(things=("lamp", "lock"))
    running.connect("lamp")
    running.call(running.service.announce, "lamp", b'{"agentVersion":"1","actions":[{"name":"turnOn"}]}')
    running.execution = running.send("lamp", "turnOn", ttl=600)
    running.respond(running.execution, status="SUCCEEDED", result={"on": True})
    assert running.request("PUT", "/api/v1/thing-types/lamp", {"actions": []}).status == 201
    assert running.post("/api/v1/tokens", {"name": "lamp", "scopes": ["things:read"]}).status == 201
    yield running
    running.close()


schema = schemathesis.openapi.from_dict(closed(DESCRIPTION))
schema.config.seed = 1
WANTED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)


@schema.exclude(path_regex="|".join(re.escape(path) for _, path in STREAMS)).parametrize()
@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_sent_the_answer_is_as_told(running, case):
    """Valid requests and spoilt ones; every answer has the shape that the description tells."""
    if "thingId" in (body := case.body if isinstance(case.body, dict) else {}) and len(body) % 2:
        case.body["thingId"] = "lamp"  # else hardly one would be accepted
    if "hash" in body:
        case.body["hash"] = TOKEN
    case.headers.update(AUTHORIZED)
    case.call_and_validate(base_url=running.url, checks=CHECKS.get_by_names(WANTED), timeout=10)


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
