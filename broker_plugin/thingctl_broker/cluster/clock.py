"""The store's clock, as a worker knows it: the one clock that all workers share.

The machines of a cluster are set each by itself, and one of them may be wrong by an hour. What
workers tell one another and the things goes by the store's time: when a thing came or went, which
must be compared with what another worker has heard, and the time that a device without a clock
is told, by which it judges requests that bear the store's time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from thingctl_broker.commands.ports import Clock

TRUSTED_SECONDS: Final = 1.0
"""An answer that took longer says too little of the time at which it comes."""

TOLD_BEYOND: Final = 5.0
"""Seconds by which this machine's clock may be wrong without a word in the log."""

_log = structlog.get_logger("thingctl.cluster")


class StoreClock:
    """Deadlines by the machine's monotonic clock, times by the store's.

    Until the store has been asked, its time is taken to be the ``machine``'s.
    """

    def __init__(self, machine: Clock) -> None:
        self._machine = machine
        self._offset: float | None = None
        self._told = False
        self.monotonic = machine.monotonic

    def unix(self) -> float:
        """Seconds since 1970, as the store believes."""
        if self._offset is None:
            return self._machine.unix()
        return self._machine.monotonic() + self._offset

    async def follow(self, asking: Awaitable[float]) -> None:
        """Ask the store for its time (Unix seconds), and go by the answer."""
        before = self._machine.monotonic()
        at = await asking
        after = self._machine.monotonic()
        if self._offset is not None and after - before > TRUSTED_SECONDS:
            return
        self._offset = at - (before + after) / 2
        wrong = self._machine.unix() - self.unix()
        if abs(wrong) <= TOLD_BEYOND:
            self._told = False
        elif not self._told:
            self._told = True
            _log.warning("this machine's clock is not the store's, which counts", seconds=round(wrong, 1))
