"""One client id, many connections: exactly one lives, and it hears."""

from __future__ import annotations

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from support.brokers import plugin_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import Connect, PacketType, Will
from thingctl_protocol.statuses import Delivery

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")

REQUESTS = "$emqx/commands/things/lamp/executions/+/request"


@pytest.fixture
async def running(tmp_path):
    async with plugin_broker(tmp_path) as running:
        yield running


@pytest.mark.parametrize("clean", [True, False, None], ids=["clean", "kept", "mixed"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.conforms("MQTT-3.1.4-2")
async def test_a_storm_of_take_overs_leaves_one_that_hears(running, clean, seed):
    dice = random.Random(seed)
    opened: list[RawClient] = []

    async def come() -> None:
        client = await RawClient.open(running.address)
        opened.append(client)
        is_clean = dice.random() < 0.5 if clean is None else clean
        will = Will("wills/lamp", b"x", 0, retain=False) if dice.random() < 0.3 else None
        packet = packets.encode_connect(Connect("lamp", is_clean, 60, None, None, will))
        if dice.random() < 0.7:
            packet += packets.encode_subscribe(1, [("news/#", 1), (REQUESTS, 1)])
        if dice.random() < 0.5:
            packet += CODEC_3.encode_publish(b"other", b"x", qos=1, packet_id=3)
        client.send(packet[: dice.randrange(len(packet))] if dice.random() < 0.2 else packet)
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        if dice.random() < 0.4:
            client.reset()
        elif dice.random() < 0.2:
            client.send(b"\xe0\x00")

    for _ in range(12):
        await asyncio.gather(*(come() for _ in range(5)))
    last = await RawClient.connected(running.address, "lamp", clean=bool(clean))
    await last.subscribe("news/#", REQUESTS, packet_id=9)
    await eventually(lambda: sum(c.client_id == "lamp" for c in running.front.connections) == 1)
    source = await RawClient.connected(running.address, "source")
    source.send(CODEC_3.encode_publish(b"news/a", b"once"))
    news = [await last.expect_publish()]
    running.service.send("lamp", "turnOn")
    request = await last.expect_publish()
    await last.ping()
    assert [n.payload for n in news] == [b"once"]
    assert request.topic.endswith("/request")
    sessions = running.front.engine.sessions
    assert list(running.front.engine.tree) == [("news/#", sessions.get("lamp"), SubscriptionOptions(1))]
    for client in opened:
        client.reset()
    assert running.service.things.get("lamp").online
    last.reset()
    source.reset()
    await eventually(lambda: not running.front.connections)
    assert not running.service.things.get("lamp").online
    assert not any(session.is_connected for session in sessions)


async def test_requests_in_flight_go_to_the_connection_that_takes_over(running):
    first = await RawClient.connected(running.address, "lamp")
    await first.subscribe(REQUESTS)
    execution = running.service.send("lamp", "turnOn")
    request = await first.expect_publish()
    second = await RawClient.connected(running.address, "lamp")
    await first.expect_end()
    assert execution.delivery is Delivery.PUBLISHED
    await second.subscribe(REQUESTS)
    again = await second.expect_publish()
    assert (again.topic, again.dup) == (request.topic, True)
    second.send(CODEC_3.encode_puback(again.packet_id))
    await second.ping()
    assert execution.delivery is Delivery.DELIVERED


async def test_a_late_word_of_the_old_connection_counts_for_nothing(running):
    first = await RawClient.connected(running.address, "lamp")
    await first.subscribe(REQUESTS)
    second = await RawClient.connected(running.address, "lamp")
    await second.subscribe(REQUESTS)
    first.reset()
    running.service.send("lamp", "turnOn")
    await second.expect_publish()


async def test_of_two_clients_of_one_thing_the_other_serves_when_the_latest_leaves(running):
    first = await RawClient.connected(running.address, "first", username="lamp")
    await first.subscribe(REQUESTS)
    second = await RawClient.connected(running.address, "second", username="lamp")
    await second.subscribe(REQUESTS)
    running.service.send("lamp", "turnOn")
    request = await second.expect_publish()
    await first.ping()
    second.reset()
    assert (await first.expect_publish()).topic == request.topic
    running.service.send("lamp", "turnOff")
    await first.expect_publish()
    third = await RawClient.connected(running.address, "third", username="lamp")
    await third.subscribe(REQUESTS)
    await third.expect_publish()
    await third.expect_publish()
    first.reset()
    await eventually(lambda: len(running.front.connections) == 1)
    running.service.send("lamp", "turnOn")
    await third.expect_publish()
    third.send(packets.encode_unsubscribe(5, [REQUESTS]))
    await third.expect(PacketType.UNSUBACK)
    assert running.service.send("lamp", "turnOn").delivery is Delivery.QUEUED
    assert running.front._serving._standing_by == {}


async def test_a_will_is_published_on_a_take_over(running):
    listener = await RawClient.connected(running.address, "listener")
    await listener.subscribe("wills/#")
    await RawClient.connected(running.address, "lamp", will=Will("wills/lamp", b"gone", 1, retain=False))
    second = await RawClient.connected(running.address, "lamp")
    assert (await listener.expect_publish()).payload == b"gone"
    await second.ping()


async def test_a_take_over_is_logged_counted_and_shown_on_the_thing(running):
    first = await RawClient.connected(running.address, "lamp")
    assert running.service.things.get("lamp").takeovers == 0
    with capture_logs() as logs:
        for _ in range(3):
            await RawClient.connected(running.address, "lamp")
        await first.expect_end()
    assert running.service.things.get("lamp").takeovers == 3
    assert running.service.counters["front.takenOver"] == 3
    told = [log for log in logs if log.get("fault") == "takenOver"]
    assert [(log["client"], log["previousAddress"]) for log in told] == [("lamp", "127.0.0.1")], (
        "once a minute"
    )


async def test_a_client_that_left_properly_is_not_taken_over(running):
    for _ in range(2):
        client = await RawClient.connected(running.address, "lamp")
        client.send(b"\xe0\x00")
        await eventually(lambda: not running.front.connections)
    assert running.service.things.get("lamp").takeovers == 0
