"""What operators do, at whichever worker."""

from __future__ import annotations

import asyncio

import pytest

from support.fleet import Fleet, settled
from thingctl_broker.cluster import operations as module
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.commands.outcomes import count_statuses
from thingctl_broker.commands.table import Query
from thingctl_broker.errors import (
    AlreadyEnded,
    IdempotencyConflict,
    InvalidCommand,
    NotAccepting,
    QueueFull,
    ThingDisabled,
    UnknownExecution,
    UnknownThing,
)
from thingctl_broker.things.thing import Definition
from thingctl_protocol.statuses import Delivery, Status

DONE = b'{"status":"SUCCEEDED"}'


def nothing(_execution):
    return None


def itself(execution):
    return execution


async def cancel(member, execution):
    return await member.operations.cancel(execution.execution_id, nothing, itself)


async def test_a_command_to_a_thing_that_is_there(fleet, one, two):
    fleet.come("lamp", b'{"status":"IN_PROGRESS"}', DONE)
    execution = await one.send(requested_by="me", params=b'{"a":1}')
    assert (execution.status, execution.delivery) == (Status.SENT, Delivery.PUBLISHED)
    await settled()
    found = await two.read(execution.execution_id)
    assert (found.status, found.requested_by, found.params) == (Status.SUCCEEDED, "me", b'{"a":1}')
    assert [change for _, change in one.told] == ["created", "published", "progressed", "ended"]
    assert one.operations.counters["executions.created"] == 1
    assert one.operations.counters["executions.SUCCEEDED"] == 1


@pytest.mark.parametrize("ends", [0, 1])
@pytest.mark.parametrize("waits", [0, 1])
async def test_who_waits_wakes_at_whichever_worker(fleet, ends, waits):
    fleet.come("lamp")
    execution = await fleet.members[0].send()
    waiting = asyncio.create_task(fleet.members[waits].operations.wait(execution.execution_id, 30.0))
    await settled()
    assert not waiting.done()
    fleet.members[ends].link.respond("lamp", execution.execution_id, DONE)
    await settled()
    assert waiting.done()
    assert fleet.members[waits].operations._waiters._waiters == {}


async def test_who_waits_for_what_has_ended_or_never_was_does_not(fleet, one):
    execution = await one.send()
    await cancel(one, execution)
    async with asyncio.timeout(1):
        await one.operations.wait(execution.execution_id, 30.0)
        await one.operations.wait("none", 30.0)
        one.operations.stop()
        await one.operations.wait((await one.send()).execution_id, 30.0)


