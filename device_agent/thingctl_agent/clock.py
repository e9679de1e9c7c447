"""Is this request still fresh? Pure: the time is passed in.

``now`` is the time since boot (it never steps); ``wall`` is asked for the wall clock in
Unix seconds and says ``None`` when nobody vouches for it. A device without a battery-backed
clock starts at a wrong time of day, so the wall clock alone must not judge a TTL.
"""

from __future__ import annotations

from collections.abc import Callable

Wall = Callable[[], float | None]
"""Asked only when it is needed: to find out whether a clock is synchronised costs something."""


class Clock:
    """Tells ages by the broker's time, carried on by the device's monotonic clock."""

    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset: float | None = None

    def broker_says(self, timestamp: float, now: float) -> None:
        """The broker's clock showed ``timestamp`` (Unix seconds) at ``now``."""
        self._offset = timestamp - now

    @property
    def knows_broker_time(self) -> bool:
        """Whether the broker has said its time since the agent started."""
        return self._offset is not None

    def unix(self, now: float, wall: Wall) -> float | None:
        """The best-known Unix time, or ``None``."""
        return wall() if self._offset is None else now + self._offset

    def age(self, timestamp: float, now: float, wall: Wall) -> float | None:
        """Seconds since ``timestamp`` on the broker's clock; ``None``: it cannot be told.

        >>> clock = Clock()
        >>> clock.age(1000.0, now=5.0, wall=lambda: None) is None
        True
        >>> clock.broker_says(1010.0, now=5.0)
        >>> clock.age(1000.0, now=7.0, wall=lambda: 99.0)
        12.0
        """
        unix = self.unix(now, wall)
        return None if unix is None else unix - timestamp
