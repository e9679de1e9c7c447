"""Asks amqtt's topic plugins what a client of our server may publish and subscribe to.

By amqtt's rule each of them must say yes; one that raises, or takes too long, counts as no. Their answers
are coroutines: one that waits for nothing is driven to its end during the question, and for any other the
connection pauses. What reaches a subscription that was granted is not asked about again.
"""

from __future__ import annotations

import asyncio
from inspect import isawaitable
from typing import TYPE_CHECKING, Final, NamedTuple

from amqtt.contexts import Action
from amqtt.plugins.base import BaseTopicPlugin

from thingctl_broker.mqtt.amqtt.client_session import ClientSession
from thingctl_broker.mqtt.auth.token_auth import is_backend
from thingctl_broker.mqtt.protocol.packets import ConnectRefused
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.security.topic_acl import UndecidedRights

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from amqtt.session import Session

    from thingctl_broker.mqtt.amqtt.plugin_events import FaultNote
    from thingctl_broker.mqtt.auth.authenticator import Authenticator, Identity
    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.mqtt.server.limits import MqttLimits
    from thingctl_broker.security.topic_acl import TopicRights

TIMEOUT: Final = 10.0
"""Seconds that a plugin may take over an answer."""


class _Question(NamedTuple):
    plugin: BaseTopicPlugin
    action: Action
    topic: str


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


class TopicPlugins:
    """The plugins that are asked, and which of them are known to wait before they answer."""

    def __init__(self, plugins: Sequence[BaseTopicPlugin], limits: MqttLimits, note: FaultNote) -> None:
        self.plugins = plugins
        self.waiting: set[BaseTopicPlugin] = set()
        self.note = note
        # For one client: the answers that a SUBSCRIBE needs always fit.
        self.most_answers = 2 * len(plugins) * limits.filters
        self.most_bytes = 2 * len(plugins) * limits.subscribe_bytes

    async def ask(self, question: _Question, session: Session) -> bool:
        """Have a plugin answer in its own time, up to ``TIMEOUT``; a fault counts as no."""
        plugin, action, topic = question
        try:
            async with asyncio.timeout(TIMEOUT):
                return bool(await plugin.topic_filtering(session=session, topic=topic, action=action))
        except Exception as error:  # whatever a plugin of the user's raises
            self.failed(plugin, error)
            return False

    def failed(self, plugin: BaseTopicPlugin, error: Exception) -> None:
        """Tell of a plugin that gave no answer."""
        text = "a topic plugin of amqtt's failed: that is a no"
        self.note("pluginFailed", text, who=type(plugin).__name__, error=repr(error))


class PluginRights:
    """The rights of one client: what its own rights and all plugins allow.

    A plugin that answers without waiting is asked during the call. For any other one
    :class:`UndecidedRights` is raised, and its answer is remembered for the next call.
    """

    __slots__ = ("_answers", "_bytes", "_own", "_plugins", "_session")

    def __init__(self, own: TopicRights, plugins: TopicPlugins, session: Session) -> None:
        self._own = own
        self._plugins = plugins
        self._session = session
        self._answers: dict[_Question, bool] = {}
        self._bytes = 0

    def may_publish(self, topic: str) -> bool:
        """Whether it may publish to a topic."""
        return self._own.may_publish(topic) and self._allow(topic, Action.PUBLISH)

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether it may have all that a filter could match."""
        return self._own.may_subscribe(topic_filter) and self._allow(topic_filter, Action.SUBSCRIBE)

    def _allow(self, topic: str, action: Action) -> bool:
        return all(self._answer(_Question(plugin, action, topic)) for plugin in self._plugins.plugins)

    def _answer(self, question: _Question) -> bool:
        plugin, action, topic = question
        known = self._answers.get(question)
        if known is not None:
            return known
        if plugin in self._plugins.waiting:
            raise UndecidedRights(self._look_up(question))
        answer = plugin.topic_filtering(session=self._session, topic=topic, action=action)
        try:
            answer.send(None)
        except StopIteration as end:
            return bool(end.value)
        except Exception as error:  # whatever a plugin of the user's raises
            self._plugins.failed(plugin, error)
            return False
        answer.close()  # it waits for something, which only a task can do: it is asked again in one
        self._plugins.waiting.add(plugin)
        raise UndecidedRights(self._look_up(question))

    async def _look_up(self, question: _Question) -> None:
        verdict = await self._plugins.ask(question, self._session)
        if self._must_forget(question):
            self._answers.clear()
            self._bytes = 0
        self._answers[question] = verdict
        self._bytes += len(question.topic)

    def _must_forget(self, question: _Question) -> bool:
        """Whether earlier answers go. Of PUBLISH there are those on one topic: the server remembers a yes."""
        _, action, topic = question
        if action is Action.PUBLISH:
            return any(earlier.topic != topic for earlier in self._answers)
        plugins = self._plugins
        has_room = len(self._answers) < plugins.most_answers and self._bytes < plugins.most_bytes
        return not has_room


class FilteringGatekeeper:
    """Admits what another admits, with the rights that the plugins leave.

    Bearers of API tokens, of whom amqtt's plugins know nothing, have those of their token.
    """

    def __init__(self, inner: Authenticator, plugins: TopicPlugins) -> None:
        self._inner = inner
        self._plugins = plugins

    def admit(self, connect: Connect, peer: tuple[str, int]) -> Identity | Awaitable[Identity]:
        """Return who it is; raise :class:`ConnectRefused`."""
        admission = self._inner.admit(connect, peer)
        if isawaitable(admission):
            return self._decide(connect, admission)
        if connect.will is not None:
            return self._checked(connect, admission)
        return self._filtered(connect, admission)

    async def _decide(self, connect: Connect, admission: Awaitable[Identity]) -> Identity:
        return await self._checked(connect, await admission)

    async def _checked(self, connect: Connect, identity: Identity) -> Identity:
        """A will is published as if its client did it, so it needs the same permission."""
        filtered = self._filtered(connect, identity)
        will, rights = connect.will, filtered.acl
        if will is not None and rights is not None and not await _may_publish(rights, will.topic):
            raise ConnectRefused(Reason.NOT_AUTHORIZED, f"a will on topic {will.topic[:80]!a}")
        return filtered

    def _filtered(self, connect: Connect, identity: Identity) -> Identity:
        if identity.acl is not None and is_backend(connect):
            return identity
        session = ClientSession(connect.client_id, connect.username)
        own = _OpenRights(is_thing=identity.thing is not None) if identity.acl is None else identity.acl
        return identity._replace(acl=PluginRights(own, self._plugins, session))


async def _may_publish(rights: TopicRights, topic: str) -> bool:
    while True:
        try:
            return rights.may_publish(topic)
        except UndecidedRights as undecided:
            await undecided.lookup
