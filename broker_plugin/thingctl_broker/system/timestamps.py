"""Times as they are told."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=1024)  # one moment is told several times: it was created, and it was published
def rfc3339(at: float) -> str:
    """Unix seconds as UTC with milliseconds.

    >>> rfc3339(1748390400.25)
    '2025-05-28T00:00:00.250Z'
    """
    seconds, ms = divmod(int(at * 1000), 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=1024)  # most times told are of the last moments
def _second(unix: int) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%dT%H:%M:%S}"
