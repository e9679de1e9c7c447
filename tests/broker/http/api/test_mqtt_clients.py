"""``/api/v1/mqtt/clients`` over real HTTP."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from broker.http.running import ClusterApi
from broker.http.test_problems import check_problem
from thingctl_broker.http import problems
from thingctl_broker.things.mqtt_clients import Carrier, ClientSubscription, MqttClient

PATH = "/api/v1/mqtt/clients"
AT = 1_748_390_400.0

LAMP = MqttClient(
    client_id="lamp/x 1",
    connected=True,
    username="lamp",
    thing="lamp",
    version="5",
    address="192.0.2.1:50000",
    carrier=Carrier.TLS,
    connected_at=AT,
    heard_at=AT + 5,
    keep_alive=60,
    session_expiry=3600,
    subscriptions=2,
    filters=(
        ClientSubscription("$emqx/commands/things/lamp/#", 1, command=True),
        ClientSubscription("news/#", 2, no_local=True, subscription_id=7),
    ),
    queued_messages=3,
    in_flight=1,
    waiting_bytes=4096,
    bytes_received=100,
    bytes_sent=200,
    dropped={"queueFull": 2},
)
LOCK = MqttClient(
    client_id="lock/1", connected=False, username="lock", thing="lock", session_expiry=60, away_since=AT
)
DASH = MqttClient(client_id="@dash/1", connected=True, username="@dash", token="dash", version="3.1.1")


@pytest.fixture
def clients(api):
    api.clients.all = {client.client_id: client for client in (LAMP, LOCK, DASH)}
    return api.clients


def ids(reply):
    assert reply.status == 200, reply
    return [client["clientId"] for client in reply.json["clients"]]


def test_clients_are_listed_by_id_page_by_page(api, clients):
    assert ids(api.get(PATH)) == ["@dash/1", "lamp/x 1", "lock/1"]
    page = api.get(PATH + "?limit=2").json
    assert page["nextCursor"] == "lamp/x 1"
    rest = api.get(PATH + "?limit=2&cursor=lamp/x%201")
    assert (ids(rest), rest.json["nextCursor"]) == (["lock/1"], None)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("thingId=lamp", ["lamp/x 1"]),
        ("connected=false", ["lock/1"]),
        ("connected=true&text=DASH", ["@dash/1"]),
        ("text=l&connected=true", ["lamp/x 1"]),
        ("text=nothing", []),
    ],
)
def test_filters(api, clients, query, found):
    assert ids(api.get(f"{PATH}?{query}")) == found


@pytest.mark.parametrize("sort", ["-waitingBytes", "-dropped"])
def test_those_with_the_most_come_first_page_by_page(api, clients, sort):
    found, cursor = [], ""
    while cursor is not None:
        page = api.get(f"{PATH}?limit=1&sort={sort}" + (f"&cursor={quote(cursor)}" if cursor else "")).json
        found += [client["clientId"] for client in page["clients"]]
        cursor = page["nextCursor"]
    assert found == ["lamp/x 1", "@dash/1", "lock/1"]


@pytest.mark.parametrize(
    "query",
    [
        "sort=address",
        "cursor=lamp&sort=-dropped",
        "connected=yes",
        "text=",
        "thingId=a/b",
        "cursor=",
        "text=" + "x" * 257,
    ],
)
def test_a_wrong_filter_is_refused(api, clients, query):
    reply = api.get(f"{PATH}?{query}")
    check_problem(reply, problems.INVALID_PARAMETER, parameter=query.partition("=")[0])


def test_one_client_is_shown_with_its_filters(api, clients):
    shown = api.get(PATH + "/lamp%2Fx%201").json
    assert shown == {
        "clientId": "lamp/x 1",
        "connected": True,
        "username": "lamp",
        "thingId": "lamp",
        "mqttVersion": "5",
        "address": "192.0.2.1:50000",
        "transport": "tls",
        "connectedAt": "2025-05-28T00:00:00.000Z",
        "lastHeardAt": "2025-05-28T00:00:05.000Z",
        "keepAlive": 60,
        "sessionExpiry": 3600,
        "subscriptions": 2,
        "queuedMessages": 3,
        "inFlight": 1,
        "waitingBytes": 4096,
        "bytesReceived": 100,
        "bytesSent": 200,
        "dropped": {"queueFull": 2},
        "filters": [
            {"filter": "$emqx/commands/things/lamp/#", "qos": 1, "command": True},
            {"filter": "news/#", "qos": 2, "noLocal": True, "subscriptionId": 7},
        ],
    }
    assert api.get(PATH + "/lamp/x%201").json == shown
    listed = api.get(PATH + "?thingId=lamp").json["clients"][0]
    assert listed == {name: value for name, value in shown.items() if name != "filters"}


def test_a_client_that_is_away_says_since_when_and_until_when_it_is_kept(api, clients):
    shown = api.get(PATH + "/lock%2F1").json
    assert (shown["awaySince"], shown["sessionExpiresAt"], shown["filters"]) == (
        "2025-05-28T00:00:00.000Z",
        "2025-05-28T00:01:00.000Z",
        [],
    )
    assert shown.keys().isdisjoint({"keepAlive", "connectedAt", "mqttVersion"})


def test_a_session_that_never_expires_says_null(api, clients):
    clients.all["x"] = MqttClient(client_id="x", connected=False, session_expiry=None, away_since=AT)
    shown = api.get(PATH + "/x").json
    assert shown["sessionExpiry"] is None
    assert "sessionExpiresAt" not in shown


def test_a_kick_ends_the_connection_and_then_the_session(api, clients):
    assert api.request("DELETE", PATH + "/lamp%2Fx%201").status == 204
    assert clients.kicked == ["lamp/x 1"]
    again = api.request("DELETE", PATH + "/lamp%2Fx%201")
    check_problem(again, problems.CLIENT_AWAY)
    assert api.request("DELETE", PATH + "/lamp%2Fx%201?session=true").status == 204
    check_problem(api.get(PATH + "/lamp%2Fx%201"), problems.UNKNOWN_CLIENT)
    check_problem(api.request("DELETE", PATH + "/lamp%2Fx%201?session=true"), problems.UNKNOWN_CLIENT)


@pytest.mark.parametrize("path", ["/", "/nosuch", "/lamp", "/%20"])
def test_an_id_that_is_no_clients_is_unknown(api, clients, path):
    check_problem(api.get(PATH + path), problems.UNKNOWN_CLIENT)


def test_a_token_for_some_things_sees_and_kicks_only_their_clients(api, clients):
    limits = {"name": "l", "scopes": ["things:read", "things:write"], "things": ["la*"]}
    secret = api.post("/api/v1/tokens", limits).json["token"]
    headers = {"Authorization": f"Bearer {secret}"}
    assert ids(api.get(PATH, headers=headers)) == ["lamp/x 1"]
    for client_id in ("lock%2F1", "%40dash%2F1"):
        check_problem(api.get(f"{PATH}/{client_id}", headers=headers), problems.UNKNOWN_CLIENT)
        kicked = api.request("DELETE", f"{PATH}/{client_id}?session=true", headers=headers)
        check_problem(kicked, problems.UNKNOWN_CLIENT)
    assert api.request("DELETE", PATH + "/lamp%2Fx%201", headers=headers).status == 204
    assert clients.kicked == ["lamp/x 1"]


def test_a_worker_says_whose_the_clients_are():
    running = ClusterApi()
    try:
        for method, path in (("GET", ""), ("GET", "/x"), ("DELETE", "/x")):
            reply = running.request(method, PATH + path)
            check_problem(reply, problems.CLIENTS_ELSEWHERE)
            assert "cluster" in reply.json["detail"]
    finally:
        running.close()
