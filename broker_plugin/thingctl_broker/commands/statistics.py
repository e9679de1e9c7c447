"""The last hour at a glance: commands by minute and status, and how long things took to answer.

Pure: the caller brings the time (Unix seconds). Bounded: one bucket for each minute, and in
it a histogram of fixed size instead of the latencies themselves.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_broker.commands.status_table import VERDICTS
from thingctl_protocol.statuses import TERMINAL, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from thingctl_broker.commands.execution import Execution

MINUTES: Final = 60
"""How far back it goes."""

FASTEST: Final = 0.000_1
"""Seconds: whatever is no longer is in the first slot of a histogram."""

_STEP: Final = 1.1
SLOTS: Final = 240
"""From 0.1 ms in steps of a tenth: the last slot begins beyond a week."""

LOG_STEP: Final = log(_STEP)


class Latency(msgspec.Struct, frozen=True, gc=False):
    """How long the verdicts of things took, in seconds, to about five percent."""

    count: int
    p50: float
    p95: float
    p99: float


class Histogram:
    """Durations, counted in slots that grow geometrically."""

    __slots__ = ("_slots", "count")

    def __init__(self) -> None:
        self.count = 0
        self._slots: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one."""
        slot = 0 if seconds <= FASTEST else min(SLOTS - 1, 1 + int(log(seconds / FASTEST) / LOG_STEP))
        self.add_to(slot, 1)

    def add_to(self, slot: int, count: int) -> None:
        """Count ``count`` durations of a slot at once, for whoever has counted them elsewhere."""
        self._slots[slot] = self._slots.get(slot, 0) + count
        self.count += count

    def merge(self, other: Histogram) -> None:
        """Count all that the other has counted."""
        for slot, count in other._slots.items():
            self._slots[slot] = self._slots.get(slot, 0) + count
        self.count += other.count

    def latency(self) -> Latency | None:
        """The percentiles; None: nothing was counted."""
        if not self.count:
            return None
        return Latency(self.count, self._percentile(0.50), self._percentile(0.95), self._percentile(0.99))

    def _percentile(self, share: float) -> float:
        wanted = share * self.count
        seen = 0
        slot = 0
        for slot in sorted(self._slots):
            seen += self._slots[slot]
            if seen >= wanted:
                break
        return round(FASTEST * float(_STEP ** max(0.0, slot - 0.5)), 6)


class Minute:
    """What happened within one minute."""

    __slots__ = ("created", "ended", "histogram", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        """Minutes since 1970."""
        self.created = 0
        self.ended: dict[Status, int] = {}
        self.histogram = Histogram()

    @property
    def latency(self) -> Latency | None:
        """How long the verdicts took."""
        return self.histogram.latency()

    def merge(self, other: Minute) -> None:
        """Add what happened within another one."""
        self.created += other.created
        for status, count in other.ended.items():
            self.ended[status] = self.ended.get(status, 0) + count
        self.histogram.merge(other.histogram)


class HourlyStatistics:
    """The buckets of the last hour."""

    def __init__(self) -> None:
        self._minutes: dict[int, Minute] = {}

    def created(self, at: float) -> None:
        """A command was accepted."""
        self._minute(at).created += 1

    def ended(self, status: Status, at: float, seconds: float) -> None:
        """An execution has ended, ``seconds`` after its creation."""
        minute = self._minute(at)
        minute.ended[status] = minute.ended.get(status, 0) + 1
        if status in VERDICTS:
            minute.histogram.add(seconds)

    def seed(self, executions: Iterable[Execution], at: float) -> None:
        """Count what a restart has brought back."""
        oldest = at - 60 * MINUTES
        for execution in executions:
            if execution.created_at >= oldest:
                self.created(execution.created_at)
            ended_at = execution.ended_at
            if ended_at is not None and ended_at >= oldest and execution.status in TERMINAL:
                self.ended(execution.status, ended_at, ended_at - execution.created_at)

    def minutes(self, at: float) -> list[Minute]:
        """The last hour, minute by minute, up to and with the one of ``at``."""
        last = int(at // 60)
        return [self._minutes.get(number) or Minute(number) for number in range(last - MINUTES + 1, last + 1)]

    def _minute(self, at: float) -> Minute:
        number = int(at // 60)
        minute = self._minutes.get(number)
        if minute is None:
            minute = self._minutes[number] = Minute(number)
            if len(self._minutes) > 2 * MINUTES:  # the clock may have been set: keep what is nearest
                for other in sorted(self._minutes, key=lambda other: abs(other - number))[MINUTES:]:
                    del self._minutes[other]
        return minute


def whole(minutes: Sequence[Minute]) -> Minute:
    """All of them together, under the first one's number."""
    together = Minute(minutes[0].number)
    for minute in minutes:
        together.merge(minute)
    return together
