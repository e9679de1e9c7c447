"""Requests on their way out: what ``delivery`` decides is first kept, then written.

That a request is published goes on record *before* it is written to a connection, with
the same commit as its creation where it can go at once. So the record may say PUBLISHED
of a request that a crash kept back, but never that a request stayed here which a device
has seen: ``retrySafe`` can be trusted.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from thingctl_broker.commands.events import Change

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.commands.delivery import Deliveries, PublishRequest
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.ports import Clock, Journal, Link
    from thingctl_broker.commands.table import ExecutionTable


class Publisher:
    """Moves requests from the table to the link."""

    def __init__(
        self,
        *,
        deliveries: Deliveries,
        table: ExecutionTable,
        link: Link,
        journal: Journal,
        clock: Clock,
        changed: Callable[[Execution, Change], None],
        stayed_here: Callable[[Execution], None],
    ) -> None:
        """``changed`` records a change and tells of it.

        ``stayed_here`` ends an execution that was canceled before its request was first written.
        """
        self.deliveries = deliveries
        self._table = table
        self._link = link
        self._journal = journal
        self._clock = clock
        self._changed = changed
        self._stayed_here = stayed_here
        self._queue: deque[tuple[str, str, bool]] = deque()
        self._publishing = False

    def offer(self, execution: Execution, at: float) -> bool:
        """Take in a new request, not recorded yet; return whether it is to be written now.

        If so, it is marked as published: record it, and :meth:`write` it when that is kept.
        """
        now = self.deliveries.add(execution.thing, execution.execution_id)
        if now:
            execution.published(at)
        return now

    def write(self, execution: Execution, attempt: int, payload: bytes, again: bool) -> None:
        """Write a request whose ``attempt``-th publishing is on record, unless that has been overtaken.

        By the end of its execution, its deadline or a cancel, or by the thing: it may have
        left, or left and come back, while the record was being kept.
        """
        if (
            execution.is_terminal
            or self._table.get(execution.execution_id) is not execution  # withdrawn
            or execution.attempts != attempt
        ):
            return
        if execution.cancel_requested_at is not None:
            if attempt == 1:
                self._stayed_here(execution)  # the device never heard of it: no need to ask
            return
        now, unix = self._clock.monotonic(), self._clock.unix()
        if not self.deliveries.is_reachable(execution.thing) or now >= execution.deadline:
            return
        if execution.is_restamped(now, unix):  # the clock was set while the record was being kept
            payload = execution.request(now, unix)
        thing, execution_id = execution.thing, execution.execution_id
        if not self._link.publish_request(thing, execution_id, payload, again=again):
            self.acknowledged(thing, execution_id)

    def reachable(self, thing: str, window: int | None = None) -> None:
        """The thing has subscribed: cancels and what waits for it go out, in order."""
        for execution_id in self.deliveries.canceling(thing):
            execution = self._table.get(execution_id)
            if execution is not None:
                self._journal.then(partial(self._write_cancel, execution))
        self._publish(thing, self.deliveries.reachable(thing, window))

    def cancel(self, execution: Execution) -> None:
        """The device is to be asked to stop, now and whenever it comes back, until the end."""
        thing, execution_id = execution.thing, execution.execution_id
        self._publish(thing, self.deliveries.cancel(thing, execution_id))
        self._journal.then(partial(self._write_cancel, execution))

    def acknowledged(self, thing: str, execution_id: str) -> None:
        """The device has the request: the next ones may follow."""
        self._publish(thing, self.deliveries.acknowledged(thing, execution_id))

    def ended(self, thing: str, execution_id: str) -> None:
        """The execution has ended: the next ones may follow."""
        self._publish(thing, self.deliveries.ended(thing, execution_id))

    def _write_cancel(self, execution: Execution) -> None:
        if not execution.is_terminal:
            self._link.publish_cancel(execution.thing, execution.execution_id)

    def _publish(self, thing: str, requests: list[PublishRequest]) -> None:
        if not requests:
            return
        # A queue, because what follows a request that nobody will acknowledge goes out at once:
        # called from within, a long one would nest too deep, and go out of order.
        self._queue.extend((thing, execution_id, again) for execution_id, again in requests)
        if self._publishing:
            return
        self._publishing = True
        try:
            while self._queue:
                self._publish_one(*self._queue.popleft())
        finally:
            self._publishing = False

    def _publish_one(self, thing: str, execution_id: str, again: bool) -> None:
        execution = self._table.get(execution_id)
        if (
            execution is None
            or execution.is_terminal
            or execution.cancel_requested_at is not None
            or not self.deliveries.is_reachable(thing)  # gone meanwhile; it will be asked for again
            or self._clock.monotonic() >= execution.deadline  # the sweeper is about to close it
        ):
            return
        now = self._clock.monotonic()
        payload = execution.request(now, self._clock.unix())
        again = again and execution.attempts > 0
        execution.published(execution.when(now))
        self._changed(execution, Change.PUBLISHED)
        self._journal.then(partial(self.write, execution, execution.attempts, payload, again))
