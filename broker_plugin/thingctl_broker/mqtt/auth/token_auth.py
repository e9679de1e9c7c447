"""Authenticates back-end MQTT clients by API token.

The user name is ``@`` and the token's name, which can name no thing; the password is the
token. ``mqtt:read`` lets it subscribe to every topic, the command traffic among them;
``mqtt:write`` lets it publish to ordinary topics.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.auth.authenticator import Identity
from thingctl_broker.mqtt.protocol.packets import ConnectRefused, too_many_failures
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.security.login_throttle import KnownCallers, LoginThrottle
from thingctl_broker.security.tokens import Scope
from thingctl_broker.security.topic_acl import AllTopics
from thingctl_broker.system.addresses import source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.security.token_store import TokenStore
    from thingctl_broker.security.tokens import Token

MARK: Final = "@"
"""What its user name begins with."""


def is_backend(connect: Connect) -> bool:
    """Whether the client says that it is the bearer of a token."""
    return connect.username is not None and connect.username.startswith(MARK)


class Backends:
    """Admits the bearers of tokens, and slows down who guesses at them.

    Who has tried too many wrong ones is refused with a right one too, and learns nothing by
    guessing on; unless that token has come from there before. Loopback is exempt, as over HTTP.
    """

    def __init__(
        self,
        tokens: TokenStore,
        limit: LoginThrottle | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._limit = LoginThrottle() if limit is None else limit
        self._clock = clock
        self._known = KnownCallers()

    def admit(self, connect: Connect, address: str) -> Identity:
        """Let the bearer of a token in; raises :class:`ConnectRefused`."""
        token = self._tokens.verify(_secret(connect))
        if token is not None and connect.username != MARK + token.name:
            token = None
        self._slow_down(connect.username or "", token, source_of(address))
        if token is None:
            raise ConnectRefused(Reason.BAD_USER_NAME_OR_PASSWORD, "no such token, or not under that name")
        return _admission(self._tokens, token, connect)

    def _slow_down(self, username: str, token: Token | None, source: str | None) -> None:
        if source is None or ((username, source) in self._known and token is not None):
            return
        now = self._clock()
        if not self._limit.allows(source, username, now):
            raise too_many_failures()
        if token is None:
            self._limit.failed(source, username, now)
            return
        self._known.meet(username, source)


def _admission(tokens: TokenStore, token: Token, connect: Connect) -> Identity:
    reads, writes = token.may(Scope.MQTT_READ), token.may(Scope.MQTT_WRITE)
    if token.is_limited:
        # Topics say nothing of actions, and ordinary ones nothing of things: a limit could not be held.
        raise ConnectRefused(
            Reason.NOT_AUTHORIZED, f"the token {token.name!r} is for some things or actions only"
        )
    if not (reads or writes):
        raise ConnectRefused(
            Reason.NOT_AUTHORIZED,
            f"the token {token.name!r} has neither {Scope.MQTT_READ} nor {Scope.MQTT_WRITE}",
        )
    rights = AllTopics(reads=reads, writes=writes)
    if connect.will is not None and not rights.may_publish(connect.will.topic):
        raise ConnectRefused(Reason.NOT_AUTHORIZED, f"a will, and the token {token.name!r} may not publish")
    return Identity(
        None,
        f"{MARK}{token.name}/{connect.client_id}",
        rights,
        stands=partial(tokens.stands, token),
        observes=reads,
    )


def _secret(connect: Connect) -> str:
    try:
        return (connect.password or b"").decode("ascii")
    except UnicodeDecodeError:
        return ""
