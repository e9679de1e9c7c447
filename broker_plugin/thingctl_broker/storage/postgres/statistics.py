"""The last hour, minute by minute, counted where the rows are.

A minute that is over does not change any more, so each worker counts it once and remembers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from thingctl_broker.commands.statistics import FASTEST, LOG_STEP, MINUTES, SLOTS, Minute
from thingctl_broker.commands.status_table import VERDICTS
from thingctl_broker.storage.postgres.transition_sql import listed
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from thingctl_broker.storage.postgres.pool import Database

SETTLED: Final = 2
"""Minutes after which one is over for certain: no statement that began within it still runs."""

_CREATED: Final = (
    "SELECT floor(created_at / 60)::bigint, count(*) FROM thingctl.executions "
    "WHERE created_at >= $1::double precision GROUP BY 1"
)
_SLOT: Final = (
    f"CASE WHEN status NOT IN {listed(VERDICTS)} THEN NULL WHEN seconds <= {FASTEST!r} THEN 0 "
    f"ELSE least({SLOTS - 1}, 1 + trunc(ln(seconds / {FASTEST!r}) / {LOG_STEP!r}))::integer END"
)
"""As :meth:`thingctl_broker.commands.statistics.Histogram.add` finds it."""

_ENDED: Final = (
    f"SELECT floor(ended_at / 60)::bigint, status, {_SLOT}, count(*) FROM ("
    "SELECT ended_at, status, ended_at - created_at AS seconds FROM thingctl.executions "
    "WHERE ended_at >= $1::double precision) ended GROUP BY 1, 2, 3"
)


class Hour:
    """Counts the minutes, and remembers those that are over."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._over: dict[int, Minute] = {}

    async def minutes(self) -> list[Minute]:
        """As :meth:`thingctl_broker.commands.statistics.HourlyStatistics.minutes`, by the store's clock."""
        return await self._database.run(self._count, repeatable=True)

    async def _count(self, connection: Any) -> list[Minute]:
        last = int(await connection.fetchval("SELECT thingctl.now()") // 60)
        numbers = range(last - MINUTES + 1, last + 1)
        first = next((number for number in numbers if number not in self._over), last)
        fresh = {number: Minute(number) for number in range(first, last + 1)}
        since = 60.0 * first
        for number, count in await connection.fetch(_CREATED, since):
            if number in fresh:
                fresh[number].created = count
        for number, status, slot, count in await connection.fetch(_ENDED, since):
            if number in fresh:
                minute = fresh[number]
                minute.ended[Status(status)] = minute.ended.get(Status(status), 0) + count
                if slot is not None:
                    minute.histogram.add_to(slot, count)
        found = self._over | fresh
        self._over = {n: m for n, m in found.items() if numbers.start <= n <= last - SETTLED}
        return [found[number] for number in numbers]
