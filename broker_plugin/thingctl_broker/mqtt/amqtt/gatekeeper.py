"""Asks amqtt's authentication plugins who may connect to our server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amqtt.plugins.authentication import AnonymousAuthPlugin
from amqtt.plugins.base import BaseAuthPlugin

from thingctl_broker.mqtt.amqtt.client_session import ClientSession
from thingctl_broker.mqtt.auth.authenticator import Identity, OpenAuthenticator
from thingctl_broker.mqtt.auth.device_auth import admission_of
from thingctl_broker.mqtt.auth.token_auth import Backends, is_backend
from thingctl_broker.mqtt.protocol.packets import ConnectRefused, too_many_failures
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.security.login_throttle import LoginThrottle
from thingctl_protocol.identifiers import is_thing_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.security.token_store import TokenStore
    from thingctl_broker.security.topic_acl import AclSettings
    from thingctl_broker.things.registry import ThingRegistry


class Enrolled:
    """Takes a user name that amqtt's plugins have verified for a thing's; a new one becomes known."""

    def __init__(
        self, things: ThingRegistry, tokens: TokenStore, acl: AclSettings, now: Callable[[], float]
    ) -> None:
        """``now``: the time in Unix seconds."""
        self.backends = Backends(tokens)
        """Bearers of tokens, which amqtt's plugins do not know."""
        self._things = things
        self._acl = acl
        self._now = now

    def admit(self, connect: Connect) -> Identity:
        """Return which thing it is; raise :class:`ConnectRefused`."""
        name = connect.username or ""
        if not is_thing_name(name):
            raise ConnectRefused(Reason.BAD_USER_NAME_OR_PASSWORD, "the user name cannot name a thing")
        return admission_of(self._things.know(name, self._now()), connect, self._acl)


def authorities(plugins: Iterable[object], *, is_open: bool) -> list[object]:
    """Return those of amqtt's plugins that decide who connects to our server.

    ``AnonymousAuthPlugin`` says yes to any user name and looks at no password: it decides with open
    enrolment only. Otherwise it opens amqtt's own listeners, and no thing.
    """
    return [
        plugin
        for plugin in plugins
        if isinstance(plugin, BaseAuthPlugin) and (is_open or not isinstance(plugin, AnonymousAuthPlugin))
    ]


class AmqttGatekeeper:
    """Admits the clients that amqtt's plugins admit.

    By amqtt's rule one yes is needed and no no. Without open enrolment a client must have brought
    credentials, too, and is the thing of its user name.
    """

    def __init__(self, broker: Any, enrolled: Enrolled | None) -> None:
        """``broker``: amqtt's. ``enrolled``: None with open enrolment."""
        self._plugins = broker.plugins_manager
        self._enrolled = enrolled
        self._limit = LoginThrottle()

    async def admit(self, connect: Connect, peer: tuple[str, int]) -> Identity:
        """Return who it is; raise :class:`ConnectRefused`."""
        if self._enrolled is not None and is_backend(connect):
            return self._enrolled.backends.admit(connect, peer[0])
        if self._enrolled is not None and (connect.username is None or connect.password is None):
            raise ConnectRefused(Reason.NOT_AUTHORIZED, "no user name and password")
        await self._ask(connect, peer)
        if self._enrolled is None:
            return OpenAuthenticator().admit(connect, peer)
        return self._enrolled.admit(connect)

    async def _ask(self, connect: Connect, peer: tuple[str, int]) -> None:
        name, time = connect.username or connect.client_id, asyncio.get_running_loop().time
        if not self._limit.allows(peer[0], name, time()):
            raise too_many_failures()
        answers = await self._plugins.map_plugin_auth(session=_session(connect, peer))
        deciding = authorities(answers, is_open=self._enrolled is None)
        verdicts = [answers[plugin] for plugin in deciding if answers[plugin] is not None]
        if not verdicts or not all(verdicts):
            self._limit.failed(peer[0], name, time())
            raise ConnectRefused(Reason.NOT_AUTHORIZED, "no authentication plugin of amqtt's says yes")


def _session(connect: Connect, peer: tuple[str, int]) -> ClientSession:
    session = ClientSession(connect.client_id, connect.username)
    session.clean_session = connect.clean_session
    session.password = None if connect.password is None else connect.password.decode(errors="replace")
    session.remote_address, session.remote_port = peer
    return session
