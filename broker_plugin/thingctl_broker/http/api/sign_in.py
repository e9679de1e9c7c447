"""``/api/v1/sign-in-codes`` and ``/api/v1/sign-in``: a link that signs a browser in once.

A caller with a token makes a code; the browser exchanges it for a token of its own. That one has
the caller's rights, expires, and is listed and revoked as every token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from starlette.routing import Route

from thingctl_broker.commands.field_types import Time  # noqa: TC001 msgspec reads them
from thingctl_broker.http.api.tokens import token_resource
from thingctl_broker.http.auth import needs
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.request_body import decode_body, read_json_body
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.audit_events import Event
from thingctl_broker.security.sign_in import UnknownCode
from thingctl_broker.system.timestamps import rfc3339

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.http.auth import Callers
    from thingctl_broker.security.audit_events import Note
    from thingctl_broker.security.token_store import TokenStore

SIGN_IN_CODES: Final = "/api/v1/sign-in-codes"
SIGN_IN: Final = "/api/v1/sign-in"

_NONE: Final[frozenset[str]] = frozenset()


class SignInBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``POST /api/v1/sign-in`` takes."""

    code: str


class CodeResource(msgspec.Struct, frozen=True, rename="camel"):
    """A code that signs in once. ``name``: of the session that it begins; to revoke it before, too."""

    code: str
    name: str
    expires_at: Time


_bodies: Final = msgspec.json.Decoder(SignInBody)


class SignIn:
    """The endpoints, over one store of tokens."""

    def __init__(self, tokens: TokenStore, callers: Callers, note: Note) -> None:
        self._tokens = tokens
        self._callers = callers
        self._note = note

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(SIGN_IN_CODES, self.offer, methods=["POST"]),
            Route(SIGN_IN, self.redeem, methods=["POST"]),
        ]

    @needs(None)
    async def offer(self, request: Request) -> ApiResponse:
        """``POST /api/v1/sign-in-codes``: make a code that signs in once, with the caller's rights."""
        Parameters(request.scope["query_string"], _NONE)
        code, session = await self._tokens.offer(request.scope["token"])
        self._note(Event.CODE_MADE, detail=session.name)
        made = CodeResource(code, session.name, rfc3339(session.expires_at or 0.0))
        return ApiResponse(201, msgspec.json.encode(made))

    @needs(None)
    async def redeem(self, request: Request) -> ApiResponse:
        """``POST /api/v1/sign-in``: exchange a code for a token; it needs no other authorization."""
        Parameters(request.scope["query_string"], _NONE)
        raw = await read_json_body(dict(request.scope["headers"]), request.receive)
        code = decode_body(_bodies, raw).code
        await self._admit(request, code)
        plain, session = await self._tokens.redeem(code)
        self._note(Event.SIGNED_IN, detail=session.name)
        return ApiResponse(201, msgspec.json.encode(token_resource(session, plain)))

    async def _admit(self, request: Request, code: str) -> None:
        if self._tokens.offered(code) is None:
            await self._tokens.look_again()  # another worker may have made it a moment ago
        if self._callers.verify_code(request.scope, code) is None:
            raise UnknownCode(
                "the sign-in code was used, has expired, or never was one: thingctl console makes another"
            )
