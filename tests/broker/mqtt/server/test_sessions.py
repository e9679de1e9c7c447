"""Sessions that outlive a connection, over real sockets: subscriptions, what waits, and what is in flight."""

from __future__ import annotations

import asyncio

import pytest

from support.brokers import plugin_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import PacketType, Will
from thingctl_broker.mqtt.server.limits import MqttLimits

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")

REQUESTS = "$emqx/commands/things/lamp/executions/+/request"


@pytest.fixture
async def running(tmp_path):
    async with plugin_broker(tmp_path) as running:
        yield running


async def come_back(running, client_id: str = "lamp", **options) -> tuple[RawClient, int]:
    """Connect again; return the client and whether it was told of a session."""
    client = await RawClient.open(running.address)
    connack = await client.connect(client_id, clean=options.pop("clean", False), **options)
    assert connack.packet[3] == 0
    return client, connack.packet[2]


async def leave(running, client: RawClient) -> None:
    client.send(b"\xe0\x00")
    await client.expect_end()


async def publisher(running) -> RawClient:
    return await RawClient.connected(running.address, "publisher")


async def publish(client: RawClient, topic: str, payload: bytes, *, retain: bool = False) -> None:
    client.send(CODEC_3.encode_publish(topic.encode(), payload, qos=1, packet_id=1, retain=retain))
    await client.expect(PacketType.PUBACK)


@pytest.mark.conforms(
    "MQTT-3.1.2-4",
    "MQTT-3.1.2-5",
    "MQTT-3.1.3-2",
    "MQTT-3.2.2-2",
    "MQTT-3.3.1-9",
    "MQTT-4.5.0-1",
)
async def test_a_kept_session_is_resumed_with_what_was_published_meanwhile(running):
    client, present = await come_back(running)
    assert present == 0
    await client.subscribe("news/#", REQUESTS)
    await leave(running, client)
    source = await publisher(running)
    await publish(source, "news/a", b"1")
    client, present = await come_back(running)
    assert present == 1
    news = await client.expect_publish()
    assert (news.topic, news.payload, news.qos) == ("news/a", b"1", 1)
    assert not news.retain, "it was not kept for new subscribers but for this one [MQTT-3.3.1-9]"
    client.send(CODEC_3.encode_puback(news.packet_id))
    running.service.send("lamp", "turnOn")
    assert (await client.expect_publish()).topic.endswith("/request")


@pytest.mark.conforms("MQTT-3.1.2-4", "MQTT-4.1.0-1")
async def test_a_kept_session_comes_back_again_and_again(running):
    client, _ = await come_back(running)
    await client.subscribe("news/#")
    source = await publisher(running)
    for i in range(3):
        client.reset()
        client, present = await come_back(running)
        assert present == 1
        await client.subscribe("other", packet_id=i + 2)
        await publish(source, "news/a", b"%d" % i)
        news = await client.expect_publish()
        assert news.payload == b"%d" % i
        client.send(CODEC_3.encode_puback(news.packet_id))


@pytest.mark.conforms("MQTT-3.1.2-6", "MQTT-3.1.4-3", "MQTT-3.2.2-1")
async def test_a_clean_session_ends_what_was_kept(running):
    client, _ = await come_back(running)
    await client.subscribe("news/#", REQUESTS)
    await leave(running, client)
    client, present = await come_back(running, clean=True)
    assert present == 0
    source = await publisher(running)
    await publish(source, "news/a", b"1")
    await client.ping()
    assert not len(running.front.engine.tree)
    client, present = await come_back(running)
    assert present == 0


@pytest.mark.conforms("MQTT-3.1.2-6", "MQTT-3.2.2-3")
async def test_a_kept_session_does_not_begin_with_a_clean_one(running):
    client, _ = await come_back(running, clean=True)
    await client.subscribe("news/#")
    await leave(running, client)
    client, present = await come_back(running)
    assert present == 0
    await client.subscribe("other/#")
    await leave(running, client)
    client, present = await come_back(running)
    assert present == 1
    source = await publisher(running)
    await publish(source, "news/a", b"1")
    await publish(source, "other/a", b"2")
    assert (await client.expect_publish()).topic == "other/a"


async def test_what_one_user_left_no_other_takes_up(running):
    client, _ = await come_back(running, "shared", username="lamp")
    await client.subscribe("news/#", REQUESTS)
    await leave(running, client)
    source = await publisher(running)
    await publish(source, "news/a", b"for the lamp")
    client, present = await come_back(running, "shared", username="door")
    assert present == 0
    await client.subscribe("other")
    await publish(source, "news/a", b"for the lamp")
    await client.ping()
    assert running.service.things.get("door").online
    assert not running.service.things.get("lamp").online


