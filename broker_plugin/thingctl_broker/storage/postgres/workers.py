"""Who is at work, in PostgreSQL, as :class:`thingctl_broker.cluster.store_port.Workers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from thingctl_broker.storage.postgres.pool import Database

ADOPTION_SECONDS: Final = 30.0
"""How long an adopter has to take over a session."""

_ALIVE: Final = (
    "INSERT INTO thingctl.workers (client_id, lives_until) "
    "VALUES ($1, thingctl.now() + $2::double precision) "
    "ON CONFLICT (client_id) DO UPDATE SET lives_until = excluded.lives_until, "
    "adopter = NULL, adopted_until = NULL RETURNING thingctl.now()"
)
_ORPHAN: Final = (
    "WITH dead AS MATERIALIZED (SELECT client_id FROM thingctl.workers WHERE client_id <> $1 "
    "AND lives_until <= thingctl.now() AND (adopted_until IS NULL OR adopted_until <= thingctl.now()) "
    "ORDER BY lives_until LIMIT 1 FOR UPDATE SKIP LOCKED) "
    "UPDATE thingctl.workers w SET adopter = $1, adopted_until = thingctl.now() + $2::double precision "
    "FROM dead WHERE w.client_id = dead.client_id RETURNING w.client_id"
)


class PostgresWorkers:
    """Workers and their MQTT client ids."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def alive(self, client_id: str, seconds: float) -> float:
        """This worker, with its MQTT client id, lives for another ``seconds``; return the store's time."""
        return float(await self._value(_ALIVE, client_id, seconds))

    async def orphan(self, adopter: str) -> str | None:
        """The client id of a worker that has died, if there is one; it is the adopter's for 30 seconds."""
        found: str | None = await self._value(_ORPHAN, adopter, ADOPTION_SECONDS)
        return found

    async def gone(self, client_id: str) -> None:
        """That worker has ended, and its session with it."""
        await self._value("DELETE FROM thingctl.workers WHERE client_id = $1", client_id)

    async def count(self) -> int:
        """How many live."""
        return int(
            await self._value("SELECT count(*) FROM thingctl.workers WHERE lives_until > thingctl.now()")
        )

    async def _value(self, statement: str, *arguments: object) -> Any:
        async def work(connection: Any) -> Any:
            return await connection.fetchval(statement, *arguments)

        return await self._database.run(work, repeatable=True)
