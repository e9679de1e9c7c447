"""From settings to a broker: what is wrong with them is one sentence."""

from __future__ import annotations

import socket

import pytest

from thingctl_broker.app.config import HttpSettings, MqttSettings, Settings
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

    async def fails(_: object) -> None:
        raise ConfigurationError("the disk is on fire")

    monkeypatch.setattr(plugin.application, "start", fails)
    await broker.start()
    assert str(plugin.failure) == "the disk is on fire"
    await broker.shutdown()
