"""What happened, told to whoever wants to know: waiting callers, logs, metrics.

A change that nobody has asked for costs no more than looking that up.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_broker.commands.execution import Execution


class Change(StrEnum):
    """What happened to an execution."""

    CREATED = "created"
    PUBLISHED = "published"
    DELIVERED = "delivered"
    PROGRESSED = "progressed"
    CANCEL_REQUESTED = "cancelRequested"
    ENDED = "ended"
    LATE = "late"


Listener: TypeAlias = "Callable[[Execution, Change], None]"


class Events:
    """Hands each change to those who asked for it, in the order in which they came.

    A listener that raises is logged; neither the others nor the execution suffer.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger("thingctl.events")
        # Tuples, put together anew when somebody comes or goes: telling goes through them as
        # they were, and a change that nobody asked for costs one look.
        self._listeners: dict[Change, tuple[Listener, ...]] = dict.fromkeys(Change, ())

    def subscribe(self, listener: Listener, changes: Iterable[Change] = tuple(Change)) -> Callable[[], None]:
        """Call ``listener(execution, change)`` for these changes from now on; return what ends that."""
        wanted = frozenset(changes)
        for change in wanted:
            self._listeners[change] += (listener,)

        def leave() -> None:
            for change in wanted:
                others = list(self._listeners[change])
                others.remove(listener)
                self._listeners[change] = tuple(others)

        return leave

    def emit(self, execution: Execution, change: Change) -> None:
        """Tell every listener that asked for it."""
        for listener in self._listeners[change]:
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
