"""amqtt behind a connection of the front: what the two make of it."""

from __future__ import annotations

import asyncio

import pytest
from amqtt.broker import Broker

from support.amqtt_alone import HELLO, Peer, bare_amqtt
from support.brokers import front_broker, plugin_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.amqtt.bridge import AmqttBridge
from thingctl_broker.mqtt.amqtt.streams import HIGH_WATER, Inlet
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.frames import FrameScanner
from thingctl_broker.mqtt.protocol.packets import Connect, PacketType, Will

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")


@pytest.fixture
async def broker():
    async with bare_amqtt() as broker:
        yield broker


class Wired:
    """A ``Behind`` without a front."""

    def __init__(self, broker: Broker, connect: Connect = HELLO, taken: set[int] | None = None) -> None:
        self.written: list[bytes] = []
        self.closed: list[str] = []
        self.full: list[bool] = []
        self.bounded: list[object] = []
        self.taken: set[int] = taken or set()
        self.behind = AmqttBridge(
            broker=broker,
            connect=connect,
            peer=("127.0.0.1", 1),
            write=self.written.append,
            drain=self._drain,
            close=self._close,
            set_full=self.full.append,
            taken_ids=self.taken,
            bound_kept=self.bounded.append,
        )

    async def _drain(self) -> None: ...

    def _close(self, reason: str) -> None:
        self.closed.append(reason)
        self.behind.feed_eof()

    async def expect(self, kind: PacketType) -> bytes:
        await eventually(lambda: self.written)
        packet = self.written.pop(0)
        assert packet[0] >> 4 == kind
        return packet

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        self.behind.subscribe(1, [(topic_filter, qos)], [None])
        await self.expect(PacketType.SUBACK)

    async def end(self) -> None:
        self.behind.disconnect(b"\xe0\x00")
        await self.behind.task


def publish_id(packet: bytes) -> int:
    return packets.parse_publish(next(iter(FrameScanner(len(packet)).feed(packet)))).packet_id


@pytest.mark.parametrize("qos", [1, 2])
async def test_an_identifier_that_the_front_uses_is_exchanged_both_ways(broker, qos):
    wired = Wired(broker, taken={1, 2, 0xFFFF})
    await wired.subscribe("news/#", qos)
    session = broker.sessions["lamp"][0]
    for i in range(4):
        await broker.internal_message_broadcast(f"news/{i}", b"x")
    news = [publish_id(await wired.expect(PacketType.PUBLISH)) for _ in range(4)]
    assert news == [0xFFFE, 0xFFFD, 3, 4]
    assert sorted(session.inflight_out) == [1, 2, 3, 4]
    assert all(wired.behind.is_taken(packet_id) for packet_id in news)
    for packet_id in reversed(news):
        wired.behind.feed_answer(PacketType.PUBACK if qos == 1 else PacketType.PUBREC, packet_id)
    if qos == 2:
        released = [int.from_bytes((await wired.expect(PacketType.PUBREL))[2:], "big") for _ in range(4)]
        assert sorted(released) == sorted(news)
        for packet_id in news:
            wired.behind.feed_answer(PacketType.PUBCOMP, packet_id)
    await eventually(lambda: not session.inflight_out)
    assert not any(wired.behind.is_taken(packet_id) for packet_id in news)
    await wired.end()


async def test_an_identifier_that_was_exchanged_is_not_used_by_amqtt_too(broker):
    wired = Wired(broker, taken={1})
    await wired.subscribe("news/#", 1)
    await broker.internal_message_broadcast("news/a", b"x")
    assert publish_id(await wired.expect(PacketType.PUBLISH)) == 0xFFFF
    broker.sessions["lamp"][0]._packet_id = 0xFFFE
    await broker.internal_message_broadcast("news/b", b"x")
    second = publish_id(await wired.expect(PacketType.PUBLISH))
    assert second not in {1, 0xFFFF}
    for packet_id in (0xFFFF, second):
        wired.behind.feed_answer(PacketType.PUBACK, packet_id)
    await eventually(lambda: not broker.sessions["lamp"][0].inflight_out)
    await wired.end()


