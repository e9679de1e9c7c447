"""Rollouts: as they were, moved by the one table, driven by one worker at a time."""

from __future__ import annotations

import asyncio
from itertools import product

import msgspec
import pytest

from broker.storage.postgres.stores import Heard, a_store, frozen, new
from broker_support import AT, make_execution
from support.waits import eventually
from thingctl_broker.rollouts.rollout import MOVES, RolloutRecord, RolloutRules, State
from thingctl_protocol.statuses import Status


def make(command_id="command", **fields):
    defaults = {
        "action": "reboot",
        "params": '{"a": "\\u0000"}',
        "ttl": 60,
        "created_at": AT,
        "requested_by": "ops",
        "things": ["a", "b", "c"],
        "targeted": 3,
        "rules": RolloutRules(rate=0.5, batch=2, max_failures=3),
        "post_back_uri": "https://example.com/",
    }
    return RolloutRecord(command_id, **(defaults | fields))


async def test_a_record_is_there_as_it_was(postgres_url):
    async with a_store(postgres_url) as store:
        record = make(refused=2, refusals={"x": "it's \0 off"}, sent=1, forgiven=4, ttl=None)
        await store.rollouts.add(record)
        await store.rollouts.add(make(things=[]))  # the same once more changes nothing
        assert await store.rollouts.get("command") == record
        assert await store.rollouts.get("other") is None
        assert await store.rollouts.move("other", State.PAUSED) is None


@pytest.mark.parametrize(("before", "to"), list(product(State, State)))
async def test_it_moves_as_the_one_table_says(postgres_url, before, to):
    async with a_store(postgres_url) as store:
        await store.rollouts.add(make(state=before))
        moved = await store.rollouts.move("command", to)
        assert moved.state is (to if to in MOVES[before] else before)
        assert await store.rollouts.get("command") == moved


async def test_what_has_failed_is_forgiven_when_it_goes_on(postgres_url):
    async with frozen(postgres_url, AT) as db:
        await db.store.rollouts.add(make(state=State.STOPPED, forgiven=1))
        await db.put(
            *(make_execution(status=status) for status in (Status.FAILED, Status.TIMED_OUT, Status.SUCCEEDED))
        )
        assert (await db.store.rollouts.move("command", State.RUNNING)).forgiven == 2
        # Whoever drives it may not have heard of that yet.
        (record,) = await db.store.rollouts.lease("w", 60.0, 9)
        await db.store.rollouts.save("w", msgspec.structs.replace(record, forgiven=1))
        assert (await db.store.rollouts.get("command")).forgiven == 2


async def test_one_worker_at_a_time(postgres_url):
    async with frozen(postgres_url, AT) as db, a_store(postgres_url) as other:
        one, two = db.store.rollouts, other.rollouts
        for name in ("r1", "r2", "r3"):
            await one.add(make(name))
        await one.add(make("paused", state=State.PAUSED))
        leased = await asyncio.gather(one.lease("w1", 10.0, 2), two.lease("w2", 10.0, 2))
        assert sorted(record.command_id for records in leased for record in records) == ["r1", "r2", "r3"]
        assert leased[0] + leased[1] != []
        mine, theirs = ([record.command_id for record in records] for records in leased)
        await db.set(AT + 9)
        assert await one.lease("w1", 10.0, 9) == []  # made longer, and not returned again
        await db.set(AT + 11)
        assert sorted(record.command_id for record in await one.lease("w1", 10.0, 9)) == sorted(theirs)
        for command_id in theirs:
            assert await two.save("w2", make(command_id, sent=3)) is None  # w2 has lost them
        for command_id in mine + theirs:
            assert await one.save("w1", make(command_id, sent=1)) is State.RUNNING
            assert (await one.get(command_id)).sent == 1


