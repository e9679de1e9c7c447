"""The fakes that ship do as the ports say."""

from __future__ import annotations

import pytest

from broker_support import make_execution, say
from thingctl_broker.cluster.store_port import CancelResult, StoreDown
from thingctl_broker.commands.execution import Cancel, Outcome
from thingctl_broker.errors import IdempotencyConflict, QueueFull
from thingctl_broker.rollouts.rollout import RolloutRecord, State
from thingctl_broker.testing import ManualClock
from thingctl_broker.testing.cluster_records import (
    InMemoryDocuments,
    InMemoryRollouts,
    InMemoryStore,
    InMemoryWorkers,
)
from thingctl_broker.testing.cluster_store import WAIT_FIRST
from thingctl_protocol.statuses import Delivery, Status


class Ear:
    def __init__(self):
        self.heard = []

    def changed(self, execution_ids, ended):
        self.heard.append((list(execution_ids), list(ended)))

    def document_changed(self, kind, name):
        self.heard.append((kind, name))

    def rollout_changed(self, command_id):
        self.heard.append(command_id)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def store(clock):
    store = InMemoryStore(clock)
    store.listening.append(Ear())
    return store


async def add(store, *, published=False, **fields):
    at = fields.pop("at", 0.0)
    fields |= {"published_at": at, "attempts": 1} if published else {}
    return await store.add(make_execution(thing="lamp", **fields), queue_max=3)


async def test_what_is_added_has_the_stores_time_and_is_told(store, clock):
    execution = await add(store, published=True, at=5.0)
    assert execution.created_at == execution.published_at == clock.unix()
    assert store.listening[0].heard == [([execution.execution_id], [])]
    assert await store.get(execution.execution_id) == execution
    assert await store.many(["none", execution.execution_id]) == [execution]
    assert await store.get("none") is None
    assert await store.size() == (1, 1)


async def test_what_it_gives_is_nobody_elses(store):
    execution = await add(store)
    execution.status = Status.FAILED
    assert (await store.get(execution.execution_id)).status is Status.SENT


async def test_a_key_stands_for_the_first(store):
    first = await add(store, idempotency_key="k", fingerprint="f", requested_by="me")
    again = await add(store, idempotency_key="k", fingerprint="f", requested_by="me")
    assert again.execution_id == first.execution_id
    await add(store, idempotency_key="k", fingerprint="f", requested_by="you")
    with pytest.raises(IdempotencyConflict):
        await add(store, idempotency_key="k", fingerprint="g", requested_by="me")


async def test_what_a_thing_is_to_stop(store, clock):
    one, other, _ = [await add(store, published=True) for _ in range(3)]
    await store.cancel(other.execution_id, 9.0)
    await store.cancel(one.execution_id, 5.0)
    assert await store.canceling(5.0, 9) == [("lamp", one.execution_id)]
    both = [("lamp", one.execution_id), ("lamp", other.execution_id)]
    assert await store.canceling(9.0, 9) == both
    clock.advance(9)
    await store.expire(9)
    assert await store.canceling(60.0, 9) == []


async def test_the_queue_of_a_thing_is_bounded(store):
    for _ in range(3):
        await add(store)
    with pytest.raises(QueueFull):
        await add(store)
    await add(store, published=True)


async def test_what_waits_is_claimed_once_oldest_first_and_not_when_overdue(store, clock):
    overdue = await add(store, ttl=1, deadline=clock.monotonic() + 1)
    waiting = [await add(store) for _ in range(2)]
    assert await store.things_to_retry(10) == []
    clock.advance(WAIT_FIRST)
    assert await store.things_to_retry(10) == ["lamp"]
    (claimed,) = await store.claim_waiting("lamp", 1)
    assert (claimed.execution_id, claimed.attempts) == (waiting[0].execution_id, 1)
    assert claimed.delivery is Delivery.PUBLISHED
    (claimed,) = await store.claim_waiting("lamp", 10)
    assert claimed.execution_id == waiting[1].execution_id
    assert await store.claim_waiting("lock", 10) == await store.claim_waiting("lamp", 10) == []
    (closed,) = await store.expire(10)
    assert (closed.execution_id, closed.retry_safe) == (overdue.execution_id, True)
    assert store.listening[0].heard[-1] == ([closed.execution_id], [closed.execution_id])


async def test_what_found_nobody_waits_and_is_safe_if_that_was_the_only_time(store, clock):
    execution = await add(store, published=True)
    found = await store.unclaimed(execution.execution_id, 5.0, execution.published_at)
    assert (found.delivery, found.retry_safe, found.attempts) == (Delivery.QUEUED, True, 0)
    assert await store.unclaimed(execution.execution_id, 5.0, execution.published_at) is None
    clock.advance(5.0)
    assert await store.things_to_retry(1) == ["lamp"]


