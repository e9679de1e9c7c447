"""Who calls, and whether they may: bearer tokens (RFC 6750) and their scopes.

Every endpoint names the scope it needs with :func:`needs`; the application refuses to start
with one that names none.
"""

from __future__ import annotations

import time
from functools import wraps
from math import ceil
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from thingctl_broker.http.problems import FORBIDDEN, RATE_LIMITED, UNAUTHORIZED, Problem
from thingctl_broker.security.caller import Caller, origin
from thingctl_broker.security.login_throttle import KnownCallers
from thingctl_broker.security.rate_limit import ONCE_A_MINUTE, Rate, TokenBuckets
from thingctl_broker.security.tokens import Scope
from thingctl_broker.system.addresses import source_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import Scope as AsgiScope

    from thingctl_broker.commands.events import Counters
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.security.token_store import TokenStore
    from thingctl_broker.security.tokens import Token

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


FAILURES: Final = Rate(per_second=5.0, burst=100)
"""Requests without a valid token that one address may make, loopback excepted."""

_log = structlog.get_logger("thingctl.http")


class Callers:
    """Tells whose a request is, and refuses what is too much.

    An address that has tried too many wrong tokens is refused with a right one too, so that
    it learns nothing by guessing on; unless that token has come from there before, so that
    who shares an address with a guesser is not locked out.
    """

    def __init__(
        self,
        tokens: TokenStore,
        rate: Rate | None,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``rate``: of the requests with each token; None: as many as they like."""
        self._tokens = tokens
        self._requests = None if rate is None else TokenBuckets(rate)
        self._failures = TokenBuckets(FAILURES)
        self._known = KnownCallers()
        self._counters = counters
        self._clock = clock
        self._log_limit = TokenBuckets(ONCE_A_MINUTE)

    def admit(self, scope: AsgiScope) -> Token:
        """Return whose token the request carries. Raises :class:`Problem`: 401, or 429."""
        try:
            token = authenticate(scope, self._tokens)
        except Problem:
            self.failed(scope)
            raise
        self._passed(scope, token)
        return token

    async def admit_known(self, scope: AsgiScope) -> Token:
        """As :meth:`admit`; a token that is not known yet may have been made elsewhere a moment ago."""
        try:
            return self.admit(scope)
        except Problem as problem:
            if problem.kind is not UNAUTHORIZED or not await self._tokens.look_again():
                raise
        return self.admit(scope)

    def admit_at_once(self, scope: AsgiScope) -> Token | None:
        """Return the token if it is valid and within its limits. Otherwise return None and count nothing.

        The headers and the client's address are all that is asked of the scope, and the
        origin is the caller's to set.
        """
        try:
            token = authenticate(scope, self._tokens)
        except Problem:
            return None
        if (token.name, _host(scope)) not in self._known:
            return None
        if self._requests is not None and self._requests.take_token(token.name, self._clock()):
            return None
        return token

    def forget(self, token: Token) -> None:
        """Take back that a request was admitted at once."""
        if self._requests is not None:
            self._requests.put_back(token.name)

    def verify(self, scope: AsgiScope, plain: str) -> Token | None:
        """The same for a token that stands elsewhere: None when it is nobody's. Raises as ``admit``: 429."""
        return self._judged(scope, self._tokens.verify(plain))

    def verify_code(self, scope: AsgiScope, code: str) -> Token | None:
        """Return the session of a sign-in code, or None. Wrong codes count as wrong tokens do: 429."""
        return self._judged(scope, self._tokens.offered(code))

    def _judged(self, scope: AsgiScope, token: Token | None) -> Token | None:
        if token is None:
            self.failed(scope)
        else:
            self._passed(scope, token)
        return token

    def failed(self, scope: AsgiScope) -> None:
        """Count a request without a valid token; raises :class:`Problem` (429) when it is one too many."""
        self._counters["http.unauthorized"] += 1
        source = source_of(_host(scope))
        if source is not None:
            wait = self._failures.take_token(source, self._clock())
            if wait:
                raise self._without_token(source, wait)

    def _passed(self, scope: AsgiScope, token: Token) -> None:
        host = _host(scope)
        now = self._clock()
        if (token.name, host) not in self._known:
            self._meet(token, host, now)
        if self._requests is not None:
            wait = self._requests.take_token(token.name, now)
            if wait:
                raise self._too_many(token, host, wait)
        origin.set(Caller(token.name, host))

    def _meet(self, token: Token, host: str, now: float) -> None:
        source = source_of(host)
        if source is not None:
            wait = self._failures.seconds_until_token(source, now)
            if wait:
                raise self._without_token(source, wait)
        self._known.meet(token.name, host)

    def _too_many(self, token: Token, host: str, wait: float) -> Problem:
        self._counters["http.tokenRate"] += 1
        self._say("an API token sends too many requests: some are refused", token=token.name, address=host)
        return _refusal(f"the API token {token.name!r} sends more requests than it may", wait)

    def _without_token(self, source: str, wait: float) -> Problem:
        self._counters["http.addressRate"] += 1
        self._say("too many requests without a valid API token: refused", address=source)
        return _refusal("too many requests without a valid API token came from this address", wait)

    def _say(self, event: str, **who: str) -> None:
        key = f"{who.get('token') or '@' + who['address']} {event}"  # one reason does not hide another
        if self._log_limit.allows(key, self._clock()):
            _log.warning(event, **who)


def _host(scope: AsgiScope) -> str:
    client = scope["client"]
    return client[0] if client else ""


def _refusal(detail: str, wait: float) -> Problem:
    return Problem(RATE_LIMITED, detail, headers=((b"retry-after", b"%d" % max(1, ceil(wait))),))
