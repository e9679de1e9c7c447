"""When a thing was last told the broker's time, and whether it is time to tell it again. Pure.

A device judges the age of a request by the latest time that it was told, and the time goes
ahead of a request on the same connection. So nothing is sent to a thing that gets no
commands, and a clock that was set costs no message until the next command.
"""

from __future__ import annotations

from typing import Final

from thingctl_broker.commands.execution import CLOCK_SET

TELL_EVERY: Final = 10.0
"""Seconds. A device's clock that runs 5 % off is wrong by half a second then."""


class ToldTime:
    """What one thing was last told. ``now``: monotonic; ``unix``: the wall clock."""

    __slots__ = ("_at", "_offset")

    def __init__(self) -> None:
        self._at = float("-inf")
        self._offset = 0.0

    def is_due(self, now: float, unix: float) -> bool:
        """Whether it was told too long ago, or the wall clock was set since.

        >>> told = ToldTime()
        >>> told.tell(5.0, 1000.0)
        >>> told.is_due(6.0, 1001.0), told.is_due(6.0, 4601.0), told.is_due(16.0, 1011.0)
        (False, True, True)
        """
        return now - self._at >= TELL_EVERY or abs(unix - now - self._offset) > CLOCK_SET

    def tell(self, now: float, unix: float) -> None:
        """It is being told the time."""
        self._at, self._offset = now, unix - now
