"""``/api/v1/mqtt/authentication``: another MQTT broker asks whether a client is the thing that it says.

In the form of EMQX's HTTP authenticator: it asks with what the client has signed in with, and
is told ``allow``, ``deny``, or ``ignore``, which leaves it to whomever else it asks.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.routing import Route

from thingctl_broker.http.auth import needs, require_everything
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.request_body import decode_body, read_json_body
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.tokens import Scope

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.things.service import ThingService

AUTHENTICATION: Final = "/api/v1/mqtt/authentication"

_NONE: Final[frozenset[str]] = frozenset()


class Verdict(StrEnum):
    """What becomes of the client."""

    ALLOW = "allow"
    """It is the thing of its user name, by its password."""

    DENY = "deny"
    """It is not, or the thing is disabled."""

    IGNORE = "ignore"
    """No thing with a password has that name."""


class AuthenticationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the client has brought; the field names are those of EMQX.

    ``peerhost``: its address, so that who guesses passwords is slowed down, and nobody else.
    """

    username: str = ""
    password: str = ""
    clientid: str = ""
    peerhost: str = ""


class AuthenticationResult(msgspec.Struct, frozen=True):
    """The verdict. No thing is a superuser."""

    result: Verdict
    is_superuser: bool = False


_bodies: Final = msgspec.json.Decoder(AuthenticationBody)


class Authentications:
    """The endpoint, over one directory."""

    def __init__(self, directory: ThingService) -> None:
        self._directory = directory

    def routes(self) -> list[Route]:
        """The endpoint with its path."""
        return [Route(AUTHENTICATION, self.authenticate, methods=["POST"])]

    @needs(Scope.MQTT_AUTHENTICATE)
    async def authenticate(self, request: Request) -> ApiResponse:
        """``POST /api/v1/mqtt/authentication``: check the user name and password of an MQTT client."""
        Parameters(request.scope["query_string"], _NONE)
        require_everything(request.scope["token"])
        encoded = await read_json_body(dict(request.scope["headers"]), request.receive)
        body = decode_body(_bodies, encoded)
        # Without its address, who guesses at one thing's password slows down that thing alone.
        source = body.peerhost or f"thing {body.username}"
        is_right = await self._directory.authenticate(body.username, body.password, source)
        verdict = Verdict.IGNORE if is_right is None else Verdict.ALLOW if is_right else Verdict.DENY
        return ApiResponse(200, msgspec.json.encode(AuthenticationResult(verdict)))