async def test_answers_to_nothing_do_not_reach_amqtt(broker, caplog):
    wired = Wired(broker)
    await wired.subscribe("news/#", 1)
    for kind in (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBCOMP):
        wired.behind.feed_answer(kind, 7)
    wired.behind.subscribe(2, [("more", 1)], [None])
    await wired.expect(PacketType.SUBACK)
    assert "unknown pending" not in caplog.text
    await wired.end()


async def test_what_is_fed_before_the_message_loop_runs_waits_and_keeps_its_order(broker):
    listener = await Peer(broker, HELLO._replace(client_id="listener")).ready()
    await listener.subscribe("news/#", 0)
    wired = Wired(broker)
    for i in range(20):
        wired.behind.feed(packets.encode_publish(b"news/%d" % i, b"x"))
    await eventually(lambda: len(listener.written) == 20)
    topics = [packets.parse_publish(next(iter(FrameScanner(99).feed(p)))).topic for p in listener.written]
    assert topics == [f"news/{i}" for i in range(20)]
    await wired.end()
    await listener.gone()


@pytest.mark.parametrize("moment", range(12))
async def test_a_client_that_goes_at_any_moment_leaves_no_zombie_and_its_will(broker, moment):
    listener = await Peer(broker, HELLO._replace(client_id="listener")).ready()
    await listener.subscribe("wills/#", 0)
    wired = Wired(broker, HELLO._replace(will=Will("wills/a", b"x", 0, retain=False)))
    for _ in range(moment):
        await asyncio.sleep(0)
    wired.behind.feed_eof()
    await wired.behind.task
    assert broker.sessions["lamp"][0].transitions.state == "disconnected"
    await eventually(lambda: listener.written)
    await listener.gone()


@pytest.mark.parametrize("moment", range(12))
async def test_a_client_that_says_goodbye_at_any_moment_takes_its_will_along(broker, moment):
    wired = Wired(broker, HELLO._replace(will=Will("wills/a", b"x", 0, retain=True)))
    for _ in range(moment):
        await asyncio.sleep(0)
    wired.behind.disconnect(b"\xe0\x00")
    wired.behind.feed_eof()
    await wired.behind.task
    assert broker.sessions["lamp"][0].transitions.state == "disconnected"
    assert broker.retained_messages == {}


async def test_when_amqtt_refuses_the_connection_ends_and_no_session_stays_connected():
    config = {"plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": False}}}
    async with bare_amqtt(**config) as broker:
        wired = Wired(broker)
        await wired.behind.task
        assert wired.closed[0] == "amqtt refused the connection (code 5)"
        assert wired.written == []
        assert broker.sessions["lamp"][0].transitions.state == "disconnected"


async def test_when_amqtts_task_dies_the_connection_ends_and_no_session_stays_connected(tmp_path):
    async with plugin_broker(tmp_path) as running:
        client = await RawClient.connected(running.address, "lamp")
        await client.subscribe("news/#")
        (connection,) = running.front.connections
        connection.behind.task.cancel()
        await client.expect_end()
        assert running.broker.sessions["lamp"][0].transitions.state == "disconnected"
        assert not running.front._leaving
        client = await RawClient.connected(running.address, "lamp")
        await client.subscribe("news/#")


