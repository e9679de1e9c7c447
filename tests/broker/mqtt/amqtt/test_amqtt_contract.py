"""What the front leans on in amqtt 0.12.1, public or not: an upgrade that changes it fails here, and loudly."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import Any

import amqtt
import pytest
from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker, BrokerContext
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin
from amqtt.session import Session

from support.amqtt_alone import HELLO, PROBE, Peer, bare_amqtt
from support.hosted import ANONYMOUS
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.amqtt.bridge import LISTENER
from thingctl_broker.mqtt.amqtt.patches import drop_session
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.frames import FrameScanner
from thingctl_broker.mqtt.protocol.packets import PacketType, Will

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")


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


# What the host leans on.


class Undecided(BaseAuthPlugin):
    """Has no opinion, as ours on clients of amqtt's own listeners."""

    @dataclass
    class Config(BaseAuthPlugin.Config): ...

    async def authenticate(self, *, session: Session) -> bool | None:
        return None


class Listener(BasePlugin):
    """Keeps every event of amqtt's with its arguments."""

    @dataclass
    class Config(BasePlugin.Config): ...

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)

        async def hear(**arguments: Any) -> None:
            self.heard.append((name, arguments))

        return hear

    def of(self, name: str) -> list[dict[str, Any]]:
        return [arguments for heard, arguments in self.heard if heard == f"on_broker_{name}"]


@pytest.fixture
async def listening():
    """amqtt with a listener of its own and a plugin that hears everything; and where it listens."""
    own = {"default": {"type": "tcp", "bind": "127.0.0.1:0"}}
    plugins = {ANONYMOUS: {"allow_anonymous": True}, f"{__name__}.Listener": {}}
    async with bare_amqtt(listeners=own, plugins=plugins) as broker:
        address = broker._servers["default"].instance.sockets[0].getsockname()
        yield broker, address, broker.plugins_manager.get_plugin("Listener")
        await RawClient.close_all()


@pytest.fixture
def taps(listening, monkeypatch):
    """What goes through ``Broker._broadcast_message``."""
    broker, _, _ = listening
    calls: list[tuple[Any, ...]] = []
    original = broker._broadcast_message

    async def tap(*arguments: Any) -> None:
        calls.append(arguments)
        await original(*arguments)

    monkeypatch.setattr(broker, "_broadcast_message", tap)
    return calls


def test_the_names_that_are_private_are_as_they_were():
    assert list(inspect.signature(Broker._broadcast_message).parameters) == [
        "self",
        "session",
        "topic",
        "data",
        "force_qos",
    ]
    assert inspect.signature(Broker._broadcast_message).parameters["force_qos"].default is None


async def test_a_listener_of_its_own_has_an_instance(listening):
    broker, _, _ = listening
    assert broker._servers["default"].instance is not None


async def test_a_clients_message_is_told_with_its_flags_and_distributed_without_its_qos(listening, taps):
    broker, address, plugin = listening
    client = await RawClient.connected(address, "c")
    client.send(packets.encode_publish(b"a", b"x", qos=1, packet_id=1, retain=True))
    await client.expect(PacketType.PUBACK)
    await eventually(lambda: plugin.of("retained_message"))
    (broadcast,) = plugin.of("message_broadcast")
    assert broadcast.keys() == {"client_id", "message"}
    message = broadcast["message"]
    assert (message.topic, message.data, message.qos) == ("a", b"x", 1)
    assert message.publish_packet.retain_flag
    session, handler = broker.sessions["c"]
    assert taps == [(session, "a", b"x")]
    (retained,) = plugin.of("retained_message")
    assert retained["client_id"] is None
    assert retained["retained_message"].source_session is session
    assert broker.retained_messages == {"a": retained["retained_message"]}
    assert list(inspect.signature(handler.mqtt_publish).parameters)[:4] == ["topic", "data", "qos", "retain"]


async def test_a_will_is_told_to_no_plugin_and_distributed_with_its_qos(listening, taps):
    broker, address, plugin = listening
    client = await RawClient.connected(address, "c", will=Will("a", b"x", 0, retain=True))
    session = broker.sessions["c"][0]
    client.reset()
    await eventually(lambda: plugin.of("client_disconnected"))
    assert taps == [(session, "a", b"x", 0)]
    assert session.will_retain
    assert plugin.of("message_broadcast") == []


