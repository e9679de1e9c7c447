"""The table of executions, in PostgreSQL, as :class:`thingctl_broker.cluster.store_port.ExecutionStore`.

What the rules are is in ``rules``, how calls gather in ``batches``. Here is what can be asked.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from thingctl_broker.cluster.store_port import Responded, StoreDown
from thingctl_broker.commands.execution import CANCEL_UNANSWERED, TIMED_OUT
from thingctl_broker.commands.outcomes import EXAMPLES_MAX, RESULT_BYTES, Tally
from thingctl_broker.storage.postgres import claim_sql
from thingctl_broker.storage.postgres.execution_batches import (
    BY_ID,
    Batches,
    New,
    RetryState,
    Timed,
    Unclaimed,
    WriteResult,
)
from thingctl_broker.storage.postgres.execution_rows import is_execution_id, reader, reason_code, text_or_none
from thingctl_broker.storage.postgres.listing import select
from thingctl_broker.storage.postgres.partitions import drop_partitions, make_partitions, month_of
from thingctl_broker.storage.postgres.statistics import Hour
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from thingctl_broker.cluster.store_port import CancelResult
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.statistics import Minute
    from thingctl_broker.commands.table import PageOfExecutions, Query
    from thingctl_broker.storage.postgres.pool import Database
    from thingctl_protocol.messages import Response

_TALLIES: Final = (
    "SELECT status, reason, CASE WHEN octet_length(result) <= $2 THEN result END AS shown, "
    'count(*), (array_agg(DISTINCT thing COLLATE "C" ORDER BY thing COLLATE "C"))[1:$3] '
    "FROM thingctl.executions WHERE command_id = $1 GROUP BY status, reason, shown"
)

_SIZE: Final = (
    "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint, min(c.reltuples) "
    "FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = 'thingctl.executions'::regclass"
)
_EXACT_BELOW: Final = 10_000


_OURS: Final = frozenset({*(TIMED_OUT.values()), CANCEL_UNANSWERED})
"""Why an execution is closed that has expired."""


class _Expiring(NamedTuple):
    """Executions that have been asked to be closed, and how often."""

    ids: list[Any]
    tries: RetryState


class PostgresExecutions:
    """Executions of all workers.

    ``tell_all``: whether every end is to be told to a webhook, not only those whose command
    names one (:meth:`claim_untold`).
    """

    def __init__(self, database: Database, *, tell_all: bool = False) -> None:
        self._database = database
        self._tell_all = tell_all
        self._claims: dict[str, float] = {}
        self._expiring: _Expiring | None = None
        self._hour = Hour(database)
        self.batches = Batches(database, tell_all=tell_all)
        """The lanes that calls gather in."""

    async def stop(self) -> None:
        """Let what is under way come to its end."""
        await self.batches.drained()

    # One execution.

    async def add(self, execution: Execution, *, queue_max: int) -> Execution:
        """Take in a new execution. Raises ValueError when its id is no UUIDv7, or its params no text."""
        if not is_execution_id(execution.execution_id):
            raise ValueError(f"{execution.execution_id!r} is not a UUIDv7")
        month_of(execution.execution_id)
        text_or_none(execution.params)
        return await self.batches.adding(New(execution, queue_max))

    async def get(self, execution_id: str) -> Execution | None:
        """The execution with that id (any text), if there is one."""
        return await self.batches.getting(execution_id) if is_execution_id(execution_id) else None

    async def respond(self, thing: str, execution_id: str, response: Response) -> Responded:
        """Take in what a thing says."""
        if not is_execution_id(execution_id):
            return Responded(None, None)
        text_or_none(bytes(response.result))
        return await self.batches.responding(WriteResult(thing, execution_id, response))

    async def cancel(self, execution_id: str, grace: float) -> CancelResult | None:
        """Withdraw an execution or note that its thing is to be asked to stop."""
        return (
            await self.batches.canceling(Timed(execution_id, grace))
            if is_execution_id(execution_id)
            else None
        )

    async def unclaimed(
        self, execution_id: str, retry_in: float, published_at: float | None
    ) -> Execution | None:
        """The cluster had nobody to give the request to."""
        if not is_execution_id(execution_id):
            return None
        return await self.batches.unclaiming(Unclaimed(execution_id, retry_in, published_at))

    async def handed(self, execution_ids: Collection[str]) -> None:
        """The MQTT cluster has taken the requests."""
        await self.batches.handing(tuple(filter(is_execution_id, execution_ids)))

    # Several.

    async def many(self, execution_ids: Sequence[str]) -> list[Execution]:
        """Those of the executions that are there, in the order of the ids given."""
        found = await self.batches.by_ids([one for one in execution_ids if is_execution_id(one)])
        return [found[one] for one in execution_ids if one in found]

    async def select(self, query: Query, limit: int, cursor: str | None) -> PageOfExecutions:
        """List executions as :meth:`thingctl_broker.commands.table.ExecutionTable.select` does."""
        return await select(self._database, query, limit, cursor)

    async def counts(self, command_id: str) -> Counter[Status]:
        """How many executions of a command stand where."""
        rows = await self._rows(
            "SELECT status, count(*) FROM thingctl.executions WHERE command_id = $1 GROUP BY status",
            command_id,
        )
        return Counter({Status(status): count for status, count in rows})

    async def tallies(self, command_id: str) -> list[Tally]:
        """The executions of a command, those that are equal in all but their things together."""
        rows = await self._rows(_TALLIES, command_id, RESULT_BYTES, EXAMPLES_MAX + 1)
        return [
            Tally(Status(status), reason_code(reason), result and result.encode(), count, things)
            for status, reason, result, count, things in rows
        ]

    async def things_of(self, command_id: str) -> set[str]:
        """The things that have an execution of a command."""
        rows = await self._rows(
            "SELECT DISTINCT thing FROM thingctl.executions WHERE command_id = $1", command_id
        )
        return {row[0] for row in rows}

    # What there is to do.

    async def claim_waiting(self, thing: str, limit: int) -> list[Execution]:
        """Mark what waits for a thing as published, oldest first, and return it."""
        return self._read(await self._rows(claim_sql.CLAIM_WAITING, limit, thing))

    async def things_to_retry(self, limit: int) -> list[str]:
        """Things with a request that waits and whose time to try again has come."""
        rows = await self._rows(
            "SELECT thing FROM (SELECT thing, retry_at FROM thingctl.executions WHERE retry_at IS NOT NULL "
            "AND retry_at <= (SELECT thingctl.now()) ORDER BY retry_at LIMIT $1::bigint * 100) due "
            "GROUP BY thing ORDER BY min(retry_at) LIMIT $1::bigint",
            limit,
        )
        return [row[0] for row in rows]

    async def claim_unhanded(self, older_than: float, limit: int) -> list[Execution]:
        """Live executions published over ``older_than`` seconds ago, and never taken by the cluster."""
        return self._read(await self._rows(claim_sql.CLAIM_UNHANDED, limit, older_than))

    async def canceling(self, within: float, limit: int) -> list[tuple[str, str]]:
        """Live executions that their things are to stop: thing and id of each."""
        rows = await self._rows(claim_sql.CANCELING, limit, within, repeatable=True)
        return [(thing, str(execution_id)) for thing, execution_id in rows]

    async def expire(self, limit: int) -> list[Execution]:
        """Close executions whose deadline has passed.

        Should the answer be lost, the next call asks about the same ones, and tells what this one did.
        """
        expiring, self._expiring = self._expiring, None
        if expiring is None:
            rows = await self._rows(claim_sql.DUE, limit, repeatable=True)
            if not rows:
                return []
            expiring = _Expiring([row[0] for row in rows], RetryState())
        ids, tries = expiring

        async def work(connection: Any) -> list[Execution]:
            tries.another()
            closed = self._read(await connection.fetch(claim_sql.EXPIRE, ids, self._tell_all))
            if tries.count > 1:
                closed += await _closed_before(connection, ids, closed, tries)
            return closed

        try:
            return await self._database.run(work, repeatable=True)
        except StoreDown:
            self._expiring = expiring
            raise

    async def seconds_to_next_deadline(self) -> float | None:
        """How long until ``expire`` may have something to do; None: nothing is live."""
        rows = await self._rows(
            "SELECT min(due_at) - thingctl.now() FROM thingctl.executions WHERE due_at IS NOT NULL"
        )
        seconds: float | None = rows[0][0]
        return None if seconds is None else max(0.0, seconds)

    async def claim_untold(self, limit: int, lease: float) -> list[Execution]:
        """Executions whose end has yet to be told, the caller's for ``lease`` seconds."""
        rows = await self._rows(claim_sql.CLAIM_UNTOLD, limit, lease)
        now = max((row[0] for row in rows), default=0.0)
        # What was not told within its lease is somebody else's by now.
        self._claims = {one: until for one, until in self._claims.items() if until > now}
        executions = self._read(rows)
        for execution, row in zip(executions, rows, strict=True):
            self._claims[execution.execution_id] = row["tell_at"]
        return sorted(executions, key=lambda execution: execution.execution_id)

    async def told(self, execution_ids: Collection[str]) -> None:
        """The ends of these have been told, or given up: of those that this worker has claimed.

        One that had more to tell meanwhile (a late response) stays to be told.
        """
        claimed = {one: self._claims[one] for one in execution_ids if one in self._claims}
        if claimed:
            await self._rows(claim_sql.TOLD, list(claimed), list(claimed.values()), repeatable=True)
            for one in claimed:
                self._claims.pop(one, None)

    # At a glance.

    async def minutes(self) -> list[Minute]:
        """The last hour, minute by minute."""
        return await self._hour.minutes()

    async def size(self) -> tuple[int, int]:
        """About how many executions there are (exactly, while they are few), and how many are live."""
        ((about, least),) = await self._rows(_SIZE)
        rows = await self._rows("SELECT count(*) FROM thingctl.executions WHERE due_at IS NOT NULL")
        live = int(rows[0][0])
        if about < _EXACT_BELOW or least < 0:
            rows = await self._rows("SELECT count(*) FROM thingctl.executions")
            about = rows[0][0]
        return max(int(about), live), live

    async def tidy(self, keep: float) -> None:
        """Make the partitions that will be needed; drop those with nothing younger than ``keep`` seconds.

        Rollouts that ended so long ago go too.
        """
        await self._database.run(make_partitions)
        await self._database.run(lambda connection: drop_partitions(connection, keep))
        await self._rows(
            "DELETE FROM thingctl.rollouts r WHERE state IN ('FINISHED', 'CANCELED') "
            "AND moved_at < thingctl.now() - $1::double precision AND NOT EXISTS ("
            "SELECT FROM thingctl.executions e WHERE e.command_id = r.command_id AND e.due_at IS NOT NULL)",
            keep,
        )

    # Rows.

    async def _rows(self, statement: str, *arguments: object, repeatable: bool = False) -> list[Any]:
        async def work(connection: Any) -> list[Any]:
            rows: list[Any] = await connection.fetch(statement, *arguments)
            return rows

        return await self._database.run(work, repeatable=repeatable)

    @staticmethod
    def _read(rows: list[Any]) -> list[Execution]:
        read = reader()
        return [read(row, 0) for row in rows]


async def _closed_before(
    connection: Any, ids: list[Any], closed: list[Execution], tries: RetryState
) -> list[Execution]:
    """Those that an earlier try closed, and could not tell; ``closed``: what this one did."""
    known = {execution.execution_id for execution in closed}
    read = reader()
    return [
        execution
        for row in await connection.fetch(BY_ID, [one for one in ids if str(one) not in known])
        if (execution := read(row, 0)).reason in _OURS and tries.may_have_ended(execution, row[0])
    ]
