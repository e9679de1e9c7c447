"""The whole broker side put together: it starts whole or not at all, and gives back what it took."""

from __future__ import annotations

import asyncio
import socket

import pytest

from support.brokers import plugin_broker
from thingctl_broker.app.broker import Application
from thingctl_broker.app.config import HttpSettings, MqttSettings, Settings
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.system.addresses import Address, bind_tcp, bound_to


def settings(tmp_path, *, mqtt: str = "127.0.0.1:0", http: str = "127.0.0.1:0") -> Settings:
    return Settings(
        open=True, data_dir=str(tmp_path), mqtt=MqttSettings(bind=mqtt), http=HttpSettings(bind=http)
    )


async def test_it_serves_devices_and_operators_and_ends(tmp_path):
    async with plugin_broker(tmp_path) as running:
        addresses = running.application.mqtt_address, running.application.http_address
        for address in addresses:
            _, writer = await asyncio.open_connection(*address)
            writer.close()
            await writer.wait_closed()
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        bind_tcp(address).close()


@pytest.mark.parametrize("which", ["mqtt", "http"])
async def test_a_taken_port_is_told_and_the_other_is_free_again(tmp_path, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = bind_tcp(Address("127.0.0.1", 0))
        other = bound_to(free)
        free.close()
        binds = {"mqtt": str(other), "http": str(other), which: str(bound_to(taken))}
        with pytest.raises(
            ConfigurationError, match=f"{which}: cannot listen on {bound_to(taken)}: .*in use"
        ):
            Application(settings(tmp_path, **binds))
    bind_tcp(other).close()


async def test_one_port_for_both_is_told(tmp_path):
    free = bind_tcp(Address("127.0.0.1", 0))
    both = str(bound_to(free))
    free.close()
    with pytest.raises(ConfigurationError, match=f"http: cannot listen on {both}: .*in use"):
        Application(settings(tmp_path, mqtt=both, http=both))


async def test_a_host_that_is_not_here_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match=r"mqtt: cannot listen on no-such-host\.invalid:1"):
        Application(settings(tmp_path, mqtt="no-such-host.invalid:1"))


async def test_a_data_directory_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="data directory"):
        Application(settings(tmp_path / "file"))


async def test_it_can_be_stopped_before_it_has_started(tmp_path):
    await Application(settings(tmp_path)).stop()
