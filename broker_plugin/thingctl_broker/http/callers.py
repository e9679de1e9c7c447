"""Who calls, and how often they may: the limits of API tokens and of addresses without one.

Checked behind the token and before anything of the body is read. What needs no token (the
probes, the console's files) does not come by here, and a stream counts as the one request
that opened it.
"""

from __future__ import annotations

import time
from math import ceil
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.addresses import source_of
from thingctl_broker.buckets import Buckets, Rate
from thingctl_broker.events import RateLimit
from thingctl_broker.failures import KnownCallers
from thingctl_broker.http.auth import authenticate
from thingctl_broker.http.errors import RATE_LIMITED, UNAUTHORIZED, Problem
from thingctl_broker.origin import Origin, origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Scope

    from thingctl_broker.credentials import Token
    from thingctl_broker.events import Counters
    from thingctl_broker.token_store import TokenStore

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
        self._requests = None if rate is None else Buckets(rate)
        self._failures = Buckets(FAILURES)
        self._known = KnownCallers()
        self._counters = counters
        self._clock = clock
        self._log_limit = RateLimit(60.0)

    def admit(self, scope: Scope) -> Token:
        """Return whose token the request carries. Raises :class:`Problem`: 401, or 429."""
        try:
            token = authenticate(scope, self._tokens)
        except Problem:
            self.failed(scope)
            raise
        self._passed(scope, token)
        return token

    async def admit_known(self, scope: Scope) -> Token:
        """As :meth:`admit`; a token that is not known yet may have been made elsewhere a moment ago."""
        try:
            return self.admit(scope)
        except Problem as problem:
            if problem.kind is not UNAUTHORIZED or not await self._tokens.look_again():
                raise
        return self.admit(scope)

    def admit_at_once(self, scope: Scope) -> Token | None:
        """Admit a caller against whom nothing is to be said; None, and nothing is counted, else.

        The headers and the client's address are all that is asked of the scope, and the
        origin is the caller's to set.
        """
        try:
            token = authenticate(scope, self._tokens)
        except Problem:
            return None
        if (token.name, _host(scope)) not in self._known:
            return None
        if self._requests is not None and self._requests.take(token.name, self._clock()):
            return None
        return token

    def forget(self, token: Token) -> None:
        """Take back that a request was admitted at once."""
        if self._requests is not None:
            self._requests.put_back(token.name)

    def verify(self, scope: Scope, plain: str) -> Token | None:
        """The same for a token that stands elsewhere: None when it is nobody's. Raises as ``admit``: 429."""
        return self._judged(scope, self._tokens.verify(plain))

    def verify_code(self, scope: Scope, code: str) -> Token | None:
        """Return the session of a sign-in code, or None. Wrong codes count as wrong tokens do: 429."""
        return self._judged(scope, self._tokens.offered(code))

    def _judged(self, scope: Scope, token: Token | None) -> Token | None:
        if token is None:
            self.failed(scope)
        else:
            self._passed(scope, token)
        return token

    def failed(self, scope: Scope) -> None:
        """Count a request without a valid token; raises :class:`Problem` (429) when it is one too many."""
        self._counters["http.unauthorized"] += 1
        source = source_of(_host(scope))
        if source is not None:
            wait = self._failures.take(source, self._clock())
            if wait:
                raise self._without_token(source, wait)

    def _passed(self, scope: Scope, token: Token) -> None:
        host = _host(scope)
        now = self._clock()
        if (token.name, host) not in self._known:
            self._meet(token, host, now)
        if self._requests is not None:
            wait = self._requests.take(token.name, now)
            if wait:
                raise self._too_many(token, host, wait)
        origin.set(Origin(token.name, host))

    def _meet(self, token: Token, host: str, now: float) -> None:
        source = source_of(host)
        if source is not None:
            wait = self._failures.wait(source, now)
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
        if self._log_limit.allows(who.get("token") or f"@{who['address']}", self._clock()):
            _log.warning(event, **who)


def _host(scope: Scope) -> str:
    client = scope["client"]
    return client[0] if client else ""


def _refusal(detail: str, wait: float) -> Problem:
    return Problem(RATE_LIMITED, detail, headers=((b"retry-after", b"%d" % max(1, ceil(wait))),))
