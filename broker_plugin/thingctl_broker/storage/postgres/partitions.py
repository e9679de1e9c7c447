"""The monthly partitions of the executions: made ahead, made when needed, dropped when old.

A month begins at the least UUIDv7 of its first millisecond (UTC). Whoever makes or drops one
holds the advisory lock of the tables, so that workers do not get in each other's way.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCK: Final = 0x7468_6374_6C01
"""The advisory lock of whoever makes or drops partitions ("thctl")."""

AHEAD: Final = 2
"""Months that are there before they are needed; and the last one, for clocks that are behind."""

LOCK_TIMEOUT: Final = "2s"
"""Dropping waits no longer than this for readers, because everybody else waits behind it."""

_YEAR_MAX: Final = 9998

_BRISK: Final = "autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05"
"""Rows change a few times within seconds and then never again; what they were goes soon."""


class Month(NamedTuple):
    """A month of UTC."""

    year: int
    month: int

    @property
    def table(self) -> str:
        """The name of its partition.

        >>> Month(2026, 3).table
        'executions_2026_03'
        """
        return f"executions_{self.year:04}_{self.month:02}"

    @property
    def least_id(self) -> str:
        """The least UUIDv7 made in it.

        >>> Month(2025, 1).least_id
        '01941f29-7c00-7000-8000-000000000000'
        """
        unix_ms = int(datetime(self.year, self.month, 1, tzinfo=UTC).timestamp()) * 1000
        digits = f"{unix_ms:012x}"
        return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"

    def plus(self, months: int) -> Month:
        """The month so many months later.

        >>> Month(2026, 12).plus(1)
        Month(year=2027, month=1)
        """
        years, month = divmod(self.month - 1 + months, 12)
        return Month(self.year + years, month + 1)


def month_at(unix: float) -> Month:
    """The month of a moment, Unix seconds. Raises ValueError for what is beyond all calendars."""
    moment = datetime.fromtimestamp(unix, UTC)
    if moment.year > _YEAR_MAX:
        raise ValueError(f"the year {moment.year} is too far away")
    return Month(moment.year, moment.month)


def month_of(execution_id: str) -> Month:
    """The month in which an id was made.

    >>> month_of("0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f")
    Month(year=2024, month=11)

    Raises ValueError when that is beyond all calendars: it is no UUIDv7.
    """
    try:
        return month_at(int(execution_id[:8] + execution_id[9:13], 16) / 1000)
    except (OverflowError, OSError, ValueError):
        raise ValueError(f"{execution_id} is not a UUIDv7") from None


async def make_partitions(connection: Any, months: Iterable[Month] = ()) -> None:
    """Make the partitions that are missing: those of ``months``, and those that will be needed."""
    now = month_at(await connection.fetchval("SELECT thingctl.now()"))
    wanted = {*months, *(now.plus(i) for i in range(-1, AHEAD + 1))}
    there = await _names(connection)
    missing = sorted(month for month in wanted if month.table not in there)
    if not missing:
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        there = await _names(connection)  # another worker may have been first
        for month in missing:
            if month.table not in there:
                await _make(connection, month)


async def _make(connection: Any, month: Month) -> None:
    # Made apart and attached: that takes a lock beside which everybody goes on working.
    name = f"thingctl.{month.table}"
    await connection.execute(f"CREATE TABLE {name} (LIKE thingctl.executions INCLUDING ALL) WITH ({_BRISK})")
    await connection.execute(
        f"ALTER TABLE thingctl.executions ATTACH PARTITION {name} "
        f"FOR VALUES FROM ('{month.least_id}') TO ('{month.plus(1).least_id}')"
    )


async def drop_partitions(connection: Any, keep: float) -> list[str]:
    """Drop the partitions with nothing live and nothing that ended within ``keep`` seconds.

    The keys of idempotent commands live as long as their executions. Returns the names.
    A partition that somebody reads at the time stays until the next call.
    """
    now: float = await connection.fetchval("SELECT thingctl.now()")
    current = month_at(now)
    dropped: list[str] = []
    for name in sorted(await _names(connection)):
        month = Month(*map(int, name.split("_")[1:]))
        if month >= current.plus(-1):  # clocks that are behind may yet need it
            continue
        if await _is_needed(connection, name, now - keep):
            continue
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
                await connection.execute("LOCK TABLE ONLY thingctl.executions IN ACCESS EXCLUSIVE MODE")
                if name not in await _names(connection) or await _is_needed(connection, name, now - keep):
                    continue
                await connection.execute(f"DROP TABLE thingctl.{name}")
                await connection.execute(
                    "DELETE FROM thingctl.idempotency_keys WHERE execution_id >= $1 AND execution_id < $2",
                    month.least_id,
                    month.plus(1).least_id,
                )
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            continue
        dropped.append(name)
    return dropped


async def _is_needed(connection: Any, name: str, since: float) -> bool:
    needed: bool = await connection.fetchval(
        f"SELECT EXISTS (SELECT FROM thingctl.{name} WHERE due_at IS NOT NULL) "
        f"OR EXISTS (SELECT FROM thingctl.{name} WHERE ended_at >= $1)",
        since,
    )
    return needed


async def _names(connection: Any) -> set[str]:
    rows = await connection.fetch(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'thingctl.executions'::regclass"
    )
    return {row[0] for row in rows}
