"""The table of executions, as the port has it: with a real PostgreSQL, and more than one worker."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from msgspec.json import encode

from broker.storage.postgres.stores import Heard, a_store, copy_of, frozen, new, plain
from broker_support import AT, make_execution, say
from support.waits import eventually
from thingctl_broker.commands.execution import Cancel, Outcome
from thingctl_broker.commands.outcomes import RESULT_BYTES, combine, tally
from thingctl_broker.commands.statistics import HourlyStatistics
from thingctl_broker.commands.table import ExecutionTable, Query
from thingctl_broker.errors import IdempotencyConflict, QueueFull
from thingctl_broker.storage.postgres import executions as store_module
from thingctl_broker.storage.postgres.transition_sql import NOTIFY_MAX, WAIT_FIRST
from thingctl_protocol.messages import StatusReason
from thingctl_protocol.statuses import Status

MANY = 1000


@pytest.fixture
async def store(postgres_url):
    async with a_store(postgres_url) as store:
        yield store.executions


async def add_all(store, executions, queue_max=MANY):
    return await asyncio.gather(*(store.add(one, queue_max=queue_max) for one in executions))


def published(**fields):
    return new(published_at=1.0, **fields)


def ids(executions):
    return [execution.execution_id for execution in executions]


async def test_what_is_added_is_there_as_it_was(store):
    params = b'{ "text": "\\u0000 \xe2\x98\x83",  "n": 1.0 }'
    given = published(
        params=params,
        requested_by="ops",
        idempotency_key="k",
        fingerprint="f" * 32,
        post_back_uri="https://example.com/x",
    )
    before = time.time()
    added = await store.add(given, queue_max=1)
    found = await store.get(given.execution_id)
    assert plain(found) == plain(added)
    assert found.params == params
    assert (found.status, found.attempts, found.published_at) == (Status.SENT, 1, found.created_at)
    assert before <= found.created_at <= time.time()
    assert found.deadline == pytest.approx(time.monotonic() + 30, abs=1.0)
    assert plain(found) | {"created_at": 0, "published_at": 0, "attempts": 0} == plain(given) | {
        "created_at": 0,
        "published_at": 0,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lamp",
        "x" * 200,
        "\0",
        "0193448F-5D1C-7000-9B3C-0A1B2C3D4E5F",
        "{0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f}",
    ],
)
async def test_what_is_no_id_is_simply_not_there(store, text):
    assert await store.get(text) is None
    assert await store.many([text]) == []
    assert await store.cancel(text, 1.0) is None
    assert await store.unclaimed(text, 1.0, None) is None
    assert await store.respond("lamp", text, say("SUCCEEDED")) == (None, None, False)
    assert await store.select(Query(), 10, text) == ([], None)
    await store.handed([text])
    await store.told([text])


async def test_what_cannot_be_kept_is_refused_alone(store):
    with pytest.raises(ValueError, match="UUIDv7"):
        await store.add(make_execution(execution_id="lamp"), queue_max=1)
    with pytest.raises(ValueError, match="UUIDv7"):
        await store.add(make_execution(execution_id="ffffffff-5d1c-7000-9b3c-0a1b2c3d4e5f"), queue_max=1)
    with pytest.raises(ValueError, match="NUL"):
        await store.add(new(params=b'"\0"'), queue_max=1)
    # Even what only the database can tell harms nobody who goes with it.
    answers = await asyncio.gather(
        store.add(new(ttl=2**40), queue_max=MANY),
        store.add(new(), queue_max=MANY),
        store.add(new(action="a\0b"), queue_max=MANY),
        return_exceptions=True,
    )
    assert [isinstance(answer, Exception) for answer in answers] == [True, False, True]


async def test_adding_again_changes_nothing(store):
    given = published()
    added = await store.add(given, queue_max=1)
    await store.respond(given.thing, given.execution_id, say("SUCCEEDED"))
    again = await store.add(given, queue_max=1)
    assert again.status is Status.SUCCEEDED
    assert again.created_at == added.created_at


async def test_a_key_finds_the_execution_of_the_first_time(store, postgres_url):
    first = new(requested_by="ops", idempotency_key="k", fingerprint="f")
    async with a_store(postgres_url) as other:
        calls = [
            one.add(copy_of(execution), queue_max=MANY)
            for one in (store, other.executions)
            for execution in (
                first,
                *(new(requested_by="ops", idempotency_key="k", fingerprint="f") for _ in range(5)),
            )
        ]
        found = await asyncio.gather(*calls)
    assert len(set(ids(found))) == 1
    with pytest.raises(IdempotencyConflict):
        await store.add(new(requested_by="ops", idempotency_key="k", fingerprint="g"), queue_max=MANY)
    elsewhere = await store.add(new(requested_by="dev", idempotency_key="k", fingerprint="g"), queue_max=MANY)
    assert elsewhere.execution_id not in ids(found)
    assert await store.size() == (2, 2)


async def test_a_key_finds_its_execution_though_the_queue_is_full(store):
    first = await store.add(new(requested_by="ops", idempotency_key="k", fingerprint="f"), queue_max=1)
    again = await store.add(new(requested_by="ops", idempotency_key="k", fingerprint="f"), queue_max=1)
    assert again.execution_id == first.execution_id
    with pytest.raises(QueueFull):
        await store.add(new(requested_by="ops", idempotency_key="l", fingerprint="f"), queue_max=1)
    # A key that was refused is not used up.
    await store.add(new(requested_by="ops", idempotency_key="l", fingerprint="g"), queue_max=2)


async def test_a_queue_has_its_bound(store):
    answers = await asyncio.gather(
        *(store.add(new(), queue_max=3) for _ in range(5)),
        store.add(published(), queue_max=3),
        store.add(new(thing="other"), queue_max=3),
        return_exceptions=True,
    )
    assert Counter(type(answer).__name__ for answer in answers) == {"QueueFull": 2, "Execution": 5}
    with pytest.raises(QueueFull, match="3 requests wait"):
        await store.add(new(), queue_max=3)
    (gone,) = await store.claim_waiting("thermostat-001", 1)
    assert gone.attempts == 1
    await store.add(new(), queue_max=3)


async def test_responses_of_one_execution_keep_their_order(store):
    execution = await store.add(published(), queue_max=1)
    said = [*(say("IN_PROGRESS", result=None) for _ in range(5)), say("SUCCEEDED"), say("FAILED")]
    answers = await asyncio.gather(
        *(store.respond(execution.thing, execution.execution_id, one) for one in said)
    )
    assert [answer.outcome for answer in answers] == [Outcome.APPLIED] * 6 + [Outcome.CONFLICTING]


async def test_a_response_from_another_thing(store):
    execution = await store.add(published(), queue_max=1)
    answer = await store.respond("other", execution.execution_id, say("SUCCEEDED"))
    assert answer == (None, None, True)
    assert (await store.get(execution.execution_id)).status is Status.SENT


async def test_what_waits_is_claimed_once_and_in_order(store, postgres_url):
    waiting = await add_all(store, [new() for _ in range(20)])
    async with a_store(postgres_url) as other:
        claims = await asyncio.gather(
            *(one.claim_waiting("thermostat-001", 3) for one in (store, other.executions) for _ in range(5))
        )
        claims += [await store.claim_waiting("thermostat-001", 20)]
    claimed = [execution for claim in claims for execution in claim]
    assert sorted(ids(claimed)) == ids(waiting)
    assert all(ids(claim) == sorted(ids(claim)) for claim in claims)
    assert {(one.attempts, one.published_at is not None) for one in claimed} == {(1, True)}


async def test_many_who_read_the_same_one_cost_no_more_than_one(store):
    one = await store.add(new(), queue_max=9)
    before = store.batches.getting.batches
    found = await asyncio.gather(*(store.get(one.execution_id) for _ in range(500)))
    assert ids(found) == [one.execution_id] * 500
    assert store.batches.getting.batches <= before + 2


async def test_who_is_tried_again_when(postgres_url):
    async with frozen(postgres_url, AT) as db:
        store = db.store.executions
        await store.add(new(thing="a"), queue_max=9)
        one = await store.add(published(thing="b"), queue_max=9)
        await store.unclaimed(one.execution_id, 3.0, one.published_at)
        assert await store.things_to_retry(9) == []
        await db.set(AT + WAIT_FIRST)
        assert await store.things_to_retry(9) == ["a"]
        await db.set(AT + 3)
        assert await store.things_to_retry(9) == ["a", "b"]
        assert await store.things_to_retry(1) == ["a"]
        (again,) = await store.claim_waiting("b", 9)
        assert (again.attempts, again.published_at) == (1, AT + 3)
        await store.cancel((await store.claim_waiting("a", 9))[0].execution_id, 5.0)
        assert await store.things_to_retry(9) == []
        # What has expired never leaves.
        await store.add(new(thing="c", ttl=20), queue_max=9)
        await db.set(AT + 3 + 20)
        assert await store.claim_waiting("c", 9) == []


async def test_a_publishing_is_taken_back_once_however_often_that_is_asked(postgres_url):
    """An answer that got lost is asked for again, and meanwhile the thing may have come."""
    async with frozen(postgres_url, AT) as db:
        store = db.store.executions
        first = await store.add(published(), queue_max=9)
        await store.unclaimed(first.execution_id, 1.0, first.published_at)
        await db.set(AT + 1)
        (anew,) = await store.claim_waiting(first.thing, 9)
        assert await store.unclaimed(first.execution_id, 1.0, first.published_at) is None
        found = await store.get(first.execution_id)
        assert (found.published_at, found.retry_safe) == (anew.published_at, False)
        assert (await store.cancel(first.execution_id, 5.0)).outcome is Cancel.REQUESTED


async def test_what_nobody_has_taken_is_published_once_more(postgres_url):
    async with frozen(postgres_url, AT) as db:
        store = db.store.executions
        lost, taken, answered, canceled = await add_all(store, [published() for _ in range(4)])
        await store.handed([taken.execution_id])
        await store.respond(answered.thing, answered.execution_id, say("IN_PROGRESS"))
        await store.cancel(canceled.execution_id, 60.0)
        assert await store.claim_unhanded(5.0, 9) == []
        await db.set(AT + 5)
        claims = await asyncio.gather(store.claim_unhanded(5.0, 9), store.claim_unhanded(5.0, 9))
        (again,) = [execution for claim in claims for execution in claim]
        assert (again.execution_id, again.attempts, again.published_at) == (lost.execution_id, 2, AT)
        assert await store.claim_unhanded(5.0, 9) == []
        # It went nowhere this time, but the first time it may have left.
        waits = await store.unclaimed(lost.execution_id, 1.0, lost.published_at)
        assert (waits.attempts, waits.published_at, waits.retry_safe) == (1, AT, False)
        assert (await store.cancel(lost.execution_id, 5.0)).outcome is Cancel.REQUESTED
        assert await store.claim_waiting(lost.thing, 9) == []


async def test_what_things_are_to_stop_can_be_told_again(postgres_url):
    async with frozen(postgres_url, AT) as db:
        store = db.store.executions
        far, near, ended, none = await add_all(store, [published(thing=f"t{i}", ttl=600) for i in range(4)])
        waiting = await store.add(new(), queue_max=9)
        await store.cancel(far.execution_id, 60.0)
        for one in (near, ended, waiting):
            await store.cancel(one.execution_id, 5.0)
        await store.respond(ended.thing, ended.execution_id, say("CANCELED"))
        assert await store.canceling(4.0, 9) == []
        assert await store.canceling(5.0, 9) == [("t1", near.execution_id)]
        assert await store.canceling(60.0, 9) == [("t1", near.execution_id), ("t0", far.execution_id)]
        assert await store.canceling(60.0, 1) == [("t1", near.execution_id)]
        await store.respond(near.thing, near.execution_id, say("IN_PROGRESS"))
        assert len(await store.canceling(60.0, 9)) == 2
        assert (await store.get(none.execution_id)).cancel_requested_at is None


async def test_deadlines_come_in_their_order_and_to_one_worker_only(postgres_url):
    async with frozen(postgres_url, AT) as db:
        store = db.store.executions
        assert await store.seconds_to_next_deadline() is None
        executions = await add_all(store, [published(ttl=10 + i) for i in range(30)])
        assert await store.seconds_to_next_deadline() == 10.0
        await db.set(AT + 10 + 19)
        assert await store.seconds_to_next_deadline() == 0.0
        closed = [
            one for claim in await asyncio.gather(*(store.expire(6) for _ in range(6))) for one in claim
        ]
        closed += await store.expire(100)
        assert sorted(ids(closed)) == ids(executions[:20])
        assert await store.size() == (30, 10)


async def test_ends_are_told_once_until_a_lease_is_over(postgres_url):
    async with frozen(postgres_url, AT) as db:
        store = db.store.executions
        silent, asks = await add_all(store, [published(), published(post_back_uri="https://example.com/")])
        for one in (silent, asks):
            await store.respond(one.thing, one.execution_id, say("SUCCEEDED"))
        assert ids(await store.claim_untold(9, 60.0)) == [asks.execution_id]
        assert await store.claim_untold(9, 60.0) == []
        await db.set(AT + 60)
        (again,) = await store.claim_untold(9, 60.0)
        assert again.untold
        await store.told([again.execution_id, silent.execution_id])
        await db.set(AT + 200)
        assert await store.claim_untold(9, 60.0) == []
        assert not (await store.get(asks.execution_id)).untold


async def test_what_comes_late_is_told_too_whatever_is_being_told(postgres_url):
    async with frozen(postgres_url, AT, tell_all=True) as db:
        store = db.store.executions
        one = await store.add(published(ttl=5), queue_max=1)
        await db.set(AT + 5)
        await store.expire(9)
        assert ids(await store.claim_untold(9, 60.0)) == [one.execution_id]
        await store.respond(one.thing, one.execution_id, say("SUCCEEDED"))  # while it is being told
        await store.told([one.execution_id])
        assert ids(await store.claim_untold(9, 60.0)) == [one.execution_id]
        await store.told([one.execution_id])
        assert await store.claim_untold(9, 60.0) == []


async def test_a_notification_holds_what_is_put_into_it():
    """PostgreSQL takes less than 8,000 bytes."""
    assert len("x") + NOTIFY_MAX * len(f"!{new().execution_id},") < 8000


async def test_everybody_hears_of_every_change(postgres_url):
    here, there = Heard(), Heard()
    async with a_store(postgres_url, here) as one, a_store(postgres_url, there):
        count = 2 * NOTIFY_MAX + 50
        executions = await add_all(one.executions, [published() for _ in range(count)])
        await eventually(lambda: len(here.executions) == len(there.executions) == count)
        assert set(there.executions) == set(ids(executions))
        assert there.ended == []
        for heard in (here, there):
            heard.executions.clear()
        await asyncio.gather(
            *(
                one.executions.respond(
                    execution.thing, execution.execution_id, say("SUCCEEDED" if i % 2 else "IN_PROGRESS")
                )
                for i, execution in enumerate(executions)
            )
        )
        await eventually(lambda: len(here.executions) == len(there.executions) == count)
        assert set(there.ended) == set(ids(executions[1::2]))
        assert here.missing == there.missing == 0


# Lists.


def table_of(executions):
    table = ExecutionTable()
    for execution in sorted(executions, key=lambda one: one.execution_id):
        table.restore(execution)
    return table


QUERIES = [
    Query(),
    Query(thing="a"),
    Query(command_id="c1"),
    Query(command_id="c1", thing="a"),
    Query(action="two"),
    Query(statuses=frozenset({Status.FAILED, Status.SENT})),
    Query(things=frozenset({"a", "c"})),
    Query(visible=lambda execution: execution.thing != "b"),
    Query(thing="nobody"),
    Query(since=AT + 10, until=AT + 40),
    Query(reason_code="VALVE"),
    Query(thing="b", statuses=frozenset({Status.SUCCEEDED}), visible=lambda execution: execution.ttl > 33),
]


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("number", range(len(QUERIES)))
async def test_lists_are_those_of_the_table(postgres_url, number, oldest_first):
    query = QUERIES[number]._replace(oldest_first=oldest_first)
    async with frozen(postgres_url, AT + 100) as db:
        executions = [
            make_execution(
                thing="abc"[i % 3],
                command_id=f"c{i % 4}",
                action=("one", "two")[i % 5 == 0],
                created_at=AT + i,
                ttl=30 + i % 7,
                reason=(None, StatusReason("VALVE"), StatusReason("DISK"))[i % 3],
                status=list(Status)[i % 7],
            )
            for i in range(60)
        ]
        await db.put(*executions)
        table = table_of(executions)
        cursor, theirs = None, None
        for _ in range(20):
            page = await db.store.executions.select(query, 7, cursor)
            expected = table.select(query, 7, theirs)
            assert ids(page.executions) == ids(expected.executions)
            assert (page.cursor is None) == (expected.cursor is None)
            cursor, theirs = page.cursor, expected.cursor
            if cursor is None:
                break
        assert cursor is None


async def test_a_rare_filter_takes_several_pages(postgres_url, monkeypatch):
    from thingctl_broker.storage.postgres import listing

    monkeypatch.setattr(listing, "SCAN_MAX", 10)
    async with frozen(postgres_url, AT + 100) as db:
        executions = [make_execution(thing="ab"[i == 3]) for i in range(35)]
        await db.put(*executions)
        for query in (Query(statuses={Status.FAILED}), Query(visible=lambda one: one.thing == "b")):
            cursor, pages, found = None, 0, []
            while True:
                page = await db.store.executions.select(query, 5, cursor)
                pages += 1
                found += ids(page.executions)
                if (cursor := page.cursor) is None:
                    break
            assert pages == 4
            assert found == ([] if query.statuses else ids(executions[3:4]))


async def test_counts_and_things_of_a_command(store):
    executions = await add_all(store, [published(thing=f"t{i}", command_id="c") for i in range(4)])
    await store.respond("t0", executions[0].execution_id, say("FAILED"))
    assert await store.counts("c") == {Status.SENT: 3, Status.FAILED: 1}
    assert await store.things_of("c") == {"t0", "t1", "t2", "t3"}
    assert await store.counts("nothing") == {}


async def test_equal_executions_of_a_command_are_tallied(store):
    """As one by one in this process, whatever a device says."""
    executions = await add_all(store, [published(thing=f"t{i}", command_id="c") for i in range(9)])
    answers = [
        say("SUCCEEDED", result=b"1"),
        say("SUCCEEDED", result=b"1"),
        say("SUCCEEDED", result=b'"%s"' % (b"x" * RESULT_BYTES)),
        say("SUCCEEDED", result='"{}"'.format("ä" * (RESULT_BYTES // 2 - 1)).encode()),
        say("FAILED", reason=StatusReason("VALVE", "one")),
        say("FAILED", reason=StatusReason("VALVE", "another")),
        say("FAILED", reason=StatusReason("\0")),
    ]
    for execution, answer in zip(executions, answers, strict=False):
        await store.respond(execution.thing, execution.execution_id, answer)
    as_they_are = await store.many([execution.execution_id for execution in executions])
    outcomes = combine(await store.tallies("c"))
    assert encode(outcomes) == encode(combine(map(tally, as_they_are)))
    assert [(one.status.value, one.count, one.reason_code) for one in outcomes[:3]] == [
        ("FAILED", 2, "VALVE"),
        ("SENT", 2, ""),
        ("SUCCEEDED", 2, ""),
    ]
    assert await store.tallies("nothing") == []


async def test_many_come_in_the_order_asked(store):
    executions = await add_all(store, [published(thing=f"t{i}", command_id="c") for i in range(4)])
    assert ids(await store.many([executions[2].execution_id, "x", executions[0].execution_id])) == [
        executions[2].execution_id,
        executions[0].execution_id,
    ]


async def test_the_last_hour_is_counted_as_the_overview_counts_it(postgres_url):
    at = 60_000.0 * 500 + 30
    async with frozen(postgres_url, at) as db:
        executions = []
        for i in range(300):
            one = make_execution(created_at=at - 70 * 60 + 17 * i, ttl=7200)
            one.published(one.created_at)
            if i % 3:
                one.respond(
                    say(("SUCCEEDED", "FAILED", "CANCELED")[i % 7 % 3]),
                    one.created_at + 1.1 ** (i % 90) / 1e4,
                )
            executions.append(one)
        await db.put(*executions)
        overview = HourlyStatistics()
        overview.seed(executions, at)
        for _ in range(2):  # the second time from what was remembered
            found = await db.store.executions.minutes()
            assert [shown(minute) for minute in found] == [shown(minute) for minute in overview.minutes(at)]


def shown(minute):
    return minute.number, minute.created, minute.ended, minute.latency


async def test_sizes_come_from_statistics_once_there_are_many(store, monkeypatch, postgres, postgres_url):
    await add_all(store, [published() for _ in range(50)])
    assert await store.size() == (50, 50)
    monkeypatch.setattr(store_module, "_EXACT_BELOW", 10)
    postgres.psql("ANALYZE", postgres_url.rsplit("/", 1)[1])
    assert await store.size() == (50, 50)
