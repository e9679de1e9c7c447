"""What clients subscribe to, over real sockets: their own commands, and ordinary topics."""

from __future__ import annotations

import pytest

from support.brokers import front_broker
from support.things import REQUESTS
from support.wire import RawClient
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.packets import PacketType
from thingctl_broker.testing import ManualClock
from thingctl_protocol.messages import BrokerTime, decode_request, decode_time
from thingctl_protocol.statuses import Delivery


@pytest.fixture
async def running():
    async with front_broker() as running:
        yield running


@pytest.mark.parametrize(
    "topic_filter",
    [
        "$emqx/commands/#",
        "$emqx/commands/things/+/executions/+/request",
        "$emqx/commands/things/door/executions/+/request",
        "$emqx/commands/things/lamp/executions/0193/request",
        "$emqx/commands/things/lamp/executions/+/response",
        "$share/g/$emqx/commands/things/lamp/executions/+/request",
        "$emqx/#",
        "$emqx/+/things/lamp/executions/+/request",
        "bad/#/filter",
        "",
    ],
)
async def test_a_filter_that_is_not_the_things_own_is_refused(running, topic_filter):
    client = await RawClient.connected(running.address, "lamp")
    assert await client.subscribe(topic_filter) == [0x80]


async def test_a_wider_filter_of_its_own_serves_as_well(running):
    client = await RawClient.connected(running.address, "lamp")
    assert await client.subscribe("$emqx/commands/things/lamp/#") == [1]
    time = await client.expect_publish()
    assert (time.topic, time.qos) == ("$emqx/commands/things/lamp/time", 0)
    running.service.send("lamp", "turnOn")
    assert (await client.expect_publish()).topic.endswith("/request")


async def test_the_time_goes_ahead_of_a_request_when_it_was_not_told_of_late_or_the_clock_was_set():
    clock = ManualClock()
    async with front_broker(clock=clock) as running:
        client = await RawClient.connected(running.address, "lamp")
        assert await client.subscribe("$emqx/commands/things/lamp/#") == [1]

        async def told():
            time = decode_time((await client.expect_publish()).payload)
            assert time == BrokerTime(clock.unix(), clock.monotonic())

        async def requested():
            running.service.send("lamp", "turnOn")
            request = await client.expect_publish()
            assert request.topic.endswith("/request")
            return decode_request(request.payload)

        await told()
        await requested()
        clock.advance(9)
        await requested()
        clock.jump(-3600)
        running.service.send("lamp", "turnOn")
        await told()
        request = await client.expect_publish()
        assert decode_request(request.payload).timestamp == int(clock.unix())
        clock.advance(10)
        running.service.send("lamp", "turnOn")
        await told()


async def test_a_thing_that_does_not_listen_for_the_time_is_not_told():
    clock = ManualClock()
    async with front_broker(clock=clock) as running:
        client = await RawClient.connected(running.address, "lamp")
        assert await client.subscribe(REQUESTS.format("lamp")) == [1]
        for step in (-3600, 3600):
            clock.jump(step)
            running.service.send("lamp", "turnOn")
            assert (await client.expect_publish()).topic.endswith("/request")


async def test_requests_follow_a_qos_0_subscription_at_qos_0(running):
    client = await RawClient.connected(running.address, "lamp")
    assert await client.subscribe(REQUESTS.format("lamp"), qos=0) == [0]
    executions = [running.service.send("lamp", "turnOn") for _ in range(200)]  # more than the window
    for _ in executions:
        assert (await client.expect_publish()).qos == 0
    assert {execution.delivery for execution in executions} == {Delivery.PUBLISHED}


@pytest.mark.conforms("MQTT-2.3.1-7", "MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-3.8.4-4", "MQTT-3.8.4-5")
async def test_a_subscribe_with_filters_of_both_kinds_is_answered_once(running):
    client = await RawClient.connected(running.address, "lamp")
    codes = await client.subscribe("a/b", REQUESTS.format("lamp"), "c/#", "$emqx/commands/#", qos=2)
    assert codes == [2, 1, 2, 0x80]
    running.service.send("lamp", "turnOn")
    assert (await client.expect_publish()).topic.endswith("/request")
    client.send(packets.encode_unsubscribe(3, ["a/b", REQUESTS.format("lamp")]))
    await client.expect(PacketType.UNSUBACK)
    assert running.service.send("lamp", "turnOn").delivery is Delivery.QUEUED
