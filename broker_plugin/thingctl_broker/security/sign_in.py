"""Codes that sign a browser in once: what one is, and the session that it becomes.

A code is kept as a token of its own that cannot be used yet. Its digest is taken over a byte
that no token can contain, therefore no request passes with a code in place of a token.
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import Final

from thingctl_broker.security.tokens import CredentialsError, Token

CODE_SECONDS: Final = 300.0
"""A code is valid for this long."""

SESSION_SECONDS: Final = 12 * 3600.0
"""A session is valid for this long; never longer than the token that it was made with."""

SESSIONS_MAX: Final = 50
"""Codes and sessions of one token at the same time."""

CODE_LENGTH_MAX: Final = 128
"""Characters of a code that are looked at."""

PREFIX: Final = "console-"
"""Every session's name begins with it."""

_NAME_MAX: Final = 128
_DOMAIN: Final = b"\xffsign-in\x00"


class NoSession(CredentialsError):
    """This token opens no session."""


class TooManySessions(CredentialsError):
    """The token has as many codes and sessions as it may."""


class UnknownCode(CredentialsError):
    """No code is this one: it was used, has expired, or never was."""


def make_code() -> str:
    """Return a new code with 192 bits of randomness; it needs no escaping in a URL."""
    return secrets.token_urlsafe(24)


def digest_of_code(code: str) -> bytes:
    """Return the SHA-256 digest that a code is kept by. No token has one of these digests."""
    return sha256(_DOMAIN + code.encode(errors="surrogatepass")).digest()


def offered_session(caller: Token, digest: bytes, now: float) -> Token:
    """Return the session of ``caller``'s rights, valid for as long as its code is. Times: Unix seconds.

    ``digest``: of the caller's token. Raises :class:`NoSession` for a caller that is a session.
    """
    if caller.made_with:
        raise NoSession(f"{caller.name!r} is a console session itself; use the token that it was made with")
    suffix = f"-{secrets.token_hex(4)}"
    name = f"{PREFIX}{caller.name}"[: _NAME_MAX - len(suffix)] + suffix
    return caller._replace(
        name=name, made_with=digest.hex(), created_at=now, expires_at=_end(caller, now + CODE_SECONDS)
    )


def begun_session(offered: Token, caller: Token, now: float) -> Token:
    """Return the session that begins now."""
    return offered._replace(created_at=now, expires_at=_end(caller, now + SESSION_SECONDS))


def _end(caller: Token, at: float) -> float:
    return at if caller.expires_at is None else min(at, caller.expires_at)
