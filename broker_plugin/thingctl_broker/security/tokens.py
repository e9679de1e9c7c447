"""API tokens: what one is, what each may do, and what can be one at all."""

from __future__ import annotations

import re
import secrets
from enum import StrEnum
from fnmatch import translate
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

ADMIN: Final = "admin"
"""The name of the first token, and the scope that allows everything."""

TOKEN_MIN: Final = 16
"""Characters of a token that an operator chooses."""

PATTERNS_MAX: Final = 100
"""Patterns of one token, for things and for actions each."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what may follow "Bearer": RFC 6750 section 2.1
_NAME: Final = re.compile(r"[A-Za-z0-9:_.-]{1,128}")
_NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9:_./*-]{1,128}")

NAME_PATTERN: Final = _NAME.pattern
"""Regular expression of a token's whole name, without anchors."""

COVERED_PATTERN: Final = _NAME_PATTERN.pattern
"""Regular expression of what names the things or actions that a token covers, without anchors."""


class CredentialsError(Exception):
    """Tokens could not be read, kept or accepted. ``text`` is one sentence for people."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class UnknownToken(CredentialsError):
    """No token has that name."""


class TokenExists(CredentialsError):
    """A token has that name already."""


class LastAdmin(CredentialsError):
    """Without this token nobody could make one any more."""


class ManagedElsewhere(CredentialsError):
    """The broker's settings give this token: the API cannot change it."""


class InvalidToken(CredentialsError):
    """What is said of a token is wrong. ``pointer``: an RFC 6901 pointer to the fault."""

    def __init__(self, text: str, pointer: str) -> None:
        super().__init__(text)
        self.pointer = pointer


class Scope(StrEnum):
    """What a token may be for."""

    COMMANDS_SEND = "commands:send"
    COMMANDS_READ = "commands:read"
    COMMANDS_CANCEL = "commands:cancel"
    THINGS_READ = "things:read"
    THINGS_WRITE = "things:write"
    MQTT_READ = "mqtt:read"
    """Over MQTT, subscribing to everything, the command traffic among it."""
    MQTT_WRITE = "mqtt:write"
    """Over MQTT, publishing to ordinary topics."""
    MQTT_AUTHENTICATE = "mqtt:authenticate"
    """For another MQTT broker, asking whether a client is the thing that it says."""
    ADMIN = "admin"
    """Everything, tokens included."""


class Token(NamedTuple):
    """Who calls, and what they may do.

    ``things``: patterns of names, ``*`` for any characters; none: every thing. ``actions``:
    the same for the actions of commands. Times: Unix seconds. ``made_with``: of a console session,
    the digest (hex) of the token that it was made with; it ends with that one.
    """

    name: str
    scopes: frozenset[str]
    things: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    expires_at: float | None = None
    created_at: float | None = None
    made_with: str = ""

    def may(self, scope: str) -> bool:
        """Whether the token has the scope."""
        return scope in self.scopes or ADMIN in self.scopes

    def covers(self, thing: str) -> bool:
        """Whether the token is for that thing."""
        return not self.things or _matches(self.things, thing)

    def covers_command(self, thing: str, action: str) -> bool:
        """Whether the token is for that action on that thing."""
        return (not self.things or _matches(self.things, thing)) and (
            not self.actions or _matches(self.actions, action)
        )

    @property
    def is_limited(self) -> bool:
        """Whether the token is for some things or actions only."""
        return bool(self.things or self.actions)


@lru_cache(maxsize=1024)
def _pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)))  # its regular expressions do not backtrack


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return _pattern(patterns).fullmatch(name) is not None


ADMIN_TOKEN: Final = Token(ADMIN, frozenset({ADMIN}))
"""The first token."""

_SCOPES: Final = frozenset(Scope)
_FOR_EVERYTHING: Final = frozenset({Scope.ADMIN, Scope.MQTT_READ, Scope.MQTT_WRITE})
"""Scopes that cannot be limited. A topic says nothing of actions, and an ordinary one nothing of things."""


def make_token() -> str:
    """Return a new token with 256 bits of randomness; the prefix lets secret scanners find it."""
    return f"tctl_{secrets.token_urlsafe(32)}"


def digest_of(token: str) -> bytes:
    """What is kept of a plain token, to know it by; raises UnicodeEncodeError: it is none."""
    # Plain SHA-256, not argon2: a slow, salted hash protects secrets that can be guessed.
    # A token has 256 random bits, so there is nothing to guess, and every call pays for this.
    return sha256(token.encode("ascii")).digest()


def check_chosen(token: str) -> None:
    """Raise :class:`CredentialsError` when an operator's own text cannot be a token."""
    if len(token) < TOKEN_MIN or not _TOKEN.fullmatch(token):
        raise CredentialsError(
            f"the admin token must be {TOKEN_MIN} or more of the characters A-Z a-z 0-9 . _ ~ + / -"
        )


def check_token(token: Token) -> None:
    """Raise :class:`InvalidToken` when the name, the scopes or the patterns cannot be."""
    if not is_token_name(token.name):
        raise InvalidToken("a token's name is 1 to 128 of the characters A-Z a-z 0-9 : _ . -", "/name")
    if not token.scopes:
        raise InvalidToken(f"a token has at least one scope of {', '.join(Scope)}", "/scopes")
    for scope in token.scopes:
        if scope not in _SCOPES:
            raise InvalidToken(f"{ascii(scope)[:80]} is no scope; there are {', '.join(Scope)}", "/scopes")
    if token.is_limited and (whole := token.scopes & _FOR_EVERYTHING):
        raise InvalidToken(
            f"a token with the scope {min(whole)} is not limited to things or actions", "/scopes"
        )
    for field, patterns in (("things", token.things), ("actions", token.actions)):
        if len(patterns) > PATTERNS_MAX:
            raise InvalidToken(f"at most {PATTERNS_MAX} patterns", f"/{field}")
        for i, pattern in enumerate(patterns):
            if not _NAME_PATTERN.fullmatch(pattern):
                raise InvalidToken(
                    "a pattern is a name in which * stands for any characters", f"/{field}/{i}"
                )


def is_token_name(text: str) -> bool:
    """Whether ``text`` can name a token: ``[A-Za-z0-9:_.-]{1,128}``."""
    return _NAME.fullmatch(text) is not None
