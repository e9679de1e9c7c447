"""From a CONNECT to being let in or turned away: gatekeepers that take their time, and those who wait."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from support.brokers import front_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.auth.authenticator import Identity
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.fields import encode_length
from thingctl_broker.mqtt.protocol.packets import ConnackCode, Connect, ConnectRefused, PacketType, Will
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_protocol.topics import Topics

REQUESTS = "$emqx/commands/things/{}/executions/+/request"


class Deliberating:
    """A gatekeeper that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: dict[str, asyncio.Future[Identity]] = {}

    async def admit(self, connect: Connect, peer: tuple[str, int]) -> Identity:
        self.asked[connect.client_id] = asyncio.get_running_loop().create_future()
        return await self.asked[connect.client_id]

    async def was_asked(self, client_id: str) -> asyncio.Future[Identity]:
        await eventually(lambda: client_id in self.asked)
        return self.asked[client_id]


@pytest.fixture
def gatekeeper():
    return Deliberating()


@pytest.fixture
async def running(gatekeeper):
    async with front_broker(gatekeeper=gatekeeper) as running:
        yield running


def hello(client_id: str, **options) -> bytes:
    fields = {"clean_session": True, "keep_alive": 60, "username": None, "password": None, "will": None}
    return packets.encode_connect(Connect(client_id, **{**fields, **options}))


async def test_what_a_client_sends_behind_its_connect_waits_for_the_verdict(
    running, gatekeeper, nothing_goes_wrong
):
    client = await RawClient.open(running.address)
    large = CODEC_3.encode_publish(b"news/a", b"x" * 200_000, qos=1, packet_id=2)
    subscribe = packets.encode_subscribe(1, [(REQUESTS.format("lamp"), 1)])
    client.send(hello("lamp") + subscribe + large + b"\xc0\x00")
    verdict = await gatekeeper.was_asked("lamp")
    assert running.service.things.get("lamp") is None
    verdict.set_result(Identity("lamp"))
    kinds = [(await client.receive()).first >> 4 for _ in range(4)]
    assert kinds[:2] == [PacketType.CONNACK, PacketType.SUBACK]
    assert sorted(kinds[2:]) == [PacketType.PUBACK, PacketType.PINGRESP]


@pytest.mark.conforms("MQTT-3.1.4-5", "MQTT5-3.1.4-2", "MQTT5-3.1.4-6")
async def test_what_follows_a_refused_connect_is_not_looked_at(running, gatekeeper, nothing_goes_wrong):
    client = await RawClient.open(running.address)
    client.send(hello("lamp") + CODEC_3.encode_publish(b"$SYS/x", b""))
    (await gatekeeper.was_asked("lamp")).set_exception(ConnectRefused(Reason.BAD_USER_NAME_OR_PASSWORD, "no"))
    assert (await client.expect(PacketType.CONNACK)).packet[3] == 4
    await client.expect_end()
    assert running.service.counters["dropped.forbiddenTopic"] == 0
    assert running.service.counters["front.refused"] == 1
    assert not running.front.connections


async def test_who_is_not_let_in_yet_disturbs_nobody(running, gatekeeper, nothing_goes_wrong):
    client = await RawClient.open(running.address)
    client.send(hello("lamp"))
    (await gatekeeper.was_asked("lamp")).set_result(Identity("lamp"))
    await client.expect(PacketType.CONNACK)
    gatekeeper.asked.clear()
    impostor = await RawClient.open(running.address)
    impostor.send(hello("lamp"))
    verdict = await gatekeeper.was_asked("lamp")
    await client.ping()
    verdict.set_exception(ConnectRefused(Reason.NOT_AUTHORIZED, "no"))
    await impostor.expect(PacketType.CONNACK)
    await client.ping()


async def test_a_client_that_leaves_before_the_verdict_leaves_nothing(
    running, gatekeeper, nothing_goes_wrong
):
    clients = [await RawClient.open(running.address) for _ in range(20)]
    for i, client in enumerate(clients):
        client.send(hello(f"c{i}") + b"\xc0\x00" * 100)
        await gatekeeper.was_asked(f"c{i}")
    for client in clients:
        client.reset()
    await eventually(lambda: not running.front.connections)
    await eventually(lambda: all(verdict.cancelled() for verdict in gatekeeper.asked.values()))


async def test_a_client_that_says_all_at_once_and_closes_its_side_is_heard(
    running, gatekeeper, nothing_goes_wrong
):
    listener = await RawClient.open(running.address)
    listener.send(hello("listener"))
    (await gatekeeper.was_asked("listener")).set_result(Identity(None))
    await listener.expect(PacketType.CONNACK)
    await listener.subscribe("news/#")
    client = await RawClient.open(running.address)
    client.send(hello("lamp") + CODEC_3.encode_publish(b"news/a", b"x", qos=1, packet_id=1) + b"\xe0\x00")
    client._writer.write_eof()
    (await gatekeeper.was_asked("lamp")).set_result(Identity("lamp"))
    assert (await listener.expect_publish()).payload == b"x"
    await client.expect(PacketType.CONNACK)
    await eventually(lambda: len(running.front.connections) == 1)


