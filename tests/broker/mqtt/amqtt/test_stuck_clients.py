"""A client of amqtt's that does not read holds up the others for a while, and then loses its connection."""

from __future__ import annotations

import asyncio

import pytest

from support.hosted import Said, hosted
from support.waits import eventually
from thingctl_broker.mqtt.amqtt import exchange, stuck_clients
from thingctl_broker.mqtt.amqtt.stuck_clients import StuckClients

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")

LARGE = Said("large", b"x" * 1024 * 1024)


@pytest.fixture
async def amqtt():
    async with hosted() as running:
        yield running


async def stalled(amqtt, client_id: str):
    """A client of amqtt's for which amqtt waits."""
    client = await amqtt.client(client_id)
    await client.subscribe("large", qos=0)
    client._writer.transport.pause_reading()
    handler = amqtt.broker.sessions[client_id][1]
    while not handler._write_lock.locked():
        amqtt.server.receive("ours", LARGE)
        await asyncio.sleep(0.005)
    return client


async def test_one_that_stops_reading_is_cut_off_and_the_others_get_theirs(amqtt, monkeypatch):
    monkeypatch.setattr(stuck_clients, "TIMEOUT", 0.05)
    monkeypatch.setattr(stuck_clients, "_INTERVAL", 0.01)
    monkeypatch.setattr(exchange, "BACKLOG", 5)
    other = await amqtt.client("other")
    await other.subscribe("small", qos=0)
    await stalled(amqtt, "stuck")
    for _ in range(10):
        amqtt.server.receive("ours", LARGE)
    amqtt.server.receive("ours", Said("small", b"on"))
    assert (await other.expect_publish()).payload == b"on"
    await eventually(lambda: "stuck" not in amqtt.broker.sessions)
    assert amqtt.notes == ["amqttStuck"]


async def test_one_that_reads_again_in_time_stays(amqtt):
    client = await stalled(amqtt, "slow")
    clients = StuckClients(amqtt.broker)
    assert clients.abort(100.0) == []
    assert clients.abort(129.9) == []
    client._writer.transport.resume_reading()
    drain = asyncio.create_task(read_on(client))
    handler = amqtt.broker.sessions["slow"][1]
    await eventually(lambda: not handler._write_lock.locked())
    assert clients.abort(131.0) == []
    await stall_again(amqtt, client, handler, drain)
    assert clients.abort(140.0) == []
    assert clients.abort(169.0) == []
    assert clients.abort(170.0) == ["slow"]
    await eventually(lambda: "slow" not in amqtt.broker.sessions)


async def read_on(client):
    while await client.receive() is not None:
        pass


async def stall_again(amqtt, client, handler, reading):
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    client._writer.transport.pause_reading()
    while not handler._write_lock.locked():
        amqtt.server.receive("ours", LARGE)
        await asyncio.sleep(0.005)


async def test_what_was_is_forgotten_when_amqtt_has_caught_up(amqtt):
    await stalled(amqtt, "slow")
    clients = StuckClients(amqtt.broker)
    clients.abort(100.0)
    clients.forget()
    assert clients.abort(200.0) == []
    assert clients.abort(230.0) == ["slow"]


async def test_one_that_has_gone_meanwhile_is_nobodys_concern(amqtt):
    await amqtt.client("gone")
    handler = amqtt.broker.sessions["gone"][1]
    writer, handler.writer = handler.writer, None
    async with handler._write_lock:
        clients = StuckClients(amqtt.broker)
        clients.abort(100.0)
        assert clients.abort(200.0) == []
    handler.writer = writer
