"""API tokens: made, kept as hashes, verified; what each may do; revoked at once.

``tokens.json`` in the data directory holds the hash of each token, never a token.
``admin-token`` beside it is the operator's copy of the first one; the broker writes it
once and never reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import re
import secrets
import time
from enum import StrEnum
from fnmatch import translate
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from thingctl_broker.paths import ADMIN_TOKEN_FILE, TOKENS_FILE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Keep = Callable[[dict[bytes, "Token"]], Awaitable[None]]

ADMIN: Final = "admin"
"""The name of the first token, and the scope that allows everything."""

TOKEN_MIN: Final = 16
"""Characters of a token that an operator chooses."""

PATTERNS_MAX: Final = 100
"""Patterns of one token, for things and for actions each."""

_FORMAT: Final = 2
_FORMAT_WITHOUT_LIMITS: Final = 1
_HEAD: Final = 8  # bytes of a digest that tell tokens apart
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what may follow "Bearer": RFC 6750 section 2.1
_NAME: Final = re.compile(r"[A-Za-z0-9:_.-]{1,128}")
_NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9:_./*-]{1,128}")
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


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
    the same for the actions of commands. Times: Unix seconds.
    """

    name: str
    scopes: frozenset[str]
    things: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    expires_at: float | None = None
    created_at: float | None = None

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


