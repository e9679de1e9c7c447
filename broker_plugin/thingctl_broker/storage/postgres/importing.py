"""Brings what another store has kept into this one: whole batches, and nothing that is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from thingctl_broker.commands.execution_fields import ONCE, STATE
from thingctl_broker.storage.postgres.execution_rows import COLUMN_TYPES, to_values
from thingctl_broker.storage.postgres.partitions import make_partitions, month_of
from thingctl_broker.storage.postgres.rollouts import PostgresRollouts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.rollouts.rollout import RolloutRecord
    from thingctl_broker.storage.postgres.pool import Database

_SCHEDULE: Final = dict.fromkeys(("due_at", "retry_at", "unhanded_since"), "double precision")
_TYPES: Final = COLUMN_TYPES | _SCHEDULE
"""Every column of an execution, with its type."""

_NAMES: Final = ", ".join(_TYPES)
_ARRAYS: Final = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_TYPES.values(), 1))

_ADD: Final = f"""
WITH added AS (
    INSERT INTO thingctl.executions ({_NAMES})
    SELECT {_NAMES} FROM unnest({_ARRAYS}) AS i ({_NAMES}) ORDER BY execution_id
    ON CONFLICT DO NOTHING RETURNING execution_id, requested_by, idempotency_key, fingerprint
),
keyed AS (
    INSERT INTO thingctl.idempotency_keys (requested_by, key, fingerprint, execution_id)
    SELECT requested_by, idempotency_key, fingerprint, execution_id FROM added
    WHERE idempotency_key <> '' ORDER BY requested_by, idempotency_key ON CONFLICT DO NOTHING
)
SELECT count(*) FROM added
"""

_PUT: Final = (
    "INSERT INTO thingctl.documents SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]) "
    "AS i (kind, name, value) ORDER BY kind, name ON CONFLICT DO NOTHING"
)


async def import_executions(database: Database, executions: Sequence[Execution]) -> int:
    """Keep executions as they stand, except those that are here already; return how many are new.

    A live one stays live, with its deadline. A request that is on record as published and not
    as acknowledged is published again; one that waits is tried soon. Raises ValueError for an
    id that is no UUIDv7.
    """
    months = {month_of(execution.execution_id) for execution in executions}
    columns = [list(column) for column in zip(*map(_row, executions), strict=True)]

    async def work(connection: Any) -> int:
        await make_partitions(connection, months)
        added: int = await connection.fetchval(_ADD, *columns)
        return added

    return await database.run(work, repeatable=True) if executions else 0


async def import_documents(database: Database, records: Sequence[tuple[str, str, bytes]]) -> int:
    """Keep records, except those that are here already; return how many are new."""

    async def work(connection: Any) -> int:
        done: str = await connection.execute(_PUT, *(list(column) for column in zip(*records, strict=True)))
        return int(done.rsplit(maxsplit=1)[-1])

    return await database.run(work, repeatable=True) if records else 0


async def import_rollout(database: Database, record: RolloutRecord) -> bool:
    """Keep a rollout, unless it is here already; return whether it is new."""
    rollouts = PostgresRollouts(database)
    if await rollouts.get(record.command_id) is not None:
        return False
    await rollouts.add(record)
    return True


def _row(execution: Execution) -> list[object]:
    due_at = retry_at = unhanded_since = None
    if not execution.is_terminal:
        due_at = execution.created_at + execution.ttl
        if execution.cancel_requested_at is not None and execution.cancel_grace is not None:
            due_at = min(due_at, execution.cancel_requested_at + execution.cancel_grace)
        if execution.started_at is None and execution.delivered_at is None:
            if execution.published_at is not None:
                unhanded_since = execution.published_at
            elif execution.cancel_requested_at is None:
                retry_at = execution.created_at
    stored = to_values(execution, (*ONCE, *STATE))
    return [execution.execution_id, execution.status.value, *stored, due_at, retry_at, unhanded_since]
