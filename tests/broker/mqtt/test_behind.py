"""What the front leans on in amqtt, held fast, and what the two make of one connection.

The first half is about amqtt alone: if one of these fails after an upgrade, ``behind`` must be thought over.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import asynccontextmanager

import amqtt
import pytest
from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker, BrokerContext
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from support.brokers import front_broker, plugin_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt import packets
from thingctl_broker.mqtt.adapters import HIGH_WATER, Inlet, Outlet
from thingctl_broker.mqtt.behind import LISTENER, Behind, drop_session
from thingctl_broker.mqtt.frames import FrameScanner
from thingctl_broker.mqtt.packets import Connect, PacketType, Will

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")

PROBE = packets.encode_unsubscribe(0xFFFF, ["nothing"])
HELLO = Connect("lamp", True, 0, None, None, None)


class Plain(Inlet):
    """Tells everything at once, as amqtt's own reader does."""

    def __init__(self) -> None:
        super().__init__(lambda full: None, lambda: False, lambda: True)

    async def _let_amqtt_finish(self) -> None: ...


class Peer:
    """A client of amqtt alone, connected by the adapters as the front connects one."""

    def __init__(self, broker: Broker, connect: Connect = HELLO) -> None:
        self.written: list[bytes] = []
        self.closes = 0
        self.inlet = Plain()
        outlet = Outlet(("127.0.0.1", 1), self.written.append, self._drain, self._close)
        self.inlet.feed(packets.encode_connect(connect))
        self.task = asyncio.create_task(broker.external_connected(self.inlet, outlet, LISTENER))

    async def _drain(self) -> None: ...

    def _close(self) -> None:
        self.closes += 1

    async def expect(self, kind: PacketType) -> bytes:
        await eventually(lambda: self.written)
        packet = self.written.pop(0)
        assert packet[0] >> 4 == kind
        return packet

    async def ready(self) -> Peer:
        await self.expect(PacketType.CONNACK)
        self.inlet.feed(PROBE)
        await self.expect(PacketType.UNSUBACK)
        return self

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        self.inlet.feed(packets.encode_subscribe(1, [(topic_filter, qos)]))
        await self.expect(PacketType.SUBACK)

    async def gone(self) -> None:
        self.inlet.feed_eof()
        await self.task


