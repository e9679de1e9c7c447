"""amqtt's topic plugins say what a client of our server may publish and subscribe to."""

from __future__ import annotations

import asyncio
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
from thingctl_broker.mqtt.amqtt.topic_rights import FilteringGatekeeper, topic_plugins
from thingctl_broker.mqtt.auth.authenticator import Identity, OpenAuthenticator
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.packets import Connect, ConnectRefused, PacketType, Will
from thingctl_broker.security.topic_acl import Acl, AclSettings, AllTopics

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
            case "raises":
                raise ZeroDivisionError
            case "none":
                return None
        return topic != "no"


ASKED = f"{__name__}.Asked"


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
    def gate(plugins: dict[str, dict], inner: Any) -> FilteringGatekeeper:
        broker = Broker({"listeners": {"default": {"type": "external"}}, "plugins": plugins})
        found = topic_plugins(broker.plugins_manager.plugins)
        assert len(found) == len(plugins)
        return FilteringGatekeeper(inner, found, lambda fault, *_, who="", **__: notes.append((fault, who)))

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
    ((session, *publish), (other, *subscribe)) = gatekeeper._plugins[0].asked
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


@pytest.mark.parametrize(("topic", "fault"), [("waits", "pluginWaits"), ("raises", "pluginFailed")])
async def test_one_that_waits_or_raises_says_no_and_is_named(gate, notes, topic, fault):
    rights = gate({ASKED: {}}, OpenAuthenticator()).admit(CONNECT, PEER).acl
    assert not rights.may_publish(topic)
    assert notes == [(fault, "Asked")]


@pytest.mark.parametrize(("name", "may"), [("lamp", False), ("@watcher", True)])
async def test_figures_are_for_clients_that_are_no_thing(gate, name, may):
    rights = gate({ASKED: {}}, OpenAuthenticator()).admit(CONNECT._replace(username=name), PEER).acl
    assert rights.may_subscribe("$SYS/#") is may
    assert not rights.may_publish("$SYS/a")


async def test_a_token_has_its_own_rights(gate):
    identity = Identity(None, "@t/c", AllTopics(reads=True, writes=False), observes=True)
    gatekeeper = gate({TABOO: {}}, Fixed(identity))
    assert gatekeeper.admit(CONNECT._replace(username="@t"), PEER) is identity


async def test_a_will_needs_the_same_permission(gate):
    gatekeeper = gate({TABOO: {}}, OpenAuthenticator())
    gatekeeper.admit(CONNECT._replace(will=Will("allowed", b"", 0, retain=False)), PEER)
    with pytest.raises(ConnectRefused, match="will on topic 'prohibited'"):
        gatekeeper.admit(CONNECT._replace(will=Will("prohibited", b"", 0, retain=False)), PEER)


async def test_our_server_asks_them(tmp_path):
    async with plugin_broker(tmp_path, beside={TABOO: {}}) as running:
        client = await RawClient.connected(running.address, "lamp")
        assert await client.subscribe("prohibited", "allowed", "$emqx/commands/things/lamp/time") == [
            0x80,
            1,
            1,
        ]
        client.send(packets.encode_publish(b"prohibited", b"x", qos=1, packet_id=1))
        await client.expect(PacketType.PUBACK)
        await eventually(lambda: running.service.counters["dropped.forbiddenTopic"] == 1)
