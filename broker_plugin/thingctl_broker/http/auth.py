"""Who calls: bearer tokens (RFC 6750)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from thingctl_broker.http.errors import UNAUTHORIZED, Problem

if TYPE_CHECKING:
    from starlette.types import Scope

    from thingctl_broker.credentials import Token, TokenStore

_SCHEME: Final = b"bearer "
_CHALLENGE: Final = (b"www-authenticate", b'Bearer realm="thingctl"')
_INVALID: Final = (b"www-authenticate", b'Bearer realm="thingctl", error="invalid_token"')


def authenticate(scope: Scope, tokens: TokenStore) -> Token:
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
