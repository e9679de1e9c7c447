"""Graph's dialect: what its page prints, and what it leaves open."""

from __future__ import annotations

import json

import pytest

from broker.http.running import AUTHORIZED, TOKEN
from thingctl_protocol.statuses import Delivery, Status


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    return either


# Requests and responses as the page prints them. The ids differ from run to run; the names of
# fields come in Graph's camel case; the type is told where the page prints null.
PRINTED_LAUNCH = b'{ "type" : "LaunchUri", "payload" : {"uri":"http://bing.com"}}'
PRINTED_LAUNCH_REPLY = """{
  "id": "0158355AD4D680CC4E2994CC009EFFD7337D1B...",
  "Status": "requesting",
  "Type": null,
  "AppServiceName": null,
  "PackageFamilyName": null,
  "Error": null,
  "PermissionTicket": null,
  "PostBackUri": null,
  "Payload": {
    "uri": "http://bing.com"
  }
}"""
PRINTED_CALL = b"""{ "type" : "AppService", "appServiceName" : "com.microsoft.test.cdppingpongservice", "packageFamilyName" : "5085ShawnHenry.RomanTestApp_jsjw7knzsgcce", "payload" : {"Type":"Toast","Title":"Hello","Subtitle":"World!"} }"""
PRINTED_CALL_REPLY = """{
  "id": "0158355AD4D680CC4E2994CC009EFFD7EADA8307E96FF1C8D19B..",
  "Status": "requesting",
  "Type": null,
  "AppServiceName": "com.microsoft.test.cdppingpongservice",
  "PackageFamilyName": "5085ShawnHenry.RomanTestApp_jsjw7knzsgcce",
  "Error": null,
  "PermissionTicket": null,
  "PostBackUri": null,
  "Payload": {
    "Type": "Toast",
    "Title": "Hello",
    "Subtitle": "World!"
  }
}"""
# The template of the section "Request body" and its response, whose values stand for others.
PRINTED_TEMPLATE = """{
  "type": "appService",
  "payload": "payload-JSON",
  "packageFamilyName": "packageFamilyName",
  "appServiceName": "appServiceName",
  "postbackURI": "postbackURI"
}"""
PRINTED_TEMPLATE_REPLY = """{
  "id": "0",
  "status": "requesting",
  "type": "appService",
  "appServiceName": "appServiceName",
  "packageFamilyName": "packageFamilyName",
  "error": "null",
  "responsePayload": "null",
  "payload": "payload-JSON",
  "permissionTicket": "null",
  "postBackUri": "postbackURI"
}"""
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json; charset=utf-8"}
COMMANDS = "/beta/me/devices/lamp/commands"


def lower(fields):
    return {name.lower(): value for name, value in fields.items()}


def newest(api):
    return api.newest()


def send(api, body=PRINTED_LAUNCH):
    reply = api.request("POST", COMMANDS, body, headers=HEADERS)
    assert reply.status == 201, reply
    return reply


def respond(api, **response):
    execution = newest(api)
    payload = json.dumps(response).encode()
    api.answer(execution.thing, execution.execution_id, payload)


@pytest.mark.parametrize(
    ("request_body", "response_body", "type_"),
    [(PRINTED_LAUNCH, PRINTED_LAUNCH_REPLY, "launchUri"), (PRINTED_CALL, PRINTED_CALL_REPLY, "appService")],
    ids=["launch", "app service"],
)
@pytest.mark.parametrize("version", ["beta", "v1.0"])
def test_the_examples_of_the_page(api, version, request_body, response_body, type_):
    path = f"/{version}/me/devices/lamp/commands"
    reply = api.request("POST", path, request_body, headers=HEADERS)
    execution = newest(api)
    told = lower(json.loads(response_body)) | {"id": execution.execution_id, "type": type_}
    assert reply.status == 201
    assert lower(reply.json) == told | {"responsepayload": None}
    assert reply.link == f"{path}/{execution.execution_id}"


def test_the_template_of_the_page_is_the_order_of_fields(api):
    uri = '"https://hooks.example/rome"'
    reply = send(api, PRINTED_TEMPLATE.replace('"postbackURI"\n', f"{uri}\n"))
    told = PRINTED_TEMPLATE_REPLY.replace('"null"', "null").replace('"postbackURI"', uri)
    assert reply.content.decode() == told.replace('"0"', f'"{newest(api).execution_id}"')


def test_what_the_device_is_asked(api):
    send(api)
    assert (newest(api).action, json.loads(newest(api).params)) == ("launchUri", {"uri": "http://bing.com"})
    send(api, PRINTED_CALL)
    assert (newest(api).action, json.loads(newest(api).params)) == (
        "5085ShawnHenry.RomanTestApp_jsjw7knzsgcce/com.microsoft.test.cdppingpongservice",
        {"payload": {"Type": "Toast", "Title": "Hello", "Subtitle": "World!"}},
    )
    assert newest(api).requested_by == "admin"


def test_names_of_fields_are_taken_in_any_case(api):
    send(api, b'{"TYPE":"launchURI","Payload":{"uri":"http://bing.com"}}')
    assert newest(api).action == "launchUri"


