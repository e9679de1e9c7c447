"""amqtt with a listener of its own, and a server of ours in its place, for tests of what is between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from amqtt.broker import Broker
from amqtt.plugins.base import BasePlugin

from support.wire import RawClient
from thingctl_broker.mqtt.amqtt.host import AmqttHost
from thingctl_protocol.topics import Topics, matches

ANONYMOUS = "amqtt.plugins.authentication.AnonymousAuthPlugin"


class Said(NamedTuple):
    """A message of our server."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


class HostedServerFake:
    """Keeps what it is given; nobody is connected to it."""

    def __init__(self, root: str = "$emqx/commands") -> None:
        self.topics = Topics(root)
        self.events: list[Any] = []
        self.published: list[Said] = []
        self.kept: dict[str, Said] = {}
        self.retained_alone: list[str] = []
        """Topics of what came by ``retain``."""

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, publisher: str = ""
    ) -> None:
        self.published.append(Said(topic, payload, qos, retain))
        if retain:
            self._keep(topic, payload, qos)

    def retain(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        self.retained_alone.append(topic)
        self._keep(topic, payload, qos)

    def _keep(self, topic: str, payload: bytes, qos: int) -> None:
        self.kept.pop(topic, None)
        if payload:
            self.kept[topic] = Said(topic, payload, qos, retain=True)

    def retained(self, topic_filter: str) -> list[Said]:
        levels = topic_filter.split("/")
        return [said for said in self.kept.values() if matches(levels, said.topic.split("/"))]

    def receive(self, client_id: str, said: Said) -> None:
        """A client of ours publishes."""
        if said.retain:
            self._keep(said.topic, said.payload, said.qos)
        for listener in self.events:
            listener.message_received(client_id, said)


class Hosting(BasePlugin):
    """The host's part of CommandsPlugin: hands what amqtt tells to it."""

    host: AmqttHost | None = None

    @dataclass
    class Config(BasePlugin.Config): ...

    async def on_broker_client_connected(self, client_id: str, client_session: Any) -> None:
        assert self.host is not None
        self.host.amqtt_client_connected()

    async def on_broker_client_subscribed(self, client_id: str, topic: str, qos: int) -> None:
        assert self.host is not None
        await self.host.amqtt_client_subscribed(client_id, topic, qos)

    async def on_broker_message_broadcast(self, client_id: str, message: Any) -> None:
        assert self.host is not None
        self.host.amqtt_message(message)

    async def on_broker_retained_message(self, client_id: str | None, retained_message: Any) -> None:
        if self.host is not None:
            self.host.amqtt_retained(client_id, retained_message)


class Hosted(NamedTuple):
    """amqtt that hosts a server."""

    broker: Broker
    server: HostedServerFake
    host: AmqttHost
    notes: list[str]

    @property
    def address(self) -> tuple[str, int]:
        """Where amqtt's own listener is."""
        host, port = self.broker._servers["default"].instance.sockets[0].getsockname()
        return host, port

    async def client(self, client_id: str, **options: object) -> RawClient:
        """A client of amqtt's own listener."""
        return await RawClient.connected(self.address, client_id, **options)

    def plugin(self, name: str) -> Any:
        return self.broker.plugins_manager.get_plugin(name)


@asynccontextmanager
async def hosted(
    *,
    listens: bool = True,
    beside: dict[str, Any] | None = None,
    largest: int = 1024 * 1024,
    root: str = "$x/y",
) -> AsyncIterator[Hosted]:
    """``listens``: whether amqtt has a listener of its own. ``beside``: other plugins."""
    listener = {"type": "tcp", "bind": "127.0.0.1:0"} if listens else {"type": "external"}
    ours = f"{__name__}.Hosting"
    broker = Broker(
        {
            "listeners": {"default": listener},
            "plugins": {ours: {}, ANONYMOUS: {"allow_anonymous": True}, **(beside or {})},
        }
    )
    plugin = broker.plugins_manager.get_plugin("Hosting")
    server = HostedServerFake(root)
    notes: list[str] = []

    def note(fault: str, text: str, *, who: str = "", **details: object) -> None:
        notes.append(fault)

    await broker.start()
    plugin.host = AmqttHost(broker, plugin, server, largest=largest, note=note)
    plugin.host.start()
    try:
        yield Hosted(broker, server, plugin.host, notes)
    finally:
        await RawClient.close_all()
        await plugin.host.stop()
        await broker.shutdown()
