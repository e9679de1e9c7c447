"""One client's connection, over a real socket: how it begins, what ends it, and that it then is gone."""

from __future__ import annotations

import asyncio
import gc

import pytest

from support.brokers import front_broker
from support.things import REQUESTS, answer, thing
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.fields import encode_length
from thingctl_broker.mqtt.protocol.packets import PacketType, Will
from thingctl_broker.mqtt.server.connection import DeviceConnection
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_protocol.statuses import Delivery


@pytest.fixture
async def running():
    async with front_broker() as running:
        yield running


@pytest.mark.conforms("MQTT-2.3.1-4", "MQTT5-2.2.1-4")
async def test_packet_identifiers_of_messages_and_of_requests_never_meet(running):
    client = await thing(running)
    assert await client.subscribe("news/#", packet_id=2) == [1]
    connection = next(iter(running.front.connections))
    connection._in_flight._last = 65_534
    taken = [running.service.send("lamp", "turnOn") for _ in range(3)]
    requests = [await client.expect_publish() for _ in taken]
    assert [r.packet_id for r in requests] == [65_535, 32_768, 32_769]
    source = await RawClient.connected(running.address, "source")
    for i in range(3):
        source.send(CODEC_3.encode_publish(b"news/today", b"%d" % i, qos=1, packet_id=i + 1))
    news = [await client.expect_publish() for _ in range(3)]
    assert [n.packet_id for n in news] == [1, 2, 3]
    for publish in news + requests:
        client.send(CODEC_3.encode_puback(publish.packet_id))
    await client.ping()
    assert not connection.session.in_flight
    assert {execution.delivery for execution in taken} == {Delivery.DELIVERED}


@pytest.mark.parametrize("topic", ["$emqx/commands/things/door/executions/x/request", "$other/x", "a/+", ""])
@pytest.mark.conforms("MQTT-3.2.2-5")
async def test_a_will_where_the_client_may_not_publish_is_refused(running, topic):
    client = await RawClient.open(running.address)
    connack = await client.connect("lamp", will=Will(topic, b"x", 0, retain=False))
    assert connack.packet[3] == 5
    await client.expect_end()


@pytest.mark.conforms("MQTT-3.1.3-6", "MQTT-3.1.3-8", "MQTT-3.1.3-9")
async def test_the_client_identifier_may_be_left_out_of_a_clean_session(running):
    client = await RawClient.open(running.address)
    assert (await client.connect("")).packet[3] == 0
    client = await RawClient.open(running.address)
    assert (await client.connect("", clean=False)).packet[3] == 2
    await client.expect_end()


async def test_a_will_under_sys_is_dropped_and_its_client_let_in(running):
    """A bridge of mosquitto brings one, by default."""
    client = await RawClient.open(running.address)
    will = Will("$SYS/broker/connection/b1/state", b"0", 1, retain=True)
    assert (await client.connect("bridge", will=will)).packet[3] == 0
    assert running.service.counters["front.willDropped"] == 1


async def test_a_silent_connection_is_closed(running_impatient):
    client = await RawClient.open(running_impatient.address)
    await client.expect_end()
    assert running_impatient.service.counters["front.connectTimeout"] == 1


@pytest.mark.conforms("MQTT-3.1.2-24")
async def test_a_client_that_outlives_its_keep_alive_is_closed(running):
    client = await RawClient.connected(running.address, "lamp", keep_alive=1)
    async with asyncio.timeout(4):
        await client.expect_end()
    assert running.service.counters["front.keepAlive"] == 1
    assert not running.service.things.get("lamp").online


