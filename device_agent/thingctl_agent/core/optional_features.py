"""What only a thingctl broker wants: cancels, its time, the announcement. Pure.

A broker that knows just requests and responses may refuse the rest, and some close the
connection over it. What was last asked for when that happens, twice in a row, is not
asked for again, and the agent serves such a broker all the same.
"""

from __future__ import annotations

from typing import Final

TOPICS: Final = "cancel and time"
ANNOUNCEMENT: Final = "announcement"
STRIKES: Final = 2


class Extras:
    """Which extras to use on the next connection."""

    def __init__(self, *, announce: bool = True) -> None:
        self._strikes: dict[str, int] = {} if announce else {ANNOUNCEMENT: STRIKES}
        self._asked: str | None = None

    def wanted(self, extra: str) -> bool:
        """Whether to ask for it."""
        return self._strikes.get(extra, 0) < STRIKES

    def asking(self, extra: str) -> None:
        """It is being asked for."""
        self._asked = extra

    def answered(self) -> None:
        """The broker has answered, be it with no."""
        if self._asked is not None:
            self._strikes[self._asked] = 0
        self._asked = None

    def lost(self) -> str | None:
        """The connection is gone; returns the extra that is given up for it, if any."""
        asked, self._asked = self._asked, None
        if asked is None:
            return None
        self._strikes[asked] = self._strikes.get(asked, 0) + 1
        return None if self.wanted(asked) else asked