class TokenStore:
    """Verifies API tokens. Make one with :meth:`open`."""

    def __init__(
        self,
        tokens: dict[bytes, Token],
        new_admin_token: str | None = None,
        *,
        keep: Keep | None = None,
        stand_in: bytes | None = None,
        displaced: dict[bytes, Token] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``tokens``: by the SHA-256 digest of the plain token.

        ``keep``: what keeps them when they have changed. ``stand_in``: the digest of an admin
        token that is never kept, and ``displaced``: those of that name which are, and sleep meanwhile.
        """
        self._tokens = _by_head(tokens)
        self._keeper = keep
        self._stand_in = stand_in
        self._displaced = {} if displaced is None else displaced
        self._now = now
        self._writing = asyncio.Lock()
        self.new_admin_token = new_admin_token
        """The plain admin token if it was made just now, to be shown once; else None."""

    @classmethod
    def open(cls, data_dir: Path | None = None, admin_token: str | None = None) -> TokenStore:
        """Read the tokens under ``data_dir`` (made if missing); None: keep nothing.

        At the first start an admin token is made, unless ``admin_token`` gives one: that
        one stands in for any that is stored, while this process runs, and is never written.

        Raises :class:`CredentialsError` when the files cannot be read or written, are
        damaged (they are left as they are), or ``admin_token`` cannot be a token.
        """
        path = None if data_dir is None else data_dir / TOKENS_FILE
        keep = None if path is None else partial(_keep_in_file, path)
        stored = None if path is None else _read(path)
        if admin_token is not None:
            store = cls({}, keep=keep)
            store.replace({} if stored is None else stored, admin_token)
            return store
        if stored is not None:
            return cls(stored, keep=keep)
        plain = make_token()
        tokens = {_digest(plain): _ADMIN_TOKEN}
        if path is not None:
            # The plain copy first: a crash in between must not leave a token that nobody has.
            keep_admin_token(path.parent, plain)
            _write(path, _encoded(tokens))
        return cls(tokens, plain, keep=keep)

    def replace(self, tokens: dict[bytes, Token], admin_token: str | None = None) -> None:
        """Know these tokens instead, by digest; ``admin_token`` stands in for any admin among them.

        Raises :class:`CredentialsError` when ``admin_token`` cannot be a token.
        """
        if admin_token is None:
            self._tokens = _by_head(tokens)
            return
        _check_chosen(admin_token)
        self._stand_in = _digest(admin_token)
        self._displaced = {digest: token for digest, token in tokens.items() if token.name == ADMIN}
        others = {digest: token for digest, token in tokens.items() if token.name != ADMIN}
        self._tokens = _by_head(others | {self._stand_in: _ADMIN_TOKEN})

    def first(self) -> tuple[bytes, Token]:
        """One of the tokens, with its digest: where there is but one, that."""
        return next(iter(self._tokens.values()))

    def verify(self, token: str) -> Token | None:
        """Whose token that is; None when it is nobody's. Takes about a microsecond."""
        try:
            digest = _digest(token)
        except UnicodeEncodeError:
            return None
        # The head of the digest only finds the candidate; the verdict is the comparison of
        # the whole, whose time does not depend on where the two differ.
        candidate = self._tokens.get(digest[:_HEAD])
        if candidate is not None and hmac.compare_digest(candidate[0], digest):
            found = candidate[1]
            if found.expires_at is None or self._now() < found.expires_at:
                return found
        return None

    def stands(self, token: Token) -> bool:
        """Whether a token that was verified earlier would still be."""
        return (token.expires_at is None or self._now() < token.expires_at) and any(
            known is token for _, known in self._tokens.values()
        )

    def __iter__(self) -> Iterator[Token]:
        return iter(sorted((token for _, token in self._tokens.values()), key=lambda token: token.name))

    def get(self, name: str) -> Token:
        """The token with that name; raises :class:`UnknownToken`."""
        return self._find(name)[1]

    async def add(self, token: Token) -> str:
        """Make a token; return its plain text, which is nowhere else.

        Raises :class:`TokenExists`, :class:`InvalidToken` or :class:`CredentialsError`; then
        there is none.
        """
        token = _checked(token._replace(created_at=self._now()))
        if token.expires_at is not None and token.expires_at <= self._now():
            raise InvalidToken("it would have expired already", "/expiresAt")
        if any(known.name == token.name for known in self):
            raise TokenExists(f"there is a token named {token.name!r} already")
        plain = make_token()
        digest = _digest(plain)
        self._tokens[digest[:_HEAD]] = (digest, token)
        try:
            await self._keep()
        except CredentialsError:
            self._tokens.pop(digest[:_HEAD], None)
            raise
        return plain

    async def revoke(self, name: str) -> None:
        """End a token, at once.

        Raises :class:`UnknownToken`; :class:`LastAdmin` for the last token that may make
        others; :class:`CredentialsError` when it is revoked, but only in memory.
        """
        digest, token = self._find(name)
        self._check_not_last(token)
        del self._tokens[digest[:_HEAD]]
        await self._keep()

    async def renew(self, name: str) -> str:
        """Give a token another secret and return it; the old one ends at once. Raises as ``revoke``."""
        digest, token = self._find(name)
        if digest == self._stand_in:
            raise InvalidToken("this token is given from outside: change it there", "")
        plain = make_token()
        del self._tokens[digest[:_HEAD]]
        new = _digest(plain)
        self._tokens[new[:_HEAD]] = (new, token._replace(created_at=self._now()))
        await self._keep()
        return plain

    def _find(self, name: str) -> tuple[bytes, Token]:
        for digest, token in self._tokens.values():
            if token.name == name:
                return digest, token
        raise UnknownToken(f"no token is named {ascii(name)[:140]}")

    def _check_not_last(self, token: Token) -> None:
        if ADMIN in token.scopes and not any(
            ADMIN in other.scopes and other.expires_at is None for other in self if other is not token
        ):
            raise LastAdmin("this is the last token with the scope admin: make another one first")

    async def _keep(self) -> None:
        if self._keeper is None:
            return
        async with self._writing:
            stored = {d: token for d, token in self._tokens.values() if d != self._stand_in}
            await self._keeper(self._displaced | stored)

    async def look_again(self) -> bool:
        """Whether tokens that were made elsewhere may be known by now, that were not a moment ago."""
        return False


def _by_head(tokens: dict[bytes, Token]) -> dict[bytes, tuple[bytes, Token]]:
    return {digest[:_HEAD]: (digest, token) for digest, token in tokens.items()}


_ADMIN_TOKEN: Final = Token(ADMIN, frozenset({ADMIN}))
_SCOPES: Final = frozenset(Scope)
_FOR_EVERYTHING: Final = frozenset({Scope.ADMIN, Scope.MQTT_READ, Scope.MQTT_WRITE})
"""Scopes that cannot be limited. A topic says nothing of actions, and an ordinary one nothing of things."""


def make_token() -> str:
    """Return a new token with 256 bits of randomness; the prefix lets secret scanners find it."""
    return f"tctl_{secrets.token_urlsafe(32)}"


def _digest(token: str) -> bytes:
    # Plain SHA-256, not argon2: a slow, salted hash protects secrets that can be guessed.
    # A token has 256 random bits, so there is nothing to guess, and every call pays for this.
    return sha256(token.encode("ascii")).digest()


def _check_chosen(token: str) -> None:
    if len(token) < TOKEN_MIN or not _TOKEN.fullmatch(token):
        raise CredentialsError(
            f"the admin token must be {TOKEN_MIN} or more of the characters A-Z a-z 0-9 . _ ~ + / -"
        )


def _checked(token: Token) -> Token:
    """The token with its scopes and patterns looked at; raises :class:`InvalidToken`."""
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
    return token


def keep_admin_token(directory: Path, plain: str) -> None:
    """Write the operator's copy of the first token, mode 0600; raises :class:`CredentialsError`."""
    _write(directory / ADMIN_TOKEN_FILE, plain.encode() + b"\n")


def read_tokens(path: Path) -> dict[bytes, Token]:
    """The tokens of a token file by their digest, for whoever is to keep them elsewhere.

    Raises :class:`CredentialsError` when it is damaged or cannot be read.
    """
    return _read(path) or {}


def is_token_name(text: str) -> bool:
    """Whether ``text`` can name a token: ``[A-Za-z0-9:_.-]{1,128}``."""
    return _NAME.fullmatch(text) is not None


class _StoredToken(msgspec.Struct, rename="camel", omit_defaults=True):
    name: str
    scopes: list[str]
    sha256: str
    things: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    expires_at: float | None = None
    created_at: float | None = None


def _stored(digest: bytes, t: Token) -> _StoredToken:
    return _StoredToken(
        t.name, sorted(t.scopes), digest.hex(), t.things, t.actions, t.expires_at, t.created_at
    )


def encode_token(digest: bytes, token: Token) -> bytes:
    """One token as a record of its own, for a store that several processes share."""
    return msgspec.json.encode(_stored(digest, token))


def decode_token(record: bytes) -> tuple[bytes, Token]:
    """The digest and the token of a record; raises ValueError (msgspec's errors among them)."""
    t = msgspec.json.decode(record, type=_StoredToken)
    return bytes.fromhex(t.sha256), Token(
        t.name, frozenset(t.scopes), t.things, t.actions, t.expires_at, t.created_at
    )


class _StoredTokens(msgspec.Struct):
    version: int
    tokens: list[_StoredToken]


class _Version(msgspec.Struct):
    version: int


def _encoded(tokens: dict[bytes, Token]) -> bytes:
    stored = [_stored(digest, token) for digest, token in tokens.items()]
    # A thingctl that knows no limits must not take a limited token for an unlimited one.
    limited = any(token.is_limited or token.expires_at is not None for token in tokens.values())
    version = _FORMAT if limited else _FORMAT_WITHOUT_LIMITS
    return msgspec.json.format(msgspec.json.encode(_StoredTokens(version, stored))) + b"\n"


def _read(path: Path) -> dict[bytes, Token] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read: {error.strerror}") from None
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version > _FORMAT:
            raise CredentialsError(f"{path} was written by a newer version of thingctl (format {version})")
        stored = msgspec.json.decode(content, type=_StoredTokens).tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CredentialsError(_damaged(path, str(error))) from None
    for token in stored:
        if not _HEX_DIGEST.fullmatch(token.sha256):
            raise CredentialsError(_damaged(path, f"the hash of {token.name!r} is not a SHA-256"))
    return {
        bytes.fromhex(t.sha256): Token(
            t.name, frozenset(t.scopes), t.things, t.actions, t.expires_at, t.created_at
        )
        for t in stored
    }


async def _keep_in_file(path: Path, tokens: dict[bytes, Token]) -> None:
    await asyncio.to_thread(_write, path, _encoded(tokens))


def _damaged(path: Path, fault: str) -> str:
    return (
        f"{path} is damaged and was left as it is ({fault}); "
        "restore it, or move it away and a new admin token is made at the next start"
    )


def _write(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, mode 0600, whole or not at all."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    except OSError as error:
        raise CredentialsError(f"{path} cannot be written: {error.strerror}") from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CredentialsError(f"{path} cannot be written: {error.strerror}") from None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
