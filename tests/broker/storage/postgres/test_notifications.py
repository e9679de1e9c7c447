"""Hearing of changes: in order, after a loss too, whatever else is said on the channel."""

from __future__ import annotations

import asyncpg
from structlog.testing import capture_logs

from broker.storage.postgres.stores import Heard, a_store, new
from support.waits import eventually
from thingctl_broker.storage.postgres import notifications
from thingctl_broker.storage.postgres.notifications import NotificationListener
from thingctl_broker.storage.postgres.settings import StoreSettings

LISTENING = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND query LIKE 'LISTEN%'"
)


async def test_a_lost_connection_is_made_again_and_said_to_have_been_away(postgres_url):
    heard = Heard()
    async with a_store(postgres_url, heard) as store:
        connection = await asyncpg.connect(postgres_url)
        for turn in range(1, 4):
            await connection.fetch(LISTENING)
            await eventually(lambda turn=turn: heard.missing == turn)
            assert store.connected
            one = await store.executions.add(new(), queue_max=9)
            await eventually(lambda one=one: one.execution_id in heard.executions)
        await connection.close()
    assert not store.connected


async def test_a_connection_that_is_silent_for_good_is_noticed(postgres_url, monkeypatch):
    monkeypatch.setattr(notifications, "HEARTBEAT", 0.05)
    heard = Heard()
    listener = NotificationListener(StoreSettings(url=postgres_url), heard)
    await listener.start()
    try:
        # From now on nothing that is sent arrives, as when the way there is gone.
        connection = listener._connection
        listener._connection = Silent()
        listener._connection.connection = connection
        await eventually(lambda: heard.missing == 1)
    finally:
        await listener.stop()


class Silent:
    """A connection that nothing is heard of any more."""

    async def fetchval(self, *_, **__):
        raise TimeoutError

    async def close(self, **_):
        raise TimeoutError

    def remove_termination_listener(self, listener):
        self.connection.remove_termination_listener(listener)

    def terminate(self):
        self.connection.terminate()


async def test_what_it_does_not_know_and_who_does_not_listen_well_harm_nothing(postgres_url):
    heard = Heard()

    def fail(*_):
        raise RuntimeError("a fault of the one who hears")

    heard.document_changed = fail
    async with a_store(postgres_url, heard) as store:
        connection = await asyncpg.connect(postgres_url)
        with capture_logs() as logs:
            for payload in ("", "zsomething new", "dno colon", "d"):
                await connection.execute("SELECT pg_notify('thingctl', $1)", payload)
            await connection.execute("NOTIFY thingctl")
            await store.documents.put([("thing", "a", b"")])
            one = await store.executions.add(new(), queue_max=9)
            await eventually(lambda: heard.executions == [one.execution_id])
        assert [log["event"] for log in logs] == ["telling of a change in the store failed"] * 2
        await connection.close()
