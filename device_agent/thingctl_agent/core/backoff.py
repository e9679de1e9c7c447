"""How long to wait before the next attempt to connect. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST: Final = 0.5
LONGEST: Final = 30.0
"""Seconds. Half of the TTL that a command has by default: a pause must not outlast the commands.
Spread over it, 10,000 devices are 330 attempts a second."""

AT_WORK_LONGEST: Final = 4.0
"""Seconds. The longest pause after a connection on which a command came, however short it was."""

STABLE_AFTER: Final = 10.0
"""Seconds. A connection that was ready for commands so long starts the count again; a shorter one
does not, or two agents with one name would take the session from each other at full speed."""

SHORT_MANY: Final = 3
"""Connections that were lost too soon, net of those that lasted, after which to ask for the cause."""

SAME_NAME: Final = (
    "connections are lost again and again within seconds: is another device using this thing's name?"
)


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
        self._ready_at: float | None = None
        self._worked = False
        self._short = 0

    @property
    def flaps(self) -> bool:
        """Whether connections are lost again and again as soon as they are ready for commands."""
        return self._short >= SHORT_MANY

    def ready(self, now: float) -> None:
        """The broker has accepted the connection and the subscription to requests."""
        self._ready_at = now
        self._worked = False

    def worked(self) -> None:
        """A command has come over this connection."""
        self._worked = True

    def failed(self, now: float) -> float:
        """The connection was lost or refused; returns the seconds to wait."""
        if self._ready_at is not None:
            self._lost(now - self._ready_at)
        self._ready_at = None
        wait = self._uniform(0.0, self._ceiling)
        self._ceiling = min(self._longest, self._ceiling * 2)
        return wait

    def _lost(self, lasted: float) -> None:
        if lasted >= STABLE_AFTER:
            self._short = max(0, self._short - 1)
            self._ceiling = self._first
            return
        self._short = min(2 * SHORT_MANY, self._short + 1)
        if self._worked:
            self._ceiling = min(self._ceiling, AT_WORK_LONGEST)
