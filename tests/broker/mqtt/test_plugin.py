"""The plugin inside amqtt: beside its other plugins, which decide, and beside its own listeners."""

from __future__ import annotations

import pytest
import structlog
from amqtt.broker import Broker
from amqtt.errors import PluginInitError
from amqtt.session import ApplicationMessage, Session
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from support.brokers import PLUGIN, plugin_broker
from support.wire import RawClient
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import ConnackCode, PacketType

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
        session = running.front.engine.sessions.get(name)
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
        assert list(running.front.engine.sessions) == [session]
        assert session.is_connected
        assert running.broker.sessions == {}
        running.service.send("lamp", "turnOn")
        await client.expect_publish()


async def test_the_name_is_the_one_that_was_proved(tmp_path, passwords):
    async with plugin_broker(tmp_path, beside=passwords, open=False) as running:
        client, _ = await knock(running, "door", username="lamp", password=b"right")
        assert await client.subscribe("$emqx/commands/things/door/executions/+/request") == [0x80]
        assert await client.subscribe("$emqx/commands/things/lamp/executions/+/request") == [1]


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


async def test_messages_pass_between_amqtts_listener_and_ours(tmp_path):
    own = {"default": {"type": "tcp", "bind": "127.0.0.1:0"}}
    beside = {ANONYMOUS: {"allow_anonymous": True}}
    async with plugin_broker(tmp_path, beside=beside, listeners=own) as running:
        address = running.broker._servers["default"].instance.sockets[0].getsockname()
        theirs = await RawClient.connected(address, "theirs")
        ours = await RawClient.connected(running.address, "ours")
        for client in (theirs, ours):
            await client.subscribe("a/#", qos=0)
        for client, payload in ((theirs, b"from theirs"), (ours, b"from ours")):
            client.send(CODEC_3.encode_publish(b"a/b", payload, qos=1, packet_id=7))
            got = [(await listener.receive()) for listener in (client, client)]
            assert {frame.first >> 4 for frame in got} == {PacketType.PUBACK, PacketType.PUBLISH}
            other = ours if client is theirs else theirs
            assert (await other.expect_publish()).payload == payload
        for client in (theirs, ours):
            await client.ping()


async def test_before_the_start_and_after_the_end_amqtt_has_nobody_to_tell(tmp_path):
    async with plugin_broker(tmp_path) as running:
        assert running.front.events == []
        plugin = running.broker.plugins_manager.get_plugin("CommandsPlugin")
    message = ApplicationMessage(None, "a", 0, b"x", retain=False)
    plugin._host = None
    await plugin.on_broker_client_connected(client_id="c", client_session=Session())
    await plugin.on_broker_client_subscribed(client_id="c", topic="a", qos=0)
    await plugin.on_broker_message_broadcast(client_id="c", message=message)
    await plugin.on_broker_retained_message(client_id=None, retained_message=message)
    assert running.front.events == []


@pytest.mark.parametrize("interval", [0, 1])
async def test_figures_are_published_unless_they_are_off(tmp_path, interval):
    mqtt = {"bind": "127.0.0.1:0", "sys_interval": interval}
    async with plugin_broker(tmp_path, mqtt=mqtt) as running:
        client = await RawClient.connected(running.address, "@watcher")
        await client.subscribe("$SYS/broker/version", qos=0)
        if interval:
            assert (await client.expect_publish()).payload.startswith(b"thingctl version ")
        else:
            await client.ping()
            assert running.front.retained("$SYS/#") == []


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
