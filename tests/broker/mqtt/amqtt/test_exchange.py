"""Messages cross between amqtt's clients and ours: each once, none back, and nothing without a bound."""

from __future__ import annotations

import asyncio

import pytest

from support.hosted import Said, hosted
from support.waits import eventually
from thingctl_broker.mqtt.amqtt import exchange
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import PacketType, Will

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")


@pytest.fixture
async def amqtt():
    async with hosted() as running:
        yield running


async def publish(client, topic, payload=b"x", *, qos=0, retain=False):
    client.send(CODEC_3.encode_publish(topic.encode(), payload, qos=qos, packet_id=9, retain=retain))
    if qos == 1:
        await client.expect(PacketType.PUBACK)
    elif qos == 2:
        await client.expect(PacketType.PUBREC)
        client.send(b"\x62\x02\x00\x09")
        await client.expect(PacketType.PUBCOMP)


async def settled(client) -> None:
    """Until amqtt has answered, and so has handled what came before."""
    await client.ping()


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
async def test_a_message_of_amqtts_client_crosses_once_with_its_qos_and_retain(amqtt, qos, retain):
    client = await amqtt.client("theirs")
    await client.subscribe("a/#")
    await publish(client, "a/b", b"hello", qos=qos, retain=retain)
    await eventually(lambda: amqtt.server.published)
    assert amqtt.server.published == [Said("a/b", b"hello", qos, retain)]
    back = await client.expect_publish()
    assert (back.topic, back.payload) == ("a/b", b"hello")
    await settled(client)
    assert len(amqtt.server.published) == 1
    assert amqtt.server.retained_alone == []


@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1])
async def test_a_message_of_ours_reaches_amqtts_client_once_and_comes_not_back(amqtt, published, granted):
    client = await amqtt.client("theirs")
    await client.subscribe("a/#", qos=granted)
    amqtt.server.receive("ours", Said("a/b", b"hello", published))
    message = await client.expect_publish()
    assert (message.topic, message.payload, message.qos) == ("a/b", b"hello", min(published, granted))
    assert not message.retain
    if message.qos:
        client.send(CODEC_3.encode_puback(message.packet_id))
    await settled(client)
    assert amqtt.server.published == []


async def test_order_is_kept(amqtt):
    client = await amqtt.client("theirs")
    await client.subscribe("a/#", qos=0)
    for i in range(200):
        amqtt.server.receive("ours", Said("a/b", b"%d" % i))
    assert [(await client.expect_publish()).payload for _ in range(200)] == [b"%d" % i for i in range(200)]
    for i in range(200):
        await publish(client, "b/b", b"%d" % i)
    await eventually(lambda: len(amqtt.server.published) == 200)
    assert [said.payload for said in amqtt.server.published] == [b"%d" % i for i in range(200)]


@pytest.mark.parametrize("retain", [False, True])
async def test_a_will_of_amqtts_client_crosses_once(amqtt, retain):
    client = await amqtt.client("theirs", will=Will("wills/a", b"gone", 1, retain=retain))
    client.reset()
    await eventually(lambda: amqtt.server.published)
    await eventually(lambda: amqtt.broker.sessions.get("theirs") is None)
    assert amqtt.server.published == [Said("wills/a", b"gone", 1, retain)]


async def test_a_client_that_says_goodbye_leaves_no_will(amqtt):
    client = await amqtt.client("theirs", will=Will("wills/a", b"gone", 1, retain=False))
    client.send(b"\xe0\x00")
    await eventually(lambda: amqtt.broker.sessions.get("theirs") is None)
    assert amqtt.server.published == []


@pytest.mark.parametrize(("forced", "qos"), [(None, 2), (0, 0), (1, 1)])
async def test_what_a_plugin_broadcasts_reaches_both_sides(amqtt, forced, qos):
    client = await amqtt.client("theirs")
    await client.subscribe("a/#", qos=0)
    await amqtt.plugin("Hosting").context.broadcast_message("a/b", b"from a plugin", forced)
    assert amqtt.server.published == [Said("a/b", b"from a plugin", qos)]
    assert (await client.expect_publish()).payload == b"from a plugin"


async def test_what_a_plugin_retains_is_retained_on_our_side_and_delivered_to_nobody(amqtt):
    context = amqtt.plugin("Hosting").context
    await context.retain_message("a/b", b"kept", 1)
    await eventually(lambda: amqtt.server.kept)
    assert amqtt.server.kept == {"a/b": Said("a/b", b"kept", 1, retain=True)}
    await context.retain_message("a/b", b"")
    await eventually(lambda: not amqtt.server.kept)
    assert amqtt.server.published == []


@pytest.mark.parametrize("topic", ["$x/y/things/lamp/executions/1/request", "$x/y", "$SYS/broker/uptime"])
async def test_commands_and_figures_do_not_cross(amqtt, topic):
    client = await amqtt.client("theirs")
    await client.subscribe(topic, "a")
    context = amqtt.plugin("Hosting").context
    await context.broadcast_message(topic, b"x")
    await context.retain_message(topic, b"x")
    assert (await client.expect_publish()).topic == topic
    amqtt.server.receive("ours", Said(topic, b"x", retain=True))
    amqtt.server.receive("ours", Said("a", b"x"))
    assert (await client.expect_publish()).topic == "a"
    assert amqtt.server.published == []
    assert amqtt.server.kept.keys() == {topic, "a"} - {"a"}


async def test_a_namespace_of_commands_that_amqtts_clients_may_publish_to_does_not_cross_either():
    async with hosted(root="fleet") as amqtt:
        client = await amqtt.client("theirs", will=Will("fleet/things/lamp/presence", b"", 0, retain=False))
        await publish(client, "fleet/things/lamp/executions/1/response", b"{}", qos=1)
        await publish(client, "fleets", qos=1)
        await eventually(lambda: amqtt.server.published)
        client.reset()
        await eventually(lambda: amqtt.broker.sessions.get("theirs") is None)
        assert [said.topic for said in amqtt.server.published] == ["fleets"]


