"""API tokens as records, and in a file.

``tokens.json`` in the data directory holds the hash of each token, never a token.
``admin-token`` beside it is the operator's copy of the first one; the broker writes it
once and never reads it.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_broker.security.tokens import CredentialsError, Token
from thingctl_broker.system.files import make_private_directory, write_atomic
from thingctl_broker.system.paths import ADMIN_TOKEN_FILE

if TYPE_CHECKING:
    from pathlib import Path

_FORMAT: Final = 2
_FORMAT_WITHOUT_LIMITS: Final = 1
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class _StoredToken(msgspec.Struct, rename="camel", omit_defaults=True):
    name: str
    scopes: list[str]
    sha256: str
    things: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    expires_at: float | None = None
    created_at: float | None = None
    made_with: str = ""

    @property
    def token(self) -> Token:
        """The token that the record describes."""
        return Token(
            self.name,
            frozenset(self.scopes),
            self.things,
            self.actions,
            self.expires_at,
            self.created_at,
            self.made_with,
        )


def _stored(digest: bytes, t: Token) -> _StoredToken:
    return _StoredToken(
        t.name, sorted(t.scopes), digest.hex(), t.things, t.actions, t.expires_at, t.created_at, t.made_with
    )


def encode_token(digest: bytes, token: Token) -> bytes:
    """One token as a record of its own, for a store that several processes share."""
    return msgspec.json.encode(_stored(digest, token))


def decode_token(record: bytes) -> tuple[bytes, Token]:
    """The digest and the token of a record; raises ValueError (msgspec's errors among them)."""
    t = msgspec.json.decode(record, type=_StoredToken)
    return bytes.fromhex(t.sha256), t.token


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


def read_tokens(path: Path) -> dict[bytes, Token] | None:
    """The tokens of a token file by their digest; None: there is no such file.

    Raises :class:`~thingctl_broker.security.tokens.CredentialsError` when it is damaged or cannot be read.
    """
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
    return {bytes.fromhex(t.sha256): t.token for t in stored}


def write_tokens(path: Path, tokens: dict[bytes, Token]) -> None:
    """Put the tokens into the file instead of those in it; raises ``CredentialsError``."""
    _write(path, _encoded(tokens))


async def keep_tokens(path: Path, tokens: dict[bytes, Token]) -> None:
    """Do as ``write_tokens``, beside the loop."""
    await asyncio.to_thread(_write, path, _encoded(tokens))


def keep_admin_token(directory: Path, plain: str) -> None:
    """Write the operator's copy of the first token, mode 0600; raises :class:`CredentialsError`."""
    _write(directory / ADMIN_TOKEN_FILE, plain.encode() + b"\n")


def _damaged(path: Path, fault: str) -> str:
    return (
        f"{path} is damaged and was left as it is ({fault}); "
        "restore it, or move it away and a new admin token is made at the next start"
    )


def _write(path: Path, content: bytes) -> None:
    try:
        make_private_directory(path.parent)
        write_atomic(path, content)
    except OSError as error:
        raise CredentialsError(f"{path} cannot be written: {error.strerror}") from None