async def test_saving_keeps_how_far_it_is_and_leaves_moves_to_operators(postgres_url):
    async with a_store(postgres_url) as store:
        rollouts = store.rollouts
        await rollouts.add(make())
        (record,) = await rollouts.lease("w", 60.0, 9)
        await rollouts.move("command", State.PAUSED)
        record.sent, record.refused, record.refusals, record.forgiven = 2, 1, {"a": "off"}, 0
        assert await rollouts.save("w", record) is State.PAUSED
        record.state = State.PAUSED
        assert await rollouts.get("command") == record
        # What it put back is in another order now, and has to be remembered so.
        record.things, record.sent = ["b", "c", "a"], 1
        await rollouts.save("w", record)
        assert (await rollouts.get("command")).things == ["b", "c", "a"]
        await rollouts.move("command", State.RUNNING)
        record.state = State.CANCELED  # not a driver's to say
        assert await rollouts.save("w", record) is State.RUNNING
        record.state, record.things, record.sent = State.FINISHED, [], 0
        assert await rollouts.save("w", record) is State.FINISHED
        assert (await rollouts.get("command")).things == []
        assert await rollouts.save("somebody else", record) is None


async def test_a_canceled_one_has_something_to_do_while_its_executions_live(postgres_url):
    async with a_store(postgres_url) as store:
        await store.rollouts.add(make("c1"))
        await store.rollouts.move("c1", State.CANCELED)
        assert await store.rollouts.lease("w", 60.0, 9) == []
        await store.rollouts.add(make("c2"))
        live = await store.executions.add(new(command_id="c2", published_at=1.0), queue_max=9)
        await store.rollouts.move("c2", State.CANCELED)
        assert [record.command_id for record in await store.rollouts.lease("w", 60.0, 9)] == ["c2"]
        await store.executions.cancel(live.execution_id, 5.0)
        assert await store.rollouts.lease("v", 60.0, 9) == []


async def test_everybody_hears_of_moves_and_nobody_of_progress(postgres_url):
    heard = Heard()
    async with a_store(postgres_url, heard), a_store(postgres_url) as other:
        await other.rollouts.add(make("c"))
        (record,) = await other.rollouts.lease("w", 60.0, 9)
        await other.rollouts.save("w", msgspec.structs.replace(record, sent=1))
        await other.rollouts.move("c", State.PAUSED)
        await other.rollouts.move("c", State.FINISHED)  # no such move
        await other.rollouts.add(make("d"))
        await eventually(lambda: heard.rollouts == ["c", "c", "d"])


async def test_a_key_stands_for_the_first_that_its_caller_began(postgres_url):
    async with a_store(postgres_url) as store:
        first = make("c1", idempotency_key="key", fingerprint="f1")
        await store.rollouts.add(first)
        await store.rollouts.add(make("c2", idempotency_key="key", fingerprint="f2"))
        await store.rollouts.add(make("c3", idempotency_key="key", requested_by="other"))
        assert await store.rollouts.with_key("ops", "key") == first
        assert await store.rollouts.get("c2") is None
        assert await store.rollouts.with_key("ops", "") is None
        assert (await store.rollouts.with_key("other", "key")).command_id == "c3"


async def test_they_are_listed_newest_first(postgres_url):
    async with a_store(postgres_url) as store:
        for command_id, state in (("c1", State.FINISHED), ("c2", State.RUNNING), ("c3", State.PAUSED)):
            await store.rollouts.add(make(command_id, state=state, sent=1))
        newest = await store.rollouts.newest(2, None, None, None)
        assert [(one.record.command_id, one.pending) for one in newest] == [("c3", 2), ("c2", 2)]
        assert newest[0].record.things == []
        assert [one.record.command_id for one in await store.rollouts.newest(9, "c3", None, "ops")] == [
            "c2",
            "c1",
        ]
        (only,) = await store.rollouts.newest(9, None, frozenset({State.FINISHED}), None)
        assert only.record.command_id == "c1"
        assert await store.rollouts.newest(9, None, None, "other") == []
