"""Whoever watches sees the command traffic, once, and neither slows nor changes it."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from support.brokers import front_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import PacketType
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.mqtt.server.traffic_monitors import TrafficMonitors
from thingctl_protocol.statuses import Status

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")

ROOT = "$emqx/commands"
REFUSED = 0x80


@pytest.fixture
async def running():
    async with front_broker() as running:
        yield running


async def thing(running, name: str = "lamp") -> RawClient:
    client = await RawClient.connected(running.address, name)
    await client.subscribe(
        f"{ROOT}/things/{name}/executions/+/request", f"{ROOT}/things/{name}/executions/+/cancel"
    )
    return client


async def observer(running, *filters: str, name: str = "@me", **options) -> RawClient:
    client = await RawClient.connected(running.address, name, username=name, **options)
    assert await client.subscribe(*(filters or [f"{ROOT}/#"])) == [0] * max(1, len(filters))
    return client


def answer(
    client: RawClient, request: packets.Publish, payload: bytes = b'{"status":"SUCCEEDED"}', qos: int = 1
) -> None:
    client.send(CODEC_3.encode_puback(request.packet_id))
    topic = request.topic.removesuffix("request") + "response"
    client.send(CODEC_3.encode_publish(topic.encode(), payload, qos=qos, packet_id=7 if qos else 0))


async def seen(client: RawClient, count: int) -> list[tuple[str, bytes]]:
    """The last levels and the payloads of the next messages; that no more come is seen from a PINGRESP."""
    found = []
    for _ in range(count):
        publish = await client.expect_publish()
        assert (publish.qos, publish.retain, publish.dup) == (0, False, False)
        found.append((publish.topic.removeprefix(f"{ROOT}/things/"), publish.payload))
    await asyncio.sleep(0)
    await client.ping()
    return found


async def test_all_that_belongs_to_a_command_is_seen_as_it_is_on_the_wire(running):
    lamp, me = await thing(running), await observer(running)
    execution = running.service.send("lamp", "turnOn", b'{"level":3}')
    request = await lamp.expect_publish()
    answer(lamp, request, b'{"status":"IN_PROGRESS"}')
    await lamp.expect(PacketType.PUBACK)
    running.service.cancel(execution.execution_id)
    cancel = await lamp.expect_publish()
    answer(lamp, cancel._replace(topic=request.topic), b'{"status":"CANCELED"}')
    lamp.send(
        CODEC_3.encode_publish(
            f"{ROOT}/things/lamp/actions".encode(), b'{"agentVersion":"1"}', qos=1, packet_id=8
        )
    )
    place = f"lamp/executions/{execution.execution_id}"
    assert await seen(me, 5) == [
        (f"{place}/request", request.payload),
        (f"{place}/response", b'{"status":"IN_PROGRESS"}'),
        (f"{place}/cancel", b"{}"),
        (f"{place}/response", b'{"status":"CANCELED"}'),
        ("lamp/actions", b'{"agentVersion":"1"}'),
    ]
    assert execution.status is Status.CANCELED


async def test_what_matches_several_filters_is_seen_once_and_what_matches_none_not_at_all(running):
    lamp, lock = await thing(running), await thing(running, "lock")
    me = await observer(
        running, f"{ROOT}/things/lamp/#", f"{ROOT}/things/+/executions/+/request", f"{ROOT}/nothing"
    )
    for name, client in (("lamp", lamp), ("lock", lock)):
        running.service.send(name, "turnOn")
        answer(client, await client.expect_publish())
        await client.expect(PacketType.PUBACK)
    kinds = [(topic.partition("/")[0], topic.rpartition("/")[2]) for topic, _ in await seen(me, 3)]
    assert kinds == [("lamp", "request"), ("lamp", "response"), ("lock", "request")]


async def test_what_a_thing_sends_for_another_is_not_seen(running):
    lamp, me = await thing(running), await observer(running)
    lamp.send(CODEC_3.encode_publish(f"{ROOT}/things/lock/actions".encode(), b"{}", qos=1, packet_id=3))
    await lamp.expect(PacketType.PUBACK)
    assert await seen(me, 0) == []


async def test_a_qos_2_response_that_is_sent_again_is_seen_once(running):
    lamp, me = await thing(running), await observer(running)
    running.service.send("lamp", "turnOn")
    request = await lamp.expect_publish()
    for _ in range(2):
        answer(lamp, request, qos=2)
        await lamp.expect(PacketType.PUBREC)
    assert len(await seen(me, 2)) == 2


async def test_it_ends_with_the_subscription_and_with_the_connection(running):
    me = await observer(running)
    assert running.front.observers.watching
    me.send(packets.encode_unsubscribe(2, [f"{ROOT}/#"]))
    await me.expect(PacketType.UNSUBACK)
    assert not running.front.observers.watching
    await me.subscribe(f"{ROOT}/#", packet_id=3)
    me.reset()
    await eventually(lambda: not running.front.observers.watching)


async def test_a_kept_session_goes_on_watching(running):
    me = await observer(running, clean=False)
    me.reset()
    await eventually(lambda: not running.front.observers.watching)
    me = await RawClient.open(running.address)
    assert (await me.connect("@me", username="@me", clean=False)).packet[2:] == b"\x01\x00"
    lamp = await thing(running)
    running.service.send("lamp", "turnOn")
    await lamp.expect_publish()
    assert len(await seen(me, 1)) == 1


async def test_a_thing_watches_nobody_and_no_share_of_anything(running):
    lamp = await thing(running)
    assert await lamp.subscribe(f"{ROOT}/#", f"{ROOT}/things/lock/#") == [REFUSED] * 2
    me = await RawClient.connected(running.address, "@me")
    wanted = [f"$share/g/{ROOT}/#", "$emqx/#", "$emqx/+/#", f"{ROOT}/#/x", f"{ROOT}x/#"]
    assert (await me.subscribe(*wanted))[:4] == [REFUSED] * 4
    assert not running.front.observers.watching


async def test_an_observer_hears_ordinary_topics_too_and_each_command_once(running):
    me = await observer(running)
    await me.subscribe("#", packet_id=2)
    source = await RawClient.connected(running.address, "source")
    source.send(CODEC_3.encode_publish(b"news/a", b"x"))
    assert (await me.expect_publish()).topic == "news/a"
    lamp = await thing(running)
    running.service.send("lamp", "turnOn")
    await lamp.expect_publish()
    assert len(await seen(me, 1)) == 1


async def test_observers_and_their_filters_are_bounded():
    async with front_broker(limits=MqttLimits(observers=1, observed=2)) as running:
        me = await observer(running)
        codes = await me.subscribe(f"{ROOT}/a", f"{ROOT}/b", f"{ROOT}/a", f"{ROOT}/#", packet_id=2)
        assert codes == [0, REFUSED, 0, 0]
        other = await RawClient.connected(running.address, "@other")
        assert await other.subscribe(f"{ROOT}/#") == [REFUSED]
        assert running.service.counters["front.observers"] == 1
        me.reset()
        await eventually(lambda: not running.front.observers.watching)
        assert await other.subscribe(f"{ROOT}/#", packet_id=2) == [0]


async def test_an_observer_that_does_not_read_misses_messages_is_dropped_and_delays_no_command():
    async with front_broker(limits=MqttLimits(write_timeout=0.8)) as running:
        lamp, me = await thing(running), await observer(running)
        me._writer.transport.pause_reading()
        counters = running.service.counters
        params = b'{"filler":"%b"}' % (b"x" * 60_000)
        with capture_logs() as logs:
            async with asyncio.timeout(20):
                while not counters["front.writeTimeout"]:
                    execution = running.service.send("lamp", "turnOn", params)
                    answer(lamp, await lamp.expect_publish())
                    await lamp.expect(PacketType.PUBACK)
                    assert execution.status is Status.SUCCEEDED
        assert counters["front.observerBehind"]
        assert all("lamp" in log["topic"] for log in logs if log.get("fault") == "observerBehind")
        assert not counters["front.writeBuffer"]
        assert not running.front.observers.watching


class Counting:
    """A transport that counts what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


async def test_what_goes_by_in_one_turn_is_one_write(running):
    me = await observer(running)
    lamp = await thing(running)
    (connection,) = running.front.observers.watching
    connection._transport = transport = Counting(connection._transport)
    for _ in range(10):
        running.service.send("lamp", "turnOn")
    for _ in range(10):
        await lamp.expect_publish()
    assert transport.writes == 1
    assert len(await seen(me, 10)) == 10


class Reader:
    """As much of a connection as an observer's needs."""

    is_behind = False

    def __init__(self):
        self.got = b""
        self.packets = 0

    def is_closed(self):
        return False

    def show(self, message):
        return message.plain()

    def write(self, data, count):
        self.got += data
        self.packets += count


async def test_another_filter_costs_nothing_that_has_gone_by():
    observers, reader = TrafficMonitors(1, lambda *_: None), Reader()
    observers.watch(reader, ["a/b"])
    observers.tell("a/b", b"one")
    observers.watch(reader, ["a/b", "a/c"])
    observers.tell("a/c", b"two")
    await asyncio.sleep(0)
    assert reader.got == CODEC_3.encode_publish(b"a/b", b"one") + CODEC_3.encode_publish(b"a/c", b"two")
    assert reader.packets == 2
