"""The list of clients tells what is so, and a kick ends what it says: over real sockets."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import closing
from http.client import HTTPConnection

import pytest

from support.brokers import front_broker, plugin_broker
from support.things import thing
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.errors import ClientAway
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import PacketType, Will
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.security.certificate_authority import Authority, utc_now
from thingctl_broker.security.tokens import Token
from thingctl_broker.storage.sqlite.record_store import SqliteRecords
from thingctl_broker.things.mqtt_clients import Carrier, ClientQuery, ClientSort

EVERY = ClientQuery()


def connect5(client_id, expiry=0, receive_maximum=0):
    """A CONNECT of MQTT 5."""
    properties = b""
    if expiry:
        properties += b"\x11" + expiry.to_bytes(4, "big")
    if receive_maximum:
        properties += b"\x21" + receive_maximum.to_bytes(2, "big")
    name = client_id.encode()
    body = b"\x00\x04MQTT\x05\x02\x00\x1e" + bytes([len(properties)]) + properties
    body += len(name).to_bytes(2, "big") + name
    return bytes([0x10, len(body)]) + body


@pytest.fixture
async def running():
    async with front_broker(limits=MqttLimits(away_messages=2)) as running:
        yield running


def client_of(running, client_id):
    found = running.front.clients.get(client_id)
    assert found is not None
    return found


async def test_a_connected_client_is_told_in_full(running):
    now = running.service.unix()
    client = await RawClient.open(running.address)
    client.send(connect5("listener", expiry=600))
    await client.expect(PacketType.CONNACK)
    client.send(b"\x82\x0d\x00\x01\x02\x0b\x07\x00\x05a/b/#\x2d")
    await client.expect(PacketType.SUBACK)
    found = client_of(running, "listener")
    assert (found.connected, found.version, found.carrier) == (True, "5", Carrier.TCP)
    assert (found.keep_alive, found.session_expiry, found.thing) == (30, 600, "listener")
    assert found.address.startswith("127.0.0.1:")
    assert now - 1 < found.connected_at <= found.heard_at < now + 10
    assert [(f.filter, f.qos, f.no_local, f.subscription_id, f.command) for f in found.filters] == [
        ("a/b/#", 1, True, 7, False)
    ]
    assert (found.subscriptions, found.away_since, found.dropped) == (1, None, {})
    assert found.bytes_received > 30
    assert found.bytes_sent > 8


async def test_commands_subscribed_to_and_requests_in_flight_are_told(running):
    await thing(running)
    running.service.send("lamp", "turnOn")
    found = client_of(running, "lamp")
    assert [(f.qos, f.command) for f in found.filters] == [(1, True)]
    assert (found.requests_in_flight, found.in_flight, found.version) == (1, 0, "3.1.1")


async def test_what_waits_for_a_client_that_is_away_and_what_it_lost_is_told(running):
    client = await RawClient.connected(running.address, "reader", clean=False)
    await client.subscribe("news")
    await client.close()
    await eventually(lambda: not client_of(running, "reader").connected)
    source = await RawClient.connected(running.address, "source")
    for packet_id in (1, 2, 3):
        source.send(CODEC_3.encode_publish(b"news", b"x" * 1000, qos=1, packet_id=packet_id))
        await source.expect(PacketType.PUBACK)
    found = client_of(running, "reader")
    for sort in (ClientSort.WAITING_BYTES, ClientSort.DROPPED):
        first, cursor = running.front.clients.select(ClientQuery(sort=sort), 1)
        rest, _ = running.front.clients.select(ClientQuery(sort=sort), 9, cursor)
        assert [client.client_id for client in first + rest] == ["reader", "source"]
    assert (found.queued_messages, found.dropped) == (2, {"queueFull": 1})
    assert 2000 < found.waiting_bytes < 4000
    assert running.service.unix() - 10 < found.away_since <= running.service.unix()
    assert (found.version, found.address, found.carrier, found.connected_at) == (None, None, None, None)


async def test_what_a_slow_reader_lets_wait_and_loses_is_told(running):
    reader = await RawClient.connected(running.address, "reader")
    await reader.subscribe("news", qos=0)
    reader._writer.transport.pause_reading()
    source = await RawClient.connected(running.address, "source")
    for _ in range(40):
        for _ in range(20):
            source.send(CODEC_3.encode_publish(b"news", b"x" * 50_000))
        await source.ping()
    found = client_of(running, "reader")
    assert found.dropped["slowReader"] > 100
    # The queue's share is bounded by limits.client_bytes; the socket's buffer comes on top.
    session = running.front.engine.sessions.get("reader")
    assert found.waiting_bytes > session.waiting_bytes > 7_000_000
    reader.reset()


async def test_clients_are_selected_by_id_and_by_what_is_asked_for(running):
    for name in ("b", "a"):
        await RawClient.connected(running.address, name)
    kept = await RawClient.connected(running.address, "c", clean=False)
    await kept.close()
    clients = running.front.clients
    await eventually(lambda: not client_of(running, "c").connected)
    first, cursor = clients.select(EVERY, 2)
    rest, end = clients.select(EVERY, 2, cursor)
    assert ([c.client_id for c in first + rest], cursor, end) == (["a", "b", "c"], "b", None)
    assert [c.client_id for c in clients.select(ClientQuery(connected=False), 9)[0]] == ["c"]
    assert [c.client_id for c in clients.select(ClientQuery(text="B"), 9)[0]] == ["b"]
    assert [c.client_id for c in clients.select(ClientQuery(visible="a".__eq__), 9)[0]] == ["a"]
    assert all(not client.filters for client in first)


async def test_a_kick_of_an_mqtt_5_client_says_0x98_and_publishes_its_will(running):
    listener = await RawClient.connected(running.address, "listener")
    await listener.subscribe("wills/#")
    will = Will("wills/a", b"gone", 0, retain=False)
    old = await RawClient.connected(running.address, "old", will=will)
    new = await RawClient.open(running.address)
    new.send(connect5("new"))
    await new.expect(PacketType.CONNACK)
    for name in ("old", "new"):
        running.front.clients.kick(name)
        assert running.front.clients.get(name) is None
    goodbye = await new.expect(PacketType.DISCONNECT)
    assert goodbye.packet[goodbye.start] == Reason.ADMINISTRATIVE_ACTION
    assert b"operator" in goodbye.packet
    await new.expect_end()
    await old.expect_end()
    assert (await listener.expect_publish()).payload == b"gone"


async def test_a_kick_leaves_the_session_unless_it_is_to_end_as_well(running):
    clients = running.front.clients
    client = await RawClient.connected(running.address, "kept", clean=False)
    await client.subscribe("news")
    clients.kick("kept")
    assert client_of(running, "kept").subscriptions == 1
    with pytest.raises(ClientAway, match="'kept' is not connected"):
        clients.kick("kept")
    clients.kick("kept", session=True)
    assert (clients.get("kept"), len(running.front.engine.tree)) == (None, 0)
    await RawClient.connected(running.address, "kept", clean=False)
    clients.kick("kept", session=True)
    assert clients.get("kept") is None


async def test_the_figures_are_those_of_the_server(running):
    client = await thing(running)
    await client.subscribe("news", packet_id=2)
    away = await RawClient.connected(running.address, "away", clean=False)
    await away.close()
    clients = running.front.clients
    await eventually(lambda: clients.figures().away == 1)
    client.send(CODEC_3.encode_publish(b"news", b"hello", retain=True))
    await client.expect_publish()
    figures = clients.figures()
    assert figures.connected == {"3.1": 0, "3.1.1": 1, "5": 0}
    assert (figures.subscriptions, figures.retained, figures.waiting_bytes) == (1, 1, 0)
    assert figures.retained_bytes > 5
    assert figures.counters["messages"] == {"received": 1, "sent": 1}
    assert figures.counters["bytes"]["received"] == running.front.bytes_received > 50
    assert figures.counters["bytes"]["sent"] == running.front.bytes_sent > 20


async def test_bytes_of_connections_that_are_gone_still_count(running):
    client = await RawClient.connected(running.address, "a")
    await client.ping()
    before = running.front.bytes_received, running.front.bytes_sent
    await client.close()
    await eventually(lambda: not running.front.connections)
    assert (running.front.bytes_received, running.front.bytes_sent) == before
    assert before[1] == 6


async def test_a_refused_connection_is_counted_by_its_reason(running):
    client = await RawClient.open(running.address)
    connack = await client.connect("a", will=Will("$state", b"", 0, retain=False))
    assert connack.packet[3]
    counters = running.service.counters
    assert (counters["refused.notAuthorized"], counters["front.refused"]) == (1, 1)


async def test_a_client_that_asks_for_mqtt_by_alpn_is_served_over_tls(tmp_path):
    authority = Authority.make(utc_now())
    pair = authority.server(["127.0.0.1"], utc_now())
    (tmp_path / "s.pem").write_bytes(pair.cert + pair.key)
    trust = ssl.create_default_context(cadata=authority.pair().cert.decode())
    trust.set_alpn_protocols(["mqtt"])
    mqtt = {"bind": "127.0.0.1:0", "tls_cert": str(tmp_path / "s.pem")}
    async with plugin_broker(tmp_path / "data", mqtt=mqtt) as running:
        reader, writer = await asyncio.open_connection(*running.address, ssl=trust)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "mqtt"
        client = RawClient(reader, writer)
        assert (await client.connect("lamp")).packet[3] == 0
        assert client_of(running, "lamp").carrier is Carrier.TLS


async def test_a_back_end_is_told_with_the_name_of_its_token(tmp_path):
    async with plugin_broker(tmp_path, open=False) as running:
        token = Token("dash", frozenset({"mqtt:read"}))
        secret = await running.application.tokens.add(token)
        client = await RawClient.open(running.address)
        answer = await client.connect("1", username="@dash", password=secret.encode())
        assert answer.packet[3] == 0
        found = client_of(running, "@dash/1")
        assert (found.token, found.username, found.thing) == ("dash", "@dash", None)


def ask(address, method, target, secret):
    """One call of the HTTP API; its status."""
    with closing(HTTPConnection(*address, timeout=10)) as connection:
        connection.request(method, target, headers={"Authorization": f"Bearer {secret}"})
        return connection.getresponse().status


async def test_a_kick_over_http_stands_in_the_audit(tmp_path):
    async with plugin_broker(tmp_path) as running:
        secret = await running.application.tokens.add(Token("ops", frozenset({"things:write"})))
        client = await RawClient.connected(running.address, "lamp/attic", username="lamp")
        address = running.application.http_address
        path = "/api/v1/mqtt/clients/lamp%2Fattic"
        assert await asyncio.to_thread(ask, address, "DELETE", path, secret) == 204
        await client.expect_end()
        assert await asyncio.to_thread(ask, address, "DELETE", path, secret) == 404
    events = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    (kicked,) = [event for event in events if event.get("event") == "client.kicked"]
    assert (kicked["thing"], kicked["detail"]) == ("lamp", "lamp/attic: its connection")
    assert "ops" in kicked.values()


async def test_the_figures_tell_how_the_store_does(tmp_path):
    store = SqliteRecords(tmp_path / "mqtt.db")
    async with front_broker(store=store) as running:
        await store.start()
        client = await RawClient.connected(running.address, "kept", clean=False)
        await client.subscribe("a")
        figures = running.front.clients.figures()
        assert (figures.commits, figures.is_keeping) == (store.commits, True)
        assert figures.commits > 0
        store.accepting = False
        assert not running.front.clients.figures().is_keeping
    await store.stop()
