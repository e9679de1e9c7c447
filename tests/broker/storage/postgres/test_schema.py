"""The tables: made once, by whoever is first; whose they are; and how partitions come and go."""

from __future__ import annotations

import asyncio
from itertools import count

import asyncpg
import pytest

from broker.storage.postgres.stores import a_store, frozen, plain
from broker_support import AT, make_execution, say
from thingctl_broker.storage.postgres import schema
from thingctl_broker.storage.postgres.partitions import Month, month_at, month_of
from thingctl_broker.storage.postgres.schema import SchemaError
from thingctl_broker.storage.postgres.settings import StoreSettings
from thingctl_broker.storage.postgres.store import PostgresStore, prepare
from thingctl_protocol.identifiers import IdSource

DAY = 24 * 3600.0
ENTROPY = count()


def at_time(unix, **fields):
    """An execution made then, and ended at once unless said otherwise."""
    # A source of its own for each, because one never goes back in time.
    execution = make_execution(
        execution_id=IdSource().make(int(unix * 1000), next(ENTROPY)), created_at=unix, **fields
    )
    execution.published(unix)
    return execution


def ended(unix, at=None, **fields):
    execution = at_time(unix, **fields)
    execution.respond(say("SUCCEEDED"), unix if at is None else at)
    return execution


async def partitions(db):
    rows = await db.connection.fetch(
        "SELECT relname FROM pg_class WHERE relname ~ '^executions_[0-9]{4}_[0-9]{2}$' ORDER BY 1"
    )
    return [row[0] for row in rows]


async def test_many_workers_may_start_at_once(postgres_url):
    stores = [PostgresStore(StoreSettings(url=postgres_url)) for _ in range(6)]
    await asyncio.gather(*(store.start() for store in stores))
    assert await stores[0].executions.size() == (0, 0)
    await asyncio.gather(*(store.stop() for store in stores))


async def test_another_schema_of_that_name_is_left_alone(postgres_url):
    connection = await asyncpg.connect(postgres_url)
    try:
        for statement in (
            "CREATE SCHEMA thingctl; CREATE TABLE thingctl.mine (a int)",
            "CREATE TABLE thingctl.about (a int)",
            "DROP TABLE thingctl.about; CREATE TABLE thingctl.about (product text, version text)",
        ):
            await connection.execute(statement)
            with pytest.raises(SchemaError, match="not of thingctl; it was left as it is"):
                await prepare(StoreSettings(url=postgres_url))
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'thingctl'") == 2
        # An empty one, made by whoever runs the database, is for us.
        await connection.execute("DROP SCHEMA thingctl CASCADE; CREATE SCHEMA thingctl")
        await prepare(StoreSettings(url=postgres_url))
    finally:
        await connection.close()


async def test_a_newer_one_is_refused_and_an_older_one_brought_up(postgres_url, monkeypatch):
    settings = StoreSettings(url=postgres_url)
    async with a_store(postgres_url) as store:
        await store.documents.put([("thing", "lamp", b"{}")])
    monkeypatch.setattr(
        schema, "MIGRATIONS", (*schema.MIGRATIONS, "ALTER TABLE thingctl.documents ADD COLUMN extra text")
    )
    await asyncio.gather(*(prepare(settings) for _ in range(4)))
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT version FROM thingctl.about") == len(schema.MIGRATIONS)
    assert await connection.fetchrow("SELECT * FROM thingctl.documents") == ("thing", "lamp", b"{}", None)
    await connection.close()
    monkeypatch.undo()
    known = len(schema.MIGRATIONS)
    with pytest.raises(SchemaError, match=rf"newer thingctl \(schema {known + 1}; this one knows {known}\)"):
        await prepare(settings)


async def test_a_step_that_fails_leaves_everything_as_it_was(postgres_url, monkeypatch):
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "SELECT no_such_thing()"))
    with pytest.raises(Exception, match="no_such_thing"):
        await prepare(StoreSettings(url=postgres_url))
    monkeypatch.undo()
    await prepare(StoreSettings(url=postgres_url))


async def test_a_user_who_may_not_make_tables_is_told_so(postgres, postgres_url):
    database = postgres_url.rsplit("/", 1)[1]
    postgres.psql(
        f"DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN; REVOKE ALL ON DATABASE {database} FROM guest"
    )
    url = postgres_url.replace("thingctl@", "guest@")
    with pytest.raises(SchemaError, match="may not make the tables"):
        await prepare(StoreSettings(url=url))
    await prepare(StoreSettings(url=postgres_url))
    with pytest.raises(SchemaError, match="may not read"):
        await prepare(StoreSettings(url=url))
    postgres.psql("DROP ROLE guest")


async def test_a_database_that_is_not_utf_8(postgres):
    postgres.psql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(SchemaError, match="encoded in LATIN1; it must be UTF8"):
        await prepare(StoreSettings(url=postgres.url("latin")))


# Partitions.


@pytest.mark.parametrize("unix", [0.0, AT, 1_735_689_600.0, 1_735_689_599.999, 4_102_444_800.0])
def test_an_id_is_in_the_month_of_its_making(unix):
    execution_id = IdSource().make(int(unix * 1000), 0)
    month = month_at(unix)
    assert month_of(execution_id) == month
    assert month.least_id <= execution_id < month.plus(1).least_id


@pytest.mark.parametrize(
    "text", ["ffffffff-ffff-7000-8000-000000000000", "0193448g-5d1c-7000-9b3c-0a1b2c3d4e5f"]
)
def test_what_is_beyond_all_calendars_is_no_month(text):
    with pytest.raises(ValueError, match="not a UUIDv7"):
        month_of(text)


