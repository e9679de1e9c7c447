"""Connections to PostgreSQL: made when needed, made again when lost, never waited for without end.

A statement has ``statement_timeout`` to itself while the server is alive, which is the server's to
hold. Whether it is alive the listener finds out (``listening``): one that hangs lets nobody wait.

Plans are made once for each statement and connection (``force_generic_plan``): planning a
statement over partitions costs more than running it. A generic plan is made blind, perhaps
when a table was still empty, so the ways that only small tables justify are switched off.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg
import structlog

from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.storage.postgres.errors import AGAIN, is_lost, refusal, unknown_fate, unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from thingctl_broker.storage.postgres.settings import StoreSettings

RETRY_SECONDS: Final = 0.2
"""Between two tries to reach a store that was lost during a commit."""

TRIES_MAX: Final = 5
"""Of a statement that others have undone (a deadlock, say)."""

_SESSION: Final = {
    "application_name": "thingctl",
    "search_path": "pg_catalog",  # every name of ours is written out, so that none can be slipped in
    "timezone": "UTC",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "default_transaction_isolation": "read committed",
}

_T = TypeVar("_T")
_log = structlog.get_logger("thingctl.store")


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]
    """One that goes back to the pool as it is: we leave nothing in a session that needs cleaning."""

    __slots__ = ()

    def get_reset_query(self) -> str:
        """Nothing: it would be a round trip for each statement."""
        return ""


class Database:
    """A pool of connections, and what to do when they are lost."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._reachable = True
        self._busy: set[Any] = set()
        self._hangs = False

    async def start(self) -> None:
        """Connect for the first time. Raises :class:`StoreDown`."""
        settings = self.settings
        pool = asyncpg.create_pool(
            settings.url,
            min_size=0,  # asyncpg logs each failure to keep a floor, and we tell of them once, in words
            max_size=settings.pool,
            max_inactive_connection_lifetime=300.0,
            connection_class=PooledConnection,
            **options(settings),
        )
        try:
            self._pool = await pool
        except Exception as error:
            raise unreachable(error) from None

    async def stop(self) -> None:
        """Close the connections; whoever still uses one has a few seconds."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(self.settings.connect_timeout):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    def answers(self, answers: bool, /) -> None:
        """Whether the store answers at all, as somebody has found out who looks all the time.

        While it does not, whoever waits for it is let go, and nobody else begins to.
        """
        hung, self._hangs = self._hangs, not answers
        if self._hangs and not hung:
            _log.error("the store does not answer: nobody waits for it any more")
        if self._hangs:
            for connection in tuple(self._busy):
                connection.terminate()

    async def run(self, work: Callable[[Any], Awaitable[_T]], *, repeatable: bool = False) -> _T:
        """Do ``work`` on a connection. Raises :class:`StoreDown`.

        ``repeatable``: what was done once and is done again makes no difference; such work is
        done again when the connection was lost under it, until ``patience`` is over.
        Errors that concern this work alone come out as asyncpg's.
        """
        give_up_at: float | None = None
        tries = 0
        while True:
            tries += 1
            try:
                return await self._once(work)
            except _Lost:
                if not repeatable:
                    raise unknown_fate() from None
                if give_up_at is None:
                    give_up_at = time.monotonic() + self.settings.patience
            except AGAIN as error:
                if tries >= TRIES_MAX:
                    raise StoreDown(f"the store was too busy: {type(error).__name__}") from None
                continue
            except StoreDown:
                if give_up_at is None:
                    raise
            # From here on it may have been done already: nobody can be told that it was not.
            if self._hangs or time.monotonic() >= give_up_at:
                raise unknown_fate() from None
            await asyncio.sleep(RETRY_SECONDS)

    async def _once(self, work: Callable[[Any], Awaitable[_T]]) -> _T:
        pool = self._pool
        if pool is None:
            raise StoreDown("the store is closed")
        if self._hangs:
            raise StoreDown("the store does not answer")
        try:
            connection = await pool.acquire(timeout=self.settings.connect_timeout)
        except Exception as error:
            self._note(reachable=False, error=error)
            raise unreachable(error) from None
        self._note(reachable=True)
        self._busy.add(connection)
        try:
            return await work(connection)
        except Exception as error:
            if (known := refusal(error)) is not None and not is_lost(error):
                raise known from None
            if is_lost(error):
                with contextlib.suppress(Exception):  # it may be gone already, in any way
                    connection.terminate()
                raise _Lost from error
            raise
        finally:
            self._busy.discard(connection)
            with contextlib.suppress(Exception):
                await pool.release(connection, timeout=1.0)

    def _note(self, *, reachable: bool, error: Exception | None = None) -> None:
        if reachable is not self._reachable:
            self._reachable = reachable
            if reachable:
                _log.warning("the store is reached again")
            elif error is not None:
                _log.error("the store cannot be reached", fault=unreachable(error).text)


class _Lost(Exception):
    """The connection went away under the work."""


def options(settings: StoreSettings) -> dict[str, Any]:
    """What every connection of ours is made with."""
    milliseconds = str(max(1, round(settings.statement_timeout * 1000)))
    return {
        "timeout": settings.connect_timeout,
        # The server ends what takes too long; if it cannot even do that, we let go a little later.
        "command_timeout": settings.statement_timeout + 2.0,
        "max_cacheable_statement_size": 0,
        "max_cached_statement_lifetime": 0,
        "server_settings": _SESSION
        | {"statement_timeout": milliseconds, "idle_in_transaction_session_timeout": milliseconds},
    }