def test_a_payload_passes_digit_for_digit(api):
    send(api, PRINTED_CALL.replace(b'"World!"', b"1.50"))
    assert b"1.50" in newest(api).params
    assert b"1.50" in api.get(f"{COMMANDS}/{newest(api).execution_id}").content


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "/type"),
        ({"type": "Explode"}, "/type"),
        ({"type": 1}, "/type"),
        ({"type": "LaunchUri", "payload": "text"}, "/payload"),
        ({"type": "LaunchUri", "appServiceName": "a"}, "/type"),
        ({"type": "AppService", "packageFamilyName": "p"}, "/appServiceName"),
        ({"type": "AppService", "appServiceName": "a"}, "/packageFamilyName"),
        ({"type": "AppService", "appServiceName": "a b", "packageFamilyName": "p"}, "/appServiceName"),
        ({"type": "AppService", "appServiceName": "a/b", "packageFamilyName": "p"}, "/appServiceName"),
        ({"type": "LaunchUri", "nonsense": 1}, "/nonsense"),
        ({"type": "LaunchUri", "payload": {}, "postbackURI": "postbackURI"}, "/postBackUri"),
        ({"type": "LaunchUri", "Type": "LaunchUri"}, "/Type"),
    ],
)
def test_what_is_wrong_is_told_in_the_envelope_of_graph(api, body, place):
    reply = api.post(COMMANDS, body)
    assert (reply.status, reply.json["error"]["code"]) == (400, "invalidRequest")
    assert reply.json.keys() == {"error"}
    assert reply.json["error"].keys() == {"code", "message"}
    assert reply.json["error"]["message"].startswith(f"{place}: ")


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object(api, body):
    reply = api.request("POST", COMMANDS, body, headers=HEADERS)
    assert (reply.status, reply.json["error"]["code"]) == (400, "invalidRequest")


def test_status_and_response_payload(api):
    send(api)
    command = f"{COMMANDS}/{newest(api).execution_id}"
    reply = api.get(command)
    assert (reply.status, reply.json["status"], reply.json["responsePayload"]) == (200, "requesting", None)
    reply = api.get(command + "/responsePayload")
    assert (reply.status, reply.json["error"]["code"]) == (404, "itemNotFound")
    respond(api, status="SUCCEEDED", result={"opened": True})
    reply = api.get(command)
    assert (reply.json["status"], reply.json["responsePayload"]) == ("completed", {"opened": True})
    reply = api.get(command + "/responsePayload")
    assert (reply.status, reply.json) == (200, {"opened": True})


def test_an_error_is_told(api):
    send(api)
    respond(api, status="FAILED", statusReason={"reasonCode": "NO_DISPLAY", "reasonDescription": "it is off"})
    reply = api.get(f"{COMMANDS}/{newest(api).execution_id}")
    assert (reply.json["status"], reply.json["error"]) == ("executionFailed", "NO_DISPLAY: it is off")


def test_words_of_delivery_and_cancel(api):
    api.connect("lamp")
    send(api)
    command = f"{COMMANDS}/{newest(api).execution_id}"
    assert newest(api).delivery is Delivery.PUBLISHED
    assert api.get(command).json["status"] == "sentToTarget"
    respond(api, status="IN_PROGRESS")
    assert api.get(command).json["status"] == "executing"
    api.post(f"/api/v1/commands/{newest(api).execution_id}/cancel")
    assert api.get(command).json["status"] == "cancelling"
    respond(api, status="CANCELED")
    assert api.get(command).json["status"] == "canceled"
    send(api)
    respond(api, status="REJECTED")
    assert api.get(f"{COMMANDS}/{newest(api).execution_id}").json["status"] == "commandDropped"


@pytest.mark.parametrize(("connected", "word"), [(True, "expired"), (False, "failedToSend")])
def test_words_of_time_outs(api, connected, word):
    if connected:
        api.connect("lamp")
    send(api)
    api.clock.advance(newest(api).ttl)
    api.expire()
    assert newest(api).status is Status.TIMED_OUT
    assert api.get(f"{COMMANDS}/{newest(api).execution_id}").json["status"] == word


def both(**fields):
    """Each field as the list's page names it and as its example prints it."""
    return fields | {name.capitalize(): value for name, value in fields.items()}


def test_devices_in_the_spelling_of_the_page_and_in_that_of_its_clients(api):
    api.connect("lamp")
    reply = api.get("/v1.0/me/devices")
    unknown = {"platform": "Unknown", "kind": "Unknown", "model": None, "manufacturer": None}
    assert (reply.status, reply.json) == (
        200,
        {
            "value": [
                {"id": "lamp"} | both(name="lamp", status="Online", **unknown),
                {"id": "lock"} | both(name="lock", status="Offline", **unknown),
            ]
        },
    )


@pytest.mark.parametrize(
    "path",
    [
        "/beta/me/devices/",
        "/v1.0/me/devices/?$top=1000",
        "/beta/me/devices?$select=Name,status",
        "/beta/me/devices?$filter=Status%20eq%20'Online'",
        "/beta/me/devices?$count=true&$orderby=name&$format=json&$expand=x",
    ],
)
def test_what_public_clients_ask_for_is_answered(api, path):
    api.connect("lamp")
    reply = api.get(path)
    assert reply.status == 200, reply
    assert (reply.json["value"][0]["Name"], reply.json["value"][0]["Status"]) == ("lamp", "Online")


def test_options_of_a_list_are_served(api):
    api.connect("lamp")
    assert [d["id"] for d in api.get("/beta/me/devices?$filter=status%20eq%20'offline'").json["value"]] == [
        "lock"
    ]
    assert api.get("/beta/me/devices?$select=NAME").json["value"][0] == {"name": "lamp", "Name": "lamp"}
    link = api.get("/beta/me/devices?$top=1&$select=id").json["@odata.nextLink"]
    assert api.get(link.removeprefix(api.url)).json["value"] == [{"id": "lock"}]


def test_a_filter_that_is_not_understood_lists_nothing(api):
    reply = api.get("/beta/me/devices?$filter=platform%20eq%20'Windows'")
    assert (reply.status, reply.json["error"]["code"]) == (400, "invalidRequest")


@pytest.mark.parametrize(
    "fields",
    [
        {"@odata.type": "#microsoft.graph.command", "id": "1", "status": None, "error": None},
        {"packageFamilyName": "", "appServiceName": "", "postBackUri": ""},
        {"PermissionTicket": None, "ResponsePayload": None},
    ],
)
def test_fields_that_typed_clients_send_are_taken(api, fields):
    reply = api.post(COMMANDS + "/?$format=json", {"type": "LaunchUri", "payload": {}} | fields)
    assert reply.status == 201, reply
    assert newest(api).post_back_uri == ""


def test_command_in_the_singular_is_the_same(api):
    path = "/beta/me/devices/command/command"  # also of a device of that name
    api.know("command")
    reply = api.post(path, {"type": "LaunchUri", "payload": {}})
    assert reply.link == f"/beta/me/devices/command/commands/{newest(api).execution_id}"
    for ending in ("/", "s", "s/"):
        reply = api.post(path + ending, {"type": "LaunchUri", "payload": {}})
        assert reply.link == f"/beta/me/devices/command/commands/{newest(api).execution_id}"
    assert api.get(f"{path}/{newest(api).execution_id}/").json["status"] == "requesting"


def test_a_limited_token_learns_no_device_beside_its_own(api):
    api.post(
        "/api/v1/tokens", {"name": "t", "scopes": ["commands:send", "commands:read"], "things": ["lamp"]}
    )
    token = api.post("/api/v1/tokens/t/renew", {}).json["token"]
    replies = [
        api.request(
            "POST",
            f"/beta/me/devices/{device}/commands",
            {"type": "LaunchUri"},
            headers={"Authorization": f"Bearer {token}"},
        )
        for device in ("lock", "nobody")
    ]
    assert replies[0].status == 404
    assert replies[0].content == replies[1].content


def test_devices_by_pages(api):
    first = api.get("/beta/me/devices?$top=1").json
    assert [device["name"] for device in first["value"]] == ["lamp"]
    link = first["@odata.nextLink"]
    assert link.startswith(api.url)
    second = api.get(link.removeprefix(api.url)).json
    assert [device["name"] for device in second["value"]] == ["lock"]
    assert "@odata.nextLink" not in second
    assert api.get("/beta/me/devices?$top=0").status == 400


def test_a_command_is_its_device_s(api):
    send(api)
    execution_id = newest(api).execution_id
    for path in (
        f"/beta/me/devices/lock/commands/{execution_id}",
        f"/beta/me/devices/nobody/commands/{execution_id}",
        f"{COMMANDS}/nothing",
        f"{COMMANDS}/no%20id",
        "/beta/me/nothing",
    ):
        reply = api.get(path)
        assert (reply.status, reply.json["error"]["code"]) == (404, "itemNotFound"), path
    assert api.post("/beta/me/devices/nobody/commands", {"type": "LaunchUri"}).status == 404


def test_whoever_calls_needs_a_token(api):
    reply = api.get("/beta/me/devices", headers={})
    assert (reply.status, reply.json["error"]["code"]) == (401, "unauthenticated")
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert api.get("/beta/me/devices", headers=AUTHORIZED).status == 200


def test_a_method_that_the_path_does_not_take(api):
    reply = api.post("/beta/me/devices", {})
    assert (reply.status, reply.json["error"]["code"]) == (405, "notAllowed")
    assert reply.headers["allow"] == "GET, HEAD"


def test_a_command_of_the_other_api_is_shown_too(api):
    execution = api.send("lamp", "dim", params={"to": 5})
    reply = api.get(f"{COMMANDS}/{execution['executionId']}")
    assert (reply.json["type"], reply.json["payload"]) == ("dim", {"to": 5})
    api.send("lamp", "a/b", params={"payload2": 1})
    assert api.get(f"{COMMANDS}/{newest(api).execution_id}").json["payload"] is None
