"""Asks amqtt's topic plugins what a client of our server may publish and subscribe to.

By amqtt's rule each of them must say yes. Their answers are coroutines, and the server decides without
waiting: one that waits for something, or raises, counts as no. What reaches a subscription that was
granted is not asked about again.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from amqtt.contexts import Action
from amqtt.plugins.base import BaseTopicPlugin

from thingctl_broker.mqtt.amqtt.client_session import ClientSession
from thingctl_broker.mqtt.auth.token_auth import is_backend
from thingctl_broker.mqtt.protocol.packets import ConnectRefused
from thingctl_broker.mqtt.protocol.reason_codes import Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable, Sequence

    from amqtt.session import Session

    from thingctl_broker.mqtt.amqtt.plugin_events import FaultNote
    from thingctl_broker.mqtt.auth.authenticator import Authenticator, Identity
    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.security.topic_acl import TopicRights


def topic_plugins(plugins: Iterable[object]) -> list[BaseTopicPlugin]:
    """Return those of amqtt's plugins that filter topics."""
    return [plugin for plugin in plugins if isinstance(plugin, BaseTopicPlugin)]


class _OpenRights:
    """With open enrolment: everything; the broker's figures are for clients that are no thing."""

    __slots__ = ("_is_thing",)

    def __init__(self, *, is_thing: bool) -> None:
        self._is_thing = is_thing

    def may_publish(self, topic: str) -> bool:
        return not topic.startswith("$")

    def may_subscribe(self, topic_filter: str) -> bool:
        return not (self._is_thing and topic_filter.startswith("$"))


class PluginRights:
    """The rights of one client: what its own rights and all plugins allow."""

    __slots__ = ("_note", "_own", "_plugins", "_session")

    def __init__(
        self, own: TopicRights, plugins: Sequence[BaseTopicPlugin], session: Session, note: FaultNote
    ) -> None:
        self._own = own
        self._plugins = plugins
        self._session = session
        self._note = note

    def may_publish(self, topic: str) -> bool:
        """Whether it may publish to a topic."""
        return self._own.may_publish(topic) and self._allow(topic, Action.PUBLISH)

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether it may have all that a filter could match."""
        return self._own.may_subscribe(topic_filter) and self._allow(topic_filter, Action.SUBSCRIBE)

    def _allow(self, topic: str, action: Action) -> bool:
        return all(
            self._answer(plugin, plugin.topic_filtering(session=self._session, topic=topic, action=action))
            for plugin in self._plugins
        )

    def _answer(self, plugin: BaseTopicPlugin, answer: Coroutine[Any, Any, bool | None]) -> bool:
        name = type(plugin).__name__
        try:
            answer.send(None)
        except StopIteration as end:
            return bool(end.value)
        except Exception as error:  # whatever a plugin of the user's raises
            self._note(
                "pluginFailed", "a topic plugin of amqtt's failed: that is a no", who=name, error=repr(error)
            )
            return False
        answer.close()
        self._note("pluginWaits", "a topic plugin of amqtt's waits before it answers: that is a no", who=name)
        return False


class FilteringGatekeeper:
    """Admits what another admits, with the rights that the plugins leave.

    Bearers of API tokens, of whom amqtt's plugins know nothing, have those of their token.
    """

    def __init__(self, inner: Authenticator, plugins: Sequence[BaseTopicPlugin], note: FaultNote) -> None:
        self._inner = inner
        self._plugins = plugins
        self._note = note

    def admit(self, connect: Connect, peer: tuple[str, int]) -> Identity | Awaitable[Identity]:
        """Return who it is; raise :class:`ConnectRefused`."""
        admission = self._inner.admit(connect, peer)
        if isawaitable(admission):
            return self._decide(connect, admission)
        return self._filtered(connect, admission)

    async def _decide(self, connect: Connect, admission: Awaitable[Identity]) -> Identity:
        return self._filtered(connect, await admission)

    def _filtered(self, connect: Connect, identity: Identity) -> Identity:
        if identity.acl is not None and is_backend(connect):
            return identity
        session = ClientSession(connect.client_id, connect.username)
        own = _OpenRights(is_thing=identity.thing is not None) if identity.acl is None else identity.acl
        rights = PluginRights(own, self._plugins, session, self._note)
        will = connect.will
        if will is not None and not rights.may_publish(will.topic):
            raise ConnectRefused(Reason.NOT_AUTHORIZED, f"a will on topic {will.topic[:80]!a}")
        return identity._replace(acl=rights)
