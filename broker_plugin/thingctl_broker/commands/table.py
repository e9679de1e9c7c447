"""The table of executions: by id, by thing, by deadline, within bounds.

Pure: the caller brings the time. Ids are UUIDv7, so the order of ids is the order of
creation; every index leans on that.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from thingctl_broker.errors import TableFull

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from thingctl_broker.commands.execution import Execution
    from thingctl_protocol.statuses import Status

SCAN_MAX: Final = 20_000
"""Executions looked at for one page. A rare filter over a large table takes several pages
rather than the loop's time."""


class PageOfExecutions(NamedTuple):
    """Executions in the order asked for. ``cursor`` continues behind them; None: there are no more."""

    executions: list[Execution]
    cursor: str | None


class Query(NamedTuple):
    """What to list. None: any."""

    thing: str | None = None
    action: str | None = None
    statuses: Container[Status] | None = None
    command_id: str | None = None
    visible: Callable[[Execution], bool] | None = None
    """Whether the caller may see the execution."""
    things: Container[str] | None = None
    """Their names."""
    since: float | None = None
    """Created then or later. Unix seconds."""
    until: float | None = None
    """Created before that. Unix seconds."""
    oldest_first: bool = False
    reason_code: str | None = None

    def admits(self, execution: Execution) -> bool:
        """Whether the execution is asked for."""
        return (
            (self.thing is None or execution.thing == self.thing)
            and (self.action is None or execution.action == self.action)
            and (self.statuses is None or execution.status in self.statuses)
            and (self.command_id is None or execution.command_id == self.command_id)
            and (self.things is None or execution.thing in self.things)
            and (self.since is None or execution.created_at >= self.since)
            and (self.until is None or execution.created_at < self.until)
            and (self.reason_code is None or self._has_reason(execution))
            and (self.visible is None or self.visible(execution))
        )

    def _has_reason(self, execution: Execution) -> bool:
        return execution.reason is not None and execution.reason.reason_code == self.reason_code


