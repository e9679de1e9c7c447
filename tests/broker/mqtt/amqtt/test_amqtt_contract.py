"""What we lean on in amqtt 0.12.1, public or not: an upgrade that changes it fails here, and loudly."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import Any

import amqtt
import pytest
from amqtt.broker import Broker, BrokerContext
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from amqtt.session import Session

from support.amqtt_alone import bare_amqtt
from support.hosted import ANONYMOUS
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.amqtt.client_session import ClientSession
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import PacketType, Will

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")


@pytest.fixture
async def broker():
    async with bare_amqtt() as broker:
        yield broker


def test_this_is_the_version_whose_behaviour_is_held_here():
    assert amqtt.__version__ == "0.12.1"


def test_the_interface_is_as_it_was():
    assert list(inspect.signature(BaseAuthPlugin.authenticate).parameters) == ["self", "session"]
    filtering = inspect.signature(BaseTopicPlugin.topic_filtering).parameters
    assert list(filtering) == ["self", "session", "topic", "action"]


async def test_the_broker_stands_in_a_plugins_context(broker):
    assert BrokerContext(broker)._broker_instance is broker


async def test_a_listener_of_type_external_needs_no_address_and_opens_no_socket(broker):
    assert list(broker._servers) == ["default"]
    assert broker._servers["default"].instance is None


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
    client.send(CODEC_3.encode_publish(b"a", b"x", qos=1, packet_id=1, retain=True))
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
    client.send(CODEC_3.encode_puback(message.packet_id))
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


async def test_sessions_are_a_dictionary_of_session_and_handler_by_client_id(listening):
    broker, address, plugin = listening
    await RawClient.connected(address, "c")
    session, handler = broker.sessions["c"]
    assert plugin.context.get_session("c") is session
    assert handler.session is session
    assert broker.sessions is broker._sessions


async def test_who_subscribes_stands_by_filter(listening):
    """Why there is nothing to carry while this is empty."""
    broker, address, _ = listening
    assert broker.subscriptions == {}
    client = await RawClient.connected(address, "c")
    await client.subscribe("a/#", qos=1)
    assert broker.subscriptions == {"a/#": [(broker.sessions["c"][0], 1)]}


async def test_a_plugin_hears_that_a_client_subscribes_before_it_gets_what_is_retained(listening):
    _, address, plugin = listening
    await plugin.context.retain_message("a", b"x", 1)
    client = await RawClient.connected(address, "c")
    await client.subscribe("a", qos=0)
    message = await client.expect_publish()
    assert (message.payload, message.retain, message.qos) == (b"x", True, 0)
    assert plugin.of("client_subscribed")


async def test_a_session_makes_its_state_by_a_method_of_its_own():
    """``ClientSession`` leaves it out: a machine for each event would cost too much."""
    session = ClientSession("c", "lamp")
    assert vars(session).keys() == vars(Session()).keys()
    assert session.transitions.state == "connected"
    assert ClientSession("c", "lamp", is_connected=False).transitions.is_disconnected()


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


async def test_who_keeps_amqtt_waiting_can_be_seen_and_cut_off(listening):
    broker, address, plugin = listening
    client = await RawClient.connected(address, "c")
    await client.subscribe("a", qos=0)
    client._writer.transport.pause_reading()
    handler = broker.sessions["c"][1]
    assert not handler._write_lock.locked()
    while not handler._write_lock.locked():
        await broker.internal_message_broadcast("a", b"x" * 1024 * 1024)
        await eventually(broker._broadcast_queue.empty)
        await asyncio.sleep(0)
    handler.writer._writer.transport.abort()
    await eventually(lambda: plugin.of("client_disconnected"))


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
