"""Programs of the operator's that speak MQTT themselves: who they are is an API token.

The user name is ``@`` and the token's name, which can name no thing; the password is the
token. ``mqtt:read`` lets it subscribe to every topic, the command traffic among them;
``mqtt:write`` lets it publish to ordinary topics.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from thingctl_broker.acl import Whole
from thingctl_broker.credentials import Scope
from thingctl_broker.mqtt.gatekeeper import Admission
from thingctl_broker.mqtt.packets import ConnackCode, Refused

if TYPE_CHECKING:
    from thingctl_broker.credentials import Token
    from thingctl_broker.mqtt.packets import Connect
    from thingctl_broker.token_store import TokenStore

MARK: Final = "@"
"""What its user name begins with."""


def is_backend(connect: Connect) -> bool:
    """Whether the client says that it is the bearer of a token."""
    return connect.username is not None and connect.username.startswith(MARK)


def admit_backend(tokens: TokenStore, connect: Connect) -> Admission:
    """Let the bearer of a token in; raises :class:`Refused`."""
    token = _verified(tokens, connect)
    reads, writes = token.may(Scope.MQTT_READ), token.may(Scope.MQTT_WRITE)
    if token.is_limited:
        # Topics say nothing of actions, and ordinary ones nothing of things: a limit could not be held.
        raise Refused(
            ConnackCode.NOT_AUTHORIZED, f"the token {token.name!r} is for some things or actions only"
        )
    if not (reads or writes):
        raise Refused(
            ConnackCode.NOT_AUTHORIZED,
            f"the token {token.name!r} has neither {Scope.MQTT_READ} nor {Scope.MQTT_WRITE}",
        )
    rights = Whole(reads=reads, writes=writes)
    if connect.will is not None and not rights.may_publish(connect.will.topic):
        raise Refused(ConnackCode.NOT_AUTHORIZED, f"a will, and the token {token.name!r} may not publish")
    return Admission(
        None,
        f"{MARK}{token.name}/{connect.client_id}",
        rights,
        stands=partial(tokens.stands, token),
        observes=reads,
    )


def _verified(tokens: TokenStore, connect: Connect) -> Token:
    try:
        secret = (connect.password or b"").decode("ascii")
    except UnicodeDecodeError:
        secret = ""
    token = tokens.verify(secret)
    if token is None or connect.username != MARK + token.name:
        raise Refused(ConnackCode.BAD_USER_NAME_OR_PASSWORD, "no such token, or not under that name")
    return token