class ExecutionTable:
    """All executions that the broker knows, at most ``capacity`` of them.

    When full, the one that ended longest ago leaves. ``keep_seconds``: how long an
    ended execution stays at the most.
    """

    def __init__(self, capacity: int = 200_000, keep_seconds: float = 7 * 24 * 3600.0) -> None:
        self.capacity = capacity
        self.keep_seconds = keep_seconds
        self._executions: dict[str, Execution] = {}
        self._order = _Order()
        self._by_thing: dict[str, _Order] = {}
        # Most commands have one execution: its id stands for the order of one.
        self._by_command: dict[str, str | _Order] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._ended: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._executions)

    def __iter__(self) -> Iterator[Execution]:
        return iter(self._executions.values())

    @property
    def live(self) -> int:
        """How many executions have no terminal status."""
        return len(self._executions) - len(self._ended)

    def get(self, execution_id: str) -> Execution | None:
        """The execution with that id, if it is here."""
        return self._executions.get(execution_id)

    def add(self, execution: Execution) -> Execution | None:
        """Take in an execution that is newer than all others.

        Returns the one that had to leave for it, if any. Raises
        :class:`~thingctl_broker.errors.TableFull` when every execution is live.
        """
        left = None
        if len(self._executions) >= self.capacity:
            if not self._ended:
                raise TableFull(f"all {self.capacity} executions in the table are still live")
            left = self._remove(self._ended.popleft())
        self.restore(execution)
        return left

    def restore(self, execution: Execution) -> None:
        """Take in an execution read back from a store, newer than all others, whatever the bounds."""
        execution_id = execution.execution_id
        self._executions[execution_id] = execution
        self._order.append(execution_id)
        order = self._by_thing.get(execution.thing)
        if order is None:
            order = self._by_thing[execution.thing] = _Order()
        order.append(execution_id)
        others = self._by_command.get(execution.command_id)
        if others is None:
            self._by_command[execution.command_id] = execution_id
        elif isinstance(others, str):
            self._by_command[execution.command_id] = _Order(others, execution_id)
        else:
            others.append(execution_id)
        if execution.is_terminal:
            self._ended.append(execution_id)
        else:
            heapq.heappush(self._deadlines, (execution.next_deadline, execution_id))

    def restored(self) -> list[Execution]:
        """Note that the store is read; return those that leave because they are too many.

        Live ones stay, even beyond the capacity: what was accepted is not forgotten.
        """
        by_end = sorted(self._ended, key=lambda execution_id: self._executions[execution_id].ended_at or 0.0)
        self._ended = deque(by_end)
        left: list[Execution] = []
        while len(self._executions) > self.capacity and self._ended:
            left.append(self._remove(self._ended.popleft()))
        return left

    def ended(self, execution: Execution) -> None:
        """Note that an execution has just become terminal; call it once for each."""
        self._ended.append(execution.execution_id)
        # Deadlines of ended executions go when they are due, or all at once when they are most.
        deadlines = len(self._deadlines)
        if deadlines > 1000 and deadlines > 2 * self.live:
            self._deadlines = [
                (deadline, execution_id)
                for deadline, execution_id in self._deadlines
                if (found := self._executions.get(execution_id)) is not None and not found.is_terminal
            ]
            heapq.heapify(self._deadlines)

    def withdraw(self, execution: Execution) -> None:
        """Take an execution out as if it had never been."""
        if execution.is_terminal:
            self._ended.remove(execution.execution_id)
        self._remove(execution.execution_id)

    def reschedule(self, execution: Execution) -> None:
        """Note that ``next_deadline`` has come nearer."""
        heapq.heappush(self._deadlines, (execution.next_deadline, execution.execution_id))

    def next_deadline(self) -> float | None:
        """The next monotonic time at which something may be due."""
        return self._deadlines[0][0] if self._deadlines else None

    def due(self, now: float) -> Iterator[Execution]:
        """Yield, and forget the deadline of, every live execution whose deadline has passed."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, execution_id = heapq.heappop(self._deadlines)
            execution = self._executions.get(execution_id)
            if execution is not None and not execution.is_terminal:
                yield execution

    def evict(self, now: float, limit: int) -> list[Execution]:
        """Let executions go, at most ``limit`` of them, that ended ``keep_seconds`` before ``now``.

        ``now``: monotonic. Returns them.
        """
        left: list[Execution] = []
        while self._ended and len(left) < limit:
            execution = self._executions[self._ended[0]]
            if (
                execution.ended_at is not None
                and execution.ended_at > execution.when(now) - self.keep_seconds
            ):
                break
            left.append(self._remove(self._ended.popleft()))
        return left

    def of_command(self, command_id: str) -> Iterator[Execution]:
        """Yield the executions of one command, newest first."""
        order = self._order_of(command_id)
        for execution_id in () if order is None else order.newest_first(None):
            execution = self._executions.get(execution_id)
            if execution is not None:
                yield execution

    def select(self, query: Query, limit: int, cursor: str | None = None) -> PageOfExecutions:
        """List executions, newest first unless asked otherwise, from behind ``cursor`` (an id).

        A page may hold fewer than ``limit`` and yet have a cursor: see ``SCAN_MAX``.
        """
        order: _Order | None = self._order
        if query.thing is not None:
            order = self._by_thing.get(query.thing)
        elif query.command_id is not None:
            order = self._order_of(query.command_id)
        found: list[Execution] = []
        if order is None:
            return PageOfExecutions(found, None)
        ids = order.oldest_first(cursor) if query.oldest_first else order.newest_first(cursor)
        previous = cursor
        for scanned, execution_id in enumerate(ids):
            if len(found) == limit or scanned == SCAN_MAX:
                return PageOfExecutions(found, previous)
            previous = execution_id
            execution = self._executions.get(execution_id)
            if execution is not None and query.admits(execution):
                found.append(execution)
        return PageOfExecutions(found, None)

    def _remove(self, execution_id: str) -> Execution:
        execution = self._executions.pop(execution_id)
        self._order.removed(self._executions)
        order = self._by_thing[execution.thing]
        order.removed(self._executions)
        if not order:
            del self._by_thing[execution.thing]
        others = self._by_command[execution.command_id]
        if not isinstance(others, str):
            others.removed(self._executions)
        if isinstance(others, str) or not others:
            del self._by_command[execution.command_id]
        return execution

    def _order_of(self, command_id: str) -> _Order | None:
        found = self._by_command.get(command_id)
        return _Order(found) if isinstance(found, str) else found


class _Order:
    """Ids in the order of creation. Removed ones stay until they are half of it."""

    __slots__ = ("_ids", "_removed")

    def __init__(self, *ids: str) -> None:
        self._ids = list(ids)
        self._removed = 0

    def __len__(self) -> int:
        return len(self._ids) - self._removed

    def append(self, execution_id: str) -> None:
        self._ids.append(execution_id)

    def removed(self, present: Container[str]) -> None:
        """Note that one id is no longer ``present``."""
        self._removed += 1
        if self._removed * 2 > len(self._ids):
            self._ids = [execution_id for execution_id in self._ids if execution_id in present]
            self._removed = 0

    def oldest_first(self, after: str | None) -> Iterator[str]:
        for i in range(0 if after is None else bisect_right(self._ids, after), len(self._ids)):
            yield self._ids[i]

    def newest_first(self, before: str | None) -> Iterator[str]:
        end = len(self._ids) if before is None else bisect_left(self._ids, before)
        for i in range(end - 1, -1, -1):
            yield self._ids[i]
