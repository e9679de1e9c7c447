"""How long to wait before the next attempt to connect. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST: Final = 0.5
LONGEST: Final = 60.0
STABLE_AFTER: Final = 30.0
"""Seconds. A connection that lasted so long starts the count again; a shorter one does
not, or two agents with one name would take the session from each other at full speed."""


class Backoff:
    """Full jitter: a random wait below a ceiling that doubles.

    ``uniform`` draws between its two arguments (as ``random.uniform`` does).
    """

    def __init__(
        self,
        uniform: Callable[[float, float], float],
        *,
        first: float = FIRST,
        longest: float = LONGEST,
    ) -> None:
        self._uniform = uniform
        self._first = first
        self._longest = longest
        self._ceiling = first
        self._connected_at: float | None = None

    def connected(self, now: float) -> None:
        """The broker has accepted the connection."""
        self._connected_at = now

    def failed(self, now: float) -> float:
        """The connection was lost or refused; returns the seconds to wait."""
        if self._connected_at is not None and now - self._connected_at >= STABLE_AFTER:
            self._ceiling = self._first
        self._connected_at = None
        wait = self._uniform(0.0, self._ceiling)
        self._ceiling = min(self._longest, self._ceiling * 2)
        return wait
