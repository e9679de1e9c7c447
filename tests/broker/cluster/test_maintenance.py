"""What a worker does as time goes by."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from support.fleet import settled
from support.waits import eventually
from thingctl_broker.cluster import maintenance as module
from thingctl_broker.cluster.link_port import LinkDown
from thingctl_broker.cluster.maintenance import (
    ALIVE_EVERY,
    ALIVE_SECONDS,
    LONGEST_SLEEP,
    RETRY_EVERY,
    SHORTEST_SLEEP,
    TIDY_EVERY,
)
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_protocol.statuses import Status

DONE = b'{"status":"SUCCEEDED"}'


async def test_what_is_overdue_is_closed_by_one_worker(fleet, one, two):
    execution = await one.send(ttl=1)
    assert await one.sweeper.expire() == LONGEST_SLEEP
    fleet.clock.advance(0.5)
    assert await one.sweeper.expire() == 0.5
    fleet.clock.advance(0.495)
    assert await one.sweeper.expire() == SHORTEST_SLEEP
    fleet.clock.advance(0.005)
    await asyncio.gather(one.sweeper.expire(), two.sweeper.expire())
    assert (await one.read(execution.execution_id)).status is Status.TIMED_OUT
    ended = [change for member in fleet.members for _, change in member.told if change == "ended"]
    assert len(ended) == 1
    assert await one.sweeper.expire() == LONGEST_SLEEP


async def test_many_that_are_overdue_are_closed_without_a_pause(fleet, one, monkeypatch):
    monkeypatch.setattr(module, "EXPIRE_MAX", 2)
    for _ in range(3):
        await one.send(ttl=1)
    fleet.clock.advance(1)
    assert await one.sweeper.expire() == 0.0
    assert await one.sweeper.expire() == LONGEST_SLEEP
    assert one.operations.counters["executions.TIMED_OUT"] == 3


async def test_a_cancel_that_is_not_answered_ends(fleet, one):
    fleet.come("lamp")
    execution = await one.send()
    await settled()
    await one.operations.cancel(execution.execution_id, lambda _: None, lambda _: None)
    fleet.clock.advance(one.operations.settings.cancel_grace)
    await one.sweeper.expire()
    assert (await one.read(execution.execution_id)).status is Status.CANCELED


async def asked_to_stop(member):
    """An execution whose thing could not be asked to stop: the link is away."""
    execution = await member.send()
    await settled()
    member.link.lose()
    with capture_logs():
        await member.operations.cancel(execution.execution_id, lambda _: None, lambda _: None)
    assert member.link.canceled == []
    return "lamp", execution.execution_id


async def test_a_cancel_that_could_not_be_told_is_told_when_the_link_is_back(fleet, one, two):
    fleet.come("lamp")
    pending = await asked_to_stop(one)
    other = await one.send()
    await settled()
    await one.retry()
    assert one.link.canceled == []
    one.link.restore()
    await one.retry()
    await one.retry()
    assert one.link.canceled == [pending], "once"
    assert (await one.read(other.execution_id)).cancel_requested_at is None
    one.link.lose()
    one.link.restore()
    two.link.respond(*pending, b'{"status":"CANCELED"}')
    await settled()
    await one.retry()
    assert one.link.canceled == [pending], "it has ended"


async def test_another_workers_link_that_comes_back_tells_for_one_that_has_died(fleet, one, two):
    fleet.come("lamp")
    pending = await asked_to_stop(one)
    two.link.lose()
    await one.die()
    two.link.restore()
    await two.retry()
    assert two.link.canceled == [pending]


async def test_a_cancel_that_cannot_be_told_yet_is_tried_again(fleet, one):
    fleet.come("lamp")
    pending = await asked_to_stop(one)
    one.link.restore()
    fleet.store.down = True
    with pytest.raises(StoreDown):
        await one.sweeper.retry()
    fleet.store.down = False
    one.link.connected = False
    one.sweeper._link = AsIfConnected(one.link)
    with pytest.raises(LinkDown):
        await one.sweeper.retry()
    one.sweeper._link, one.link.connected = one.link, True
    await one.retry()
    assert one.link.canceled == [pending]


class AsIfConnected:
    """A link that has been lost, which nobody knows yet."""

    connected = True

    def __init__(self, link):
        self.publish_cancel = link.publish_cancel


async def test_without_a_link_nothing_is_tried(fleet, one):
    fleet.store.down = True
    one.link.lose()
    assert await one.sweeper.retry() == RETRY_EVERY


async def test_who_has_died_is_adopted_and_what_was_told_to_it_is_not_lost(fleet, one, two):
    fleet.come("lamp")
    execution = await one.send()
    await settled()
    assert await one.sweeper.live() == await two.sweeper.live() == ALIVE_EVERY
    assert await fleet.workers.count() == 2
    assert await two.sweeper.adopt() == ALIVE_EVERY
    two.link.kept["one"] = [("lamp", execution.execution_id, DONE)]
    await one.die()
    fleet.clock.advance(ALIVE_SECONDS)
    await two.sweeper.live()
    with capture_logs() as logs:
        assert await two.sweeper.adopt() == 0.0
    assert {log["clientId"] for log in logs} == {"one"}
    assert (await two.read(execution.execution_id)).status is Status.SUCCEEDED
    assert await two.sweeper.adopt() == ALIVE_EVERY
    assert await fleet.workers.count() == 1


async def test_a_session_that_could_not_be_taken_over_is_tried_again(fleet, one, two):
    await one.sweeper.live()
    fleet.clock.advance(ALIVE_SECONDS)
    two.link.lose()
    with capture_logs(), pytest.raises(LinkDown):
        await two.sweeper.adopt()
    two.link.restore()
    assert await two.sweeper.adopt() == ALIVE_EVERY, "it is somebody's for a while"
    fleet.clock.advance(30)
    with capture_logs():
        assert await two.sweeper.adopt() == 0.0


async def test_taking_over_a_session_does_not_keep_it_from_saying_that_it_lives(fleet, one, monkeypatch):
    monkeypatch.setattr(module, "ALIVE_EVERY", 0.001)
    await fleet.workers.alive("dead", 0.0)
    never = asyncio.get_running_loop().create_future()
    one.link.adopt = lambda _: never
    lives = []
    alive = fleet.workers.alive

    async def counted(*args):
        lives.append(args)
        return await alive(*args)

    fleet.workers.alive = counted
    with capture_logs():
        one.sweeper.start()
        await eventually(lambda: len(lives) > 5)
        await one.sweeper.stop()


async def test_partitions_are_seen_to(fleet, one):
    kept = []

    async def tidy(keep):
        kept.append(keep)

    fleet.store.tidy = tidy
    assert await one.sweeper.tidy() == TIDY_EVERY
    assert kept == [3600.0]


async def test_a_turn_that_fails_is_told_once_and_tried_again(fleet, one, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_SLEEP", 0.001)
    tries = {"expire": 0, "tidy": 0}

    async def expire(_limit):
        tries["expire"] += 1
        raise ZeroDivisionError

    fleet.store.expire = expire
    fleet.workers.down = True
    with capture_logs() as logs:
        one.sweeper.start()
        await eventually(lambda: tries["expire"] > 5)
        told = [(log["turn"], bool(log["exc_info"])) for log in logs]
        assert sorted(told) == [("adopt", False), ("expire", True), ("live", False)]
        fleet.workers.down = False
        await eventually(lambda: "one" in fleet.workers._until)
        await one.sweeper.stop()
    assert all(task.done() for task in one.sweeper._tasks)


async def test_all_turns_run_by_themselves(fleet, one):
    execution = await one.send(ttl=1)
    fleet.clock.advance(1)
    one.sweeper.start()
    await eventually(lambda: one.told[-1] == (execution.execution_id, "ended"))
    await eventually(lambda: "one" in fleet.workers._until)
    await one.sweeper.stop()
