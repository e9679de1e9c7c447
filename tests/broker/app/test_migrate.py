"""From a data directory into PostgreSQL: everything, as it was, and nothing twice."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack, contextmanager

import pytest

from broker.storage.postgres.stores import a_store, plain
from broker_support import say
from thingctl_broker.app.migrate import Moved, SourceError, _Source, move
from thingctl_broker.cluster.token_replica import SharedTokens
from thingctl_broker.commands.execution import Execution
from thingctl_broker.commands.table import Query
from thingctl_broker.rollouts.rollout import RolloutRecord, RolloutRules, State
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.storage.postgres.settings import StoreSettings
from thingctl_broker.storage.rollout_files import RolloutFiles
from thingctl_broker.storage.sqlite.journal import SqliteJournal
from thingctl_broker.storage.sqlite.registry import RegistryStore
from thingctl_broker.things.records import Stored
from thingctl_broker.things.registry import ThingRegistry
from thingctl_broker.things.thing import Definition, ThingType
from thingctl_broker.webhooks import secret as webhook_secret
from thingctl_protocol.identifiers import IdSource
from thingctl_protocol.messages import ActionDescription, Announcement, Progress, StatusReason
from thingctl_protocol.statuses import Status

ROLLOUT = RolloutRecord(
    command_id="0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f",
    action="reboot",
    params='{"a":"\\u0000"}',
    ttl=None,
    created_at=5.5,
    requested_by="ops",
    things=["a", "b", "c"],
    targeted=3,
    rules=RolloutRules(rate=2.5, max_failures=3),
    state=State.PAUSED,
    sent=1,
    refused=1,
    refusals={"a": "it's off"},
    post_back_uri="https://example.com/",
    forgiven=2,
)


def executions(now, at):
    """Of every kind, months old and of this moment."""
    ids = IdSource()

    def make(created_at, ttl=3600, **fields):
        execution_id = ids.make(int(created_at * 1000), 7)
        return Execution(
            execution_id, "command", "lamp", "set", b'{"n": "\\u0000" }', ttl, created_at, now + ttl, **fields
        )

    old = make(at - 100 * 24 * 3600, 60, requested_by="ops", idempotency_key="k1", fingerprint="f1")
    old.published(old.created_at + 1)
    old.respond(say("SUCCEEDED", result=b"[1,  2]"), old.created_at + 2)
    late = make(at - 40 * 24 * 3600, 60, post_back_uri="https://example.com/", untold=True)
    late.published(late.created_at)
    late.delivered(late.created_at + 1)
    late.expire(late.deadline, late.created_at + 60)
    late.respond(say("FAILED", result=b"null", reason=StatusReason("E", "x\0y")), late.created_at + 90)
    late.respond(say("SUCCEEDED"), late.created_at + 91)
    working = make(at - 50, requested_by="ops", idempotency_key="k2", fingerprint="f2")
    working.published(at - 40)
    working.published(at - 30)
    working.respond(say("IN_PROGRESS", progress=Progress(5.0, "on"), reason=StatusReason("W")), at - 20)
    stopping = make(at - 45)
    stopping.published(at - 44)
    stopping.cancel(now, at - 43, 600.0)
    return [old, late, working, stopping, make(at - 10), published(make(at - 5))]


def published(execution):
    execution.published(execution.created_at + 1)
    return execution


@pytest.fixture
async def data_dir(tmp_path):
    """A data directory with something of everything in it."""
    directory = tmp_path / "data"
    journal = SqliteJournal(directory)
    await journal.start()
    now, at = time.monotonic(), time.time()
    for execution in executions(now, at):
        journal.record(execution)
    await journal.stop()
    registry = ThingRegistry(changed=lambda *what: store.changed(*what))  # noqa: PLW0108 there is none yet
    store = RegistryStore(directory, registry.record)
    registry.put_type(ThingType("light", "of all kinds", (ActionDescription("set"),)))
    registry.define("lamp", Definition("light", ("hall",), "a lamp"), 1.0)
    registry.set_password_hash("lamp", "$argon2id$…")
    registry.connected("lamp", "c1", 2.0)
    registry.announced("lamp", Announcement("1.0"), 3.0)
    await store.kept()
    store.close()
    TokenStore.open(directory)
    await RolloutFiles(directory).save(ROLLOUT)
    webhook_secret.read_or_make(directory)
    return directory


@contextmanager
def untouched(directory):
    """What is in a directory is what was in it."""

    def content():
        files = (
            path
            for path in directory.rglob("*")
            if path.is_file() and not path.name.endswith(("lock", "-shm"))
        )
        return {path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest()) for path in files}

    before = content()
    yield
    assert content() == before


def kept(directory):
    """The executions as a new broker would find them."""
    journal = SqliteJournal(directory)
    try:
        return list(journal.recover(time.monotonic(), time.time()))
    finally:
        journal.release()


async def test_everything_is_there_as_it_was(data_dir, postgres_url):
    told = []
    with untouched(data_dir):
        moved = await move(data_dir, StoreSettings(url=postgres_url), lambda *what: told.append(what))
    assert moved == [
        Moved("things", 4, 4),
        Moved("tokens", 1, 1),
        Moved("secrets", 1, 1),
        Moved("rollouts", 1, 1),
        Moved("executions", 6, 6),
    ]
    assert ("executions", 6) in told
    async with a_store(postgres_url) as store:
        before = kept(data_dir)
        after = await store.executions.many([execution.execution_id for execution in before])
        assert list(map(plain, after)) == list(map(plain, before))
        for one, other in zip(after, before, strict=True):
            assert one.deadline == pytest.approx(other.deadline, abs=1.0)
            if other.cancel_deadline is not None:
                assert one.cancel_deadline == pytest.approx(other.cancel_deadline, abs=1.0)
        assert await store.rollouts.get(ROLLOUT.command_id) == ROLLOUT
        shared = SharedTokens(store.documents)
        await shared.load()
        assert shared.verify((data_dir / "admin-token").read_text().strip()) is not None
        assert await store.documents.find("secret", "webhook") == webhook_secret.read(data_dir)
        registry = ThingRegistry()
        records = await store.documents.load(
            [Stored.TYPE, Stored.THING, Stored.PRESENCE, Stored.ANNOUNCEMENT]
        )
        registry.restore((Stored(kind), name, value) for kind, name, value in records)
        lamp = registry.get("lamp")
        assert lamp.definition == Definition("light", ("hall",), "a lamp")
        assert (lamp.password_hash, lamp.client_id, lamp.announcement) == (
            "$argon2id$…",
            "c1",
            Announcement("1.0"),
        )
        assert registry.types["light"].description == "of all kinds"


async def test_what_was_live_goes_on(data_dir, postgres_url):
    await move(data_dir, StoreSettings(url=postgres_url))
    async with a_store(postgres_url) as store:
        old, late, working, _, waiting, sent = kept(data_dir)
        executions = store.executions
        assert await executions.size() == (6, 4)
        assert await executions.things_to_retry(9) == ["lamp"]
        assert [one.execution_id for one in await executions.claim_waiting("lamp", 9)] == [
            waiting.execution_id
        ]
        assert [one.execution_id for one in await executions.claim_unhanded(3.0, 9)] == [sent.execution_id]
        assert [one.execution_id for one in await executions.claim_untold(9, 60.0)] == [late.execution_id]
        answer = await executions.respond("lamp", working.execution_id, say("SUCCEEDED"))
        assert answer.execution.status is Status.SUCCEEDED
        # A key finds its execution still.
        again = Execution(
            IdSource().make(int(time.time() * 1000), 0), "c", "lamp", "set", b"{}", 60, 0.0, 0.0,
            requested_by="ops", idempotency_key="k1", fingerprint="f1",
        )  # fmt: skip
        assert (await executions.add(again, queue_max=9)).execution_id == old.execution_id


async def test_moving_again_adds_what_is_missing_and_changes_nothing(data_dir, postgres_url):
    settings = StoreSettings(url=postgres_url)
    await move(data_dir, settings)
    async with a_store(postgres_url) as store:
        working = kept(data_dir)[2]
        await store.executions.respond("lamp", working.execution_id, say("SUCCEEDED"))
        await store.documents.put([("thing", "lamp", b'{"first_seen":9.0}'), ("presence", "lamp", None)])
        await store.rollouts.move(ROLLOUT.command_id, State.CANCELED)
        before = await store.executions.select(Query(), 100, None)
        moved = await move(data_dir, settings)
        assert [(one.kind, one.added) for one in moved] == [
            ("things", 1),
            ("tokens", 0),
            ("secrets", 0),
            ("rollouts", 0),
            ("executions", 0),
        ]
        after = await store.executions.select(Query(), 100, None)
        assert list(map(plain, after.executions)) == list(map(plain, before.executions))
        assert await store.documents.find("thing", "lamp") == b'{"first_seen":9.0}'
        assert (await store.rollouts.get(ROLLOUT.command_id)).state is State.CANCELED


async def test_no_broker_runs_meanwhile(data_dir, postgres_url):
    journal = SqliteJournal(data_dir)
    try:
        with pytest.raises(SourceError, match="another broker is using"):
            await move(data_dir, StoreSettings(url=postgres_url))
    finally:
        journal.release()
    registry = RegistryStore(data_dir, lambda *_: None)
    try:
        with pytest.raises(SourceError, match="another broker is using"):
            await move(data_dir, StoreSettings(url=postgres_url))
    finally:
        registry.close()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("executions.db", "damaged or no SQLite database"),
        ("registry.db", "damaged or no SQLite database"),
        ("tokens.json", "damaged"),
        (f"rollouts/{ROLLOUT.command_id}.json", "cannot be read"),
    ],
)
async def test_what_is_damaged_is_refused_and_nothing_is_moved(data_dir, postgres_url, name, fault):
    (data_dir / name).write_bytes(b"not what it was" * 100)
    with untouched(data_dir), pytest.raises(SourceError, match=fault):
        await move(data_dir, StoreSettings(url=postgres_url))
    async with a_store(postgres_url) as store:
        assert await store.executions.size() == (0, 0)
        assert await store.documents.load(["thing", "token", "secret"]) == []


async def test_a_directory_of_something_else(tmp_path, postgres_url):
    for directory, fault in ((tmp_path / "none", "there is no data directory"), (tmp_path, "nothing in it")):
        with pytest.raises(SourceError, match=fault):
            await move(directory, StoreSettings(url=postgres_url))
    assert list(tmp_path.iterdir()) == []


async def test_a_large_one_goes_in_batches(tmp_path, postgres_url):
    journal = SqliteJournal(tmp_path)
    await journal.start()
    ids, at = IdSource(), time.time()
    for i in range(2500):
        one = Execution(ids.make(int(at * 1000), i), "c", f"t{i}", "a", b"{}", 3600, at, 0.0)
        journal.record(one)
    await journal.stop()
    told = []
    moved = await move(tmp_path, StoreSettings(url=postgres_url), lambda *what: told.append(what))
    assert moved[-1] == Moved("executions", 2500, 2500)
    assert told == [("executions", 1000), ("executions", 2000), ("executions", 2500)]


async def test_a_cancel_that_was_wished_for_and_not_made_is_made(tmp_path):
    """A crash on a full disk may come between the record of the wish and the cancel."""
    journal = SqliteJournal(tmp_path)
    await journal.start()
    now, at = time.monotonic(), time.time()
    wished = Execution(
        IdSource().make(int(at * 1000), 7), "c", "lamp", "set", b"{}", 60, at, now + 60, cancel_wanted_at=at
    )
    journal.record(wished)
    await journal.stop()
    with ExitStack() as stack:
        (moved,) = _Source(tmp_path, stack).executions()
    assert (moved.status, moved.cancel_wanted_at) == (Status.CANCELED, None)
