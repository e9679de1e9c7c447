"""amqtt's topic plugins say what a client of our server may publish and subscribe to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseTopicPlugin
from amqtt.session import Session

from support.brokers import plugin_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.amqtt import topic_rights
from thingctl_broker.mqtt.amqtt.topic_rights import (
    FilteringGatekeeper,
    PluginRights,
    TopicPlugins,
    topic_plugins,
)
from thingctl_broker.mqtt.auth.authenticator import Identity, OpenAuthenticator
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import Connect, ConnectRefused, PacketType, Will
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.security.topic_acl import Acl, AclSettings, AllTopics, UndecidedRights

TABOO = "amqtt.plugins.topic_checking.TopicTabooPlugin"
LISTS = "amqtt.plugins.topic_checking.TopicAccessControlListPlugin"
PEER = ("192.0.2.1", 4711)
CONNECT = Connect("c", True, 60, "lamp", b"right", None)


class Asked(BaseTopicPlugin):
    """Keeps what it is asked, and answers what the first level of the topic says."""

    @dataclass
    class Config(BaseTopicPlugin.Config): ...

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.asked: list[tuple[Session | None, str | None, Action | None]] = []

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        self.asked.append((session, topic, action))
        match (topic or "").split("/")[0]:
            case "waits":
                await asyncio.sleep(0)
            case "hangs":
                await asyncio.sleep(1000)
            case "raises":
                raise ZeroDivisionError
            case "none":
                return None
        return topic != "no"


class Waits(BaseTopicPlugin):
    """Says yes, after a while."""

    @dataclass
    class Config(BaseTopicPlugin.Config): ...

    async def topic_filtering(self, **_: Any) -> bool:
        await asyncio.sleep(0.001)
        return True


ASKED = f"{__name__}.Asked"
WAITS = f"{__name__}.Waits"


class Fixed:
    """An authenticator that admits everybody alike, at once or later."""

    def __init__(self, identity: Identity, *, later: bool = False) -> None:
        self._identity = identity
        self._later = later

    def admit(self, _connect: Connect, _peer: tuple[str, int]) -> Any:
        return self._afterwards() if self._later else self._identity

    async def _afterwards(self) -> Identity:
        return self._identity


@pytest.fixture
def notes():
    return []


@pytest.fixture
def gate(notes):
    def gate(plugins: dict[str, dict], inner: Any, limits: MqttLimits | None = None) -> FilteringGatekeeper:
        broker = Broker({"listeners": {"default": {"type": "external"}}, "plugins": plugins})
        found = topic_plugins(broker.plugins_manager.plugins)
        assert len(found) == len(plugins)

        def note(fault: str, _text: str, *, who: str = "", **_details: object) -> None:
            notes.append((fault, who))

        return FilteringGatekeeper(inner, TopicPlugins(found, limits or MqttLimits(), note))

    return gate


def own_topics() -> Identity:
    return Identity("lamp", "lamp/c", Acl(AclSettings(), "lamp"))


async def test_a_topic_needs_a_yes_of_each_plugin(gate, notes):
    rights = gate({ASKED: {}, TABOO: {}}, OpenAuthenticator()).admit(CONNECT, PEER).acl
    assert rights.may_publish("a")
    assert rights.may_subscribe("a/#")
    assert not rights.may_publish("no")
    assert not rights.may_subscribe("top-secret")
    assert not rights.may_publish("none")
    assert notes == []


async def test_lists_of_topics_by_user_name(gate):
    acl = {"lamp": ["things/lamp/#"]}
    rights = gate({LISTS: {"publish_acl": acl, "acl": acl}}, OpenAuthenticator()).admit(CONNECT, PEER).acl
    assert rights.may_publish("things/lamp/a")
    assert not rights.may_publish("things/door/a")
    assert rights.may_subscribe("things/lamp/#")
    assert not rights.may_subscribe("#")


async def test_a_plugin_learns_who_it_is_and_what_it_wants(gate):
    gatekeeper = gate({ASKED: {}}, OpenAuthenticator())
    rights = gatekeeper.admit(CONNECT, PEER).acl
    rights.may_publish("a")
    rights.may_subscribe("b/#")
    ((session, *publish), (other, *subscribe)) = gatekeeper._plugins.plugins[0].asked
    assert session is other
    assert isinstance(session, Session)
    assert (session.client_id, session.username, session.transitions.is_connected()) == ("c", "lamp", True)
    assert (publish, subscribe) == (["a", Action.PUBLISH], ["b/#", Action.SUBSCRIBE])


@pytest.mark.parametrize("later", [False, True])
async def test_a_things_own_rights_hold_too(gate, later):
    admission = gate({ASKED: {}}, Fixed(own_topics(), later=later)).admit(CONNECT, PEER)
    identity = await admission if later else admission
    assert (identity.thing, identity.client_id) == ("lamp", "lamp/c")
    assert identity.acl.may_publish("things/lamp/a")
    assert not identity.acl.may_publish("a")
    assert not identity.acl.may_subscribe("#")


async def test_one_that_raises_says_no_and_is_named(gate, notes):
    rights = gate({ASKED: {}}, OpenAuthenticator()).admit(CONNECT, PEER).acl
    assert not rights.may_publish("raises")
    assert notes == [("pluginFailed", "Asked")]


async def decided(question: Callable[[str], bool], topic: str) -> tuple[bool, int]:
    """The answer, and how often it had to be looked up."""
    lookups = 0
    while True:
        try:
            return question(topic), lookups
        except UndecidedRights as undecided:
            await undecided.lookup
            lookups += 1


async def test_one_that_waits_is_asked_in_a_task_of_its_own(gate, notes):
    rights = gate({ASKED: {}, WAITS: {}}, OpenAuthenticator()).admit(CONNECT, PEER).acl
    assert await decided(rights.may_publish, "waits/a") == (True, 2)
    assert await decided(rights.may_publish, "waits/a") == (True, 0)
    assert await decided(rights.may_publish, "waits/b") == (True, 2)
    assert len(rights._answers) == 2
    assert await decided(rights.may_publish, "no") == (False, 1)
    assert await decided(rights.may_subscribe, "none/#") == (False, 1)
    assert notes == []


async def test_one_that_waits_too_long_says_no(gate, notes, monkeypatch):
    monkeypatch.setattr(topic_rights, "TIMEOUT", 0.01)
    rights = gate({ASKED: {}}, OpenAuthenticator()).admit(CONNECT, PEER).acl
    assert await decided(rights.may_publish, "hangs") == (False, 1)
    assert notes == [("pluginFailed", "Asked")]


async def test_what_is_remembered_is_bounded_and_enough_for_one_subscribe(gate):
    limits = MqttLimits(filters=50, subscribe_bytes=3000)
    rights = gate({WAITS: {}, ASKED: {}}, OpenAuthenticator(), limits).admit(CONNECT, PEER).acl
    filters = [f"waits/{i}/{'x' * 50}" for i in range(limits.filters)]
    for _ in range(3):
        lookups = []
        while not lookups or lookups[-1]:  # as the server goes through them again and again
            lookups.append(sum([(await decided(rights.may_subscribe, wanted))[1] for wanted in filters]))
        assert len(lookups) <= 3
        filters = [f"{topic_filter}y" for topic_filter in filters]
    assert isinstance(rights, PluginRights)
    assert len(rights._answers) <= 4 * limits.filters
    assert rights._bytes == sum(len(question.topic) for question in rights._answers)
    assert rights._bytes <= 4 * limits.subscribe_bytes + 0xFFFF


@pytest.mark.parametrize(("name", "may"), [("lamp", False), ("@watcher", True)])
async def test_figures_are_for_clients_that_are_no_thing(gate, name, may):
    rights = gate({ASKED: {}}, OpenAuthenticator()).admit(CONNECT._replace(username=name), PEER).acl
    assert rights.may_subscribe("$SYS/#") is may
    assert not rights.may_publish("$SYS/a")


async def test_a_token_has_its_own_rights(gate):
    identity = Identity(None, "@t/c", AllTopics(reads=True, writes=False), observes=True)
    gatekeeper = gate({TABOO: {}}, Fixed(identity))
    assert gatekeeper.admit(CONNECT._replace(username="@t"), PEER) is identity


@pytest.mark.parametrize("plugins", [{TABOO: {}}, {TABOO: {}, WAITS: {}}])
async def test_a_will_needs_the_same_permission(gate, plugins):
    gatekeeper = gate(plugins, OpenAuthenticator())
    allowed = CONNECT._replace(will=Will("allowed", b"", 0, retain=False))
    assert (await gatekeeper.admit(allowed, PEER)).thing == "lamp"
    with pytest.raises(ConnectRefused, match="will on topic 'prohibited'"):
        await gatekeeper.admit(CONNECT._replace(will=Will("prohibited", b"", 0, retain=False)), PEER)


async def test_our_server_asks_them(tmp_path):
    async with plugin_broker(tmp_path, beside={TABOO: {}}) as running:
        client = await RawClient.connected(running.address, "lamp")
        assert await client.subscribe("prohibited", "allowed", "$emqx/commands/things/lamp/time") == [
            0x80,
            1,
            1,
        ]
        client.send(CODEC_3.encode_publish(b"prohibited", b"x", qos=1, packet_id=1))
        await client.expect(PacketType.PUBACK)
        await eventually(lambda: running.service.counters["dropped.forbiddenTopic"] == 1)


@pytest.fixture
async def slow(tmp_path):
    async with plugin_broker(tmp_path, beside={WAITS: {}, ASKED: {}}) as running:
        yield running


async def test_packets_behind_one_that_is_looked_up_wait_for_it_and_keep_their_order(slow):
    other = await RawClient.connected(slow.address, "other")
    await other.subscribe("a/#", qos=0)
    client = await RawClient.connected(slow.address, "lamp")
    client.send(
        CODEC_3.encode_publish(b"a/1", b"1", qos=1, packet_id=1)
        + packets.encode_subscribe(2, [("b/1", 1), ("no", 1), ("b/2", 0)])
        + CODEC_3.encode_publish(b"no", b"2", qos=1, packet_id=3)
        + CODEC_3.encode_publish(b"a/2", b"3")
        + CODEC_3.encode_publish(b"a/1", b"4", qos=2, packet_id=4)
        + b"\xc0\x00"
    )
    for piece in (
        CODEC_3.encode_publish(b"a/3", b"5")[:4],
        CODEC_3.encode_publish(b"a/3", b"5")[4:],
        b"\xc0\x00",
    ):
        client.send(piece)
        await asyncio.sleep(0)
    answers = [(await client.receive()).packet for _ in range(6)]
    assert answers == [
        CODEC_3.encode_puback(1),
        packets.encode_suback(2, [1, 0x80, 0]),
        CODEC_3.encode_puback(3),
        CODEC_3.encode_pubrec(4),
        b"\xd0\x00",
        b"\xd0\x00",
    ]
    assert [(await other.expect_publish()).payload for _ in range(4)] == [b"1", b"3", b"4", b"5"]
    figures = slow.front.figures()
    assert figures["messages_received"] == 2 + 1 + 8
    assert figures["bytes_received"] == client.bytes_sent + other.bytes_sent


async def test_a_client_that_says_all_and_leaves_is_heard_out(slow):
    other = await RawClient.connected(slow.address, "other")
    await other.subscribe("a/#", "wills/#", qos=0)
    client = await RawClient.connected(slow.address, "lamp", will=Will("wills/1", b"w", 0, retain=False))
    client.send(CODEC_3.encode_publish(b"a/1", b"1") + CODEC_3.encode_publish(b"a/2", b"2"))
    client._writer.write_eof()
    assert [(await other.expect_publish()).payload for _ in range(3)] == [b"1", b"2", b"w"]
    await client.expect_end()


def pauses(running) -> bool:
    (connection,) = running.front.connections
    return connection._handshake is not None


async def test_what_waits_for_a_lookup_is_bounded(slow, monkeypatch):
    monkeypatch.setattr(topic_rights, "TIMEOUT", 1.0)
    client = await RawClient.connected(slow.address, "lamp")
    client.send(CODEC_3.encode_publish(b"hangs", b"1"))
    await eventually(lambda: pauses(slow))
    (connection,) = slow.front.connections

    while client._writer.transport.get_write_buffer_size() == 0:
        client.send(CODEC_3.encode_publish(b"a/1", b"x" * 100_000))

        await asyncio.sleep(0.001)
    assert not connection.is_heard
    assert connection._handshake._unread_bytes < slow.front.limits.connect_bytes + 512 * 1024


async def test_a_client_that_is_lost_during_a_lookup_leaves_nothing(slow):
    client = await RawClient.connected(slow.address, "lamp")
    client.send(CODEC_3.encode_publish(b"hangs", b"1"))
    await eventually(lambda: pauses(slow))
    client.reset()
    await eventually(lambda: not slow.front.connections)
    again = await RawClient.connected(slow.address, "lamp")
    await again.ping()


async def test_a_kept_session_and_commands_do_not_wait_for_a_lookup(slow):
    client = await RawClient.connected(slow.address, "lamp")
    await client.subscribe("$emqx/commands/things/lamp/executions/+/request")
    client.send(CODEC_3.encode_publish(b"hangs", b"1"))
    await eventually(lambda: pauses(slow))
    slow.service.send("lamp", "turnOn")
    await client.expect_publish()


async def test_a_kept_session_goes_on_with_what_it_was_granted(slow):
    client = await RawClient.connected(slow.address, "lamp", clean=False)
    await client.subscribe("a/1", qos=1)
    client.reset()
    await eventually(lambda: not slow.front.connections)
    again = await RawClient.connected(slow.address, "lamp", clean=False)
    slow.front.publish("a/1", b"x", qos=1)
    assert (await again.expect_publish()).payload == b"x"
    again.send(CODEC_3.encode_puback(1))
    for _ in range(2):
        await again.ping()
        await asyncio.sleep(0.01)  # a lookup would have ended
