"""The amqtt plugin: name it in any amqtt YAML, and that broker sends commands.

::

    listeners:
      default: {type: external}
    plugins:
      thingctl_broker.mqtt.plugin.CommandsPlugin:
        settings: {open: true, mqtt: {bind: "127.0.0.1:1883"}}

amqtt's own listeners must be off: a client that came in by one would bypass the front.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin
from amqtt.session import Session

from thingctl_broker.app.broker import Application
from thingctl_broker.app.config import Settings, convert_settings, read_settings
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.amqtt.bridge import handed_over
from thingctl_broker.mqtt.auth.authenticator import Identity, OpenAuthenticator
from thingctl_broker.mqtt.auth.device_auth import admission_of
from thingctl_broker.mqtt.auth.token_auth import Backends, is_backend
from thingctl_broker.mqtt.protocol.packets import Connect, ConnectRefused, too_many_failures
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.security.login_throttle import LoginThrottle
from thingctl_protocol.identifiers import is_thing_name

_log = structlog.get_logger("thingctl.broker")


class CommandsPlugin(BaseAuthPlugin):  # type: ignore[misc] # amqtt ships no types
    """Sends commands from inside an amqtt broker.

    It is an authentication plugin too: amqtt wants one to say yes, and this one says it
    for exactly the connections that the front has admitted.
    """

    @dataclass
    class Config(BasePlugin.Config):  # type: ignore[misc]
        """``config_file``: a thingctl TOML. ``settings``: the same names, in place.

        ``is_looked_after``: whether whoever made the Broker tells why it could not start,
        from what is raised or from ``failure``. amqtt's own command does not.
        """

        config_file: str | None = None
        settings: dict[str, Any] = field(default_factory=dict)
        is_looked_after: bool = False

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.failure: Exception | None = None
        """Why the broker could not start, if it could not."""
        self._broker: Any = context._broker_instance  # noqa: SLF001 the one private name: there is no public way
        try:
            settings = _settings(self.config)
            self.application = Application(settings)
        except ConfigurationError as error:
            if not self.config.is_looked_after:
                _log.error("thingctl cannot start", fault=str(error))
            raise

    async def on_broker_post_start(self) -> None:
        """Open the front."""
        others = [
            p for p in self._broker.plugins_manager.plugins if isinstance(p, BaseAuthPlugin) and p is not self
        ]
        if others:
            application = self.application
            self.application.front.gatekeeper = AmqttGatekeeper(
                self._broker, None if application.settings.open else Enrolled(application)
            )
        for name, server in self._broker._servers.items():  # noqa: SLF001 only to warn
            if server.instance is not None:
                _log.warning("an amqtt listener bypasses thingctl: make it external", listener=name)
        try:
            await self.application.start(self._broker)
        except Exception as error:
            # amqtt would swallow it, and go on without anybody to listen to devices.
            self.failure = error
            if not self.config.is_looked_after:
                _log.exception("thingctl could not start")
                asyncio.get_running_loop().call_soon(sys.exit, 2)

    async def on_broker_pre_shutdown(self) -> None:
        """Close the front before amqtt goes."""
        await self.application.stop()

    async def authenticate(self, *, session: Session) -> bool | None:  # noqa: ARG002 amqtt's signature
        """Yes for a client of the front; no opinion on any other."""
        return True if handed_over.get() else None


class AmqttGatekeeper:
    """Asks amqtt's other authentication plugins, before amqtt knows of the client.

    amqtt itself asks them only after it has found, changed or deleted the session of that
    client id; so they are asked with a session of their own first. By amqtt's rule one yes
    is needed and no no. Without open enrolment a client must have brought credentials, too,
    and is the thing of its user name.
    """

    def __init__(self, broker: Any, enrolled: Enrolled | None) -> None:
        self._plugins = broker.plugins_manager
        self._enrolled = enrolled
        self._limit = LoginThrottle()

    async def admit(self, connect: Connect, peer: tuple[str, int]) -> Identity:
        """Return who it is; raise :class:`ConnectRefused`."""
        if self._enrolled is not None and is_backend(connect):
            return self._enrolled.backends.admit(connect, peer[0])
        if self._enrolled is not None and (connect.username is None or connect.password is None):
            raise ConnectRefused(Reason.NOT_AUTHORIZED, "no user name and password")
        name, time = connect.username or connect.client_id, asyncio.get_running_loop().time
        if not self._limit.allows(peer[0], name, time()):
            raise too_many_failures()
        session = Session()
        session.client_id = connect.client_id
        session.clean_session = connect.clean_session
        session.username = connect.username
        session.password = None if connect.password is None else connect.password.decode(errors="replace")
        session.remote_address, session.remote_port = peer
        answers = await self._plugins.map_plugin_auth(session=session)
        verdicts = [verdict for verdict in answers.values() if verdict is not None]
        if not verdicts or not all(verdicts):
            self._limit.failed(peer[0], name, time())
            raise ConnectRefused(Reason.NOT_AUTHORIZED, "no authentication plugin of amqtt's says yes")
        if self._enrolled is None:
            return OpenAuthenticator().admit(connect, peer)
        return self._enrolled.admit(connect)


class Enrolled:
    """Takes a user name that others have verified for a thing's; one that is new becomes known."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self.backends = Backends(application.tokens)
        """Bearers of tokens, of whom the others know nothing."""

    def admit(self, connect: Connect) -> Identity:
        """Return which thing it is; raise :class:`ConnectRefused`."""
        name = connect.username or ""
        if not is_thing_name(name):
            raise ConnectRefused(Reason.BAD_USER_NAME_OR_PASSWORD, "the user name cannot name a thing")
        thing = self._application.things.know(name, self._application.service.unix())
        return admission_of(thing, connect, self._application.settings.acl)


def _settings(config: Any) -> Settings:
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
