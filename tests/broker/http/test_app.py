"""What holds for the application as a whole."""

from __future__ import annotations

import pytest

from broker.http.running import AUTHORIZED
from thingctl_broker.http.response import SECURITY_HEADERS


def test_health_needs_no_token(api):
    reply = api.get("/healthz", headers={})
    assert (reply.status, reply.json) == (200, {"status": "ok"})


@pytest.mark.parametrize("target", ["/healthz", "/api/v1/commands", "/api/v1/things"])
def test_answers_are_not_to_be_cached_or_taken_for_a_document(api, target):
    headers = api.get(target).headers
    assert headers["content-type"] == "application/json"
    for name, value in SECURITY_HEADERS:
        assert headers[name.decode()] == value.decode()
    assert "server" not in headers
    assert "date" in headers


@pytest.mark.parametrize("target", ["/healthz", "/api/v1/commands", "/api/v1/things"])
def test_head_is_get_without_a_body(api, target):
    head, get = api.request("HEAD", target), api.get(target)
    assert (head.status, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


def test_post_goes_the_short_way_and_the_router_knows_it_too(api):
    """The same endpoint, so that Allow and a description of the API can be had from the routes."""
    (route,) = (r for r in api.app.routes if r.path == "/api/v1/commands" and "POST" in r.methods)
    assert route.endpoint == api.app._commands.send_routed


async def test_the_routed_post_is_the_same_post(api):
    async def receive():
        return {"type": "http.request", "body": b'{"thingId":"lamp","action":"turnOn"}'}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/commands",
        "raw_path": b"/api/v1/commands",
        "query_string": b"",
        "headers": [(b"authorization", AUTHORIZED["Authorization"].encode())],
        "token": api.tokens.verify(AUTHORIZED["Authorization"].removeprefix("Bearer ")),
        "app": api.app,
    }
    await api.app._router(scope, receive, send)
    assert sent[0]["status"] == 201


def test_the_scheme_of_a_token_is_not_case_sensitive(api):
    token = AUTHORIZED["Authorization"].removeprefix("Bearer ")
    for scheme in ("bearer", "BEARER", "Bearer  "):
        assert api.get("/api/v1/things", headers={"Authorization": f"{scheme} {token}"}).status == 200


def test_options_for_the_server_as_a_whole_needs_no_token(api):
    with api.raw() as sock:
        sock.sendall(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 204 ")


def test_no_page_of_another_origin_may_call(api):
    origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for method, headers in (("OPTIONS", origin), ("GET", origin), ("GET", origin | AUTHORIZED)):
        reply = api.request(method, "/api/v1/things", headers=headers)
        assert reply.status in {200, 401}
        assert not [name for name in reply.headers if name.startswith("access-control")]
