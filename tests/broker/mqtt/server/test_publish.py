"""What clients publish, over real sockets: to whom it goes, and what is refused."""

from __future__ import annotations

import pytest

from support.brokers import front_broker
from support.things import answer, thing
from support.wire import RawClient
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import PacketType, Will
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_protocol.statuses import Status


@pytest.fixture
async def running():
    async with front_broker() as running:
        yield running


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.conforms("MQTT-3.3.4-1")
async def test_a_response_may_come_at_any_qos(running, qos):
    client = await thing(running)
    execution = running.service.send("lamp", "turnOn")
    await client.expect_publish()
    client.send(answer(running, execution, qos=qos))
    if qos == 1:
        await client.expect(PacketType.PUBACK)
    if qos == 2:
        await client.expect(PacketType.PUBREC)
        client.send(answer(running, execution, qos=qos))  # the same again, before the release
        await client.expect(PacketType.PUBREC)
        client.send(b"\x62\x02\x00\x07")
        await client.expect(PacketType.PUBCOMP)
        assert running.service.counters["responses.repeated"] == 0
    await client.ping()
    assert execution.status is Status.SUCCEEDED


async def test_a_thing_may_answer_only_its_own_executions(running):
    lamp, door = await thing(running), await thing(running, "door")
    execution = running.service.send("lamp", "turnOn")
    await lamp.expect_publish()
    door.send(answer(running, execution))  # on the lamp's topic
    await door.expect(PacketType.PUBACK)
    own_topic = running.front.topics.response("door", execution.execution_id).encode()
    door.send(CODEC_3.encode_publish(own_topic, b'{"status":"SUCCEEDED"}', qos=1, packet_id=8))
    await door.expect(PacketType.PUBACK)
    assert execution.status is Status.SENT
    assert running.service.counters["dropped.forbiddenTopic"] == 1
    assert running.service.counters["dropped.wrongThing"] == 1
    await door.ping()


@pytest.mark.parametrize(
    "topic",
    [
        "$emqx/commands/things/lamp/executions/x/request",
        "$emqx/commands/things/lamp/executions/x/cancel",
        "$emqx/commands/things/lamp/time",
        "$emqx/commands",
        "$emqx/commands/other",
        "$SYS/broker/uptime",
        "$anything",
    ],
)
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.conforms("MQTT-3.3.5-2")
async def test_no_client_publishes_what_is_not_its_own_under_a_dollar(running, topic, qos):
    client = await thing(running)
    client.send(CODEC_3.encode_publish(topic.encode(), b"{}", qos=qos, packet_id=9, retain=True))
    if qos:
        await client.expect(PacketType.PUBACK if qos == 1 else PacketType.PUBREC)
    await client.ping()
    assert running.service.counters["dropped.forbiddenTopic"] == 1
    assert not len(running.front.engine.retained)


async def test_telemetry_goes_beside_commands(running):
    listener = await RawClient.connected(running.address, "listener")
    assert await listener.subscribe("telemetry/#") == [1]
    client = await thing(running)
    client.send(CODEC_3.encode_publish(b"telemetry/lamp", b"21.5", qos=1, packet_id=1))
    await client.expect(PacketType.PUBACK)
    message = await listener.expect_publish()
    assert (message.topic, message.payload) == ("telemetry/lamp", b"21.5")
    execution = running.service.send("lamp", "turnOn")
    await client.expect_publish()
    client.send(answer(running, execution))
    await client.expect(PacketType.PUBACK)
    assert execution.status is Status.SUCCEEDED


async def test_a_presence_said_for_brokers_behind_a_cluster_is_accepted_and_not_needed(
    running, nothing_goes_wrong
):
    topic = "$emqx/commands/things/lamp/presence"
    will = Will(topic, b'{"online":false}', 1, retain=False)
    lamp = await RawClient.connected(running.address, "lamp", will=will)
    (connection,) = running.front.connections
    assert connection.session.will is None
    lamp.send(CODEC_3.encode_publish(topic.encode(), b'{"online":true}', qos=1, packet_id=3))
    assert (await lamp.expect(PacketType.PUBACK)).packet[2:] == b"\0\x03"
    assert not running.service.counters["dropped.badAnnouncement"]
    lamp.send(CODEC_3.encode_publish(topic.replace("lamp", "door").encode(), b"{}", qos=1, packet_id=4))
    await lamp.expect(PacketType.PUBACK)
    assert running.service.counters["dropped.forbiddenTopic"] == 1


async def test_an_oversized_response_is_dropped_and_the_connection_kept(running):
    client = await thing(running)
    execution = running.service.send("lamp", "turnOn")
    await client.expect_publish()
    client.send(
        answer(running, execution, payload=b'{"status":"SUCCEEDED","result":"' + b"x" * 300_000 + b'"}')
    )
    await client.expect(PacketType.PUBACK)
    assert running.service.counters["dropped.badPayload"] == 1
    client.send(answer(running, execution))
    await client.expect(PacketType.PUBACK)
    assert execution.status is Status.SUCCEEDED


async def test_there_is_room_for_so_many_retained_messages_and_no_more():
    async with front_broker(limits=MqttLimits(retained=2, retained_bytes=500)) as running:
        client = await RawClient.connected(running.address, "source")

        async def retain(topic, payload):
            client.send(CODEC_3.encode_publish(topic, payload, qos=1, packet_id=1, retain=True))
            await client.expect(PacketType.PUBACK)

        await retain(b"a", b"1")
        await retain(b"b", b"x" * 200)  # too large
        await retain(b"b", b"1")
        assert [m.topic for m in running.front.retained("#")] == ["b", "a"]
        await retain(b"c", b"1")  # too many
        await retain(b"a", b"2")
        assert {m.topic: m.payload for m in running.front.retained("#")} == {"a": b"2", "b": b"1"}
        assert running.front.engine.totals.counters["dropped.retained"] == 2
        await retain(b"a", b"")
        await retain(b"c", b"1")
        assert {m.topic for m in running.front.retained("#")} == {"b", "c"}


@pytest.mark.parametrize("limits", [MqttLimits(retained_bytes=100), MqttLimits(retained=1)])
async def test_what_is_not_retained_is_delivered_all_the_same(limits):
    async with front_broker(limits=limits) as running:
        listener = await RawClient.connected(running.address, "listener")
        await listener.subscribe("bridge/#")
        client = await RawClient.connected(running.address, "source")
        for i, topic in enumerate([b"bridge/a", b"bridge/devices"]):
            client.send(CODEC_3.encode_publish(topic, b"x" * 70_000, qos=1, packet_id=i + 1, retain=True))
            await client.expect(PacketType.PUBACK)
        messages = [await listener.expect_publish() for _ in range(2)]
        assert [(m.topic, len(m.payload), m.retain) for m in messages] == [
            ("bridge/a", 70_000, False),
            ("bridge/devices", 70_000, False),
        ]
