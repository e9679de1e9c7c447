"""The table of executions as a fake that ships, by way of :mod:`thingctl_broker.testing.cluster_records`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_broker.cluster.store_port import CancelResult, Responded, StoreDown
from thingctl_broker.commands.execution import Cancel, Outcome
from thingctl_broker.commands.outcomes import tally
from thingctl_broker.commands.statistics import HourlyStatistics
from thingctl_broker.commands.table import ExecutionTable
from thingctl_broker.errors import IdempotencyConflict, QueueFull

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from thingctl_broker.cluster.store_port import Heard
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.outcomes import Tally
    from thingctl_broker.commands.ports import Clock
    from thingctl_broker.commands.statistics import Minute
    from thingctl_broker.commands.table import PageOfExecutions, Query
    from thingctl_protocol.messages import Response
    from thingctl_protocol.statuses import Status


WAIT_FIRST: Final = 1.0
"""Seconds after which a request that was never published is tried, should nothing else happen."""


class Shared:
    """What workers share: it tells those who listen, and fails by order of the test.

    ``down``: every call raises :class:`StoreDown`. ``loses_answer``: the next call that writes does
    what it should, and then raises one that is ``uncertain``.
    """

    def __init__(self) -> None:
        self.listening: list[Heard] = []
        self.down = False
        self.loses_answer = False

    def _check(self) -> None:
        if self.down:
            raise StoreDown("the store is down, by order of the test")

    def _committed(self) -> None:
        if self.loses_answer:
            self.loses_answer = False
            raise StoreDown("the connection was lost, by order of the test", uncertain=True)


class InMemoryStore(Shared):
    """The table of executions that workers share.

    ``tell_all``: whether every end is to be told to a webhook.
    """

    def __init__(self, clock: Clock, *, tell_all: bool = False) -> None:
        super().__init__()
        self._clock = clock
        self._table = ExecutionTable()
        self._keys: dict[tuple[str, str], Execution] = {}
        self._unhanded: dict[str, float] = {}
        """Since when requests are published that the cluster has not taken; Unix seconds."""
        self._retry_at: dict[str, float] = {}
        """When those that wait are worth a try; Unix seconds."""
        self._tell_at: dict[str, float] = {}
        self._claimed: dict[str, float] = {}
        self._tell_all = tell_all

    async def add(self, execution: Execution, *, queue_max: int) -> Execution:
        """Take in a new execution."""
        self._check()
        key = (execution.requested_by, execution.idempotency_key)
        if execution.idempotency_key:
            found = self._keys.get(key)
            if found is not None:
                if found.fingerprint != execution.fingerprint:
                    raise IdempotencyConflict("the idempotency key was used for another command")
                return _copy(found)
        kept = _copy(execution)
        kept.created_at = at = self._clock.unix()
        if execution.published_at is None:
            if sum(one.thing == execution.thing for one in self._waiting()) >= queue_max:
                raise QueueFull(f"{queue_max} requests wait for {execution.thing!r} already", 30)
            self._retry_at[execution.execution_id] = at + WAIT_FIRST
        else:
            self._unhanded[execution.execution_id] = kept.published_at = at
        self._table.add(kept)
        if execution.idempotency_key:
            self._keys[key] = kept
        self._changed(kept)
        self._committed()
        return _copy(kept)

    async def get(self, execution_id: str) -> Execution | None:
        """The execution with that id, if there is one."""
        self._check()
        found = self._table.get(execution_id)
        return None if found is None else _copy(found)

    async def many(self, execution_ids: Sequence[str]) -> list[Execution]:
        """Those of the executions that are there."""
        self._check()
        return [_copy(found) for id_ in execution_ids if (found := self._table.get(id_)) is not None]

    async def select(self, query: Query, limit: int, cursor: str | None) -> PageOfExecutions:
        """List executions."""
        self._check()
        page = self._table.select(query, limit, cursor)
        return page._replace(executions=list(map(_copy, page.executions)))

    async def counts(self, command_id: str) -> Counter[Status]:
        """How many executions of a command stand where."""
        self._check()
        return Counter(execution.status for execution in self._table.of_command(command_id))

    async def tallies(self, command_id: str) -> list[Tally]:
        """The executions of a command, each by itself."""
        self._check()
        return list(map(tally, self._table.of_command(command_id)))

    async def things_of(self, command_id: str) -> set[str]:
        """The things that have an execution of a command."""
        self._check()
        return {execution.thing for execution in self._table.of_command(command_id)}

    async def respond(self, thing: str, execution_id: str, response: Response) -> Responded:
        """Take in what a thing says."""
        self._check()
        execution = self._table.get(execution_id)
        if execution is None:
            return Responded(None, None)
        if execution.thing != thing:
            return Responded(None, None, wrong_thing=True)
        outcome = execution.respond(response, self._clock.unix())
        if outcome is Outcome.REPEATED:
            return Responded(_copy(execution), outcome)
        if outcome is Outcome.APPLIED:
            self._settle(execution)
            if execution.is_terminal:
                return Responded(self._ended(execution), outcome)
        if outcome is Outcome.LATE:
            self._owe(execution)
        return Responded(self._changed(execution), outcome)

    async def cancel(self, execution_id: str, grace: float) -> CancelResult | None:
        """Withdraw an execution or note that its thing is to be asked to stop."""
        self._check()
        execution = self._table.get(execution_id)
        if execution is None:
            return None
        outcome = execution.cancel(self._clock.monotonic(), self._clock.unix(), grace)
        if outcome is Cancel.DONE:
            return CancelResult(self._ended(execution), outcome)
        if outcome is Cancel.REQUESTED:
            self._retry_at.pop(execution_id, None)
            self._table.reschedule(execution)
            return CancelResult(self._changed(execution), outcome)
        return CancelResult(_copy(execution), outcome)

    async def handed(self, execution_ids: Collection[str]) -> None:
        """The MQTT cluster has taken the requests."""
        self._check()
        for execution_id in execution_ids:
            self._unhanded.pop(execution_id, None)

    async def unclaimed(
        self, execution_id: str, retry_in: float, published_at: float | None
    ) -> Execution | None:
        """The cluster had nobody to give the request to."""
        self._check()
        execution = self._table.get(execution_id)
        if execution is None or execution_id not in self._unhanded:
            return None
        if execution.published_at != published_at:
            return None
        once = execution.attempts <= 1
        if execution.cancel_requested_at is not None:
            if not once:
                return _copy(execution)
            execution.stayed_here(self._clock.unix())
            return self._ended(execution)
        if once:
            execution.published_at = None
        execution.attempts -= 1
        del self._unhanded[execution_id]
        self._retry_at[execution_id] = self._clock.unix() + retry_in
        return self._changed(execution)

    async def claim_waiting(self, thing: str, limit: int) -> list[Execution]:
        """Mark what waits for a thing as published, oldest first."""
        self._check()
        waiting = [one for one in self._waiting() if one.thing == thing and self._is_in_time(one)]
        return list(map(self._publish, waiting[:limit]))

    async def things_to_retry(self, limit: int) -> list[str]:
        """Things with a request that waits and whose time to try again has come."""
        self._check()
        now = self._clock.unix()
        due = [one for one in self._waiting() if self._retry_at[one.execution_id] <= now]
        due.sort(key=lambda one: self._retry_at[one.execution_id])
        return list(dict.fromkeys(one.thing for one in due))[:limit]

    async def claim_unhanded(self, older_than: float, limit: int) -> list[Execution]:
        """Live executions published long ago, and never taken by the cluster."""
        self._check()
        before = self._clock.unix() - older_than
        found = [
            execution
            for execution in self._table
            if self._unhanded.get(execution.execution_id, before + 1) <= before
            and execution.cancel_requested_at is None
            and self._is_in_time(execution)
        ]
        return list(map(self._publish, found[:limit]))

    async def canceling(self, within: float, limit: int) -> list[tuple[str, str]]:
        """Live executions that their things are to stop."""
        self._check()
        until = self._clock.monotonic() + within
        found = [
            one
            for one in self._table
            if not one.is_terminal and one.cancel_requested_at is not None and one.next_deadline <= until
        ]
        found.sort(key=lambda one: one.next_deadline)
        return [(one.thing, one.execution_id) for one in found[:limit]]

    async def expire(self, limit: int) -> list[Execution]:
        """Close executions whose deadline has passed."""
        self._check()
        now, at = self._clock.monotonic(), self._clock.unix()
        closed: list[Execution] = []
        for execution in self._table.due(now):
            if execution.expire(now, at):
                closed.append(self._ended(execution))
            if len(closed) == limit:
                break
        return closed

    async def seconds_to_next_deadline(self) -> float | None:
        """How long until ``expire`` may have something to do."""
        self._check()
        deadline = self._table.next_deadline()
        return None if deadline is None else max(0.0, deadline - self._clock.monotonic())

    async def claim_untold(self, limit: int, lease: float) -> list[Execution]:
        """Executions whose end has yet to be told, and that nobody has taken on."""
        self._check()
        now = self._clock.unix()
        due = [execution_id for execution_id, at in self._tell_at.items() if at <= now][:limit]
        for execution_id in due:
            self._tell_at[execution_id] = self._claimed[execution_id] = now + lease
        return await self.many(due)

    async def told(self, execution_ids: Collection[str]) -> None:
        """The ends of these have been told, or given up."""
        self._check()
        for execution_id in execution_ids:
            claimed = self._claimed.pop(execution_id, None)
            if claimed is not None and self._tell_at.get(execution_id) == claimed:
                del self._tell_at[execution_id]

    async def minutes(self) -> list[Minute]:
        """The last hour, minute by minute."""
        self._check()
        overview = HourlyStatistics()
        overview.seed(self._table, self._clock.unix())
        return overview.minutes(self._clock.unix())

    async def size(self) -> tuple[int, int]:
        """How many executions there are, and how many of them are live."""
        self._check()
        return len(self._table), self._table.live

    async def tidy(self, keep: float) -> None:  # noqa: ARG002 nothing is dropped
        """There are no partitions here."""
        self._check()

    def has_uncanceled(self, command_id: str) -> bool:
        """Whether executions of a command are live and nobody has asked for their cancel."""
        return any(
            not execution.is_terminal and execution.cancel_requested_at is None
            for execution in self._table.of_command(command_id)
        )

    # How it is done.

    def _waiting(self) -> list[Execution]:
        return [execution for execution in self._table if execution.execution_id in self._retry_at]

    def _is_in_time(self, execution: Execution) -> bool:
        return execution.next_deadline > self._clock.monotonic()

    def _publish(self, execution: Execution) -> Execution:
        at = self._clock.unix()
        execution.published(at)
        self._retry_at.pop(execution.execution_id, None)
        self._unhanded[execution.execution_id] = at
        return self._changed(execution)

    def _settle(self, execution: Execution) -> None:
        """Its request is with its thing, or will never be: it need not be published any more."""
        self._retry_at.pop(execution.execution_id, None)
        self._unhanded.pop(execution.execution_id, None)

    def _owe(self, execution: Execution) -> None:
        if self._tell_all or execution.post_back_uri:
            self._tell_at[execution.execution_id] = self._clock.unix()

    def _ended(self, execution: Execution) -> Execution:
        self._settle(execution)
        self._table.ended(execution)
        self._owe(execution)
        return self._changed(execution, ended=True)

    def _changed(self, execution: Execution, *, ended: bool = False) -> Execution:
        ids = [execution.execution_id]
        for heard in self.listening:
            heard.changed(ids, ids if ended else [])
        return _copy(execution)


def _copy(execution: Execution) -> Execution:
    return msgspec.structs.replace(execution)
