"""Publishers that are held while their readers are slow, over real sockets."""

from __future__ import annotations

from support.brokers import front_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.server.limits import MqttLimits

PACKET = CODEC_3.encode_publish(b"news/a", b"x" * 10_000)


def of(running, client_id):
    return next(c for c in running.front.connections if c.client_id == client_id)


async def deaf_reader(running):
    reader = await RawClient.connected(running.address, "reader")
    await reader.subscribe("news/#", qos=0)
    reader._writer.transport.pause_reading()
    return reader


async def test_a_publisher_waits_for_a_slow_reader_and_nothing_is_lost():
    limits = MqttLimits(slow_readers="stop", client_bytes=1_000_000)
    async with front_broker(limits=limits) as running:
        reader = await deaf_reader(running)
        source = await RawClient.connected(running.address, "source")
        other = await RawClient.connected(running.address, "other")
        for _ in range(3000):
            source.send(PACKET)
        await eventually(lambda: not of(running, "source").is_heard)
        await other.ping()
        assert of(running, "other").is_heard, "whoever has nothing to do with it is served"
        reader._writer.transport.resume_reading()
        for _ in range(3000):
            await reader.expect_publish()
        await eventually(lambda: of(running, "source").is_heard)
        assert not running.front.engine.totals.counters["dropped.slowReader"]


async def test_by_default_messages_for_a_slow_reader_are_dropped():
    async with front_broker(limits=MqttLimits(client_bytes=1_000_000)) as running:
        await deaf_reader(running)
        source = await RawClient.connected(running.address, "source")
        for _ in range(3000):
            source.send(PACKET)
        await eventually(lambda: running.front.engine.totals.counters["dropped.slowReader"] > 0)
        await source.ping()
        assert of(running, "reader").session.waiting_bytes <= 1_000_000


async def test_a_publisher_is_let_go_when_its_reader_takes_too_long_or_goes(monkeypatch):
    monkeypatch.setattr("thingctl_broker.mqtt.server.client.HOLD_TIMEOUT", 0.1)
    limits = MqttLimits(slow_readers="stop", client_bytes=1_000_000)
    async with front_broker(limits=limits) as running:
        reader = await deaf_reader(running)
        source = await RawClient.connected(running.address, "source")
        for _ in range(3000):
            source.send(PACKET)
        connection = of(running, "source")
        for _ in range(3):
            await eventually(lambda: not connection.is_heard)
            received = running.front.engine.totals.received
            await eventually(lambda before=received: running.front.engine.totals.received > before)
        reader.reset()
        await source.ping()
        assert connection.is_heard
