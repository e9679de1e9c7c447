"""docs/http-api.md says what is so: its examples run, its tables are complete."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from broker.http.running import AUTHORIZED, RunningApi
from thingctl_broker.commands.execution_resource import ExecutionResource
from thingctl_broker.http import query, request_body
from thingctl_broker.http.app import OPEN_PATHS
from thingctl_broker.http.openapi import _camel
from thingctl_broker.http.problems import KINDS
from thingctl_broker.http.server import connection, server
from thingctl_broker.rollouts import runner
from thingctl_broker.security.tokens import Scope
from thingctl_broker.things.mqtt_clients import Carrier, ClientSubscription, MqttClient
from thingctl_protocol.limits import PAYLOAD_MAX, TTL_DEFAULT, TTL_MAX

PAGE = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text(encoding="utf-8")
STEP = re.compile(
    r"^<!-- the thing answers: (?P<answer>.+?) -->$"
    r"|^```http\n(?P<request>.+?)^```\n```http\n(?P<reply>.+?)^```$",
    re.MULTILINE | re.DOTALL,
)
ANY = "\N{HORIZONTAL ELLIPSIS}"


CLIENT = MqttClient(
    client_id="thermostat-001/attic",
    connected=True,
    username="thermostat-001",
    thing="thermostat-001",
    version="3.1.1",
    address="192.0.2.17:50112",
    carrier=Carrier.TLS,
    connected_at=1.0,
    heard_at=2.0,
    keep_alive=60,
    session_expiry=604800,
    subscriptions=2,
    filters=(
        ClientSubscription("$emqx/commands/things/thermostat-001/executions/+/request", 1, command=True),
        ClientSubscription("weather/#", 1),
    ),
    in_flight=1,
    waiting_bytes=412,
    bytes_received=2210,
    bytes_sent=48817,
    dropped={"queueFull": 3},
)


def parts(block):
    head, _, body = block.partition("\n\n")
    first, *headers = head.splitlines()
    return first, dict(header.split(": ", 1) for header in headers), body.strip()


def is_as_told(told, found):
    """Whether ``found`` is what the page tells, where an ellipsis stands for anything."""
    if told == ANY:
        return True
    if isinstance(told, dict):
        keys = told.keys() - {ANY}
        return (keys <= found.keys() if ANY in told else keys == found.keys()) and all(
            is_as_told(told[key], found[key]) for key in keys
        )
    if isinstance(told, list):
        return len(told) == len(found) and all(map(is_as_told, told, found))
    return told == found


def readable(body):
    """The body with bare ellipses made JSON."""
    body = body.replace(f", {ANY}}}", f', "{ANY}": "{ANY}"}}')
    return json.loads(re.sub(rf'(?<!")(?<!"tctl_){ANY}(?!")', f'"{ANY}"', body))


@pytest.fixture
def api():
    running = RunningApi(things=("thermostat-001", "thermostat-002"))
    running.call(running.service.connected, "thermostat-001", "thermostat-001")
    running.call(running.service.reachable, "thermostat-001")
    running.clients.all[CLIENT.client_id] = CLIENT
    running.call(running.service.announce, "thermostat-001", b'{"actions":[{"name":"setTemperature"}]}')
    yield running
    running.close()


def test_every_example_runs(api):
    first = None
    steps = list(STEP.finditer(PAGE))
    assert len(steps) == PAGE.count("```http") / 2 + PAGE.count("<!-- the thing answers")
    for step in steps:
        if step["answer"]:
            api.respond(first, **json.loads(step["answer"]))
            continue
        line, headers, body = parts(step["request"])
        method, target = line.split()
        target = target.replace("{executionId}", first["executionId"] if first else "")
        authorized = {} if target in OPEN_PATHS else AUTHORIZED
        reply = api.request(method, target, body or None, headers=authorized | headers)
        status, told_headers, told = parts(step["reply"])
        assert reply.status == int(status), step[0]
        for name, value in told_headers.items():
            assert re.fullmatch(re.escape(value).replace(ANY, "[^ ]+"), reply.headers[name.lower()])
        assert is_as_told(readable(told), reply.json), (step[0], reply.json)
        if reply.status == 201 and first is None:
            first = reply.json


def test_every_endpoint_is_there(api):
    for route in api.app.routes:
        path = _camel(route.path)
        assert any(re.search(rf"{method} {re.escape(path)}[`?\n]", PAGE) for method in route.methods), path


def test_every_kind_of_problem_is_in_the_table():
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert rows == [(kind.name, str(kind.status), kind.title) for kind in KINDS]


def test_every_field_of_an_execution_is_explained():
    for field in ExecutionResource.__struct_encode_fields__:
        assert re.search(rf"`{field}`", PAGE) or field in {"executionId", "commandId"}, field


def test_the_limits_are_the_limits():
    limits = dict(re.findall(r"^\| ([a-z ]+) \| (\d+) ?(?:bytes|s)?.* \|$", PAGE, re.MULTILINE))
    assert limits == {
        "request body": str(request_body.BODY_MAX),
        "request line and headers": str(connection.HEAD_MAX),
        "time for a request to arrive": f"{connection.REQUEST_TIMEOUT_SECONDS:g}",
        "time that an answer may lie unread": f"{connection.STALL_TIMEOUT_SECONDS:g}",
        "idle connection": str(server.KEEP_ALIVE),
        "connections": str(connection.CONNECTIONS_MAX),
        "connections from one address": str(connection.CONNECTIONS_PER_ADDRESS),
        "commands to many things that are remembered": str(runner.ROLLOUTS_MAX),
    }
    for told in (
        f"{PAYLOAD_MAX} bytes",
        f"from 1 to {TTL_MAX} until",
        f"{TTL_DEFAULT} if not given",
        f"1 to {query.LIMIT_MAX}; {query.LIMIT_DEFAULT} if not given",
        f"at most {query.WAIT_MAX:g})",
    ):
        assert told in PAGE, told


def test_every_scope_is_told():
    told = re.findall(
        r"^\| `([a-z:]+)` \| ", PAGE.partition("| scope | for |")[2].partition("\n\n")[0], re.MULTILINE
    )
    assert sorted(told) == sorted(Scope)
