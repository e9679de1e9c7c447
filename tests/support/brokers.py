"""Brokers inside the test's own loop: the MQTT server alone, or amqtt with the plugin in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from amqtt.broker import Broker

from support.wire import RawClient
from thingctl_broker.app.broker import Application
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.ports import Clock, Journal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.mqtt.auth.authenticator import Authenticator, OpenAuthenticator
from thingctl_broker.mqtt.engine.store import RecordStore
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.mqtt.server.server import MqttServer
from thingctl_broker.system.addresses import Address, bind_tcp, bound_to
from thingctl_broker.system.clock import SystemClock


class Running(NamedTuple):
    """A broker that runs."""

    address: tuple[str, int]
    front: MqttServer
    service: CommandService


@asynccontextmanager
async def front_broker(
    *,
    limits: MqttLimits | None = None,
    clock: Clock | None = None,
    journal: Journal | None = None,
    gatekeeper: Authenticator | None = None,
    store: RecordStore | None = None,
) -> AsyncIterator[Running]:
    """The MQTT server on a free port, without amqtt and HTTP."""
    front = MqttServer(gatekeeper=gatekeeper or OpenAuthenticator(), limits=limits, store=store)
    service = CommandService(clock=clock or SystemClock(), link=front, journal=journal or NullJournal())
    sock = bind_tcp(Address("127.0.0.1", 0))
    await front.start(service, [sock])
    try:
        yield Running(tuple(bound_to(sock)), front, service)
    finally:
        await RawClient.close_all()
        await front.stop()


class RunningPlugin(NamedTuple):
    """amqtt with the plugin in it, as ``thingctl serve`` and the stock command run it."""

    address: tuple[str, int]
    application: Application
    broker: Any

    @property
    def front(self) -> MqttServer:
        return self.application.front

    @property
    def service(self) -> CommandService:
        return self.application.service


PLUGIN = "thingctl_broker.mqtt.plugin.CommandsPlugin"


@asynccontextmanager
async def plugin_broker(
    data_dir: Path,
    *,
    beside: dict[str, Any] | None = None,
    listeners: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[RunningPlugin]:
    """amqtt with the plugin, and with others ``beside`` it, on free ports. ``listeners``: of amqtt's own."""
    settings = {
        "open": True,
        "data_dir": str(data_dir),
        "mqtt": {"bind": "127.0.0.1:0"},
        "http": {"bind": "127.0.0.1:0"},
        **settings,
    }
    broker = Broker(
        {
            "listeners": listeners or {"default": {"type": "external"}},
            "plugins": {PLUGIN: {"settings": settings}, **(beside or {})},
        }
    )
    await broker.start()
    plugin = broker.plugins_manager.get_plugin("CommandsPlugin")
    assert plugin.failure is None
    try:
        yield RunningPlugin(tuple(plugin.application.mqtt_address), plugin.application, broker)
    finally:
        await RawClient.close_all()
        await broker.shutdown()
