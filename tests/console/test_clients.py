"""MQTT clients: who is there, what waits for each, and the end of a connection."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from urllib.parse import quote

import paho.mqtt.client as mqtt
import pytest
from playwright.sync_api import expect

from console.looking import Looking
from support.processes import TOKEN, serving
from support.waits import soon


@contextmanager
def listening(address, client_id, *filters, version=mqtt.MQTTv311, **connecting):
    """An MQTT client with subscriptions; it notes why its connection ended."""
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=version,
        **({} if version == mqtt.MQTTv5 else {"clean_session": False}),
    )
    client.reasons = []
    client.subscribed = False
    client.on_connect = lambda *_: client.subscribe([(name, 1) for name in filters])
    client.on_subscribe = lambda *_: setattr(client, "subscribed", True)
    client.on_disconnect = lambda _client, _data, _flags, reason, _properties: client.reasons.append(reason)
    client.connect(*address, **connecting)
    client.loop_start()
    try:
        soon(lambda: client.subscribed)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.fixture
def reader(broker, api):
    """A client whose session is kept, with a subscription."""
    with listening(broker.mqtt_address, "reader/1", "news/#") as client:
        yield client
    api.call("DELETE", f"mqtt/clients/{quote('reader/1', safe='')}?session=true")


def row_of(page, client_id):
    return page.locator(".canvas .tr", has=page.get_by_role("link", name=client_id, exact=True))


def test_clients_are_listed_as_they_come_and_go(look, broker, reader):
    page = look("#/clients")
    row = row_of(page, "reader/1")
    expect(row).to_contain_text("Connected")
    expect(row.locator(".c-version")).to_have_text("3.1.1 tcp")
    expect(row.locator(".c-address")).to_contain_text("127.0.0.1:")
    expect(row.locator(".c-session")).to_contain_text("kept 7 d")
    reader.disconnect()
    expect(row).to_contain_text("Away")
    with listening(broker.mqtt_address, "source", "nothing") as source:
        source.publish("news/a", b"x" * 1000, 1).wait_for_publish(10)
        expect(row.locator(".c-waiting")).to_contain_text("1 (")
        page.get_by_label("Sort by").select_option("Most that waits")
        expect(page.locator(".canvas .tr").first).to_contain_text("reader/1")
        expect(page).to_have_url(re.compile("sort=-waitingBytes"))


def test_the_list_is_narrowed_by_text_state_and_thing_and_the_url_says_so(look, reader, device):
    device("client-lamp")
    page = look("#/clients")
    expect(row_of(page, "client-lamp")).to_be_visible()
    page.get_by_label("Search clients").fill("READER")
    expect(row_of(page, "client-lamp")).to_have_count(0)
    expect(row_of(page, "reader/1")).to_be_visible()
    expect(page).to_have_url(re.compile("q=READER"))
    page.get_by_label("State").select_option("Away")
    expect(page.get_by_role("heading", name="No client fits")).to_be_visible()
    page.get_by_role("button", name="Clear the search").click()
    expect(row_of(page, "client-lamp")).to_be_visible()
    page.get_by_label("Thing", exact=True).fill("client-lamp")
    expect(row_of(page, "reader/1")).to_have_count(0)
    expect(row_of(page, "client-lamp")).to_be_visible()


def test_a_things_page_leads_to_its_clients(look, device, reader):
    device("client-lamp")
    page = look("#/things/client-lamp")
    page.get_by_role("link", name="Its connections and sessions").click()
    expect(row_of(page, "client-lamp")).to_be_visible()
    expect(page.locator(".canvas .tr")).to_have_count(1)
    row_of(page, "client-lamp").get_by_role("link").click()
    about = page.get_by_role("region", name="About")
    expect(about).to_contain_text("Connected")
    expect(page.get_by_role("region", name="Subscriptions")).to_contain_text("QoS 1, commands")
    about.get_by_role("link", name="client-lamp").click()
    expect(page).to_have_url(re.compile("#/things/client-lamp$"))


def test_a_connection_is_ended_after_the_dialog_has_said_what_happens(look, broker):
    with listening(broker.mqtt_address, "five", "news/#", version=mqtt.MQTTv5) as client:
        client.reconnect_delay_set(60, 60)
        page = look("#/clients/five")
        page.get_by_role("button", name="End the connection").click()
        dialog = page.get_by_role("dialog", name="End the connection of five?")
        expect(dialog.get_by_role("button", name="Keep as it is")).to_be_focused()
        expect(dialog).to_contain_text("an administrator did it")
        expect(dialog).to_contain_text("Its session ends with the connection.")
        page.keyboard.press("Escape")
        assert client.is_connected()
        page.get_by_role("button", name="End the connection").click()
        dialog.get_by_role("button", name="End the connection").click()
        expect(page.get_by_role("heading", name="No client has this id")).to_be_visible()
        soon(lambda: client.reasons)
        assert client.reasons[0].value == 0x98


def test_a_session_is_ended_with_what_waits(look, broker, api, reader):
    reader.disconnect()
    soon(lambda: reader.reasons)
    with listening(broker.mqtt_address, "source", "nothing") as source:
        source.publish("news/a", b"x", 1).wait_for_publish(10)
    page = look(f"#/clients/{quote('reader/1', safe='')}")
    expect(page.get_by_role("button", name="End the connection")).to_have_count(0)
    page.get_by_role("button", name="End the session").click()
    dialog = page.get_by_role("dialog", name="End the session of reader/1?")
    expect(dialog).to_contain_text("1 subscription, and 1 message that waits for it")
    dialog.get_by_role("button", name="End the session").click()
    expect(page.get_by_role("table", name="Clients")).to_be_visible()
    assert api.call("GET", f"mqtt/clients/{quote('reader/1', safe='')}")[0] == 404


def test_who_may_only_read_is_offered_no_end(look, browser, broker, api, reader):
    secret = api.call("POST", "tokens", {"name": "reads", "scopes": ["things:read"]})[1]["token"]
    looking = Looking(browser, broker.http, secret)
    try:
        page = looking(f"#/clients/{quote('reader/1', safe='')}")
        expect(page.get_by_role("region", name="About")).to_contain_text("Connected")
        expect(page.get_by_role("button", name="End the session")).to_have_count(0)
    finally:
        looking.close()
        api.call("DELETE", "tokens/reads")


def test_a_broker_without_clients_says_what_would_be_there(browser, tmp_path):
    with serving(tmp_path) as running:
        looking = Looking(browser, running.http, TOKEN)
        try:
            page = looking("#/clients")
            expect(page.get_by_role("heading", name="No client is connected")).to_be_visible()
        finally:
            looking.close()


def test_a_phone_shows_who_whether_and_what_waits(look, reader):
    page = look("#/clients", viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    row = row_of(page, "reader/1")
    for shown in (".c-name", ".c-presence", ".c-waiting", ".c-seen"):
        expect(row.locator(shown)).to_be_visible()
    for hidden in (".c-version", ".c-address", ".c-session", ".c-dropped"):
        expect(row.locator(hidden)).to_be_hidden()
    row.get_by_role("link").tap()
    expect(page.get_by_role("region", name="About")).to_be_visible()


def test_more_clients_than_a_page_come_when_scrolled_to(look):
    page = look("")
    first = [client(f"c{number:03}") for number in range(200)]
    rest = [client(f"c{number:03}") for number in range(200, 230)]

    def answer(route):
        more = "cursor=" in route.request.url
        body = {"clients": rest if more else first, "nextCursor": None if more else "c199"}
        route.fulfill(status=200, content_type="application/json", body=json.dumps(body))

    page.route("**/api/v1/mqtt/clients?*", answer)
    page.evaluate("location.hash = '#/clients'")
    expect(page.locator(".list-foot")).to_have_text("200 clients so far, 200 connected")
    page.locator(".rows").evaluate("rows => { rows.scrollTop = rows.scrollHeight }")
    expect(page.locator(".list-foot")).to_have_text("230 clients, 230 connected")
    expect(row_of(page, "c210")).to_have_count(1)


def client(client_id):
    """A client as the API shows it."""
    return {
        "clientId": client_id,
        "connected": True,
        "connectedAt": "2025-05-28T00:00:00.000Z",
        "sessionExpiry": 0,
        "subscriptions": 0,
        "queuedMessages": 0,
        "inFlight": 0,
        "waitingBytes": 0,
        "dropped": {},
    }
