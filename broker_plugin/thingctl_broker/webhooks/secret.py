"""The secret that post-backs are signed with: made at the first start, kept, never shown."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "webhook-secret"
"""In the data directory."""

RECORD: Final = ("secret", "webhook")
"""Kind and name, where workers share it as a record."""

_MIN: Final = 16


def read(directory: Path) -> bytes | None:
    """The secret in ``directory``; None: there is none. Raises OSError."""
    return read_or_make(directory) if (directory / FILE).exists() else None


def read_or_make(directory: Path) -> bytes:
    """Return the secret in ``directory``, made if there is none; raises OSError."""
    path = directory / FILE
    try:
        secret = path.read_bytes().strip()
    except FileNotFoundError:
        secret = secrets.token_urlsafe(32).encode()
        new = path.with_name(f".{FILE}.new")
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secret + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    if len(secret) < _MIN:
        raise OSError(f"{path} holds no secret of {_MIN} characters or more")
    return secret
