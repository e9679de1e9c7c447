"""Stores for tests, and a clock of theirs that stands still until it is set."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from broker_support import make_execution
from thingctl_broker.storage.postgres.importing import import_executions
from thingctl_broker.storage.postgres.settings import StoreSettings
from thingctl_broker.storage.postgres.store import PostgresStore
from thingctl_protocol.identifiers import IdSource

IDS = IdSource()


class Heard:
    """Notes all that a store tells."""

    def __init__(self):
        self.executions = []
        self.ended = []
        self.documents = []
        self.rollouts = []
        self.missing = 0

    def changed(self, execution_ids, ended):
        self.executions += execution_ids
        self.ended += ended

    def document_changed(self, kind, name):
        self.documents.append((kind, name))

    def rollout_changed(self, command_id):
        self.rollouts.append(command_id)

    def missed(self):
        self.missing += 1


def new(**fields):
    """An execution as a worker makes it: with an id of now."""
    return make_execution(execution_id=IDS.make(int(time.time() * 1000), 0), **fields)


@asynccontextmanager
async def a_store(url, heard=None, *, tell_all=False, **settings):
    store = PostgresStore(StoreSettings(url=url, **settings), tell_all=tell_all)
    await store.start(heard)
    try:
        yield store
    finally:
        await store.stop()


class Frozen:
    """A store whose clock the test sets."""

    def __init__(self, store, connection):
        self.store = store
        self.connection = connection

    async def set(self, at):
        await self.connection.execute("UPDATE thingctl.test_clock SET at = $1", at)

    async def put(self, *executions):
        """Have these in the table as they stand."""
        await import_executions(self.store._database, executions)


@asynccontextmanager
async def frozen(url, at, **options):
    async with a_store(url, **options) as store:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(
                "CREATE TABLE thingctl.test_clock (at double precision);"
                "CREATE OR REPLACE FUNCTION thingctl.now() RETURNS double precision LANGUAGE sql VOLATILE "
                "AS 'SELECT at FROM thingctl.test_clock'"
            )
            await connection.execute("INSERT INTO thingctl.test_clock VALUES ($1)", at)
            yield Frozen(store, connection)
        finally:
            await connection.close()


def plain(execution, now=0.0):
    """Every field, without what depends on this process's monotonic clock, or on who keeps it."""
    fields = {field: getattr(execution, field) for field in execution.__struct_fields__}
    for field in ("deadline", "cancel_deadline", "kept"):
        del fields[field]
    return fields


def copy_of(execution):
    return msgspec.structs.replace(execution)


async def together(*calls):
    return await asyncio.gather(*calls)
