"""The store as a whole: what a worker makes one of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from thingctl_broker.storage.postgres.documents import PostgresDocuments
from thingctl_broker.storage.postgres.errors import refusal, unreachable
from thingctl_broker.storage.postgres.executions import PostgresExecutions
from thingctl_broker.storage.postgres.notifications import NotificationListener
from thingctl_broker.storage.postgres.pool import Database, PooledConnection, options
from thingctl_broker.storage.postgres.rollouts import PostgresRollouts
from thingctl_broker.storage.postgres.schema import SchemaError, migrate
from thingctl_broker.storage.postgres.settings import check_url
from thingctl_broker.storage.postgres.workers import PostgresWorkers

if TYPE_CHECKING:
    from thingctl_broker.cluster.store_port import Heard
    from thingctl_broker.storage.postgres.settings import StoreSettings

MIGRATION_SECONDS = 300.0
"""How long bringing the tables to this version may take, and waiting for a worker that does it."""


class PostgresStore:
    """Executions, rollouts, records and workers, on one pool of connections."""

    def __init__(self, settings: StoreSettings, *, tell_all: bool = False) -> None:
        """``tell_all``: whether the end of every execution is to be told to a webhook.

        Raises ValueError when the settings name no PostgreSQL.
        """
        check_url(settings.url)
        self.settings = settings
        self._database = Database(settings)
        self._listener: NotificationListener | None = None
        self.executions = PostgresExecutions(self._database, tell_all=tell_all)
        self.rollouts = PostgresRollouts(self._database)
        self.documents = PostgresDocuments(self._database)
        self.workers = PostgresWorkers(self._database)

    @property
    def connected(self) -> bool:
        """Whether every change that is committed is heard at present."""
        return self._listener is not None and self._listener.connected

    async def start(self, heard: Heard | None = None) -> None:
        """Connect, see to the tables, and from now on tell ``heard`` of what is committed.

        Raises :class:`~thingctl_broker.cluster.store_port.StoreDown` and
        :class:`~thingctl_broker.storage.postgres.schema.SchemaError`.
        """
        await prepare(self.settings)
        await self._database.start()
        if heard is not None:
            self._listener = NotificationListener(self.settings, heard, self._database.answers)
            try:
                await self._listener.start()
            except BaseException:
                await self._database.stop()
                raise

    async def stop(self) -> None:
        """Let what is under way come to its end, and close."""
        await self.executions.stop()
        if self._listener is not None:
            await self._listener.stop()
        await self._database.stop()


async def prepare(settings: StoreSettings) -> None:
    """Bring the tables to this version, if they are not; raises as :meth:`PostgresStore.start`."""
    arguments = options(settings)
    arguments["command_timeout"] = MIGRATION_SECONDS
    arguments["server_settings"] |= {
        "statement_timeout": "0",
        "plan_cache_mode": "auto",
        "idle_in_transaction_session_timeout": "0",
    }
    try:
        connection = await asyncpg.connect(settings.url, connection_class=PooledConnection, **arguments)
    except Exception as error:
        raise unreachable(error) from None
    try:
        await migrate(connection)
    except SchemaError:
        raise
    except Exception as error:
        raise refusal(error) or unreachable(error) from None
    finally:
        await connection.close(timeout=settings.connect_timeout)
