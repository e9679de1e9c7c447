"""The amqtt plugin: name it in any amqtt YAML, and that broker sends commands.

::

    listeners:
      default: {type: external}
    plugins:
      thingctl_broker.mqtt.plugin.CommandsPlugin:
        settings: {open: true, mqtt: {bind: "127.0.0.1:1883"}}

amqtt's own listeners may be open beside it: their clients share ordinary messages with ours, but
commands go by ours only.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from amqtt.plugins.base import BasePlugin

from thingctl_broker.app.broker import Application
from thingctl_broker.app.config import Settings, convert_settings, read_settings
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.amqtt.gatekeeper import AmqttGatekeeper, Enrolled, authorities
from thingctl_broker.mqtt.amqtt.host import AmqttHost
from thingctl_broker.mqtt.amqtt.topic_rights import FilteringGatekeeper, TopicPlugins, topic_plugins

if TYPE_CHECKING:
    from amqtt.broker import RetainedApplicationMessage
    from amqtt.session import ApplicationMessage, Session

_log = structlog.get_logger("thingctl.broker")


class CommandsPlugin(BasePlugin):  # type: ignore[misc] # amqtt ships no types
    """Sends commands from inside an amqtt broker, with an MQTT server of its own."""

    @dataclass
    class Config(BasePlugin.Config):  # type: ignore[misc]
        """``config_file``: a thingctl TOML. ``settings``: the same names, in place.

        ``is_looked_after``: whether the maker of the Broker reports why it could not start,
        from what is raised or from ``failure``. amqtt's own command does not.
        """

        config_file: str | None = None
        settings: dict[str, Any] = field(default_factory=dict)
        is_looked_after: bool = False

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.failure: Exception | None = None
        """Why the broker could not start, if it could not."""
        self._host: AmqttHost | None = None
        self._broker: Any = context._broker_instance  # noqa: SLF001 the one private name: there is no public way
        try:
            settings = _settings(self.config)
            self.application = Application(settings)
        except ConfigurationError as error:
            if not self.config.is_looked_after:
                _log.error("thingctl cannot start", fault=str(error))
            raise

    async def on_broker_post_start(self) -> None:
        """Open our listeners, and share messages with amqtt's."""
        self._ask_other_plugins()
        try:
            await self.application.start()
            self._host = AmqttHost(
                self._broker,
                self,
                self.application.front,
                largest=self.application.settings.limits.packet_bytes,
                note=self.application.front.note,
            )
            self._host.start()
        except Exception as error:
            # amqtt would swallow it, and go on without anybody to listen to devices.
            self.failure = error
            if not self.config.is_looked_after:
                _log.exception("thingctl could not start")
                asyncio.get_running_loop().call_soon(sys.exit, 2)

    def _ask_other_plugins(self) -> None:
        """Have amqtt's other plugins decide who connects, and what they may publish and subscribe to."""
        front = self.application.front
        others = [plugin for plugin in self._broker.plugins_manager.plugins if plugin is not self]
        if authorities(others, is_open=self.application.settings.open):
            front.gatekeeper = AmqttGatekeeper(self._broker, self._enrolled())
        filtering = topic_plugins(others)
        if filtering:
            front.gatekeeper = FilteringGatekeeper(
                front.gatekeeper, TopicPlugins(filtering, front.limits, front.note)
            )

    def _enrolled(self) -> Enrolled | None:
        application = self.application
        if application.settings.open:
            return None
        return Enrolled(
            application.things, application.tokens, application.settings.acl, application.service.unix
        )

    async def on_broker_pre_shutdown(self) -> None:
        """Close our listeners before amqtt goes."""
        if self._host is not None:
            await self._host.stop()
        await self.application.stop()

    # What amqtt tells of its own clients. Before the start nothing is shared.

    async def on_broker_client_connected(self, *, client_id: str, client_session: Session) -> None:  # noqa: ARG002 amqtt's
        """A client has come in by a listener of amqtt's."""
        if self._host is not None:
            self._host.amqtt_client_connected()

    async def on_broker_client_subscribed(self, *, client_id: str, topic: str, qos: int) -> None:
        """It has subscribed."""
        if self._host is not None:
            await self._host.amqtt_client_subscribed(client_id, topic, qos)

    async def on_broker_message_broadcast(self, *, client_id: str, message: ApplicationMessage) -> None:  # noqa: ARG002 amqtt's
        """It has published, and amqtt's checks are passed."""
        if self._host is not None:
            self._host.amqtt_message(message)

    async def on_broker_retained_message(
        self, *, client_id: str | None, retained_message: RetainedApplicationMessage
    ) -> None:
        """Amqtt has retained a message."""
        if self._host is not None:
            self._host.amqtt_retained(client_id, retained_message)


def _settings(config: Any) -> Settings:
    settings = _read(config)
    if settings.amqtt.plugins:
        raise ConfigurationError(
            "amqtt: its plugins stand under plugins in amqtt's own YAML, beside CommandsPlugin; "
            "[amqtt.plugins] is for thingctl serve"
        )
    return settings


def _read(config: Any) -> Settings:
    if config.config_file is None:
        return convert_settings(config.settings)
    settings = read_settings(Path(config.config_file))
    if not config.settings:
        return settings
    return convert_settings(_merged(msgspec.to_builtins(settings), config.settings))


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, table by table."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged
