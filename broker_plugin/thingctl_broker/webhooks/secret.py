"""The secret that post-backs are signed with: made at the first start, kept, never shown."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from thingctl_broker.system.files import write_atomic

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
        write_atomic(path, secret + b"\n")
    if len(secret) < _MIN:
        raise OSError(f"{path} holds no secret of {_MIN} characters or more")
    return secret