@pytest.mark.parametrize("qos", [None, 0, 1])
async def test_what_plugins_say_has_no_session_and_is_told_to_no_plugin(listening, taps, qos):
    _, _, plugin = listening
    await plugin.context.broadcast_message("a", b"x", qos)
    assert taps == [(None, "a", b"x", qos)]
    await plugin.context.retain_message("a", b"x", qos)
    await eventually(lambda: plugin.of("retained_message"))
    (retained,) = plugin.of("retained_message")
    assert (retained["client_id"], retained["retained_message"].source_session) == (None, None)
    await plugin.context.retain_message("a", b"", qos)
    await eventually(lambda: len(plugin.of("retained_message")) == 2)
    assert plugin.of("retained_message")[1]["retained_message"].data == b""
    assert plugin.of("message_broadcast") == []


async def test_a_message_is_delivered_at_the_qos_of_the_subscription_or_at_the_one_given(listening):
    broker, address, _ = listening
    client = await RawClient.connected(address, "c")
    await client.subscribe("a", qos=1)
    await broker.internal_message_broadcast("a", b"granted")
    message = await client.expect_publish()
    assert message.qos == 1
    client.send(packets.encode_puback(message.packet_id))
    await broker.internal_message_broadcast("a", b"given", 0)
    assert (await client.expect_publish()).qos == 0


async def test_events_of_clients_have_these_arguments(listening):
    _, address, plugin = listening
    client = await RawClient.connected(address, "c")
    await client.subscribe("a/#", qos=1)
    client.send(packets.encode_unsubscribe(2, ["a/#"]))
    await client.expect(PacketType.UNSUBACK)
    client.send(b"\xe0\x00")
    await eventually(lambda: plugin.of("client_disconnected"))
    (connected,), (disconnected,) = plugin.of("client_connected"), plugin.of("client_disconnected")
    assert connected == disconnected == {"client_id": "c", "client_session": connected["client_session"]}
    assert isinstance(connected["client_session"], Session)
    assert plugin.of("client_subscribed") == [{"client_id": "c", "topic": "a/#", "qos": 1}]
    assert plugin.of("client_unsubscribed") == [{"client_id": "c", "topic": "a/#"}]


async def test_what_amqtt_has_to_do_can_be_counted_and_has_no_bound(listening):
    broker, address, _ = listening
    client = await RawClient.connected(address, "c")
    await client.subscribe("a", qos=1)
    for _ in range(10):
        await broker.internal_message_broadcast("a", b"x")
    assert (broker._broadcast_queue.qsize(), broker._broadcast_queue.maxsize) == (10, 0)
    await eventually(lambda: len(broker._tasks_queue) == 10)
    assert not any(task.done() for task in broker._tasks_queue)
    client.reset()
    await eventually(lambda: all(task.done() for task in broker._tasks_queue))


async def test_verdicts_come_by_plugin_and_without_a_yes_nobody_comes_in():
    own = {"default": {"type": "tcp", "bind": "127.0.0.1:0"}}
    async with bare_amqtt(listeners=own, plugins={f"{__name__}.Undecided": {}}) as broker:
        undecided = broker.plugins_manager.get_plugin("Undecided")
        assert broker.plugins_manager.plugins == [undecided]
        assert await broker.plugins_manager.map_plugin_auth(session=Session()) == {undecided: None}
        client = await RawClient.open(broker._servers["default"].instance.sockets[0].getsockname())
        assert (await client.connect("c")).packet[3] != 0
        await client.close()


@pytest.mark.parametrize("allows", [False, True])
async def test_the_anonymous_plugin_looks_at_no_password(allows):
    """Why it decides with open enrolment only."""
    async with bare_amqtt(plugins={ANONYMOUS: {"allow_anonymous": allows}}) as broker:
        session = Session()
        session.username, session.password = "lamp", "anything"
        (verdict,) = (await broker.plugins_manager.map_plugin_auth(session=session)).values()
        assert verdict is True


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
