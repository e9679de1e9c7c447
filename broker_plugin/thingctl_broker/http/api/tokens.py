"""``/api/v1/tokens``: API tokens; and ``/api/v1/me``: what one's own may do."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from starlette.routing import Route

from thingctl_broker.commands.execution_resource import encode_page
from thingctl_broker.commands.field_types import Time, described, whole
from thingctl_broker.http.auth import needs
from thingctl_broker.http.links import location
from thingctl_broker.http.problems import INVALID_BODY, Problem
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.request_body import decode_body, read_json_body
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.audit_events import Event
from thingctl_broker.security.tokens import (
    COVERED_PATTERN,
    NAME_PATTERN,
    PATTERNS_MAX,
    Scope,
    Token,
    is_token_name,
)
from thingctl_broker.system.timestamps import rfc3339

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.security.audit_events import Note
    from thingctl_broker.security.token_store import TokenStore

TOKENS: Final = "/api/v1/tokens"
ME: Final = "/api/v1/me"

_NONE: Final[frozenset[str]] = frozenset()
_LIST: Final = frozenset({"cursor", "limit"})


TokenName = Annotated[str, described(pattern=whole(NAME_PATTERN))]
ScopeName = Annotated[str, described(enum=[scope.value for scope in Scope])]
Covered = Annotated[
    tuple[Annotated[str, described(pattern=whole(COVERED_PATTERN))], ...], described(maxItems=PATTERNS_MAX)
]
"""Names of things or actions, ``*`` for any characters."""


class TokenBody(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What ``POST /api/v1/tokens`` takes. ``expiresAt``: RFC 3339 with an offset from UTC, in the future."""

    name: TokenName
    scopes: Annotated[tuple[ScopeName, ...], described(minItems=1)]
    things: Covered = ()
    actions: Covered = ()
    expires_at: Time | None = None


class TokenResource(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A token as the API shows it; ``token``, the secret, only in the answer that makes it."""

    name: str
    scopes: list[str]
    things: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    expires_at: Time | None = None
    created_at: Time | None = None
    token: str | None = None


_body_decoder: Final = msgspec.json.Decoder(TokenBody)


class Tokens:
    """The endpoints of tokens, over one store."""

    def __init__(self, tokens: TokenStore, note: Note) -> None:
        self._tokens = tokens
        self._note = note

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(TOKENS, self.list, methods=["GET"]),
            Route(TOKENS, self.add, methods=["POST"]),
            Route(TOKENS + "/{name}", self.show, methods=["GET"]),
            Route(TOKENS + "/{name}", self.revoke, methods=["DELETE"]),
            Route(TOKENS + "/{name}/renew", self.renew, methods=["POST"]),
            Route(ME, self.me, methods=["GET"]),
        ]

    @needs(Scope.ADMIN)
    async def list(self, request: Request) -> ApiResponse:
        """``GET /api/v1/tokens``: tokens, by name, without their secrets."""
        asked = Parameters(request.scope["query_string"], _LIST)
        limit, after = asked.limit(), asked.cursor() or ""
        found = [token for token in self._tokens if token.name > after]
        items = ((token.name, token_resource(token)) for token in found[:limit])
        return ApiResponse(
            200, encode_page("tokens", items, found[limit - 1].name if len(found) > limit else None)
        )

    @needs(Scope.ADMIN)
    async def add(self, request: Request) -> ApiResponse:
        """``POST /api/v1/tokens``: make a token; the answer alone shows its secret."""
        Parameters(request.scope["query_string"], _NONE)
        raw = await read_json_body(dict(request.scope["headers"]), request.receive)
        body = decode_body(_body_decoder, raw)
        token = Token(body.name, frozenset(body.scopes), body.things, body.actions, _expiry(body.expires_at))
        secret = await self._tokens.add(token)
        self._note(Event.TOKEN_MADE, detail=_encoded(self._tokens.get(body.name)).decode())
        link = location(request.scope["raw_path"], f"{TOKENS}/{body.name}")
        return ApiResponse(201, _encoded(self._tokens.get(body.name), secret), (link,))

    @needs(Scope.ADMIN)
    async def show(self, request: Request) -> ApiResponse:
        """``GET /api/v1/tokens/{name}``: one token, without its secret."""
        Parameters(request.scope["query_string"], _NONE)
        return ApiResponse(200, _encoded(self._tokens.get(_asked_name(request))))

    @needs(Scope.ADMIN)
    async def revoke(self, request: Request) -> ApiResponse:
        """``DELETE /api/v1/tokens/{name}``: revoke the token."""
        Parameters(request.scope["query_string"], _NONE)
        name = _asked_name(request)
        await self._tokens.revoke(name)
        self._note(Event.TOKEN_REVOKED, detail=name)
        return ApiResponse(204, b"")

    @needs(Scope.ADMIN)
    async def renew(self, request: Request) -> ApiResponse:
        """``POST /api/v1/tokens/{name}/renew``: give the token another secret; the old one ends."""
        Parameters(request.scope["query_string"], _NONE)
        name = _asked_name(request)
        secret = await self._tokens.renew(name)
        self._note(Event.TOKEN_RENEWED, detail=name)
        return ApiResponse(200, _encoded(self._tokens.get(name), secret))

    @needs(None)
    async def me(self, request: Request) -> ApiResponse:
        """``GET /api/v1/me``: what the caller's own token may do."""
        Parameters(request.scope["query_string"], _NONE)
        return ApiResponse(200, _encoded(request.scope["token"]))


def token_resource(token: Token, secret: str | None = None) -> TokenResource:
    """Return the token as the API shows it; ``secret``: its plain text, where it has just been made."""
    return TokenResource(
        token.name,
        sorted(token.scopes),
        token.things or None,
        token.actions or None,
        None if token.expires_at is None else rfc3339(token.expires_at),
        None if token.created_at is None else rfc3339(token.created_at),
        secret,
    )


def _encoded(token: Token, secret: str | None = None) -> bytes:
    return msgspec.json.encode(token_resource(token, secret))


def _asked_name(request: Request) -> str:
    name: str = request.path_params["name"]
    return name if is_token_name(name) else ""  # which names none


def _expiry(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        at = moment.timestamp()
    except (ValueError, OverflowError):
        moment, at = None, 0.0
    if moment is None or moment.tzinfo is None:
        raise Problem(INVALID_BODY, "expiresAt is a time like 2030-01-31T12:00:00Z", pointer="/expiresAt")
    return at