async def test_a_publishing_is_taken_back_once_however_often_that_is_asked(store, clock):
    first = await add(store, published=True)
    await store.unclaimed(first.execution_id, 1.0, first.published_at)
    clock.advance(1.0)
    (anew,) = await store.claim_waiting("lamp", 1)
    assert await store.unclaimed(first.execution_id, 1.0, first.published_at) is None
    found = await store.get(first.execution_id)
    assert (found.published_at, found.retry_safe) == (anew.published_at, False)


async def test_what_was_published_before_waits_and_is_not_safe(store, clock):
    execution = await add(store, published=True)
    clock.advance(10)
    (again,) = await store.claim_unhanded(10, 10)
    assert again.attempts == 2
    assert await store.claim_unhanded(10, 10) == []
    found = await store.unclaimed(execution.execution_id, 1.0, execution.published_at)
    assert (found.retry_safe, found.attempts) == (False, 1)
    (claimed,) = await store.claim_waiting("lamp", 1)
    assert claimed.attempts == 2
    canceled = await store.cancel(execution.execution_id, 1.0)
    assert canceled.outcome is Cancel.REQUESTED
    pending = await store.unclaimed(execution.execution_id, 1.0, execution.published_at)
    assert (pending.status, pending.cancel_requested_at is None) == (Status.SENT, False)


@pytest.mark.parametrize("how", ["handed", "started", "ended"])
async def test_what_somebody_has_is_not_published_again(store, clock, how):
    execution = await add(store, published=True)
    match how:
        case "handed":
            await store.handed([execution.execution_id, "none"])
        case "started":
            await store.respond("lamp", execution.execution_id, say(Status.IN_PROGRESS))
        case _:
            await store.respond("lamp", execution.execution_id, say(Status.FAILED))
    clock.advance(20)
    assert await store.claim_unhanded(10, 10) == []
    assert await store.unclaimed(execution.execution_id, 1.0, execution.published_at) is None


async def test_responses(store):
    execution = await add(store, published=True)
    assert await store.respond("lamp", "none", say(Status.FAILED)) == (None, None, False)
    assert await store.respond("lock", execution.execution_id, say(Status.FAILED)) == (None, None, True)
    for status, outcome in (
        (Status.IN_PROGRESS, Outcome.APPLIED),
        (Status.FAILED, Outcome.APPLIED),
        (Status.FAILED, Outcome.REPEATED),
        (Status.SUCCEEDED, Outcome.CONFLICTING),
    ):
        found = await store.respond("lamp", execution.execution_id, say(status))
        assert found.outcome is outcome
    assert (await store.get(execution.execution_id)).conflicts == 1


async def test_cancels(store, clock):
    waits, left = await add(store), await add(store, published=True)
    assert await store.cancel("none", 1.0) is None
    assert isinstance(await store.cancel(waits.execution_id, 1.0), CancelResult)
    outcomes = [(await store.cancel(e.execution_id, 1.0)).outcome for e in (waits, left, left)]
    assert outcomes == [Cancel.ENDED, Cancel.REQUESTED, Cancel.PENDING]
    assert await store.seconds_to_next_deadline() == 1.0
    clock.advance(10)
    assert await store.claim_unhanded(1, 10) == [], "whose cancel is pending"
    (closed,) = await store.expire(10)
    assert closed.status is Status.CANCELED


async def test_an_end_is_owed_until_it_is_told_and_again_when_something_came_late(clock):
    store = InMemoryStore(clock)
    plain = await add(store, published=True)
    posts = await add(store, published=True, post_back_uri="https://a.example")
    clock.advance(30)
    await store.expire(10)
    (owed,) = await store.claim_untold(10, 60.0)
    assert owed.execution_id == posts.execution_id
    assert await store.claim_untold(10, 60.0) == []
    await store.respond("lamp", posts.execution_id, say(Status.SUCCEEDED))  # while it is being told
    await store.told([posts.execution_id])
    assert len(await store.claim_untold(10, 60.0)) == 1
    await store.told([posts.execution_id, plain.execution_id])
    clock.advance(60)
    assert await store.claim_untold(10, 60.0) == []
    everything = InMemoryStore(clock, tell_all=True)
    execution = await add(everything)
    await everything.cancel(execution.execution_id, 1.0)
    assert len(await everything.claim_untold(10, 60.0)) == 1