async def test_partitions_are_there_before_they_are_needed(postgres_url):
    async with frozen(postgres_url, AT) as db:  # in May 2025
        await db.store.executions.tidy(DAY)
        made = await partitions(db)
        assert {
            "executions_2025_04",
            "executions_2025_05",
            "executions_2025_06",
            "executions_2025_07",
        } <= set(made)
        await asyncio.gather(*(db.store.executions.tidy(DAY) for _ in range(4)))
        assert await partitions(db) == made


async def test_a_clock_that_is_wrong_finds_its_month_made(postgres_url):
    """Ids carry the time of the worker that made them."""
    async with frozen(postgres_url, AT) as db:
        strange = [at_time(unix) for unix in (1e9, AT, 2e9, 0.0)]
        added = await asyncio.gather(*(db.store.executions.add(one, queue_max=9) for one in strange))
        found = await db.store.executions.many([one.execution_id for one in strange])
        assert list(map(plain, found)) == list(map(plain, added))
        assert "executions_2001_09" in await partitions(db)


async def test_old_partitions_go_with_all_that_was_in_them(postgres_url):
    async with frozen(postgres_url, AT) as db:
        old, held, recent = AT - 100 * DAY, AT - 200 * DAY, AT - 300 * DAY
        keyed = ended(old, requested_by="ops", idempotency_key="k", fingerprint="f")
        live = at_time(held, ttl=300 * 24 * 3600)
        just_ended = ended(recent, at=AT - 0.5 * DAY)
        await db.put(keyed, ended(held), live, just_ended)
        await db.store.executions.tidy(DAY)
        assert month_at(old).table not in await partitions(db)
        assert month_at(held).table in await partitions(db)
        assert month_at(recent).table in await partitions(db)
        assert await db.store.executions.get(keyed.execution_id) is None
        again = at_time(AT, requested_by="ops", idempotency_key="k", fingerprint="other")
        await db.store.executions.add(again, queue_max=9)  # its key is free again
        await db.store.executions.respond(live.thing, live.execution_id, say("SUCCEEDED"))
        await db.set(AT + 2 * DAY)
        await db.store.executions.tidy(DAY)
        left = set(await partitions(db))
        assert left.isdisjoint({month_at(held).table, month_at(recent).table})
        assert month_at(AT).table in left


async def test_a_partition_that_is_being_read_stays_until_the_next_time(postgres_url, monkeypatch):
    from thingctl_broker.storage.postgres import partitions as module

    monkeypatch.setattr(module, "LOCK_TIMEOUT", "50ms")
    async with frozen(postgres_url, AT) as db:
        await db.put(ended(AT - 100 * DAY))
        reader = await asyncpg.connect(postgres_url)
        async with reader.transaction():
            await reader.fetch("SELECT * FROM thingctl.executions")
            await db.store.executions.tidy(DAY)
            assert month_at(AT - 100 * DAY).table in await partitions(db)
        await reader.close()
        await db.store.executions.tidy(DAY)
        assert month_at(AT - 100 * DAY).table not in await partitions(db)


async def test_a_look_up_by_id_goes_to_one_partition(postgres_url):
    async with frozen(postgres_url, AT) as db:
        await db.store.executions.tidy(DAY)
        plan = await db.connection.fetch(
            f"EXPLAIN SELECT * FROM thingctl.executions WHERE execution_id = '{at_time(AT).execution_id}'"
        )
        named = {word for row in plan for word in row[0].split() if word.startswith("executions_")}
        assert {word.removesuffix("_pkey") for word in named} == {month_at(AT).table}
        primary = await db.connection.fetchval(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = 'thingctl.executions'::regclass AND contype = 'p'"
        )
        assert primary == "PRIMARY KEY (execution_id)"


async def test_no_statement_reads_a_whole_table(postgres_url):
    """Plans are made while tables are empty, and must do when they are not."""
    from thingctl_broker.storage.postgres import claim_sql, transition_sql
    from thingctl_broker.storage.postgres.execution_batches import New, _arguments_of_new

    async with a_store(postgres_url) as store:
        one = at_time(AT)
        ids = [one.execution_id]
        cases = {
            transition_sql.ADD: _arguments_of_new([New(one, 9)]),
            transition_sql.RESPOND: (ids, ["t"], ["SUCCEEDED"], [None], [None], [None], False),
            transition_sql.CANCEL: (ids, [1.0], False),
            transition_sql.UNCLAIMED: (ids, [1.0], False, [AT]),
            claim_sql.HANDED: (ids,),
            claim_sql.TOLD: (ids, [1.0]),
            claim_sql.EXPIRE: (ids, False),
            claim_sql.DUE: (9,),
            claim_sql.CANCELING: (9, 60.0),
            claim_sql.CLAIM_WAITING: (9, "t"),
            claim_sql.CLAIM_UNHANDED: (9, 1.0),
            claim_sql.CLAIM_UNTOLD: (9, 1.0),
        }

        async def explain(connection):
            for statement, arguments in cases.items():
                plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + statement, *arguments))
                assert "Seq Scan" not in plan, plan
                assert "Hash Join" not in plan, plan
                # Every look at a table is led by a condition on an index.
                assert plan.count("Index Cond") >= plan.count("Scan using executions"), plan

        await store._database.run(explain)


def test_a_month_has_its_name():
    assert Month(2025, 5).table == "executions_2025_05"
