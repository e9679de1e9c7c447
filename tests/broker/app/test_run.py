"""From settings to a broker: what is wrong with them is one sentence."""

from __future__ import annotations

import logging
import socket

import msgspec
import pytest
from amqtt.plugins.base import BasePlugin

from thingctl_broker.app.config import AmqttSettings, HttpSettings, MqttSettings, Settings, read_settings
from thingctl_broker.app.run import build_broker
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.system.addresses import bound_to


def settings(tmp_path, mqtt: str = "127.0.0.1:0") -> Settings:
    return Settings(
        open=True,
        data_dir=str(tmp_path),
        mqtt=MqttSettings(bind=mqtt),
        http=HttpSettings(bind="127.0.0.1:0"),
    )


async def test_a_broker_with_the_plugin_in_it(tmp_path):
    broker, plugin = build_broker(settings(tmp_path))
    await broker.start()
    assert plugin.failure is None
    assert plugin.application.mqtt_address.port
    await broker.shutdown()


async def test_a_taken_port_is_a_configuration_error_and_nothing_of_amqtts(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match="cannot listen"),
    ):
        build_broker(settings(tmp_path, str(bound_to(taken))))


async def test_what_fails_when_it_starts_is_kept_for_the_process_to_tell(tmp_path, monkeypatch):
    broker, plugin = build_broker(settings(tmp_path))

    async def fails() -> None:
        raise ConfigurationError("the disk is on fire")

    monkeypatch.setattr(plugin.application, "start", fails)
    await broker.start()
    assert str(plugin.failure) == "the disk is on fire"
    await broker.shutdown()


FILE_AUTH = "amqtt.plugins.authentication.FileAuthPlugin"


def with_plugins(tmp_path, plugins: dict) -> Settings:
    return msgspec.structs.replace(settings(tmp_path), amqtt=AmqttSettings(plugins))


async def test_plugins_of_amqtts_are_loaded_with_their_options(tmp_path):
    path = tmp_path / "broker.toml"
    path.write_text(
        f'open = true\ndata_dir = "{tmp_path}"\nmqtt.bind = "127.0.0.1:0"\nhttp.bind = "127.0.0.1:0"\n'
        f'[amqtt.plugins."{FILE_AUTH}"]\npassword_file = "{tmp_path / "passwords"}"\n'
        '[amqtt.plugins."amqtt.plugins.logging_amqtt.EventLoggerPlugin"]\n'
    )
    (tmp_path / "passwords").touch()
    broker, plugin = build_broker(read_settings(path))
    names = [type(loaded).__name__ for loaded in broker.plugins_manager.plugins]
    assert names == ["FileAuthPlugin", "EventLoggerPlugin", "CommandsPlugin"]
    assert broker.plugins_manager.get_plugin("FileAuthPlugin").config.password_file == str(
        tmp_path / "passwords"
    )
    await broker.start()
    assert plugin.failure is None
    assert type(plugin.application.front.gatekeeper).__name__ == "AmqttGatekeeper"
    await broker.shutdown()


@pytest.mark.parametrize(
    ("plugins", "sentence"),
    [
        ({"shop.Recorder": {}}, "shop.Recorder cannot be imported"),
        ({FILE_AUTH: {"pasword_file": "p"}}, "no option 'pasword_file': its options are password_file"),
        ({FILE_AUTH: {"password_file": 5}}, 'can not match type "int"'),
        ({"amqtt.contrib.shadows.ShadowPlugin": {}}, "No module named 'sqlalchemy'"),
    ],
)
async def test_a_plugin_that_cannot_be_loaded_is_a_configuration_error(tmp_path, plugins, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        build_broker(with_plugins(tmp_path, plugins))


async def test_what_plugins_log_is_shown_and_amqtts_own_lines_are_not(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "amqtt")
    caplog.handler.setLevel(logging.DEBUG)
    broker, _ = build_broker(with_plugins(tmp_path, {f"{__name__}.Talking": {}}))
    await broker.start()
    await broker.shutdown()
    lines = [
        (record.name, record.getMessage()) for record in caplog.records if record.levelno == logging.INFO
    ]
    assert [line for line in lines if line[0].startswith("amqtt")] == [
        ("amqtt.broker.plugins.Talking", "here I am")
    ]


class Talking(BasePlugin):
    async def on_broker_post_start(self) -> None:
        self.context.logger.info("here I am")


class Unable(BasePlugin):
    def __init__(self, context: object) -> None:
        raise OSError("no such queue")


async def test_what_a_plugin_raises_when_it_is_made_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match=r"Unable.*OSError\('no such queue'\)"):
        build_broker(with_plugins(tmp_path, {f"{__name__}.Unable": {}}))