@pytest.mark.parametrize("fake", ["store", "documents", "rollouts", "workers"])
async def test_when_it_is_down_every_call_says_so(clock, fake):
    store = InMemoryStore(clock)
    shared = {
        "store": store,
        "documents": InMemoryDocuments(),
        "rollouts": InMemoryRollouts(clock, store),
        "workers": InMemoryWorkers(clock),
    }[fake]
    shared.down = True
    record = RolloutRecord("c", "x", "{}", None, 0.0, "", [], 0)
    execution = make_execution()
    calls = {
        "store": [
            store.add(execution, queue_max=1),
            store.get("x"),
            store.many([]),
            store.counts("c"),
            store.tallies("c"),
            store.things_of("c"),
            store.respond("t", "x", say(Status.FAILED)),
            store.cancel("x", 1.0),
            store.handed([]),
            store.unclaimed("x", 1.0, None),
            store.claim_waiting("t", 1),
            store.things_to_retry(1),
            store.claim_unhanded(1.0, 1),
            store.expire(1),
            store.seconds_to_next_deadline(),
            store.claim_untold(1, 1.0),
            store.told([]),
            store.minutes(),
            store.size(),
            store.tidy(1.0),
        ],
        "documents": [shared.load(()), shared.find("k", "n"), shared.put([])] if fake == "documents" else [],
        "rollouts": [
            shared.add(record),
            shared.get("c"),
            shared.move("c", State.PAUSED),
            shared.lease("w", 1.0, 1),
            shared.save("w", record),
        ]
        if fake == "rollouts"
        else [],
        "workers": [shared.alive("w", 1.0), shared.orphan("w"), shared.gone("w"), shared.count()]
        if fake == "workers"
        else [],
    }
    for name, attempts in calls.items():
        for attempt in attempts:
            if name == fake:
                with pytest.raises(StoreDown):
                    await attempt
            else:
                attempt.close()


async def test_an_answer_that_is_lost_is_of_something_done(store):
    store.loses_answer = True
    with pytest.raises(StoreDown) as caught:
        await add(store)
    assert caught.value.uncertain
    assert await store.size() == (1, 1)


async def test_documents():
    documents, ear = InMemoryDocuments(), Ear()
    documents.listening.append(ear)
    assert await documents.put([("b", "2", b"x"), ("b", "1", b"y"), ("a", "3", b"z")])
    assert ear.heard == [("b", "2"), ("b", "1"), ("a", "3")]
    assert await documents.load(("b", "a")) == [("b", "1", b"y"), ("b", "2", b"x"), ("a", "3", b"z")]
    assert (await documents.find("a", "3"), await documents.find("a", "1")) == (b"z", None)
    assert not await documents.put([("c", "1", b"n"), ("a", "3", b"n")], new=True)
    assert await documents.find("c", "1") is None
    assert not await documents.put([("a", "3", b"n")], instead_of=[b"other"])
    assert await documents.put([("a", "3", None), ("c", "1", b"n")], instead_of=[b"z", None])
    assert await documents.load(("a", "c")) == [("c", "1", b"n")]


async def test_rollouts(clock, store):
    rollouts, ear = InMemoryRollouts(clock, store), Ear()
    rollouts.listening.append(ear)
    record = RolloutRecord("c", "x", "{}", None, 0.0, "", ["lamp"], 1)
    await rollouts.add(record)
    assert await rollouts.get("c") == record
    assert await rollouts.lease("one", 10.0, 0) == []
    assert await rollouts.lease("one", 10.0, 5) == [record]
    assert await rollouts.lease("one", 10.0, 5) == await rollouts.lease("two", 10.0, 5) == []
    clock.advance(6)
    await rollouts.lease("one", 10.0, 0)  # longer
    clock.advance(6)
    assert await rollouts.lease("two", 10.0, 5) == []
    record.sent, record.state = 1, State.STOPPED
    assert await rollouts.save("two", record) is None
    assert await rollouts.save("one", record) is State.STOPPED
    clock.advance(10)
    assert await rollouts.save("one", record) is None
    assert await rollouts.lease("two", 10.0, 5) == []
    execution = await add(store, command_id="c", published=True)
    await store.respond("lamp", execution.execution_id, say(Status.FAILED))
    moved = await rollouts.move("c", State.RUNNING)
    assert (moved.state, moved.forgiven, moved.sent) == (State.RUNNING, 1, 1)
    assert (await rollouts.move("c", State.FINISHED)).state is State.FINISHED
    assert (await rollouts.move("c", State.PAUSED)).state is State.FINISHED
    assert await rollouts.move("none", State.PAUSED) is None
    await rollouts.move("c", State.CANCELED)
    assert await rollouts.lease("two", 10.0, 5) == [], "there is nothing to cancel"
    await add(store, command_id="c")
    assert len(await rollouts.lease("two", 10.0, 5)) == 1
    assert ear.heard == ["c"] * 5


async def test_workers(clock):
    workers = InMemoryWorkers(clock)
    await workers.alive("one", 5.0)
    await workers.alive("two", 10.0)
    assert await workers.count() == 2
    assert await workers.orphan("two") is None
    clock.advance(5)
    assert await workers.orphan("one") is None, "nobody adopts himself"
    assert await workers.orphan("two") == "one"
    assert await workers.orphan("three") is None
    assert await workers.count() == 1
    await workers.alive("one", 1.0)
    clock.advance(1)
    assert await workers.orphan("two") == "one", "it had come back meanwhile"
    await workers.gone("one")
    clock.advance(30)
    assert await workers.orphan("one") == "two"