@pytest.mark.parametrize(
    ("topic", "data"),
    [
        ("", b"x"),
        ("a/#", b"x"),
        ("a\0", b"x"),
        (None, b"x"),
        ("a", "text"),
        ("t" * 70000, b"x"),
        ("a", b"x" * 100),
    ],
)
async def test_what_is_no_message_or_too_large_does_not_cross(topic, data):
    async with hosted(largest=100) as amqtt:
        await amqtt.plugin("Hosting").context.broadcast_message(topic, data)
        await amqtt.plugin("Hosting").context.broadcast_message("b", b"y" * 99)
        assert [said.topic for said in amqtt.server.published] == ["b"]


async def test_a_client_of_amqtts_that_subscribes_gets_what_ours_have_retained(amqtt):
    amqtt.server.receive("ours", Said("a/ours", b"1", 1, retain=True))
    client = await amqtt.client("theirs")
    await publish(client, "a/theirs", b"2", qos=1, retain=True)
    await publish(client, "a/both", b"old", qos=1, retain=True)
    await eventually(lambda: len(amqtt.server.kept) == 3)
    amqtt.server.receive("ours", Said("a/both", b"3", 1, retain=True))
    await client.subscribe("a/#", qos=0)
    got = [await client.expect_publish() for _ in range(3)]
    assert {(m.topic, m.payload, m.retain) for m in got} == {
        ("a/ours", b"1", True),
        ("a/theirs", b"2", True),
        ("a/both", b"3", True),
    }
    await settled(client)


async def test_the_latest_retained_message_counts_whichever_side_it_is_from(amqtt):
    client = await amqtt.client("theirs")
    amqtt.server.receive("ours", Said("a", b"1", retain=True))
    await publish(client, "a", b"2", qos=1, retain=True)
    await eventually(lambda: amqtt.server.kept["a"].payload == b"2")
    await client.subscribe("a", qos=0)
    assert (await client.expect_publish()).payload == b"2"
    amqtt.server.receive("ours", Said("a", b"", retain=True))
    assert (await client.expect_publish()).payload == b""
    other = await amqtt.client("other")
    await other.subscribe("a", qos=0)
    await settled(other)
    assert (amqtt.server.kept, amqtt.broker.retained_messages) == ({}, {})


async def test_what_amqtt_had_retained_at_the_start_is_retained_on_our_side_unless_it_has_its_own(amqtt):
    await amqtt.host.stop()
    await amqtt.broker.retain_message(None, "a/1", b"theirs", 1)
    await amqtt.broker.retain_message(None, "a/2", b"theirs", 1)
    await amqtt.broker.retain_message(None, "$SYS/broker/version", b"amqtt", 1)
    await asyncio.sleep(0)
    amqtt.server.kept = {"a/2": Said("a/2", b"ours")}
    amqtt.host.start()
    assert {said.topic: said.payload for said in amqtt.server.kept.values()} == {
        "a/1": b"theirs",
        "a/2": b"ours",
    }


async def test_what_waits_for_amqtt_is_bounded_in_messages_and_bytes(amqtt, monkeypatch):
    monkeypatch.setattr(exchange, "WAITING", 5)
    client = await amqtt.client("theirs")
    await client.subscribe("a", qos=0)
    for i in range(8):
        amqtt.server.receive("ours", Said("a", b"%d" % i))
    assert amqtt.notes == ["amqttBehind"] * 3
    assert [(await client.expect_publish()).payload for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    monkeypatch.setattr(exchange, "WAITING_BYTES", 10)
    for i in range(8):
        amqtt.server.receive("ours", Said("a", b"%d" % i * 4))
    assert len(amqtt.notes) == 3 + 6
    await client.expect_publish()
    await client.expect_publish()


@pytest.mark.parametrize(("size", "most"), [(10, exchange.BACKLOG), (4 * 1024 * 1024, 3)])
async def test_amqtt_gets_no_more_than_it_can_work_off(amqtt, size, most):
    """A client that does not read holds up amqtt; what waits there stays bounded, and it goes on after it."""
    client = await amqtt.client("theirs")
    await client.subscribe("a", qos=1)
    said = Said("a", b"x" * size, 1)
    for _ in range(most + 50):
        amqtt.server.receive("ours", said)
        await asyncio.sleep(0)
    await eventually(lambda: len(amqtt.broker._tasks_queue) >= most)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(amqtt.broker._tasks_queue) + amqtt.broker._broadcast_queue.qsize() <= most + 1
    client.reset()
    await eventually(lambda: amqtt.broker.sessions.get("theirs") is None)
    other = await amqtt.client("other")
    await other.subscribe("b", qos=0)
    amqtt.server.receive("ours", Said("b", b"on"))
    assert (await other.expect_publish()).payload == b"on"


async def test_without_a_subscriber_nothing_waits_for_amqtt(amqtt):
    amqtt.server.receive("ours", Said("a", b"x"))
    assert amqtt.host._exchange._bytes == 0


async def test_what_waits_for_a_client_of_amqtts_that_is_away_is_nothing_retained(amqtt):
    context = amqtt.plugin("Hosting").context
    await context.add_subscription("away", "a", 1)
    await context.broadcast_message("a", b"x", 1)
    await eventually(lambda: context.get_session("away").retained_messages.qsize() == 1)
    await asyncio.sleep(0)
    assert amqtt.server.published == [Said("a", b"x", 1)]
    assert amqtt.server.kept == {}
