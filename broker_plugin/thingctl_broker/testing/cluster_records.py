"""Fakes that ship: what workers share, in memory, so that they can be driven without a database.

Several workers may share one of each. It tells every :class:`~thingctl_broker.cluster.store_port.Heard`
that listens of what has changed, as a database does, and fails by order of the test
(:class:`~thingctl_broker.testing.cluster_store.Shared`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_broker.commands.status_table import FAILURES
from thingctl_broker.rollouts.rollout import MOVES, State, newest
from thingctl_broker.testing.cluster_store import InMemoryStore, Shared

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from thingctl_broker.commands.ports import Clock
    from thingctl_broker.rollouts.rollout import Listed, RolloutRecord

__all__ = ["InMemoryDocuments", "InMemoryRollouts", "InMemoryStore", "InMemoryWorkers"]

ADOPTION_SECONDS: Final = 30.0
"""How long an adopter has to take over a session."""


class InMemoryDocuments(Shared):
    """Records that workers share."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[tuple[str, str], bytes] = {}

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

    async def put(
        self,
        records: Sequence[tuple[str, str, bytes | None]],
        *,
        new: bool = False,
        instead_of: Sequence[bytes | None] | None = None,
    ) -> bool:
        """Write records, and tell every worker."""
        self._check()
        if new:
            instead_of = [None] * len(records)
        if instead_of is not None:
            for (kind, name, _), expected in zip(records, instead_of, strict=True):
                if self.records.get((kind, name)) != expected:
                    return False
        for kind, name, value in records:
            if value is None:
                self.records.pop((kind, name), None)
            else:
                self.records[kind, name] = value
        for kind, name, _ in records:
            for heard in self.listening:
                heard.document_changed(kind, name)
        self._committed()
        return True


class InMemoryRollouts(Shared):
    """Rollouts that workers share, and that are over ``executions``."""

    def __init__(self, clock: Clock, executions: InMemoryStore) -> None:
        super().__init__()
        self._clock = clock
        self._executions = executions
        self._records: dict[str, RolloutRecord] = {}
        self._leases: dict[str, tuple[str, float]] = {}

    async def add(self, record: RolloutRecord) -> None:
        """Keep a new one."""
        self._check()
        key = record.idempotency_key
        if key and await self.with_key(record.requested_by, key) is not None:
            return
        self._records[record.command_id] = _copy_record(record)
        self._tell(record.command_id)
        self._committed()

    async def get(self, command_id: str) -> RolloutRecord | None:
        """As it stands now."""
        self._check()
        found = self._records.get(command_id)
        return None if found is None else _copy_record(found)

    async def with_key(self, requested_by: str, key: str) -> RolloutRecord | None:
        """The one that this caller has begun with the key."""
        self._check()
        for record in self._records.values():
            if (record.requested_by, record.idempotency_key) == (requested_by, key):
                return _copy_record(record)
        return None

    async def newest(
        self, limit: int, cursor: str | None, states: frozenset[State] | None, requested_by: str | None
    ) -> list[Listed]:
        """At most ``limit``, newest first."""
        self._check()
        return newest(self._records.values(), limit, cursor, states, requested_by)

    async def move(self, command_id: str, to: State) -> RolloutRecord | None:
        """Set the state if it may be; resumed, its failures so far are forgiven."""
        self._check()
        record = self._records.get(command_id)
        if record is None:
            return None
        if to in MOVES[record.state]:
            record.state = to
            if to is State.RUNNING:
                counts = await self._executions.counts(command_id)
                record.forgiven = sum(counts[status] for status in FAILURES)
            self._tell(command_id)
        return _copy_record(record)

    async def lease(self, worker: str, seconds: float, limit: int) -> list[RolloutRecord]:
        """Take on rollouts that have something to do and that no living worker has."""
        self._check()
        now = self._clock.unix()
        fresh: list[RolloutRecord] = []
        for command_id, record in self._records.items():
            holder, until = self._leases.get(command_id, ("", 0.0))
            if holder == worker and until > now:
                if record.state not in {State.FINISHED, State.CANCELED}:
                    self._leases[command_id] = (worker, now + seconds)
            elif until <= now and len(fresh) < limit and self._has_work(record):
                self._leases[command_id] = (worker, now + seconds)
                fresh.append(_copy_record(record))
        self._committed()
        return fresh

    async def save(self, worker: str, record: RolloutRecord) -> State | None:
        """Keep how far it has come."""
        self._check()
        command_id = record.command_id
        kept = self._records[command_id]
        holder, until = self._leases.get(command_id, ("", 0.0))
        if holder != worker or until <= self._clock.unix():
            return None
        kept.things, kept.sent = list(record.things), record.sent
        kept.refused, kept.refusals = record.refused, dict(record.refusals)
        kept.forgiven = max(kept.forgiven, record.forgiven)
        if record.state in {State.STOPPED, State.FINISHED} and record.state in MOVES[kept.state]:
            kept.state = record.state
            self._tell(command_id)
        self._committed()
        return kept.state

    def _has_work(self, record: RolloutRecord) -> bool:
        return record.state is State.RUNNING or (
            record.state is State.CANCELED and self._executions.has_uncanceled(record.command_id)
        )

    def _tell(self, command_id: str) -> None:
        for heard in self.listening:
            heard.rollout_changed(command_id)


class InMemoryWorkers(Shared):
    """Who is at work."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._until: dict[str, float] = {}
        self._adopted_until: dict[str, float] = {}

    async def alive(self, client_id: str, seconds: float) -> float:
        """This worker lives."""
        self._check()
        self._until[client_id] = self._clock.unix() + seconds
        self._adopted_until.pop(client_id, None)
        return self._clock.unix()

    async def orphan(self, adopter: str) -> str | None:
        """The client id of a worker that has died."""
        self._check()
        now = self._clock.unix()
        for client_id, until in self._until.items():
            if client_id != adopter and max(until, self._adopted_until.get(client_id, 0.0)) <= now:
                self._adopted_until[client_id] = now + ADOPTION_SECONDS
                return client_id
        return None

    async def gone(self, client_id: str) -> None:
        """That worker has ended."""
        self._check()
        self._until.pop(client_id, None)
        self._adopted_until.pop(client_id, None)

    async def count(self) -> int:
        """How many live."""
        self._check()
        return sum(until > self._clock.unix() for until in self._until.values())


def _copy_record(record: RolloutRecord) -> RolloutRecord:
    return msgspec.structs.replace(record, things=list(record.things), refusals=dict(record.refusals))
