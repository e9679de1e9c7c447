"""Fakes that ship: a store in memory, so that workers can be driven without a database.

Several workers may share one :class:`InMemoryStore`; it tells each :class:`Heard` that
listens of what has changed, as a database does.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from thingctl_broker.cluster.ports import Canceled, Responded, StoreDown
from thingctl_broker.errors import IdempotencyConflict, QueueFull
from thingctl_broker.executions import Cancel, Outcome
from thingctl_broker.overview import Overview
from thingctl_broker.rollouts import MOVES, State
from thingctl_broker.table import ExecutionTable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from thingctl_broker.cluster.ports import Heard
    from thingctl_broker.executions import Execution
    from thingctl_broker.overview import Minute
    from thingctl_broker.ports import Clock
    from thingctl_broker.rollouts import RolloutRecord
    from thingctl_broker.table import Page, Query
    from thingctl_protocol.messages import Response
    from thingctl_protocol.statuses import Status


class InMemoryStore:
    """The table of executions that workers share. ``down``: every call raises :class:`StoreDown`.

    ``tells_everyone``: whether every end is to be told to somebody outside.
    """

    def __init__(self, clock: Clock, *, tells_everyone: bool = False) -> None:
        self._clock = clock
        self._table = ExecutionTable()
        self._keys: dict[tuple[str, str], Execution] = {}
        self._handed: set[str] = set()
        self._published: dict[str, float] = {}
        self._retry_at: dict[str, float] = {}
        self._untold: dict[str, float] = {}
        self._tells_everyone = tells_everyone
        self.listening: list[Heard] = []
        self.down = False

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
        if execution.published_at is None:
            if sum(one.thing == execution.thing for one in self._waiting()) >= queue_max:
                raise QueueFull(f"{queue_max} requests wait for {execution.thing!r} already", 30)
            self._retry_at[execution.execution_id] = self._clock.unix()
        else:
            self._published[execution.execution_id] = self._clock.unix()
        kept = _copy(execution)
        kept.created_at = self._clock.unix()
        self._table.add(kept)
        if execution.idempotency_key:
            self._keys[key] = kept
        return self._changed(kept)

    async def get(self, execution_id: str) -> Execution | None:
        """The execution with that id, if there is one."""
        self._check()
        found = self._table.get(execution_id)
        return None if found is None else _copy(found)

    async def many(self, execution_ids: Sequence[str]) -> list[Execution]:
        """Those of the executions that are there."""
        self._check()
        return [_copy(found) for id_ in execution_ids if (found := self._table.get(id_)) is not None]

    async def select(self, query: Query, limit: int, cursor: str | None) -> Page:
        """List executions."""
        self._check()
        page = self._table.select(query, limit, cursor)
        return page._replace(executions=list(map(_copy, page.executions)))

    async def counts(self, command_id: str) -> Counter[Status]:
        """How many executions of a command stand where."""
        self._check()
        return Counter(execution.status for execution in self._table.of_command(command_id))

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
        if outcome is Outcome.APPLIED and execution.is_terminal:
            return Responded(self._ended(execution), outcome)
        if outcome is Outcome.LATE:
            self._owe(execution)
        return Responded(self._changed(execution), outcome)

    async def cancel(self, execution_id: str, grace: float) -> Canceled | None:
        """Withdraw an execution or note that its thing is to be asked to stop."""
        self._check()
        execution = self._table.get(execution_id)
        if execution is None:
            return None
        outcome = execution.cancel(self._clock.monotonic(), self._clock.unix(), grace)
        if outcome is Cancel.DONE:
            return Canceled(self._ended(execution), outcome)
        if outcome is Cancel.REQUESTED:
            self._table.reschedule(execution)
            return Canceled(self._changed(execution), outcome)
        return Canceled(_copy(execution), outcome)

    async def handed(self, execution_ids: Collection[str]) -> None:
        """The MQTT cluster has taken the requests."""
        self._check()
        self._handed.update(execution_ids)

    async def unclaimed(self, execution_id: str, retry_in: float) -> Execution | None:
        """The cluster had nobody to give the request to."""
        self._check()
        execution = self._table.get(execution_id)
        if execution is None or execution.is_terminal or execution.started_at is not None:
            return None
        if execution.cancel_requested_at is not None:
            execution.stayed_here(self._clock.unix())
            return self._ended(execution)
        execution.published_at = None
        execution.attempts = 0
        self._retry_at[execution_id] = self._clock.unix() + retry_in
        return self._changed(execution)

    async def claim_waiting(self, thing: str, limit: int) -> list[Execution]:
        """Mark what waits for a thing as published, oldest first."""
        self._check()
        return [
            self._publish(execution) for execution in [w for w in self._waiting() if w.thing == thing][:limit]
        ]

    async def things_to_retry(self, limit: int) -> list[str]:
        """Things with a request that waits and whose time to try again has come."""
        self._check()
        now = self._clock.unix()
        due = (one.thing for one in self._waiting() if self._retry_at.get(one.execution_id, 0.0) <= now)
        return list(dict.fromkeys(due))[:limit]

    async def claim_unhanded(self, older_than: float, limit: int) -> list[Execution]:
        """Live executions published long ago, and never taken by the cluster."""
        self._check()
        before = self._clock.unix() - older_than
        found = [
            execution
            for execution in self._table
            if not execution.is_terminal
            and execution.published_at is not None
            and execution.started_at is None
            and execution.cancel_requested_at is None
            and execution.execution_id not in self._handed
            and self._published[execution.execution_id] <= before
        ]
        return [self._publish(execution) for execution in found[:limit]]

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
        due = [execution_id for execution_id, until in self._untold.items() if until <= now][:limit]
        for execution_id in due:
            self._untold[execution_id] = now + lease
        return await self.many(due)

    async def told(self, execution_ids: Collection[str]) -> None:
        """The ends of these have been told, or given up."""
        self._check()
        for execution_id in execution_ids:
            self._untold.pop(execution_id, None)
            if (execution := self._table.get(execution_id)) is not None:
                execution.untold = False

    async def minutes(self) -> list[Minute]:
        """The last hour, minute by minute."""
        self._check()
        overview = Overview()
        overview.seed(self._table, self._clock.unix())
        return overview.minutes(self._clock.unix())

    async def size(self) -> tuple[int, int]:
        """How many executions there are, and how many of them are live."""
        self._check()
        return len(self._table), self._table.live

    async def tidy(self, keep: float) -> None:
        """There are no partitions here."""

    # How it is done.

    def _check(self) -> None:
        if self.down:
            raise StoreDown("the store is down, by order of the test")

    def _waiting(self) -> list[Execution]:
        return [
            execution
            for execution in self._table
            if not execution.is_terminal
            and execution.published_at is None
            and execution.started_at is None
            and execution.cancel_requested_at is None
        ]

    def _publish(self, execution: Execution) -> Execution:
        execution.published(self._clock.unix())
        self._published[execution.execution_id] = self._clock.unix()
        return self._changed(execution)

    def _owe(self, execution: Execution) -> None:
        if self._tells_everyone or execution.post_back_uri:
            execution.untold = True
            self._untold[execution.execution_id] = self._clock.unix()

    def _ended(self, execution: Execution) -> Execution:
        self._table.ended(execution)
        self._owe(execution)
        return self._changed(execution, ended=True)

    def _changed(self, execution: Execution, *, ended: bool = False) -> Execution:
        ids = [execution.execution_id]
        for heard in self.listening:
            heard.changed(ids, ids if ended else [])
        return _copy(execution)


class InMemoryDocuments:
    """Records that workers share."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], bytes] = {}
        self.listening: list[Heard] = []
        self.down = False

    async def load(self, kinds: Collection[str]) -> list[tuple[str, str, bytes]]:
        """Every record of these kinds."""
        self._check()
        return [
            (kind, name, value)
            for wanted in kinds
            for (kind, name), value in sorted(self.records.items())
            if kind == wanted
        ]

    async def find(self, kind: str, name: str) -> bytes | None:
        """One record."""
        self._check()
        return self.records.get((kind, name))

    async def put(self, records: Sequence[tuple[str, str, bytes | None]], *, new: bool = False) -> bool:
        """Write records, and tell every worker."""
        self._check()
        if new and any((kind, name) in self.records for kind, name, _ in records):
            return False
        for kind, name, value in records:
            if value is None:
                self.records.pop((kind, name), None)
            else:
                self.records[kind, name] = value
            for heard in self.listening:
                heard.document_changed(kind, name)
        return True

    def _check(self) -> None:
        if self.down:
            raise StoreDown("the store is down, by order of the test")