async def test_reading_stops_while_amqtt_is_full_and_goes_on():
    full: list[bool] = []
    inlet = Inlet(full.append, lambda: False, lambda: True)
    inlet.feed(b"x" * HIGH_WATER)
    assert full == []
    inlet.feed(b"x")
    inlet.feed(b"x")
    assert full == [True]
    await inlet.read(HIGH_WATER // 2 + 2)
    assert full == [True]
    await inlet.read(1)
    assert full == [True, False]
    inlet.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await inlet.read(HIGH_WATER)


@pytest.mark.parametrize("how", ["goodbye", "goodbye to one that waits", "end"])
async def test_amqtt_does_not_hear_that_a_client_left_before_it_is_idle(how):
    idle = False
    inlet = Inlet(lambda full: None, lambda: False, lambda: idle)
    if how == "goodbye to one that waits":
        reading = asyncio.create_task(inlet.read(1))
        await asyncio.sleep(0)
    inlet.feed_eof() if how == "end" else inlet.feed_last(b"\xe0\x00")
    if how != "goodbye to one that waits":
        reading = asyncio.create_task(inlet.read(1))
    await asyncio.sleep(0.02)
    assert not reading.done()
    idle = True
    if how == "end":
        with pytest.raises(asyncio.IncompleteReadError):
            await reading
    else:
        assert await reading == b"\xe0"
        assert await inlet.read(1) == b"\x00"


async def test_amqtt_reads_nothing_while_it_is_behind():
    behind = True
    inlet = Inlet(lambda full: None, lambda: behind, lambda: True)
    inlet.feed(b"x" * 10)
    reading = asyncio.create_task(inlet.read(1))
    await asyncio.sleep(0.02)
    assert not reading.done()
    behind = False
    assert await reading == b"x"


async def test_a_client_that_sends_faster_than_amqtt_reads_is_held_back_and_loses_nothing():
    async with front_broker() as running:
        client = await RawClient.connected(running.address, "lamp")
        await client.subscribe("other")
        (connection,) = running.front.connections
        gate = asyncio.Event()
        read = connection.behind._inlet.read

        async def slowly(n: int = -1) -> bytes:
            await gate.wait()
            return await read(n)

        connection.behind._inlet.read = slowly
        for i in range(200):
            client.send(packets.encode_publish(b"news/a", b"x" * 20_000, qos=1, packet_id=i + 1))
        await eventually(lambda: not connection.is_heard)
        assert len(connection.behind._inlet._buffer) < 2 * HIGH_WATER
        gate.set()
        acknowledged = [packets.parse_packet_id(await client.expect(PacketType.PUBACK)) for _ in range(200)]
        assert sorted(acknowledged) == list(range(1, 201))
        assert connection.is_heard


async def test_codes_of_both_sides_are_put_together_even_when_an_identifier_is_used_twice():
    async with front_broker() as running:
        client = await RawClient.connected(running.address, "lamp")
        own = "$emqx/commands/things/lamp/executions/+/request"
        client.send(
            packets.encode_subscribe(5, [("a", 0), (own, 1), ("b", 2)])
            + packets.encode_subscribe(5, [("c", 1)])
            + packets.encode_subscribe(5, [(own, 0), ("bad/#/filter", 0), ("d", 1)])
        )
        codes = [(await client.expect(PacketType.SUBACK)).packet[4:] for _ in range(3)]
        assert codes == [bytes([0, 1, 2]), bytes([1]), bytes([0, 0x80, 1])]


async def test_a_filter_that_is_given_up_and_taken_again_at_once_is_had():
    async with front_broker() as running:
        client = await RawClient.connected(running.address, "lamp")
        await client.subscribe("news/#", "other")
        for _ in range(3):
            client.send(
                packets.encode_unsubscribe(2, ["news/#"])
                + packets.encode_subscribe(3, [("news/#", 0)])
                + packets.encode_publish(b"news/a", b"x")
            )
            await client.expect(PacketType.UNSUBACK)
            await client.expect(PacketType.SUBACK)
            assert (await client.expect_publish()).qos == 0
        client.send(packets.encode_unsubscribe(2, ["news/#"]) + b"\xe0\x00")
        await eventually(lambda: not running.front._leaving and not running.front.connections)
        assert [s for s, _ in running.broker.subscriptions.get("news/#", [])] == []
