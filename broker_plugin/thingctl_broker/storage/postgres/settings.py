"""Where the store is, and how patient a worker is with it."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

import msgspec

_SCHEMES: Final = ("postgresql", "postgres")
_SSLMODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SSLMODE: Final = re.compile(r"(?:^|&)sslmode=([^&]*)")


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The PostgreSQL that keeps everything for the workers of a cluster. Times in seconds.

    Its ``repr`` has no password.
    """

    url: str = ""
    """``postgresql://user@host:5432/database?sslmode=verify-full``. The password may also come by
    ``PGPASSWORD``, or from the file that ``PGPASSFILE`` names."""
    pool: Annotated[int, msgspec.Meta(ge=2, le=100)] = 6
    """Connections of one worker, besides the one that listens."""
    statement_timeout: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0
    """How long one statement may take. What takes longer has not been done."""
    connect_timeout: Annotated[float, msgspec.Meta(gt=0, le=600)] = 5.0
    """How long connecting may take, and waiting for a connection that is free."""
    patience: Annotated[float, msgspec.Meta(ge=0, le=60)] = 5.0
    """How long to try to find out, and to do it again, when a connection was lost while something
    was being committed. Nobody is answered meanwhile."""

    def __repr__(self) -> str:
        return (
            f"StoreSettings(url={shown(self.url)!r}, pool={self.pool}, "
            f"statement_timeout={self.statement_timeout}, connect_timeout={self.connect_timeout}, "
            f"patience={self.patience})"
        )


def check_url(url: str) -> None:
    """Raise ValueError, without a word of what might be a password, when ``url`` names no PostgreSQL."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named:
        raise ValueError(
            "the store is a URL such as postgresql://user@host:5432/database; "
            "special characters of user name and password are percent-encoded"
        )
    if "/" in parts.path[1:] or not parts.path[1:]:
        raise ValueError("the store's URL names one database: postgresql://user@host:5432/database")
    for mode in _SSLMODE.findall(parts.query):
        if mode not in _SSLMODES:
            raise ValueError(f"sslmode must be one of {', '.join(_SSLMODES)}")


def shown(url: str) -> str:
    """The URL as it may stand in a log: host, port and database; nothing secret.

    >>> shown("postgresql://operator:geheim@db.example:5433/fleet?sslmode=require&password=geheim")
    'postgresql://db.example:5433/fleet'
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        host = parts.hostname or ""
    except ValueError:
        return "postgresql://?"
    host = f"[{host}]" if ":" in host else host
    database = unquote(parts.path)
    return f"postgresql://{host}{port}{database if database.isprintable() else '/?'}"
