"""Is this request still fresh? Pure: the time is passed in.

``now`` is the time since boot (it never steps); ``wall`` is asked for the wall clock in
Unix seconds and says ``None`` when it may be wrong. A device without a battery-backed
clock starts at a wrong time of day, so the wall clock alone must not judge a TTL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from thingctl_protocol.messages import BrokerTime

Wall = Callable[[], float | None]
"""Asked only when it is needed: to find out whether a clock is synchronised costs something."""


DRIFT_MAX: Final = 0.05
"""The share by which the device's clock may run off: 5 %."""


class BrokerClock:
    """Tells ages by the broker's time, carried on by the device's monotonic clock.

    A ``time`` that was under way for long shows too early a moment, and so does the first one
    after the broker's clock was set back. The broker's steady clock tells the two apart: of
    what was said on one connection, the message that was fastest counts, as far as
    the device's own clock can have carried it on.
    """

    __slots__ = ("_offset", "_said_at", "_steady_offset")

    def __init__(self) -> None:
        self._offset: float | None = None
        self._steady_offset: float | None = None
        self._said_at = 0.0

    def connected(self) -> None:
        """There is a new connection, maybe to another broker with a steady clock of its own."""
        self._steady_offset = None

    def broker_says(self, time: BrokerTime, now: float) -> None:
        """The broker's clocks showed ``time`` at ``now``, or a little before."""
        if time.steady is None:
            self._offset = time.timestamp - now
            return
        offset = time.steady - now
        if self._steady_offset is not None:
            offset = max(offset, self._steady_offset - DRIFT_MAX * (now - self._said_at))
        self._steady_offset, self._said_at = offset, now
        self._offset = time.timestamp - time.steady + offset

    @property
    def knows_broker_time(self) -> bool:
        """Whether the broker has said its time since the agent started."""
        return self._offset is not None

    def unix(self, now: float, wall: Wall) -> float | None:
        """The best-known Unix time, or ``None``."""
        return wall() if self._offset is None else now + self._offset

    def age(self, timestamp: float, now: float, wall: Wall) -> float | None:
        """Seconds since ``timestamp`` on the broker's clock; ``None``: it cannot be told.

        >>> from thingctl_protocol.messages import BrokerTime
        >>> clock = BrokerClock()
        >>> clock.age(1000.0, now=5.0, wall=lambda: None) is None
        True
        >>> clock.broker_says(BrokerTime(1010.0), now=5.0)
        >>> clock.age(1000.0, now=7.0, wall=lambda: 99.0)
        12.0
        """
        unix = self.unix(now, wall)
        return None if unix is None else unix - timestamp
