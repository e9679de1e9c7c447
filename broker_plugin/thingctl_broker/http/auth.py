"""Who calls, and whether they may: bearer tokens (RFC 6750) and their scopes.

Every endpoint names the scope it needs with :func:`needs`; the application refuses to start
with one that names none.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

from thingctl_broker.credentials import Scope
from thingctl_broker.http.errors import FORBIDDEN, UNAUTHORIZED, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import Scope as AsgiScope

    from thingctl_broker.credentials import Token
    from thingctl_broker.executions import Execution
    from thingctl_broker.token_store import TokenStore

_Self = TypeVar("_Self")
_Answer = TypeVar("_Answer")

_SCHEME: Final = b"bearer "
_CHALLENGE: Final = (b"www-authenticate", b'Bearer realm="thingctl"')
_INVALID: Final = (b"www-authenticate", b'Bearer realm="thingctl", error="invalid_token"')


def authenticate(scope: AsgiScope, tokens: TokenStore) -> Token:
    """Return whose token the request carries; raises :class:`Problem` (401) when it is nobody's."""
    credentials: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if credentials is not None:
                raise Problem(UNAUTHORIZED, "there are two Authorization headers", headers=(_INVALID,))
            credentials = value
    if credentials is None or credentials[: len(_SCHEME)].lower() != _SCHEME:
        raise Problem(
            UNAUTHORIZED, "send the header Authorization: Bearer <API token>", headers=(_CHALLENGE,)
        )
    token = tokens.verify(credentials[len(_SCHEME) :].strip(b" ").decode("latin-1"))
    if token is None:
        raise Problem(UNAUTHORIZED, "the API token is not valid", headers=(_INVALID,))
    return token


def require(token: Token, scope: Scope) -> None:
    """Raise :class:`Problem` (403) unless the token has the scope."""
    if scope not in token.scopes and Scope.ADMIN not in token.scopes:
        challenge = f'Bearer realm="thingctl", error="insufficient_scope", scope="{scope}"'
        raise Problem(
            FORBIDDEN,
            f"the API token {token.name!r} lacks the scope {scope}",
            headers=((b"www-authenticate", challenge.encode()),),
        )


def require_thing(token: Token, thing: str) -> None:
    """Raise :class:`Problem` (403) unless the token is for that thing."""
    if not token.covers(thing):
        raise Problem(FORBIDDEN, f"the API token {token.name!r} is not for this thing")


def require_everything(token: Token) -> None:
    """Raise :class:`Problem` (403) when the token is limited to some things or actions."""
    if token.is_limited:
        raise Problem(FORBIDDEN, f"the API token {token.name!r} is limited, and this is about all things")


def visible(token: Token) -> Callable[[Execution], bool] | None:
    """What tells whether the token may see an execution; None: it sees all."""
    if not token.is_limited:
        return None
    return lambda execution: token.covers_command(execution.thing, execution.action)


def visible_things(token: Token) -> Callable[[str], bool] | None:
    """Return what tells by a thing's name whether the token may see it; None: it sees all."""
    return token.covers if token.things else None


def require_command(token: Token, thing: str, action: str) -> None:
    """Raise :class:`Problem` (403) unless the token is for that action on that thing."""
    if not token.covers_command(thing, action):
        what = "action" if token.covers(thing) else "thing"
        raise Problem(FORBIDDEN, f"the API token {token.name!r} is not for this {what}")


def needs(
    scope: Scope | None,
) -> Callable[
    [Callable[[_Self, Request], Awaitable[_Answer]]], Callable[[_Self, Request], Awaitable[_Answer]]
]:
    """Mark an endpoint (a method) with the scope that it needs; None: any valid token will do."""

    def mark(
        endpoint: Callable[[_Self, Request], Awaitable[_Answer]],
    ) -> Callable[[_Self, Request], Awaitable[_Answer]]:
        @wraps(endpoint)
        async def checked(self: _Self, request: Request) -> _Answer:
            if scope is not None:
                require(request.scope["token"], scope)
            return await endpoint(self, request)

        checked.needs = scope  # type: ignore[attr-defined] # told by `scope_of`
        return checked

    return mark


def scope_of(endpoint: Any) -> Scope | None:
    """The scope that an endpoint needs; raises AttributeError when it does not say."""
    needed: Scope | None = endpoint.needs
    return needed