@pytest.mark.conforms("MQTT-3.3.1-8")
async def test_retained_messages_that_a_client_did_not_ask_for_do_not_come(running):
    other = await RawClient.connected(running.address, "other")
    await other.subscribe("secret/#")
    source = await publisher(running)
    await publish(source, "secret/a", b"x", retain=True)
    await other.expect_publish()
    client, _ = await come_back(running)
    await client.subscribe("news/#")
    await client.ping()
    await client.subscribe("secret/+", packet_id=2)
    message = await client.expect_publish()
    assert (message.payload, message.retain) == (b"x", True)


async def test_a_will_without_a_payload_is_a_will(running):
    listener = await RawClient.connected(running.address, "listener")
    await listener.subscribe("wills/#")
    client, _ = await come_back(running, will=Will("wills/lamp", b"", 1, retain=False))
    await client.ping()
    client.reset()
    will = await listener.expect_publish()
    assert (will.topic, will.payload) == ("wills/lamp", b"")


@pytest.mark.conforms("MQTT-3.1.2-12", "MQTT-3.1.2-16")
async def test_a_resumed_session_has_the_will_of_its_new_connection(running):
    client, _ = await come_back(running, will=Will("wills/lamp", b"kept", 1, retain=True))
    await client.subscribe("news/#")
    await leave(running, client)
    client, present = await come_back(running, will=Will("wills/lamp", b"passing", 1, retain=False))
    assert present == 1
    client.reset()
    await eventually(lambda: not running.front.connections)
    assert not running.front.retained("#")


@pytest.mark.parametrize("fields", [{"username": ""}, {"username": "", "password": b""}])
async def test_empty_credentials_are_credentials(running, fields):
    client, _ = await come_back(running, **fields)
    assert await client.subscribe("news/#") == [1]


async def test_clients_that_vanish_leave_nothing_but_the_sessions_that_they_wanted(running):
    for i in range(60):
        client = await RawClient.open(running.address)
        hello = packets.encode_connect(packets.Connect(f"c{i}", bool(i % 2), 60, None, None, None))
        client.send(hello + packets.encode_subscribe(1, [("news/#", 1)]))
        if i % 3:
            await client.receive()
        client.reset()
    await eventually(lambda: not running.front.connections)
    assert not any(session.is_connected or not session.expiry for session in running.front.engine.sessions)


# Releases.


@pytest.mark.conforms("MQTT-4.3.3-2")
async def test_a_release_of_something_unknown_is_answered(running):
    client = await RawClient.connected(running.address, "lamp")
    client.send(b"\x62\x02\x00\x07")
    await client.expect(PacketType.PUBCOMP)


@pytest.mark.conforms("MQTT-4.3.3-2")
async def test_a_qos_2_message_is_released_on_the_next_connection(running):
    listener = await RawClient.connected(running.address, "listener")
    await listener.subscribe("news/#", qos=0)
    client, _ = await come_back(running)
    client.send(CODEC_3.encode_publish(b"news/a", b"x", qos=2, packet_id=7))
    await client.expect(PacketType.PUBREC)
    client.reset()
    client, present = await come_back(running)
    assert present == 1
    client.send(b"\x62\x02\x00\x07")
    await client.expect(PacketType.PUBCOMP)
    assert (await listener.expect_publish()).payload == b"x"


async def test_a_client_may_hold_so_many_qos_2_messages_and_no_more(tmp_path):
    async with plugin_broker(tmp_path, limits={"qos2_held": 8}) as running:
        client = await RawClient.connected(running.address, "lamp")
        for i in range(8):
            client.send(CODEC_3.encode_publish(b"news/a", b"x", qos=2, packet_id=i + 1))
        for _ in range(8):
            await client.expect(PacketType.PUBREC)
        client.send(CODEC_3.encode_publish(b"news/a", b"x", qos=2, packet_id=9))
        await client.expect_end()
        assert running.service.counters["front.qos2Held"] == 1


# Subscriptions.


async def test_filters_without_a_subscriber_are_forgotten(running):
    client = await RawClient.connected(running.address, "lamp")
    for i in range(50):
        await client.subscribe(f"news/{i}", "kept", packet_id=i + 1)
        client.send(packets.encode_unsubscribe(i + 1, [f"news/{i}", "never/there"]))
        await client.expect(PacketType.UNSUBACK)
    assert [topic_filter for topic_filter, _, _ in running.front.engine.tree] == ["kept"]


