"""A store that goes away: what was done is done, what was not is said, and all goes on by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import asyncpg
import pytest

from broker.storage.postgres.stores import Heard, a_store, new, plain
from broker_support import say
from support.postgres import PostgresServer
from support.waits import eventually
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.commands.execution import Cancel, Outcome
from thingctl_broker.commands.table import Query
from thingctl_broker.storage.postgres import notifications
from thingctl_broker.storage.postgres import pool as database_module
from thingctl_broker.storage.postgres.settings import StoreSettings
from thingctl_broker.storage.postgres.store import PostgresStore
from thingctl_protocol.statuses import Status

HUNG_BOUND = 7.0
"""Seconds: five, and what a machine with other work takes."""


@pytest.fixture
def own_server():
    """A server of the test's own, which keeps its word as one in service does."""
    server = PostgresServer(fsync=True)
    yield server
    server.close()


async def pool_backends(url):
    """The process ids of the pool's connections."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'thingctl' AND pid <> pg_backend_pid()"
    )
    await connection.close()
    return [row[0] for row in rows]


async def cut(url):
    """End every connection of the store from outside, as an administrator does."""
    connection = await asyncpg.connect(url)
    await connection.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'thingctl' AND pid <> pg_backend_pid()"
    )
    await connection.close()


async def test_connections_that_are_cut_are_made_again(postgres_url):
    async with a_store(postgres_url) as store:
        for _ in range(5):
            await cut(postgres_url)
            one = await store.executions.add(new(published_at=1.0), queue_max=9)
            await cut(postgres_url)
            answer = await store.executions.respond(one.thing, one.execution_id, say("SUCCEEDED"))
            assert answer.execution.status is Status.SUCCEEDED
        assert await store.executions.size() == (5, 0)


async def test_a_call_that_was_cut_is_done_once(postgres_url):
    """While it waits for a lock its connection is ended: the same call goes again by itself."""
    async with a_store(postgres_url, patience=20.0) as store:
        one = await store.executions.add(new(published_at=1.0), queue_max=9)
        locker = await asyncpg.connect(postgres_url)
        transaction = locker.transaction()
        await transaction.start()
        await locker.execute("LOCK TABLE thingctl.executions IN ACCESS EXCLUSIVE MODE")
        other = new(published_at=1.0)
        calls = [
            asyncio.create_task(store.executions.respond(one.thing, one.execution_id, say("SUCCEEDED"))),
            asyncio.create_task(store.executions.add(other, queue_max=9)),
        ]
        watcher = await asyncpg.connect(postgres_url)  # within a transaction one sees what was
        await until_waiting(watcher, 2)
        await watcher.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database()"
        )
        await transaction.rollback()
        answer, added = await asyncio.gather(*calls)
        assert (answer.outcome, answer.execution.status) == (Outcome.APPLIED, Status.SUCCEEDED)
        assert plain(added) == plain(await store.executions.get(other.execution_id))
        await locker.close()
        await watcher.close()


async def until_waiting(connection, count):
    async def waiting():
        return await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database()"
        )

    async with asyncio.timeout(10):
        while await waiting() < count:
            await asyncio.sleep(0.01)


class Cut:
    """Loses the connection right after the statement was committed: its answer never arrives.

    ``undone``: or before it was begun. ``of``: which statements.
    """

    def __init__(self, times, *, of="thingctl.executions", undone=False):
        self.left = times
        self.of = of
        self.undone = undone

    def __call__(self, method):
        async def fetch(connection, statement, *arguments, **options):
            cut = self.left and self.of in statement
            rows = None if cut and self.undone else await method(connection, statement, *arguments, **options)
            if cut:
                self.left -= 1
                connection.terminate()
                raise ConnectionResetError("cut")
            return rows

        return fetch


async def test_a_commit_whose_answer_was_lost_is_told_right(postgres_url, monkeypatch):
    monkeypatch.setattr(database_module, "RETRY_SECONDS", 0.01)
    async with a_store(postgres_url) as store:
        executions = store.executions
        given = new(requested_by="ops", idempotency_key="k", fingerprint="f", published_at=1.0)
        connection_class = database_module.PooledConnection
        original = connection_class.fetch

        def lose(times):
            monkeypatch.setattr(connection_class, "fetch", Cut(times)(original))

        lose(1)
        added = await executions.add(given, queue_max=1)
        assert (added.execution_id, added.attempts) == (given.execution_id, 1)
        lose(1)
        canceled = await executions.cancel(given.execution_id, 5.0)
        assert canceled.outcome is Cancel.REQUESTED  # so that the thing is asked
        lose(1)
        answer = await executions.respond(given.thing, given.execution_id, say("SUCCEEDED"))
        assert (answer.outcome, answer.execution.status) == (Outcome.APPLIED, Status.SUCCEEDED)
        assert answer.execution.conflicts == 0
        again = await executions.respond(given.thing, given.execution_id, say("SUCCEEDED"))
        assert again.outcome is Outcome.REPEATED
        lose(1)
        again = await executions.respond(given.thing, given.execution_id, say("SUCCEEDED"))
        assert again.outcome is Outcome.REPEATED  # it had ended before this was asked at all
        waiting = await executions.add(new(), queue_max=9)
        lose(1)
        withdrawn = await executions.cancel(waiting.execution_id, 5.0)
        assert withdrawn.outcome is Cancel.DONE
        assert (await executions.cancel(waiting.execution_id, 5.0)).outcome is Cancel.ENDED
        monkeypatch.setattr(connection_class, "fetch", original)
        assert await executions.size() == (2, 0)


UPDATE = "UPDATE thingctl.executions"


async def overdue(store, count=2):
    """Some whose time is over, and one whose is not."""
    due = [await store.add(new(published_at=1.0, ttl=1), queue_max=9) for _ in range(count)]
    left = await store.add(new(published_at=1.0), queue_max=9)
    await eventually(lambda: time.monotonic() > due[-1].deadline + 0.05)
    return [one.execution_id for one in due], left


@pytest.mark.parametrize("patience", [0.05, 5.0])
async def test_what_has_expired_is_told_once_though_the_answer_was_lost(postgres_url, monkeypatch, patience):
    monkeypatch.setattr(database_module, "RETRY_SECONDS", 0.01)
    connection_class = database_module.PooledConnection
    original = connection_class.fetch
    async with a_store(postgres_url, patience=patience) as store:
        executions = store.executions
        due, left = await overdue(executions)
        if patience < 1:
            monkeypatch.setattr(connection_class, "fetch", Cut(10_000, of=UPDATE)(original))
            with pytest.raises(StoreDown) as down:
                await executions.expire(9)
            assert down.value.uncertain
            monkeypatch.setattr(connection_class, "fetch", original)
        else:
            monkeypatch.setattr(connection_class, "fetch", Cut(1, of=UPDATE)(original))
        told = await executions.expire(9)
        assert sorted(one.execution_id for one in told) == due
        assert {one.status for one in told} == {Status.TIMED_OUT}
        assert await executions.expire(9) == []
        assert (await executions.get(left.execution_id)).status is Status.SENT


async def test_what_its_thing_has_ended_meanwhile_has_not_expired(postgres_url, monkeypatch):
    connection_class = database_module.PooledConnection
    original = connection_class.fetch
    async with a_store(postgres_url, patience=0.0) as store:
        (answered, silent), left = await overdue(store.executions)
        monkeypatch.setattr(connection_class, "fetch", Cut(1, of=UPDATE, undone=True)(original))
        with pytest.raises(StoreDown):
            await store.executions.expire(9)
        assert (await store.executions.respond(left.thing, answered, say("SUCCEEDED"))).execution
        assert [one.execution_id for one in await store.executions.expire(9)] == [silent]


async def test_what_cannot_be_found_out_is_said_to_be_uncertain(postgres_url, monkeypatch):
    monkeypatch.setattr(database_module, "RETRY_SECONDS", 0.01)
    async with a_store(postgres_url, patience=0.05) as store:
        connection_class = database_module.PooledConnection
        original = connection_class.fetch
        monkeypatch.setattr(connection_class, "fetch", Cut(10_000)(original))
        with pytest.raises(StoreDown) as down:
            await store.executions.add(new(), queue_max=9)
        assert down.value.uncertain
        with pytest.raises(StoreDown) as down:
            await store.executions.expire(9)
        assert down.value.uncertain
        monkeypatch.setattr(connection_class, "fetch", original)


async def test_a_database_that_takes_no_writes(postgres, postgres_url):
    database = postgres_url.rsplit("/", 1)[1]
    async with a_store(postgres_url) as store:
        one = await store.executions.add(new(), queue_max=9)
        postgres.psql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        await cut(postgres_url)
        await store.executions.get(one.execution_id)  # on a new connection, to which that applies
        with pytest.raises(StoreDown, match="read-only") as down:
            await store.executions.add(new(), queue_max=9)
        assert not down.value.uncertain
        assert (await store.executions.get(one.execution_id)).status is Status.SENT
        postgres.psql(f"ALTER DATABASE {database} RESET default_transaction_read_only")
        await cut(postgres_url)
        await store.executions.add(new(), queue_max=9)


async def test_nothing_hangs_for_ever(postgres_url):
    async with a_store(postgres_url, statement_timeout=0.3) as store:
        locker = await asyncpg.connect(postgres_url)
        async with locker.transaction():
            await locker.execute("LOCK TABLE thingctl.executions IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreDown, match="took too long") as down:
                await store.executions.add(new(), queue_max=9)
            assert not down.value.uncertain
        await locker.close()
        assert await store.executions.size() == (0, 0)


async def test_a_store_that_is_not_there(own_server):
    url = own_server.url()
    with pytest.raises(StoreDown, match="database does not exist"):
        await PostgresStore(StoreSettings(url=own_server.url("none"))).start()
    own_server.stop()
    with pytest.raises(StoreDown, match="cannot be reached") as down:
        await PostgresStore(StoreSettings(url=url)).start()
    assert not down.value.uncertain


async def test_it_goes_away_and_comes_back(own_server):
    heard = Heard()
    async with a_store(own_server.url(), heard, patience=0.2, connect_timeout=2.0) as store:
        one = await store.executions.add(new(published_at=1.0), queue_max=9)
        assert store.connected
        own_server.stop()
        await eventually(lambda: not store.connected)
        for call in (
            store.executions.add(new(), queue_max=9),
            store.executions.get(one.execution_id),
            store.executions.select(Query(), 9, None),
            store.executions.minutes(),
            store.rollouts.get("c"),
            store.documents.load(["thing"]),
            store.documents.put([("thing", "a", b"")]),
            store.workers.alive("w", 1.0),
        ):
            with pytest.raises(StoreDown):
                await call
        own_server.start()
        await eventually(lambda: store.connected, 30.0)
        assert heard.missing == 1
        answer = await store.executions.respond(one.thing, one.execution_id, say("SUCCEEDED"))
        assert answer.execution.status is Status.SUCCEEDED
        await eventually(lambda: heard.ended == [one.execution_id])


async def refused(call):
    """How long it took until the call was refused, and whether what it did is uncertain."""
    began = time.monotonic()
    with pytest.raises(StoreDown) as down:
        await call
    return time.monotonic() - began, down.value.uncertain


async def test_a_store_that_hangs_makes_nobody_wait_for_long(own_server):
    heard = Heard()
    async with a_store(own_server.url(), heard) as store:
        one = await store.executions.add(new(published_at=1.0), queue_max=9)
        with own_server.hung():
            calls = [
                store.executions.add(new(), queue_max=9),
                store.executions.respond(one.thing, one.execution_id, say("SUCCEEDED")),
                store.executions.get(one.execution_id),
                store.executions.select(Query(), 9, None),
                store.documents.load(["thing"]),
                *(store.executions.counts(f"c{i}") for i in range(9)),  # more than there are connections
            ]
            told = await asyncio.gather(*map(refused, calls))
            assert max(seconds for seconds, _ in told) < HUNG_BOUND
            assert any(uncertain for _, uncertain in told), "one had a connection, and may have been done"
            assert not store.connected
            # From now on it is known.
            seconds, uncertain = await refused(store.executions.add(new(), queue_max=9))
            assert (seconds < 0.5, uncertain) == (True, False)
        await eventually(lambda: store.connected, 30.0)
        answer = await store.executions.respond(one.thing, one.execution_id, say("SUCCEEDED"))
        assert answer.execution.status is Status.SUCCEEDED


async def test_a_store_that_is_slow_is_waited_for(postgres_url, monkeypatch):
    monkeypatch.setattr(notifications, "HEARTBEAT", 0.05)
    monkeypatch.setattr(notifications, "ANSWER_WITHIN", 0.5)
    async with a_store(postgres_url, Heard()) as store:
        locker = await asyncpg.connect(postgres_url)
        async with locker.transaction():
            await locker.execute("LOCK TABLE thingctl.executions IN ACCESS EXCLUSIVE MODE")
            adding = asyncio.create_task(store.executions.add(new(), queue_max=9))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(adding), 2.0)
        assert (await adding).status is Status.SENT
        await locker.close()


async def test_what_was_answered_outlives_a_power_cut(own_server):
    """The server is ended without a checkpoint in the middle of a load, again and again."""
    acknowledged, ended = {}, {}
    async with a_store(own_server.url(), patience=0.1, connect_timeout=2.0) as store:
        for _ in range(3):

            async def caller():
                while True:
                    try:
                        one = await store.executions.add(new(published_at=1.0), queue_max=9)
                        acknowledged[one.execution_id] = one
                        answer = await store.executions.respond(one.thing, one.execution_id, say("SUCCEEDED"))
                        ended[one.execution_id] = answer.execution
                    except StoreDown:
                        return

            before = len(ended)
            callers = [asyncio.create_task(caller()) for _ in range(50)]
            await eventually(lambda before=before: len(ended) > before + 100, 60.0)
            await asyncio.to_thread(own_server.stop, hard=True)
            await asyncio.gather(*callers)
            await asyncio.to_thread(own_server.start)
        found = {one.execution_id: one for one in await store.executions.many(list(acknowledged))}
    assert set(found) == set(acknowledged)
    for execution_id, one in ended.items():
        assert found[execution_id].status is Status.SUCCEEDED
        assert found[execution_id].ended_at == one.ended_at


async def test_a_backend_that_crashes(own_server):
    async with a_store(own_server.url(), patience=20.0) as store:
        one = await store.executions.add(new(published_at=1.0), queue_max=9)
        os.kill(
            (await pool_backends(own_server.url()))[0], signal.SIGKILL
        )  # all others are cut off too, and the server recovers
        answer = await eventually_answered(store, one)
        assert answer.execution.status is Status.SUCCEEDED


async def eventually_answered(store, one):
    async with asyncio.timeout(30):
        while True:
            try:
                return await store.executions.respond(one.thing, one.execution_id, say("SUCCEEDED"))
            except StoreDown:
                await asyncio.sleep(0.05)