@asynccontextmanager
async def bare_amqtt(**config):
    broker = Broker(
        {
            "listeners": {"default": {"type": "external"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            **config,
        }
    )
    await broker.start()
    try:
        yield broker
    finally:
        await broker.shutdown()


@pytest.fixture
async def broker():
    async with bare_amqtt() as broker:
        yield broker


def test_this_is_the_version_whose_behaviour_is_held_here():
    assert amqtt.__version__ == "0.12.1"


def test_the_interface_is_as_it_was():
    assert list(inspect.signature(Broker.external_connected).parameters) == [
        "self",
        "reader",
        "writer",
        "listener_name",
    ]
    assert inspect.iscoroutinefunction(Broker.external_connected)
    assert {name for name, value in vars(ReaderAdapter).items() if callable(value)} == {"read", "feed_eof"}
    assert ReaderAdapter.__abstractmethods__ == {"read", "feed_eof"}
    assert WriterAdapter.__abstractmethods__ == {"write", "drain", "get_peer_info", "get_ssl_info", "close"}
    assert list(inspect.signature(BaseAuthPlugin.authenticate).parameters) == ["self", "session"]


async def test_the_broker_stands_in_a_plugins_context(broker):
    assert BrokerContext(broker)._broker_instance is broker


async def test_a_listener_of_type_external_needs_no_address_and_opens_no_socket(broker):
    assert list(broker._servers) == [LISTENER]
    assert broker._servers[LISTENER].instance is None
    peer = await Peer(broker).ready()
    await peer.gone()


async def test_every_packet_is_written_whole_by_a_call_of_its_own(broker):
    peer = Peer(broker)
    one = await peer.expect(PacketType.CONNACK)
    seen = {one[0] >> 4}
    peer.inlet.feed(packets.encode_subscribe(1, [("news/#", 2), ("other/#", 1)]))
    peer.inlet.feed(packets.encode_publish(b"other/a", b"x" * 5000, qos=1, packet_id=2))
    peer.inlet.feed(packets.encode_publish(b"news/a", b"", qos=2, packet_id=3))
    peer.inlet.feed(b"\x62\x02\x00\x03\xc0\x00" + PROBE)
    await eventually(lambda: len(peer.written) >= 8)
    for packet in tuple(peer.written):
        ((first, whole, start),) = FrameScanner(len(packet)).feed(packet)
        assert whole == packet
        seen.add(first >> 4)
        if first >> 4 == PacketType.PUBLISH and first & 0x04:
            peer.inlet.feed(packets.encode_pubrec(packets.parse_publish((first, whole, start)).packet_id))
        elif first >> 4 == PacketType.PUBLISH:
            peer.inlet.feed(packets.encode_puback(packets.parse_publish((first, whole, start)).packet_id))
    await eventually(lambda: any(packet[0] == 0x62 for packet in peer.written))
    (release,) = [packet for packet in peer.written if packet[0] == 0x62]
    assert len(release) == 4
    peer.inlet.feed(packets.encode_pubcomp(int.from_bytes(release[2:], "big")))
    session = broker.sessions["lamp"][0]
    await eventually(lambda: not session.inflight_out)
    assert seen == {
        PacketType.CONNACK,
        PacketType.SUBACK,
        PacketType.UNSUBACK,
        PacketType.PUBACK,
        PacketType.PUBREC,
        PacketType.PUBCOMP,
        PacketType.PUBLISH,
        PacketType.PINGRESP,
    }
    await peer.gone()


async def test_an_unsubscribe_is_answered_once_the_message_loop_runs_and_only_then(broker):
    waiting = asyncio.Event()

    class Stalls(Peer):
        async def _drain(self) -> None:
            await waiting.wait()

    peer = Stalls(broker)
    peer.inlet.feed(PROBE)
    await peer.expect(PacketType.CONNACK)
    for _ in range(20):
        await asyncio.sleep(0)
    assert peer.written == []
    waiting.set()
    assert (await peer.expect(PacketType.UNSUBACK)) == packets.encode_unsuback(0xFFFF)
    await peer.gone()


async def test_a_disconnect_ends_the_session_without_its_will_and_needs_no_end_of_the_stream(broker):
    listener = await Peer(broker, HELLO._replace(client_id="listener")).ready()
    await listener.subscribe("wills/#")
    peer = await Peer(broker, HELLO._replace(will=Will("wills/a", b"x", 0, retain=True))).ready()
    peer.inlet.feed(b"\xe0\x00")
    await peer.task
    assert peer.closes >= 1
    assert broker.sessions["lamp"][0].transitions.state == "disconnected"
    assert broker.retained_messages == {}
    await listener.gone()
    assert listener.written == []


async def test_the_end_of_the_stream_ends_the_session_with_its_will(broker):
    listener = await Peer(broker, HELLO._replace(client_id="listener")).ready()
    await listener.subscribe("wills/#")
    peer = await Peer(broker, HELLO._replace(will=Will("wills/a", b"x", 1, retain=True))).ready()
    await peer.gone()
    assert broker.sessions["lamp"][0].transitions.state == "disconnected"
    will = await listener.expect(PacketType.PUBLISH)
    assert b"wills/a" in will
    assert list(broker.retained_messages) == ["wills/a"]
    listener.inlet.feed(packets.encode_puback(1))
    await listener.gone()


async def test_the_end_of_the_stream_before_the_message_loop_leaves_a_zombie():
    """Why there is a probe. When this fails the probe may go."""
    async with bare_amqtt() as broker:
        peer = Peer(broker)
        peer.inlet.feed_eof()
        await eventually(lambda: peer.closes)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not peer.task.done()
        assert broker.sessions["lamp"][0].transitions.state == "connected"
        peer.task.cancel()
        await asyncio.gather(peer.task, return_exceptions=True)


async def test_sessions_are_a_dictionary_by_client_id_of_session_and_handler(broker):
    peer = await Peer(broker, HELLO._replace(clean_session=False)).ready()
    session, handler = broker.sessions["lamp"]
    assert isinstance(session, Session)
    assert (session.client_id, session.clean_session, session.username) == ("lamp", False, None)
    assert session.transitions.state == "connected"
    assert (dict(session.inflight_in), dict(session.inflight_out)) == ({}, {})
    assert broker.sessions is broker._sessions
    assert broker.subscriptions is broker._subscriptions
    await peer.subscribe("news/#")
    assert broker.subscriptions["news/#"] == [(session, 1)]
    await peer.gone()
    assert handler is broker.sessions["lamp"][1]
    drop_session(broker, "lamp")
    assert (broker.sessions, broker.subscriptions) == ({}, {})
    peer = Peer(broker, HELLO._replace(clean_session=False))
    assert (await peer.expect(PacketType.CONNACK))[2] == 0
    peer.inlet.feed(PROBE + b"\xe0\x00")
    await peer.task


async def test_a_session_begun_as_a_clean_one_stays_a_clean_one(broker):
    """Why a clean session of amqtt's is dropped before a client that wants its session kept."""
    peer = await Peer(broker).ready()
    await peer.gone()
    peer = Peer(broker, HELLO._replace(clean_session=False))
    assert (await peer.expect(PacketType.CONNACK))[2] == 1
    assert broker.sessions["lamp"][0].clean_session
    peer.inlet.feed(PROBE + b"\xe0\x00")
    await peer.task


async def test_an_unsubscribed_filter_stays_as_an_empty_list(broker):
    """Why the front takes them out."""
    peer = await Peer(broker).ready()
    await peer.subscribe("news/#")
    peer.inlet.feed(packets.encode_unsubscribe(2, ["news/#"]))
    await peer.expect(PacketType.UNSUBACK)
    assert broker.subscriptions == {"news/#": []}
    await peer.gone()


async def test_what_is_acknowledged_and_waits_is_forgotten_when_the_client_leaves(broker):
    """Why amqtt hears of that late."""
    listener = await Peer(broker, HELLO._replace(client_id="listener")).ready()
    await listener.subscribe("news/#", 0)
    peer = await Peer(broker).ready()
    for i in range(100):
        peer.inlet.feed(packets.encode_publish(b"news/a", b"x", qos=1, packet_id=i + 1))
    await eventually(lambda: len(peer.written) == 100)
    peer.inlet.feed(b"\xe0\x00")
    await peer.task
    await listener.gone()
    assert len(listener.written) < 100


async def test_a_subscribe_overtakes_an_unsubscribe(broker):
    """Why nothing follows an UNSUBSCRIBE before it is answered."""
    peer = await Peer(broker).ready()
    await peer.subscribe("news/#")
    peer.inlet.feed(packets.encode_unsubscribe(2, ["news/#"]) + packets.encode_subscribe(3, [("news/#", 0)]))
    await peer.expect(PacketType.SUBACK)
    await peer.expect(PacketType.UNSUBACK)
    assert broker.subscriptions == {"news/#": []}
    await peer.gone()


def test_packet_identifiers_count_up_from_1():
    session = Session()
    assert [session.next_packet_id for _ in range(5)] == [1, 2, 3, 4, 5]
    session.inflight_out[6] = None
    assert session.next_packet_id == 7


async def test_acknowledged_subscriptions_come_in_the_order_in_which_they_were_asked_for(broker):
    peer = await Peer(broker).ready()
    for i in range(50):
        peer.inlet.feed(packets.encode_subscribe(9, [(f"f/{i}/{j}", 1) for j in range(i % 3 + 1)]))
    await eventually(lambda: len(peer.written) == 50)
    assert [len(packet) - 4 for packet in peer.written] == [i % 3 + 1 for i in range(50)]
    await peer.gone()


@pytest.mark.parametrize(
    "connect",
    [
        HELLO._replace(username="", password=b""),
        HELLO._replace(username="\U0001f4a1 \ufeff", password=bytes(range(256))),
        HELLO._replace(client_id="\U0001f4a1/#+ \x01\x7f\ufffe"),
        HELLO._replace(client_id="c" * 0xFFFF),
        HELLO._replace(will=Will("\U0001f4a1", b"\0", 2, retain=True)),
    ],
)
async def test_amqtt_takes_whatever_connect_the_front_takes(broker, connect):
    peer = Peer(broker, connect)
    assert (await peer.expect(PacketType.CONNACK))[3] == 0
    assert connect.client_id in broker.sessions
    peer.inlet.feed(PROBE + b"\xe0\x00")
    await peer.task


async def test_what_waits_in_amqtt_can_be_counted(broker):
    """Why clients can be held back: amqtt bounds neither of its queues."""
    peer = await Peer(broker).ready()
    session = broker.sessions["lamp"][0]
    await broker.internal_message_broadcast("news/a", b"x")
    assert broker._broadcast_queue.qsize() == 1
    assert session.delivered_message_queue.qsize() == 0
    assert broker._broadcast_queue.maxsize == session.delivered_message_queue.maxsize == 0
    await peer.gone()


# Behind a connection of the front.


class Wired:
    """A ``Behind`` without a front."""

    def __init__(self, broker: Broker, connect: Connect = HELLO, taken: set[int] | None = None) -> None:
        self.written: list[bytes] = []
        self.closed: list[str] = []
        self.full: list[bool] = []
        self.bounded: list[object] = []
        self.taken: set[int] = taken or set()
        self.behind = Behind(
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