@pytest.mark.conforms("MQTT-3.8.4-5", "MQTT-3.9.3-1")
async def test_a_client_may_have_so_many_subscriptions_and_no_more(tmp_path):
    async with plugin_broker(tmp_path, limits={"other_subscriptions": 20}) as running:
        client, _ = await come_back(running)
        codes = await client.subscribe(*[f"news/{i}" for i in range(30)])
        assert codes == [1] * 20 + [0x80] * 10
        assert await client.subscribe("news/3", "news/99", packet_id=2) == [1, 0x80]
        await leave(running, client)
        client, present = await come_back(running)
        assert present == 1
        assert await client.subscribe("news/3", "news/99") == [1, 0x80], "those of a kept session count"
        client.send(packets.encode_unsubscribe(2, ["news/3"]))
        await client.expect(PacketType.UNSUBACK)
        assert await client.subscribe("news/99", packet_id=3) == [1]


async def test_clients_come_and_subscribe_while_others_are_told_of_retained_messages(running):
    source = await RawClient.connected(running.address, "source")
    await source.subscribe("#", qos=0)
    for i in range(30):
        source.send(CODEC_3.encode_publish(b"state/%d" % i, b"x", retain=True))
    await eventually(lambda: len(running.front.retained("#")) == 30)

    async def come(number: int) -> list[int]:
        await asyncio.sleep(number * 0.002)
        client = await RawClient.connected(running.address, f"c{number}")
        return await client.subscribe(f"own/{number}")

    assert await asyncio.gather(*(come(i) for i in range(60))) == [[1]] * 60


@pytest.mark.conforms("MQTT-2.3.1-7", "MQTT-3.10.4-4", "MQTT-3.10.4-5", "MQTT-3.10.4-6")
async def test_an_unsubscribe_of_filters_that_were_never_there_is_answered(running):
    client = await RawClient.connected(running.address, "lamp")
    for i, filters in enumerate([["never"], ["never", "news/#"], ["news/#", "news/#"], [REQUESTS, "x"]] * 2):
        client.send(packets.encode_unsubscribe(i + 1, filters))
        assert packets.parse_packet_id(await client.expect(PacketType.UNSUBACK)) == i + 1
        if i == 3:
            await client.subscribe("news/#", REQUESTS)


def test_the_default_limits_leave_room_for_an_ordinary_client():
    assert MqttLimits().other_subscriptions >= 1000


@pytest.mark.parametrize("end", ["goodbye", "end", "reset", "at once"])
@pytest.mark.parametrize("qos", [0, 1])
async def test_what_a_client_published_before_it_left_is_not_lost(running, qos, end):
    listener = await RawClient.connected(running.address, "listener")
    await listener.subscribe("news/#", qos=0)
    client = await RawClient.connected(running.address, "lamp")
    for i in range(300):
        client.send(CODEC_3.encode_publish(b"news/a", b"%d" % i, qos=qos, packet_id=i + 1))
    if qos and end != "at once":
        for _ in range(300):
            await client.expect(PacketType.PUBACK)
    if end in {"goodbye", "at once"}:
        client.send(b"\xe0\x00")
    if end == "reset":
        await client.ping()
        client.reset()
    else:
        client._writer.write_eof()
    heard = [int((await listener.expect_publish()).payload) for _ in range(300)]
    assert heard == list(range(300))


async def away(running, client_id: str, username: str, *filters: str) -> None:
    """Sign in with a kept session, subscribe, and go."""
    client, _ = await come_back(running, client_id, username=username)
    if filters:
        await client.subscribe(*filters)
    client.reset()


async def test_a_thing_under_ever_new_client_ids_pushes_out_its_own_sessions_only(tmp_path):
    async with plugin_broker(tmp_path, limits=MqttLimits(kept_sessions_per_thing=3)) as running:
        await away(running, "lock", "lock", "news/#", "$emqx/commands/things/lock/executions/+/request")
        for i in range(10):
            await away(running, f"c{i}", "lamp", "news/#", *([REQUESTS] if i % 2 else []))
        await eventually(lambda: not running.front.connections)
        engine = running.front.engine
        assert {session.client_id for session in engine.sessions} == {"lock", "c7", "c8", "c9"}
        assert engine.sessions.away == 4
        assert running.service.counters["front.keptSessions"] == 7
        assert {session.client_id for _, session, _ in engine.tree} == {"lock", "c7", "c8", "c9"}
        for client_id, username, was in (("c0", "lamp", 0), ("c9", "lamp", 1), ("lock", "lock", 1)):
            client, present = await come_back(running, client_id, username=username)
            assert present == was
            await leave(running, client)


@pytest.mark.conforms("MQTT-3.1.2-4")
async def test_a_session_without_subscriptions_is_a_session(running):
    """[section 3.1.2.4]: it exists, even if the rest of its state is empty."""
    await away(running, "c", "lamp")
    await eventually(lambda: not running.front.connections)
    assert running.front.engine.sessions.away == 1
    client, present = await come_back(running, "c", username="lamp")
    assert (present, running.front.engine.sessions.away) == (1, 0)
    await client.ping()
