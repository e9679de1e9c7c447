"""API tokens: made, kept as hashes, verified.

``tokens.json`` in the data directory holds the hash of each token, never a token.
``admin-token`` beside it is the operator's copy of the first one; the broker writes it
once and never reads it.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
from hashlib import sha256
from pathlib import Path
from tempfile import mkstemp
from typing import Final, NamedTuple

import msgspec

from thingctl_broker.paths import ADMIN_TOKEN_FILE, TOKENS_FILE

ADMIN: Final = "admin"
"""The name of the first token, and the scope that allows everything."""

TOKEN_MIN: Final = 16
"""Characters of a token that an operator chooses."""

_FORMAT: Final = 1
_HEAD: Final = 8  # bytes of a digest that tell tokens apart
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what may follow "Bearer": RFC 6750 section 2.1
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class CredentialsError(Exception):
    """Tokens could not be read, kept or accepted. ``text`` is one sentence for people."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Token(NamedTuple):
    """Who calls, and what they may do."""

    name: str
    scopes: frozenset[str]


class TokenStore:
    """Verifies API tokens. Make one with :meth:`open`."""

    def __init__(self, tokens: dict[bytes, Token], new_admin_token: str | None = None) -> None:
        """``tokens``: by the SHA-256 digest of the plain token."""
        self._tokens = {digest[:_HEAD]: (digest, token) for digest, token in tokens.items()}
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
        stored = None if data_dir is None else _read(data_dir / TOKENS_FILE)
        if admin_token is not None:
            _check_chosen(admin_token)
            others = {} if stored is None else {d: t for d, t in stored.items() if t.name != ADMIN}
            return cls(others | {_digest(admin_token): _ADMIN_TOKEN})
        if stored is not None:
            return cls(stored)
        plain = make_token()
        tokens = {_digest(plain): _ADMIN_TOKEN}
        if data_dir is not None:
            # The plain copy first: a crash in between must not leave a token that nobody has.
            _write(data_dir / ADMIN_TOKEN_FILE, plain.encode() + b"\n")
            _write(data_dir / TOKENS_FILE, _encoded(tokens))
        return cls(tokens, plain)

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
            return candidate[1]
        return None


_ADMIN_TOKEN: Final = Token(ADMIN, frozenset({ADMIN}))


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


class _StoredToken(msgspec.Struct, rename="camel"):
    name: str
    scopes: list[str]
    sha256: str


class _StoredTokens(msgspec.Struct):
    version: int
    tokens: list[_StoredToken]


class _Version(msgspec.Struct):
    version: int


def _encoded(tokens: dict[bytes, Token]) -> bytes:
    stored = [_StoredToken(t.name, sorted(t.scopes), digest.hex()) for digest, t in tokens.items()]
    return msgspec.json.format(msgspec.json.encode(_StoredTokens(_FORMAT, stored))) + b"\n"


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
    return {bytes.fromhex(t.sha256): Token(t.name, frozenset(t.scopes)) for t in stored}


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