@pytest.fixture
async def running_impatient():
    async with front_broker(limits=MqttLimits(connect_timeout=0.1)) as running:
        yield running


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"\xc0\x00", "MQTT-3.1.0-1"),
        (b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x3c\x00\x00", "MQTT-3.1.2-1"),
        (b"\x10\xff\xff\xff\xff\x01", "section 2.2.3"),
        (b"GET / HTTP/1.1\r\n\r\n", "MQTT-3.1.0-1"),
    ],
)
@pytest.mark.conforms(
    "MQTT-3.1.0-1",
    "MQTT-3.1.2-1",
    "MQTT-3.1.4-1",
    "MQTT-3.2.2-6",
    "MQTT5-3.1.0-1",
    "MQTT5-3.1.2-1",
)
async def test_a_connection_that_begins_badly_is_closed(running, data, rule):
    client = await RawClient.open(running.address)
    client.send(data)
    await client.expect_end()
    assert running.service.counters["front.malformed"] == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04lamp",  # a second CONNECT
        b"\x20\x02\x00\x00",  # a CONNACK
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x32\x05\x00\x01a\x00\x00",  # packet identifier 0
        b"\x30\x03\x00\x01+",  # a wildcard in a topic
        b"\x30\x02\x00\x00",  # an empty topic
        b"\x30\x04\x00\x02a\x00",  # U+0000
        b"\x30\x03\x00\x01\xff",  # not UTF-8
        b"\x80\x06\x00\x01\x00\x01a\x00",  # flags 0 on SUBSCRIBE
        b"\x82\x02\x00\x01",  # nothing to subscribe to
        b"\x82\x06\x00\x01\x00\x01a\x03",  # requested QoS 3
        b"\xa2\x02\x00\x01",  # nothing to unsubscribe from
        b"\xc0\x01\x00",  # PINGREQ with a body
        b"\xf0\x00",  # reserved
        b"\x30\x0a\x00\x20abc45678",  # a topic longer than its packet
    ],
)
@pytest.mark.conforms(
    "MQTT-1.5.3-1",
    "MQTT-1.5.3-2",
    "MQTT-2.2.2-2",
    "MQTT-2.3.1-1",
    "MQTT-3.1.0-2",
    "MQTT-3.3.1-4",
    "MQTT-3.3.2-2",
    "MQTT-3.8.1-1",
    "MQTT-3.8.3-3",
    "MQTT-3.8.3-4",
    "MQTT-3.10.3-2",
    "MQTT-4.7.1-1",
    "MQTT-4.7.3-1",
    "MQTT-4.8.0-1",
)
async def test_a_malformed_packet_closes_only_its_own_connection(running, data):
    bystander = await thing(running, "bystander")
    client = await thing(running)
    client.send(data)
    await client.expect_end()
    assert running.service.counters["front.malformed"] == 1
    await bystander.ping()
    running.service.send("bystander", "turnOn")
    await bystander.expect_publish()


async def test_a_packet_over_the_limit_closes_the_connection_before_it_is_buffered(running):
    client = await thing(running)
    client.send(b"\x30" + encode_length(200 * 1024 * 1024) + b"\x00\x01a" + b"x" * 100)
    await client.expect_end()
    assert running.service.counters["front.tooLarge"] == 1


async def test_a_client_that_acknowledges_nothing_is_dropped():
    async with front_broker(limits=MqttLimits(in_flight=64)) as running:
        client = await thing(running)
        executions = [running.service.send("lamp", "turnOn") for _ in range(64)]
        for _ in executions:
            await client.expect_publish()
        for execution in executions:
            client.send(answer(running, execution))
            await client.expect(PacketType.PUBACK)
        running.service.send("lamp", "turnOn")
        await client.expect_end()
        assert running.service.counters["front.inFlight"] == 1


async def test_a_client_that_does_not_read_is_dropped_and_the_others_are_served():
    async with front_broker(limits=MqttLimits(write_buffer=200_000)) as running:
        reader = await thing(running, "reader")
        deaf = await RawClient.connected(running.address, "deaf")
        await deaf.subscribe(REQUESTS.format("deaf"), qos=0)
        params = b'{"x":"' + b"y" * 100_000 + b'"}'
        for _ in range(1000):
            if not running.front.service._deliveries.is_reachable("deaf"):
                break
            running.service.send("deaf", "fill", params)
            await asyncio.sleep(0)
        assert running.service.counters["front.writeBuffer"] == 1
        running.service.send("reader", "turnOn")
        await reader.expect_publish()


async def test_a_connection_that_has_ended_goes_without_the_collector():
    async with front_broker() as running:
        client = await RawClient.connected(running.address, "lamp")
        await client.subscribe("$emqx/commands/things/lamp/executions/+/request")
        gc.collect()

        def there() -> list[object]:
            return [one for one in gc.get_objects() if type(one) is DeviceConnection]

        assert len(there()) == 1
        gc.disable()
        try:
            client.send(b"\xe0\x00")
            await client.expect_end()
            await eventually(lambda: not there())
        finally:
            gc.enable()


async def test_why_a_connection_was_closed_is_told_to_who_debugs(caplog):
    caplog.set_level("DEBUG", logger="thingctl.mqtt")
    async with front_broker() as running:
        client = await RawClient.connected(running.address, "lamp")
        await RawClient.connected(running.address, "lamp")
        await client.expect_end()
    assert "connection closed: taken over by a new connection (client 'lamp')" in caplog.messages