class InMemoryRollouts:
    """Rollouts that workers share."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, RolloutRecord] = {}
        self._leases: dict[str, tuple[str, float]] = {}
        self._done: set[str] = set()
        self.listening: list[Heard] = []

    async def add(self, record: RolloutRecord) -> None:
        """Keep a new one."""
        self._records[record.command_id] = _copy_record(record)
        self._tell(record.command_id)

    async def get(self, command_id: str) -> RolloutRecord | None:
        """As it stands now."""
        found = self._records.get(command_id)
        return None if found is None else _copy_record(found)

    async def move(self, command_id: str, to: State) -> RolloutRecord | None:
        """Set the state if it may be."""
        record = self._records.get(command_id)
        if record is None:
            return None
        if to in MOVES[record.state]:
            record.state = to
            self._done.discard(command_id)
            self._tell(command_id)
        return _copy_record(record)

    async def lease(self, worker: str, seconds: float, limit: int) -> list[RolloutRecord]:
        """Take on rollouts that have something to do and that no living worker has."""
        now = self._clock.monotonic()
        fresh: list[RolloutRecord] = []
        for command_id, record in self._records.items():
            holder, until = self._leases.get(command_id, ("", 0.0))
            if holder == worker and until > now and record.state is not State.FINISHED:
                self._leases[command_id] = (worker, now + seconds)
            if record.state not in {State.RUNNING, State.CANCELED} or command_id in self._done:
                continue
            if until <= now and len(fresh) < limit:
                self._leases[command_id] = (worker, now + seconds)
                fresh.append(_copy_record(record))
        return fresh

    async def save(self, worker: str, record: RolloutRecord) -> State | None:
        """Keep how far it has come."""
        command_id = record.command_id
        kept = self._records[command_id]
        if self._leases.get(command_id, ("", 0.0))[0] != worker:
            return None
        kept.things, kept.sent = list(record.things), record.sent
        kept.refused, kept.refusals, kept.forgiven = record.refused, dict(record.refusals), record.forgiven
        if record.state in {State.STOPPED, State.FINISHED} and record.state in MOVES[kept.state]:
            kept.state = record.state
        if kept.state is record.state and kept.state in {State.FINISHED, State.CANCELED}:
            self._done.add(command_id)
        return kept.state

    def _tell(self, command_id: str) -> None:
        for heard in self.listening:
            heard.rollout_changed(command_id)


class InMemoryWorkers:
    """Who is at work."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    async def alive(self, client_id: str, seconds: float) -> None:
        """This worker lives."""
        self._until[client_id] = self._clock.monotonic() + seconds

    async def orphan(self, adopter: str) -> str | None:
        """The client id of a worker that has died."""
        now = self._clock.monotonic()
        for client_id, until in self._until.items():
            if client_id != adopter and until <= now:
                self._until[client_id] = now + 30.0
                return client_id
        return None

    async def gone(self, client_id: str) -> None:
        """That worker has ended."""
        self._until.pop(client_id, None)

    async def count(self) -> int:
        """How many live."""
        return sum(until > self._clock.monotonic() for until in self._until.values())


def _copy(execution: Execution) -> Execution:
    return msgspec.structs.replace(execution)


def _copy_record(record: RolloutRecord) -> RolloutRecord:
    return msgspec.structs.replace(record, things=list(record.things), refusals=dict(record.refusals))
