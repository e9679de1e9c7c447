"""amqtt's authentication plugins decide who connects to our server, where they know anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from thingctl_broker.mqtt.amqtt.gatekeeper import AmqttGatekeeper, Enrolled, authorities
from thingctl_broker.mqtt.auth.token_auth import MARK
from thingctl_broker.mqtt.protocol.packets import Connect, ConnectRefused
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.security.tokens import Scope, Token
from thingctl_broker.security.topic_acl import AclSettings
from thingctl_broker.things.registry import ThingRegistry

ANONYMOUS = "amqtt.plugins.authentication.AnonymousAuthPlugin"
PEER = ("192.0.2.1", 4711)
CONNECT = Connect("c", True, 60, "lamp", b"right", None)


class Verdict(BaseAuthPlugin):
    """Says what the password says: yes, no, or nothing; and keeps what it was asked about."""

    @dataclass
    class Config(BaseAuthPlugin.Config): ...

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.asked: list[Session] = []

    async def authenticate(self, *, session: Session) -> bool | None:
        self.asked.append(session)
        return {"right": True, "wrong": False}.get(session.password or "")


class Yes(BaseAuthPlugin):
    @dataclass
    class Config(BaseAuthPlugin.Config): ...

    async def authenticate(self, *, session: Session) -> bool:
        return True


VERDICT = f"{__name__}.Verdict"
YES = f"{__name__}.Yes"


def broker(*plugins: str) -> Broker:
    return Broker({"listeners": {"default": {"type": "external"}}, "plugins": {name: {} for name in plugins}})


@pytest.fixture
def tokens(tmp_path):
    return TokenStore.open(tmp_path, "tctl_a-token-for-tests-0123456789-0123456789")


@pytest.fixture
def enrolled(tokens):
    return Enrolled(ThingRegistry(enrols=False), tokens, AclSettings(), lambda: 1000.0)


async def test_a_yes_lets_the_thing_of_the_user_name_in(enrolled):
    running = broker(VERDICT)
    identity = await AmqttGatekeeper(running, enrolled).admit(CONNECT, PEER)
    assert (identity.thing, identity.client_id) == ("lamp", "lamp/c")
    assert identity.acl.may_publish("things/lamp/a")
    assert not identity.acl.may_publish("things/door/a")
    (session,) = running.plugins_manager.get_plugin("Verdict").asked
    assert (session.client_id, session.username, session.password) == ("c", "lamp", "right")
    assert (session.remote_address, session.remote_port, session.clean_session) == (*PEER, True)
    assert running.sessions == {}


async def test_with_open_enrolment_the_client_is_the_thing_that_it_says_it_is():
    identity = await AmqttGatekeeper(broker(VERDICT), None).admit(CONNECT, PEER)
    assert (identity.thing, identity.acl) == ("lamp", None)


@pytest.mark.parametrize("password", [b"wrong", b"unknown", b"\xff", None])
@pytest.mark.parametrize("is_open", [False, True])
async def test_without_a_yes_nobody_comes_in(enrolled, password, is_open):
    gatekeeper = AmqttGatekeeper(broker(VERDICT), None if is_open else enrolled)
    with pytest.raises(ConnectRefused):
        await gatekeeper.admit(CONNECT._replace(password=password), PEER)


async def test_one_no_outweighs_a_yes(enrolled):
    gatekeeper = AmqttGatekeeper(broker(VERDICT, YES), enrolled)
    with pytest.raises(ConnectRefused):
        await gatekeeper.admit(CONNECT._replace(password=b"wrong"), PEER)
    await gatekeeper.admit(CONNECT._replace(password=b"unknown"), PEER)


async def test_one_that_knows_no_passwords_opens_no_thing(enrolled):
    """It opens amqtt's own listeners; no device may be any thing for it."""
    running = broker(ANONYMOUS)
    assert authorities(running.plugins_manager.plugins, is_open=False) == []
    assert len(authorities(running.plugins_manager.plugins, is_open=True)) == 1
    with pytest.raises(ConnectRefused):
        await AmqttGatekeeper(running, enrolled).admit(CONNECT, PEER)
    with pytest.raises(ConnectRefused):
        await AmqttGatekeeper(broker(ANONYMOUS, VERDICT), enrolled).admit(
            CONNECT._replace(password=b"?"), PEER
        )
    assert (await AmqttGatekeeper(running, None).admit(CONNECT, PEER)).thing == "lamp"


@pytest.mark.parametrize("name", ["", "a/b", "-" * 200])
async def test_a_user_name_that_can_name_no_thing_is_refused(enrolled, name):
    with pytest.raises(ConnectRefused):
        await AmqttGatekeeper(broker(YES), enrolled).admit(CONNECT._replace(username=name), PEER)


async def test_a_bearer_of_a_token_is_none_of_the_plugins_business(tokens, enrolled):
    secret = await tokens.add(Token("backend", frozenset({Scope.MQTT_READ})))
    running = broker(VERDICT)
    connect = CONNECT._replace(username=f"{MARK}backend", password=secret.encode())
    identity = await AmqttGatekeeper(running, enrolled).admit(connect, PEER)
    assert identity.observes
    assert running.plugins_manager.get_plugin("Verdict").asked == []


async def test_who_guesses_is_slowed_down(enrolled):
    running = broker(VERDICT)
    gatekeeper = AmqttGatekeeper(running, enrolled)
    for _ in range(25):
        with pytest.raises(ConnectRefused):
            await gatekeeper.admit(CONNECT._replace(password=b"wrong"), PEER)
    asked = running.plugins_manager.get_plugin("Verdict").asked
    assert len(asked) < 25
    with pytest.raises(ConnectRefused):
        await gatekeeper.admit(CONNECT, PEER)