async def test_who_waits_looks_now_and_then_in_case_nobody_told(fleet, one, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    execution = await one.send()
    waiting = asyncio.create_task(one.operations.wait(execution.execution_id, 30.0))
    await settled()
    fleet.store.listening.clear()
    await fleet.store.cancel(execution.execution_id, 1.0)
    async with asyncio.timeout(5):
        await waiting


async def test_who_waits_looks_when_something_was_missed(fleet, one):
    execution = await one.send()
    waiting = asyncio.create_task(one.operations.wait(execution.execution_id, 30.0))
    await settled()
    listening, fleet.store.listening = fleet.store.listening, []
    await fleet.store.cancel(execution.execution_id, 1.0)
    fleet.store.listening = listening
    await settled()
    assert not waiting.done()
    one.missed()
    await settled()
    assert waiting.done()


async def test_every_worker_hears_of_every_change(fleet, one, two):
    heard = {"one": [], "two": []}
    end = [m.operations.watch(heard[m.name].append) for m in fleet.members]
    fleet.come("lamp", DONE)
    execution = await one.send()
    await settled()
    assert heard["one"] == heard["two"]
    assert set(heard["one"]) == {execution.execution_id}
    for leave in end:
        leave()
    await one.send()
    assert len(heard["one"]) == 2


async def test_the_same_key_is_the_same_command_at_whichever_worker(fleet, one, two):
    fleet.come("lamp")
    first = await one.send(idempotency_key="k", requested_by="me")
    again = await two.send(idempotency_key="k", requested_by="me")
    await settled()
    assert again.execution_id == first.execution_id
    assert len(fleet.got) == 1
    assert (await two.send(idempotency_key="k", requested_by="you")).execution_id != first.execution_id
    with pytest.raises(IdempotencyConflict):
        await two.send(idempotency_key="k", requested_by="me", action="turnOff")


async def test_what_is_not_accepted(fleet, one):
    one.operations._queue_max = 1
    for fields, error in (
        ({"thing": "ghost"}, UnknownThing),
        ({"thing": "no/name"}, InvalidCommand),
        ({"action": ""}, InvalidCommand),
        ({"ttl": 0}, InvalidCommand),
        ({"params": b"[]"}, InvalidCommand),
    ):
        with pytest.raises(error):
            await one.send(**fields)
    one.mirror.things.define("lock", Definition(enabled=False), 0.0)
    with pytest.raises(ThingDisabled):
        await one.send("lock")
    await one.send()
    await settled()
    with pytest.raises(QueueFull):
        await one.send()
    assert (await one.operations.size()) == (1, 1)


async def test_a_thing_that_another_worker_has_just_added_is_known(fleet, one, two):
    fleet.documents.listening.clear()
    one.mirror.things.define("new", Definition(tags=("a",)), 0.0)
    await one.mirror.kept()
    assert await two.operations.validate("new", "x", b"{}", None) == ()
    assert (await two.operations.thing("new")).definition.tags == ("a",)
    assert (await two.send("new")).thing == "new"
    assert await two.operations.thing("ghost") is None


async def test_while_the_store_is_away_nobody_is_told_anything(fleet, one):
    execution = await one.send()
    await settled()
    fleet.down()
    for attempt in (
        one.send(),
        one.send("ghost"),
        one.read(execution.execution_id),
        one.operations.wait(execution.execution_id, 5),
        one.operations.list(Query(), 10, None, itself),
        one.operations.read_many(["x"], itself),
        cancel(one, execution),
        one.operations.withdraw("lamp"),
        one.operations.outcomes("c"),
        one.operations.size(),
        one.operations.minutes(),
    ):
        with pytest.raises(NotAccepting):
            await attempt
    assert isinstance(StoreDown("x"), NotAccepting)


async def test_while_changes_go_unheard_or_the_link_is_away_it_does_not_accept(fleet, one):
    assert one.operations.accepting
    one.is_heard = False
    assert not one.operations.accepting
    with pytest.raises(NotAccepting):
        await one.send()
    one.is_heard = True
    one.link.lose()
    assert not one.operations.accepting


async def test_without_a_link_commands_wait_and_go_out_when_it_is_back(fleet, one):
    fleet.come("lamp")
    one.link.lose()
    assert not one.operations.is_reachable("lamp")
    execution = await one.send()
    assert (execution.delivery, execution.retry_safe) == (Delivery.QUEUED, True)
    fleet.clock.advance(10)
    await one.retry()
    assert fleet.got == []
    one.link.restore()
    await one.retry()
    assert fleet.got == [("lamp", execution.execution_id)]


async def test_the_other_worker_sees_to_what_waits_for_a_link(fleet, one, two):
    fleet.come("lamp")
    one.link.lose()
    execution = await one.send()
    fleet.clock.advance(10)
    await two.retry()
    assert fleet.got == [("lamp", execution.execution_id)]


# Cancel.


async def test_what_waits_is_withdrawn_and_never_goes_out(fleet, one, two):
    execution = await one.send()
    await settled()
    ended = await cancel(two, execution)
    assert (ended.status, ended.retry_safe) == (Status.CANCELED, True)
    fleet.come("lamp")
    one.requests.arrived("lamp")
    await settled()
    assert fleet.got == []
    assert two.operations.counters["executions.CANCELED"] == 1


async def test_a_thing_that_has_the_request_is_asked_once(fleet, one, two):
    fleet.come("lamp")
    execution = await one.send()
    await settled()
    for member in (two, one):
        assert (await cancel(member, execution)).status is Status.SENT
    assert (two.link.canceled, one.link.canceled) == ([("lamp", execution.execution_id)], [])
    two.link.respond("lamp", execution.execution_id, b'{"status":"CANCELED"}')
    await settled()
    assert (await one.read(execution.execution_id)).status is Status.CANCELED
    with pytest.raises(AlreadyEnded):
        await cancel(one, execution)


async def test_without_a_link_a_cancel_stands_though_the_thing_is_not_told(fleet, one):
    fleet.come("lamp")
    execution = await one.send()
    await settled()
    one.link.lose()
    assert (await cancel(one, execution)).cancel_requested_at is not None
    fleet.clock.advance(one.operations.settings.cancel_grace)
    await one.sweeper.expire()
    found = await one.read(execution.execution_id)
    assert (found.status, found.reason.reason_code) == (Status.CANCELED, "NO_VERDICT")


async def test_what_may_have_left_is_the_things_to_cancel_even_while_it_waits_again(fleet, one, two):
    one.link.is_held = True
    execution = await one.send()
    await settled()
    await one.die()
    fleet.clock.advance(11)
    await two.retry()  # finds nobody
    found = await cancel(two, execution)
    assert (found.status, two.link.canceled) == (Status.SENT, [("lamp", execution.execution_id)])
    fleet.come("lamp")
    two.requests.arrived("lamp")
    await settled()
    assert fleet.got == [], "what is to be canceled is not sent again"


async def test_nobody_cancels_what_he_may_not_see(fleet, one):
    execution = await one.send()

    def refuse(_):
        raise UnknownExecution("not yours")

    with pytest.raises(UnknownExecution):
        await one.operations.cancel(execution.execution_id, refuse, itself)
    with pytest.raises(UnknownExecution):
        await one.operations.cancel("none", nothing, itself)
    assert (await one.read(execution.execution_id)).status is Status.SENT


async def test_withdrawing_a_thing_leaves_the_others_alone(fleet, one, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 3)
    fleet.come("lock")
    lamps = [await one.send() for _ in range(8)]
    lock = await one.send("lock")
    await settled()
    assert await one.operations.cancel_all(Query(thing="lamp")) == 8
    assert await one.operations.cancel_all(Query(thing="lamp")) == 0
    await one.operations.withdraw("lamp")
    assert {(await one.read(e.execution_id)).status for e in lamps} == {Status.CANCELED}
    assert (await one.read(lock.execution_id)).status is Status.SENT


async def test_withdrawing_very_many_goes_by_turns_and_looks_at_each_once(fleet, one, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 3)
    lamps = [await one.send() for _ in range(8)]
    await settled()
    under_way, most, reads = 0, 0, []
    cancel, get = fleet.store.cancel, fleet.store.get

    async def counted(*args):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await asyncio.sleep(0)
            return await cancel(*args)
        finally:
            under_way -= 1

    async def looked(execution_id):
        reads.append(execution_id)
        return await get(execution_id)

    fleet.store.cancel, fleet.store.get = counted, looked
    await one.operations.withdraw("lamp")
    assert (most, reads) == (3, [])
    assert {(await one.read(e.execution_id)).status for e in lamps} == {Status.CANCELED}


# What is to be told to somebody outside.


async def test_an_end_is_owed_to_one_worker_at_a_time(one, fleet, two):
    fleet.come("lamp", DONE)
    execution = await one.send(post_back_uri="https://a.example")
    plain = await one.send()
    await settled()
    assert not one.operations.owe(execution)
    owed = await asyncio.gather(one.operations.owed(), two.operations.owed())
    assert sorted(map(len, owed)) == [0, 1]
    assert plain.execution_id not in {e.execution_id for found in owed for e in found}
    fleet.clock.advance(module.OWED_SECONDS)
    assert len(await two.operations.owed()) == 1
    await two.operations.settled(execution.execution_id)
    fleet.clock.advance(module.OWED_SECONDS)
    assert await one.operations.owed() == []


async def test_size_statuses_and_minutes_count_those_of_all_workers():
    fleet = Fleet()
    one, two = await fleet.member(), await fleet.member()
    await fleet.add_things("lamp")
    command_id = one.operations.make_id()
    first = await one.send(command_id=command_id)
    await two.send(command_id=command_id)
    await settled()
    await cancel(two, first)
    assert count_statuses(await one.operations.outcomes(command_id)) == {Status.SENT: 1, Status.CANCELED: 1}
    assert await one.operations.size() == (2, 1)
    assert (await two.operations.minutes())[-1].created == 2
    await fleet.stop()
