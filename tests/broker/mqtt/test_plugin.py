"""The plugin beside amqtt's authentication plugins: they decide, before amqtt touches a session."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import structlog
from amqtt.broker import Broker
from amqtt.contexts import BaseContext
from amqtt.errors import PluginInitError
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from support.brokers import PLUGIN, plugin_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.amqtt.bridge import handed_over
from thingctl_broker.mqtt.protocol.packets import ConnackCode

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")

FILE_AUTH = "amqtt.plugins.authentication.FileAuthPlugin"
ANONYMOUS = "amqtt.plugins.authentication.AnonymousAuthPlugin"
CHEAP = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))


@pytest.fixture
def passwords(tmp_path):
    path = tmp_path / "passwords"
    path.write_text(f"lamp:{CHEAP.hash('right')}\n")
    return {FILE_AUTH: {"password_file": str(path)}}


async def knock(running, client_id: str = "lamp", **options) -> tuple[RawClient, int]:
    client = await RawClient.open(running.address)
    return client, (await client.connect(client_id, **options)).packet[3]


@pytest.mark.parametrize("is_open", [False, True])
async def test_the_right_password_lets_in_and_the_wrong_one_touches_nothing(tmp_path, passwords, is_open):
    async with plugin_broker(tmp_path, beside=passwords, open=is_open) as running:
        client, code = await knock(running, clean=False, username="lamp", password=b"right")
        assert code == ConnackCode.ACCEPTED
        await client.subscribe("things/lamp/#", "$emqx/commands/things/lamp/executions/+/request")
        name = "lamp" if is_open else "lamp/lamp"
        session = running.broker.sessions[name][0]
        for clean in (True, False):
            for credentials in (
                {"username": "lamp", "password": b"wrong"},
                {"username": "lamp", "password": b"\xff\xfe"},
                {"username": "lamp"},
                {"username": "nobody", "password": b"right"},
                {"username": "", "password": b""},
                {},
            ):
                impostor, code = await knock(running, clean=clean, **credentials)
                assert code == ConnackCode.NOT_AUTHORIZED, credentials
                await impostor.expect_end()
        assert running.broker.sessions == {name: (session, running.broker.sessions[name][1])}
        assert (session.username, session.transitions.state) == ("lamp", "connected")
        running.service.send("lamp", "turnOn")
        await client.expect_publish()


async def test_the_name_is_the_one_that_was_proved(tmp_path, passwords):
    async with plugin_broker(tmp_path, beside=passwords, open=False) as running:
        client, _ = await knock(running, "door", username="lamp", password=b"right")
        assert await client.subscribe("$emqx/commands/things/door/executions/+/request") == [0x80]
        assert await client.subscribe("$emqx/commands/things/lamp/executions/+/request") == [1]


async def test_amqtt_lets_in_again_whom_the_front_let_in(tmp_path, passwords):
    async with plugin_broker(tmp_path, beside=passwords, open=False) as running:
        for _ in range(2):
            client, _ = await knock(running, clean=False, username="lamp", password=b"right")
            assert await client.subscribe("news/#", "things/lamp/#") == [0x80, 1]
            client.reset()
            await eventually(lambda: not running.front._leaving and not running.front.connections)


async def test_anonymous_clients_of_amqtts_need_open_too(tmp_path):
    beside = {ANONYMOUS: {"allow_anonymous": True}}
    async with plugin_broker(tmp_path, beside=beside, open=False) as running:
        _, code = await knock(running)
        assert code == ConnackCode.NOT_AUTHORIZED
        # It looks at no password, so it says nothing of who is a thing.
        _, code = await knock(running, username="lamp", password=b"anything")
        assert code == ConnackCode.BAD_USER_NAME_OR_PASSWORD
    async with plugin_broker(tmp_path, beside=beside) as running:
        _, code = await knock(running)
        assert code == ConnackCode.ACCEPTED


async def test_without_others_and_without_open_nobody_is_let_in(tmp_path):
    async with plugin_broker(tmp_path, open=False) as running:
        client, code = await knock(running, username="lamp", password=b"right")
        assert code == ConnackCode.BAD_USER_NAME_OR_PASSWORD
        await client.expect_end()


class Changing(BaseAuthPlugin):
    """Says yes to the front and no to amqtt."""

    @dataclass
    class Config(BaseAuthPlugin.Config): ...

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self.asked = 0

    async def authenticate(self, *, session: Session) -> bool:
        self.asked += 1
        return self.asked % 2 == 1


async def test_one_that_changes_its_mind_leaves_no_zombie(tmp_path, monkeypatch):
    monkeypatch.setattr("amqtt.plugins.authentication.FileAuthPlugin", Changing)
    async with plugin_broker(tmp_path, beside={FILE_AUTH: {}}) as running:
        client, code = await knock(running, clean=False)
        assert code == ConnackCode.ACCEPTED
        client.send(b"\x82\x06\x00\x01\x00\x01a\x00")
        await client.expect_end()
        assert {s.transitions.state for s, _ in running.broker.sessions.values()} == {"disconnected"}


async def test_the_plugin_has_no_opinion_on_whom_it_has_not_seen(tmp_path):
    async with plugin_broker(tmp_path) as running:
        plugin = running.broker.plugins_manager.get_plugin("CommandsPlugin")
        assert await plugin.authenticate(session=Session()) is None
        handed_over.set(True)
        assert await plugin.authenticate(session=Session()) is True


async def test_settings_may_be_in_a_file_and_in_place(tmp_path):
    path = tmp_path / "broker.toml"
    path.write_text(
        'open = true\n[mqtt]\ntopic_root = "fleet"\nbind = "127.0.0.1:1"\n[limits]\nconnections = 7\n'
    )
    settings = {"data_dir": str(tmp_path), "mqtt": {"bind": "127.0.0.1:0"}, "http": {"bind": "127.0.0.1:0"}}
    broker = Broker(
        {
            "listeners": {"default": {"type": "external"}},
            "plugins": {PLUGIN: {"config_file": str(path), "settings": settings}},
        }
    )
    await broker.start()
    application = broker.plugins_manager.get_plugin("CommandsPlugin").application
    try:
        assert application.settings.open
        assert application.front.topics.root == "fleet"
        assert application.front.limits.connections == 7
        assert application.mqtt_address.port > 1
    finally:
        await broker.shutdown()


@pytest.mark.parametrize(
    "options",
    [
        {"settings": {"opne": True}},
        {"config_file": "/no/such/file.toml"},
        {"settings": {"open": True, "amqtt": {"plugins": {ANONYMOUS: {}}}}},
        {"settings": {"open": True, "mqtt": {"bind": "0.0.0.0:0"}}},
    ],
)
async def test_wrong_settings_stop_amqtt_and_are_told(options, capsys):
    config = {"listeners": {"default": {"type": "external"}}, "plugins": {PLUGIN: options}}
    with structlog.testing.capture_logs() as logs, pytest.raises(PluginInitError) as fault:
        Broker(config)
    assert [entry["fault"] for entry in logs] == [str(fault.value.__cause__)]
    assert isinstance(fault.value.__cause__, ConfigurationError)
