"""Clients that read slowly, a little, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from support.brokers import front_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.mqtt.server.transport import Transport

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")


async def flood(running, until) -> None:
    """Publish telemetry until ``until()``."""
    source = await RawClient.connected(running.address, "source")
    packet = CODEC_3.encode_publish(b"news/a", b"x" * 100_000)
    while not until():
        source.send(packet)
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("reads", [False, True], ids=["nothing", "a little"])
async def test_a_client_that_is_behind_with_reading_for_too_long_is_dropped(reads):
    async with front_broker(limits=MqttLimits(write_timeout=0.8)) as running:
        bystander = await RawClient.connected(running.address, "bystander")
        await bystander.subscribe("$emqx/commands/things/bystander/executions/+/request")
        slow = await RawClient.connected(running.address, "slow")
        await slow.subscribe("news/#", qos=0)
        slow._writer.transport.pause_reading()

        async def sip() -> None:
            while True:
                await asyncio.sleep(0.1)
                slow._writer.transport.resume_reading()
                await asyncio.sleep(0)
                slow._writer.transport.pause_reading()

        sipping = asyncio.create_task(sip()) if reads else None
        async with asyncio.timeout(8):
            await flood(running, lambda: running.service.counters["front.writeTimeout"])
        if sipping is not None:
            sipping.cancel()
        assert not any(connection.client_id == "slow" for connection in running.front.connections)
        running.service.send("bystander", "turnOn")
        await bystander.expect_publish()


async def test_a_client_that_catches_up_now_and_then_is_kept():
    async with front_broker(limits=MqttLimits(write_timeout=0.8)) as running:
        client = await RawClient.connected(running.address, "client")
        await client.subscribe("news/#", qos=0)
        (connection,) = running.front.connections
        for _ in range(4):
            connection.check_stall(0.5)
            connection.pause_writing()
            connection.check_stall(0.5)
            connection.resume_writing()
        await client.ping()


async def test_one_large_packet_is_no_reason_to_drop_a_client():
    limits = MqttLimits(write_buffer=100_000)
    async with front_broker(limits=limits) as running:
        client = await RawClient.connected(running.address, "client")
        await client.subscribe("news/#", qos=0)
        source = await RawClient.connected(running.address, "source")
        source.send(CODEC_3.encode_publish(b"news/a", b"x" * 1_000_000) * 20)
        for _ in range(20):
            assert len((await client.expect_publish()).payload) == 1_000_000


async def test_keep_alive_does_not_run_out_while_the_front_does_not_read():
    async with front_broker() as running:
        client = await RawClient.connected(running.address, "client", keep_alive=1)
        (connection,) = running.front.connections
        connection.hold_reading(stop=True)
        connection.hold_reading(stop=True)
        connection.watch(connection.heard_at + 100, 0.5)
        connection.hold_reading(stop=False)
        connection.watch(connection.heard_at + 100, 0.5)
        connection.hold_reading(stop=False)
        await client.ping()
        connection.watch(connection.heard_at + 100, 0.5)
        await client.expect_end()


async def test_half_a_connection_ends_as_a_whole(caplog):
    async with front_broker() as running:
        client = await RawClient.connected(running.address, "client")
        client._writer.write_eof()
        await client.expect_end()
        await eventually(lambda: not running.front.connections)


async def test_a_client_that_has_no_address_any_more_is_counted_like_any_other():
    """A socket that was reset before it was accepted has no peer."""

    class Transport(asyncio.Transport):
        def abort(self) -> None: ...

    async with front_broker(limits=MqttLimits(connections=2)) as running:
        connections = [running.front.connection() for _ in range(3)]
        for connection in connections:
            connection.connection_made(Transport())
        assert [connection.is_closed() for connection in connections] == [False, False, True]
        assert len(running.front.connections) == 2
        for connection in connections:
            connection.connection_lost(None)
        assert not running.front.connections


def test_a_wire_needs_somebody_to_tell():
    wire = Transport(MqttLimits())
    with pytest.raises(NotImplementedError):
        wire.left()
    with pytest.raises(NotImplementedError):
        wire.offended("limit", "text")


async def test_a_client_that_does_not_read_cannot_keep_a_connection_that_is_over(monkeypatch):
    monkeypatch.setattr("thingctl_broker.mqtt.server.transport.LINGER", 0.1)
    async with front_broker() as running:
        client = await RawClient.connected(running.address, "deaf")
        await client.subscribe("news/#", qos=0)
        (connection,) = running.front.connections
        client._writer.transport.pause_reading()
        source = await RawClient.connected(running.address, "source")
        while not connection._write_paused:
            source.send(CODEC_3.encode_publish(b"news/a", b"x" * 100_000))
            await asyncio.sleep(0)
        await RawClient.connected(running.address, "deaf")
        transport = connection._transport
        assert transport.get_write_buffer_size() > 0
        await eventually(lambda: transport.get_extra_info("socket").fileno() < 0)


async def test_what_comes_with_or_after_the_end_is_not_looked_at():
    async with front_broker() as running:
        await RawClient.connected(running.address, "client")
        (connection,) = running.front.connections
        connection.close("as if taken over")
        connection.data_received(
            CODEC_3.encode_publish(b"$SYS/x", b"") + packets.encode_subscribe(1, [("a", 0)])
        )
        assert running.service.counters["dropped.forbiddenTopic"] == 0
        assert not len(running.front.engine.tree)