async def test_what_waits_is_bounded(running, gatekeeper, nothing_goes_wrong):
    client = await RawClient.open(running.address)
    client.send(hello("lamp") + CODEC_3.encode_publish(b"$x", b"x" * 500_000) * 30 + b"\xc0\x00")
    verdict = await gatekeeper.was_asked("lamp")
    (connection,) = running.front.connections
    await eventually(lambda: not connection.is_heard)
    held = connection._handshake._unread_bytes
    assert held < 1024 * 1024
    await client_is_stuck(client)
    assert connection._handshake._unread_bytes == held
    verdict.set_result(Identity("lamp"))
    await client.expect(PacketType.CONNACK)
    await client.expect(PacketType.PINGRESP)


async def client_is_stuck(client: RawClient) -> None:
    """Wait until no more of what the client sends is taken."""
    waiting = -1
    while waiting != client._writer.transport.get_write_buffer_size():
        waiting = client._writer.transport.get_write_buffer_size()
        await asyncio.sleep(0.02)
    assert waiting > 0


@pytest.mark.conforms("MQTT-3.1.0-2")
async def test_a_second_connect_while_the_first_waits_is_malformed(running, gatekeeper, nothing_goes_wrong):
    client = await RawClient.open(running.address)
    client.send(hello("lamp") + hello("lamp"))
    (await gatekeeper.was_asked("lamp")).set_result(Identity("lamp"))
    await client.expect(PacketType.CONNACK)
    await client.expect_end()
    assert running.service.counters["front.malformed"] == 1


async def test_a_gatekeeper_that_fails_lets_nobody_in(running, gatekeeper):
    client = await RawClient.open(running.address)
    with structlog.testing.capture_logs() as logs:
        client.send(hello("lamp"))
        (await gatekeeper.was_asked("lamp")).set_exception(ZeroDivisionError("a plugin's own fault"))
        assert (await client.expect(PacketType.CONNACK)).packet[3] == ConnackCode.SERVER_UNAVAILABLE
        await client.expect_end()
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "authentication failed to answer"
    ]


async def test_several_wait_for_one_name_and_the_last_has_it(running, gatekeeper, nothing_goes_wrong):
    clients = [await RawClient.open(running.address) for _ in range(5)]
    for client in clients:
        gatekeeper.asked.clear()
        client.send(hello("lamp"))
        (await gatekeeper.was_asked("lamp")).set_result(Identity("lamp"))
        await client.expect(PacketType.CONNACK)
    for client in clients[:-1]:
        await client.expect_end()
    await clients[-1].ping()


@pytest.mark.parametrize("begun_with", [1, 5])
async def test_a_connect_that_drips_in_is_cut_off_in_time(begun_with, nothing_goes_wrong):
    async with front_broker(limits=MqttLimits(connect_timeout=0.6)) as running:
        client = await RawClient.open(running.address)
        connect = hello("lamp" * 100)
        client.send(connect[:begun_with])
        begun = asyncio.get_running_loop().time()
        ended = asyncio.create_task(client.expect_end())
        filling = iter(connect[begun_with:])
        while not ended.done():
            client.send(bytes([next(filling)]))
            await asyncio.wait([ended], timeout=0.05)
        ended.result()
        assert asyncio.get_running_loop().time() - begun < 2
        assert running.service.counters["front.connectTimeout"] == 1


async def test_who_waits_too_long_for_a_verdict_is_cut_off(gatekeeper, nothing_goes_wrong):
    async with front_broker(limits=MqttLimits(connect_timeout=0.2), gatekeeper=gatekeeper) as running:
        client = await RawClient.open(running.address)
        client.send(hello("lamp"))
        verdict = await gatekeeper.was_asked("lamp")
        await client.expect_end()
        assert verdict.cancelled()
        assert running.service.counters["front.connectTimeout"] == 1


async def test_a_connect_over_its_own_limit_is_refused_unread(running, nothing_goes_wrong):
    client = await RawClient.open(running.address)
    client.send(b"\x10" + encode_length(65 * 1024))
    await client.expect_end()
    assert running.service.counters["front.tooLarge"] == 1


async def test_a_will_under_the_command_root_is_refused_without_a_dollar_too(
    running, gatekeeper, nothing_goes_wrong
):
    running.front.topics = Topics("commands")
    client = await RawClient.open(running.address)
    will = Will("commands/things/door/executions/x/request", b"{}", 1, retain=False)
    connack = await client.connect("lamp", will=will)
    assert connack.packet[3] == ConnackCode.NOT_AUTHORIZED
