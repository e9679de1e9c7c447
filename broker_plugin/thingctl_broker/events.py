"""What happened, told to whoever wants to know: waiting callers, logs, metrics.

Nothing here costs more than a truth test while nobody listens.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.executions import Execution


class Change(StrEnum):
    """What happened to an execution."""

    CREATED = "created"
    PUBLISHED = "published"
    DELIVERED = "delivered"
    PROGRESSED = "progressed"
    CANCEL_REQUESTED = "cancelRequested"
    ENDED = "ended"
    LATE = "late"


class Events:
    """Hands each change to every listener, in the order in which they came.

    A listener that raises is logged; neither the others nor the execution suffer.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger("thingctl.events")
        self._listeners: list[Callable[[Execution, Change], None]] = []

    def subscribe(self, listener: Callable[[Execution, Change], None]) -> Callable[[], None]:
        """Call ``listener(execution, change)`` from now on; return what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def emit(self, execution: Execution, change: Change) -> None:
        """Tell every listener."""
        for listener in tuple(self._listeners):
            try:
                listener(execution, change)
            except Exception:
                self._log.exception(
                    "listener failed",
                    execution_id=execution.execution_id,
                    thing=execution.thing,
                    change=change.value,
                )


class Counters(Counter[str]):
    """How often each thing happened since the start, by a dotted name."""


class RateLimit:
    """Lets each key through once in ``seconds``, and remembers at most ``keys_max`` keys."""

    KEYS_MAX: Final = 10_000

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._last: dict[str, float] = {}

    def allows(self, key: str, now: float) -> bool:
        """Whether ``key`` may pass at monotonic time ``now``; if so, it has."""
        last = self._last.get(key)
        if last is not None and now - last < self._seconds:
            return False
        if len(self._last) >= self.KEYS_MAX:
            self._last.clear()  # a line too many now and then, rather than a scan each time
        self._last[key] = now
        return True
