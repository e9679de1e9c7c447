"""Commands to many things, each driven by one worker at a time."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from structlog.testing import capture_logs

from support.fleet import Fleet, settled
from support.waits import eventually
from thingctl_broker.cluster import rollouts as module
from thingctl_broker.cluster.rollouts import LEASE_SECONDS
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.commands.outcomes import count_statuses
from thingctl_broker.commands.table import Query
from thingctl_broker.errors import InvalidCommand, UnknownCommand, WrongMove
from thingctl_broker.rollouts.rollout import RolloutRules, State
from thingctl_broker.things.thing import Definition
from thingctl_protocol.messages import EMPTY_OBJECT
from thingctl_protocol.statuses import Status

NAMES = [f"t{i:03}" for i in range(250)]
DONE, FAILED = b'{"status":"SUCCEEDED"}', b'{"status":"FAILED"}'


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "TURN", 0.001)
    monkeypatch.setattr(module, "IDLE", 0.005)
    monkeypatch.setattr(module, "STANDSTILL", 0.002)


@pytest.fixture
async def fleet():
    fleet = Fleet()
    await fleet.member("one")
    await fleet.member("two")
    await fleet.add_things(*NAMES)
    yield fleet
    await fleet.stop()


async def begin(member, things=NAMES, ttl=60, **rules):
    rollout = await member.rollouts.begin(
        list(things), "turnOn", EMPTY_OBJECT, ttl, RolloutRules(**rules), requested_by="me"
    )
    return rollout.record.command_id


async def record(member, command_id):
    return (await member.rollouts.get(command_id)).record


def stored(fleet, command_id):
    return fleet.rollouts._records[command_id]


async def reaches(fleet, command_id, state, **fields):
    await eventually(lambda: stored(fleet, command_id).state is state)
    for name, value in fields.items():
        await eventually(lambda name=name, value=value: getattr(stored(fleet, command_id), name) == value)


async def things_of(member, command_id):
    page = await member.operations.list(Query(command_id=command_id), 1000, None, lambda page: page)
    return [execution.thing for execution in reversed(page.executions)]


def start(*members):
    for member in members:
        member.rollouts.start()


async def test_everybody_gets_it_once_though_all_workers_drive(fleet, one, two):
    start(one, two)
    commands = [await begin(member) for member in (one, two, one)]
    for command_id in commands:
        await reaches(fleet, command_id, State.FINISHED, sent=250)
        assert await things_of(two, command_id) == NAMES
    await eventually(lambda: len(one.rollouts) == len(two.rollouts) == 0)
    found = await one.operations.list(Query(), 1, None, lambda page: page.executions[0])
    assert found.requested_by == "me"


async def test_what_no_thing_could_be_sent_is_not_begun(fleet, one):
    with pytest.raises(InvalidCommand):
        await begin(one, ttl=0)
    fleet.down()
    with pytest.raises(StoreDown):
        await begin(one)
    assert fleet.rollouts._records == {}


async def test_when_its_worker_dies_another_goes_on_and_nobody_gets_it_twice(fleet, one, two):
    for name in NAMES:
        fleet.come(name)
    start(one)
    save = fleet.rollouts.save
    never = asyncio.get_running_loop().create_future()

    async def save_the_first(*arguments):
        return await save(*arguments) if len(fleet.got) <= 100 else await never

    fleet.rollouts.save = save_the_first
    command_id = await begin(one)
    await eventually(lambda: len(fleet.got) > 100)
    await settled()
    await one.die()
    fleet.rollouts.save = save
    assert len(fleet.got) < len(NAMES)
    start(two)
    for _ in range(5):
        await settled()
    assert len(two.rollouts) == 0
    fleet.clock.advance(LEASE_SECONDS)
    await reaches(fleet, command_id, State.FINISHED)
    await two.retry()
    assert Counter(await things_of(two, command_id)) == Counter(NAMES)


async def test_when_its_worker_dies_before_it_has_kept_that_all_have_it_another_does(fleet, one, two):
    start(one)
    save = fleet.rollouts.save
    never = asyncio.get_running_loop().create_future()

    async def lost(*_):
        await never

    fleet.rollouts.save = lost
    command_id = await begin(one, NAMES[:5])
    await eventually(lambda: len(fleet.store._table) == 5)
    await one.die()
    fleet.rollouts.save = save
    fleet.clock.advance(LEASE_SECONDS)
    start(two)
    await reaches(fleet, command_id, State.FINISHED, sent=5)
    assert await things_of(two, command_id) == NAMES[:5]


async def test_one_that_was_thought_dead_and_lives_sends_nothing_twice(fleet, one, two):
    """It was held up for longer than its lease, and goes on where it stood."""
    start(one)
    command_id = await begin(one, NAMES[:4], batch=1)
    await eventually(lambda: len(one.rollouts) == 1 and stored(fleet, command_id).sent == 1)
    leased = one.rollouts._mine[command_id]
    await one.rollouts.stop()
    fleet.clock.advance(LEASE_SECONDS)
    start(two)
    for name in NAMES[:4]:
        fleet.come(name, DONE)
    fleet.clock.advance(11)
    await two.retry()
    await reaches(fleet, command_id, State.FINISHED)
    await one.rollouts._step(leased)
    assert await things_of(one, command_id) == NAMES[:4]
    assert one.rollouts._mine == {}


@pytest.mark.parametrize("loss", ["down", "answer"])
async def test_it_goes_on_when_the_store_is_back(fleet, one, loss):
    start(one)
    command_id = await begin(one, batch=120)
    for name in NAMES:
        fleet.come(name)
    await eventually(lambda: one.rollouts._mine)
    with capture_logs():
        for _ in range(5):
            for shared in fleet.shared:
                setattr(shared, "down" if loss == "down" else "loses_answer", True)
            await settled()
            fleet.down(down=False)
            await one.mirror.load()
            fleet.clock.advance(LEASE_SECONDS / 2)
            await settled()
        one.rollouts.rollout_changed(command_id)
        for name in NAMES:
            fleet.come(name, DONE)
        for _ in range(20):
            for execution in list(fleet.store._table):
                if not execution.is_terminal:
                    await one.incoming.responded(execution.thing, execution.execution_id, DONE)
            fleet.clock.advance(1)
            await settled()
        await reaches(fleet, command_id, State.FINISHED)
    assert Counter(await things_of(one, command_id)) == Counter(NAMES)


async def test_what_was_leased_without_its_knowing_is_driven_after_a_while(fleet, one):
    command_id = await begin(one)
    fleet.rollouts.loses_answer = True
    with capture_logs():
        start(one)
        await settled()
        assert len(one.rollouts) == 0
        fleet.clock.advance(LEASE_SECONDS)
        await reaches(fleet, command_id, State.FINISHED)


async def test_what_was_leased_and_could_not_be_opened_is_opened_later(fleet, one):
    things_of = fleet.store.things_of
    failing = [1, 2, 3]

    async def unreliable(command_id):
        if failing:
            failing.pop()
            raise StoreDown("not now")
        return await things_of(command_id)

    fleet.store.things_of = unreliable
    with capture_logs():
        start(one)
        command_id = await begin(one)
        await reaches(fleet, command_id, State.FINISHED)
    assert failing == []


async def test_pause_resume_and_cancel_from_the_other_worker(fleet, one, two):
    start(one)
    command_id = await begin(one, batch=2)
    await reaches(fleet, command_id, State.RUNNING, sent=2)
    await two.rollouts.move(command_id, State.PAUSED)
    await two.rollouts.move(command_id, State.PAUSED)  # again is no fault
    for name in await things_of(one, command_id):
        execution = next(e for e in fleet.store._table if e.thing == name)
        await two.incoming.responded(name, execution.execution_id, DONE)
    for _ in range(5):
        await settled()
    assert len(await things_of(one, command_id)) == 2
    await two.rollouts.move(command_id, State.RUNNING)
    await eventually(lambda: stored(fleet, command_id).sent == 4)
    moved = await two.rollouts.move(command_id, State.CANCELED)
    assert moved.record.state is State.CANCELED
    await eventually(lambda: fleet.store._table.live == 0)
    await eventually(lambda: len(one.rollouts) == 0)
    assert count_statuses(await one.operations.outcomes(command_id)) == {
        Status.SUCCEEDED: 2,
        Status.CANCELED: 2,
    }
    with pytest.raises(WrongMove):
        await one.rollouts.move(command_id, State.RUNNING)
    with pytest.raises(UnknownCommand):
        await one.rollouts.move("none", State.PAUSED)
    assert await one.rollouts.get("none") is None


async def test_one_that_has_gone_out_can_still_be_canceled(fleet, one, two):
    start(one, two)
    command_id = await begin(one)
    await reaches(fleet, command_id, State.FINISHED)
    await two.rollouts.move(command_id, State.CANCELED)
    await eventually(lambda: fleet.store._table.live == 0)


async def test_too_many_failures_stop_it_and_resumed_they_are_counted_anew(fleet, one, two):
    for name in NAMES[:4]:
        fleet.come(name, FAILED)
    for name in NAMES[4:]:
        fleet.come(name, DONE)
    start(one)
    command_id = await begin(one, batch=2, max_failures=2)
    await reaches(fleet, command_id, State.STOPPED)
    assert len(await things_of(one, command_id)) == 2
    await two.rollouts.move(command_id, State.RUNNING)
    await reaches(fleet, command_id, State.STOPPED, sent=4)
    await two.rollouts.move(command_id, State.RUNNING)
    await reaches(fleet, command_id, State.FINISHED)


async def test_resumed_when_its_worker_has_died_its_failures_are_forgiven_too(fleet, one, two):
    fleet.come(NAMES[0], FAILED)
    for name in NAMES[1:]:
        fleet.come(name, DONE)
    start(one)
    command_id = await begin(one, batch=1, max_failures=1)
    await reaches(fleet, command_id, State.STOPPED)
    await one.die()
    fleet.clock.advance(LEASE_SECONDS)
    start(two)
    await two.rollouts.move(command_id, State.RUNNING)
    await reaches(fleet, command_id, State.FINISHED)


async def test_those_that_are_halted_cost_little_and_keep_nobody_from_going_on(fleet, one, monkeypatch):
    monkeypatch.setattr(module, "LEASED_MAX", 2)
    monkeypatch.setattr(module, "IDLE", 60.0)
    start(one)
    halted = [await begin(one, batch=1) for _ in range(4)]
    for command_id in halted:
        await eventually(lambda command_id=command_id: stored(fleet, command_id).sent == 1)
        await one.rollouts.move(command_id, State.PAUSED)
    other = await begin(one)
    await reaches(fleet, other, State.FINISHED)
    await eventually(lambda: len(one.rollouts) == 4)
    asked = []
    counts = fleet.store.counts

    async def counted(command_id):
        asked.append(command_id)
        return await counts(command_id)

    fleet.store.counts = counted
    for _ in range(10):
        await settled()
    assert asked == []


async def test_a_rate_is_kept(fleet, one):
    start(one)
    command_id = await begin(one, rate=10)
    await eventually(lambda: stored(fleet, command_id).sent == 1)
    for _ in range(10):
        await settled()
    assert stored(fleet, command_id).sent == 1
    for expected in (2, 3, 4):
        fleet.clock.advance(0.1)
        await eventually(lambda expected=expected: stored(fleet, command_id).sent == expected)


async def test_who_cannot_get_it_is_told_of(fleet, one):
    one.mirror.things.define(NAMES[1], Definition(enabled=False), 0.0)
    one.mirror.things.remove(NAMES[2])
    await one.mirror.kept()
    add = fleet.store.add

    async def unreliable(execution, *, queue_max):
        if execution.thing == NAMES[3]:
            raise ZeroDivisionError
        return await add(execution, queue_max=queue_max)

    fleet.store.add = unreliable
    start(one)
    with capture_logs() as logs:
        command_id = await begin(one, NAMES[:5])
        await reaches(fleet, command_id, State.FINISHED, refused=3)
    found = await record(one, command_id)
    assert set(found.refusals) == set(NAMES[1:4])
    assert await things_of(one, command_id) == [NAMES[0], NAMES[4]]
    assert [log["event"] for log in logs] == ["a command of a rollout failed"]


async def test_a_fault_of_one_does_not_keep_the_others(fleet, one):
    counts = fleet.store.counts
    first = await begin(one)

    async def unreliable(command_id):
        if command_id == first:
            raise ZeroDivisionError
        return await counts(command_id)

    fleet.store.counts = unreliable
    other = await begin(one)
    with capture_logs() as logs:
        start(one)
        await reaches(fleet, other, State.FINISHED)
    assert {log["event"] for log in logs} == {"driving a rollout failed"}
    fleet.store.counts = counts
    await reaches(fleet, first, State.FINISHED)
