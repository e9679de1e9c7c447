"""Requests on their way: once, in order, and what waits goes out when somebody is there."""

from __future__ import annotations

import asyncio

import pytest

from broker_support import make_execution
from support.fleet import settled
from support.waits import eventually
from thingctl_broker.cluster import dispatcher as module
from thingctl_broker.cluster.dispatcher import CLAIM_MAX
from thingctl_broker.cluster.link_port import PresenceReport, Source
from thingctl_broker.cluster.maintenance import UNHANDED_SECONDS
from thingctl_broker.cluster.reachability import BELIEVED_SECONDS
from thingctl_protocol.statuses import Delivery, Status

DONE = b'{"status":"SUCCEEDED"}'
ANNOUNCEMENT = b'{"actions":[]}'


async def waiting(fleet, member, **fields):
    """An execution that has found nobody."""
    execution = await member.send(**fields)
    await settled()
    found = await member.read(execution.execution_id)
    assert (found.delivery, found.retry_safe, found.attempts) == (Delivery.QUEUED, True, 0)
    return execution.execution_id


async def test_requests_of_a_thing_go_out_once_and_in_their_order(fleet, one):
    fleet.come("lamp")
    sent = [(await one.send()).execution_id for _ in range(20)]
    await settled()
    assert fleet.got == [("lamp", execution_id) for execution_id in sent]
    fleet.clock.advance(UNHANDED_SECONDS + 1)
    await one.requests._keep_handed()
    for member in fleet.members:
        await member.retry()
    assert len(fleet.got) == 20


@pytest.mark.parametrize(
    ("how", "at"),
    [
        ("announces", 0),
        ("announces", 1),
        ("is present", 0),
        ("is present", 1),
        ("is tried", 0),
        ("is tried", 1),
        ("answers", 0),  # another worker does not look each time whether anything waits
    ],
)
async def test_what_found_nobody_goes_out_when_the_thing_is_there(fleet, one, how, at):
    execution_id = await waiting(fleet, one)
    worker = fleet.members[at]
    fleet.come("lamp")
    match how:
        case "announces":
            worker.link.announce("lamp", ANNOUNCEMENT)
        case "is present":
            worker.link.say(PresenceReport("lamp", online=True))
        case "answers":
            fleet.clock.advance(BELIEVED_SECONDS)
            one.link.respond("lamp", "whatever", DONE)
        case _:
            fleet.clock.advance(1.0)
            await worker.retry()
    await settled()
    assert fleet.got == [("lamp", execution_id)]
    assert (await one.read(execution_id)).delivery is Delivery.PUBLISHED


async def test_the_next_request_that_finds_the_thing_takes_the_others_along(fleet, one):
    first = await waiting(fleet, one)
    fleet.come("lamp")
    fleet.clock.advance(BELIEVED_SECONDS)
    second = (await one.send()).execution_id
    await settled()
    assert {execution_id for _, execution_id in fleet.got} == {first, second}


async def test_what_waits_goes_out_in_its_order_and_the_first_one_tries(fleet, one):
    sent = [await waiting(fleet, one)]
    sent += [(await one.send()).execution_id for _ in range(CLAIM_MAX + 5)]
    await settled()
    assert one.requested == sent[:1]
    fleet.clock.advance(10.0)
    await one.retry()
    assert one.requested == sent[:1] * 2, "only the first, as nobody was there"
    fleet.come("lamp")
    one.requests.arrived("lamp")
    await settled()
    assert [execution_id for _, execution_id in fleet.got] == sent


async def test_two_workers_never_publish_the_same(fleet, one, two):
    await waiting(fleet, one)
    for _ in range(10):
        await one.send()
    fleet.come("lamp")
    one.requests.arrived("lamp")
    two.requests.arrived("lamp")
    await settled()
    assert len(fleet.got) == len(set(fleet.got)) == 11


async def test_a_thing_that_comes_before_its_request_counts_as_waiting_gets_it(fleet, one):
    """Its arrival finds nothing that waits: that nobody was there is still being kept."""
    original = fleet.store.unclaimed

    async def unclaimed(*args):
        fleet.come("lamp")
        one.requests.arrived("lamp")
        await settled()
        return await original(*args)

    fleet.store.unclaimed = unclaimed
    execution = await one.send()
    await settled()
    await settled()
    assert fleet.got == [("lamp", execution.execution_id)]


async def test_a_thing_that_comes_while_it_is_offered_what_waits_gets_it(fleet, one):
    """The offer has found nobody, and does not know yet."""
    execution_id = await waiting(fleet, one)
    publish = one.link.publish_request

    async def late(*args):
        one.link.publish_request = publish
        handed = await publish(*args)
        fleet.come("lamp")
        one.requests.arrived("lamp")
        await settled()
        return handed

    one.link.publish_request = late
    one.requests.offer("lamp")
    await settled()
    await settled()
    assert fleet.got == [("lamp", execution_id)]


async def test_an_overdue_request_is_not_published(fleet, one):
    execution_id = await waiting(fleet, one, ttl=5)
    fleet.come("lamp")
    fleet.clock.advance(5)
    one.requests.arrived("lamp")
    one.requests.publish([make_execution(thing="lamp", deadline=fleet.clock.monotonic())])
    await one.retry()
    assert (fleet.got, one.requested) == ([], [execution_id])
    await one.sweeper.expire()
    found = await one.read(execution_id)
    assert (found.status, found.retry_safe, found.reason.reason_code) == (
        Status.TIMED_OUT,
        True,
        "NOT_DELIVERED",
    )


async def test_a_request_is_gone_from_the_cluster_when_its_time_is_over(fleet, one):
    fleet.come("lamp")
    await one.send(ttl=9)
    await settled()
    assert one.link.requested[0].expires_in == 9.0


async def test_when_its_worker_has_died_another_one_publishes_it(fleet, one, two):
    fleet.come("lamp")
    one.requests.publish = lambda executions: None  # it dies between the commit and the publishing
    execution = await one.send()
    await one.die()
    await two.retry()
    assert fleet.got == []
    fleet.clock.advance(UNHANDED_SECONDS)
    await two.retry()
    assert fleet.got == [("lamp", execution.execution_id)]
    assert (await two.read(execution.execution_id)).attempts == 2


@pytest.mark.parametrize("loss", ["crash", "link"])
async def test_what_may_have_left_once_is_never_again_safe_to_retry(fleet, one, two, loss):
    """The first one may have arrived; that the second finds nobody says nothing of it."""
    one.link.is_held = True
    execution = await one.send()
    await settled()
    if loss == "crash":
        await one.die()
    else:
        one.link.lose()
    fleet.clock.advance(UNHANDED_SECONDS)
    await two.retry()
    assert two.requested == [execution.execution_id]
    for _ in range(3):
        found = await two.read(execution.execution_id)
        assert (found.retry_safe, found.delivery) == (False, Delivery.PUBLISHED)
        fleet.clock.advance(5)
        await two.retry()
    fleet.come("lamp")
    two.requests.arrived("lamp")
    await settled()
    assert fleet.got == [("lamp", execution.execution_id)]


async def test_what_another_worker_got_through_is_not_taken_back(fleet, one, two):
    one.link.is_held = True
    execution = await one.send()
    await settled()
    fleet.clock.advance(UNHANDED_SECONDS)
    fleet.come("lamp")
    await two.retry()
    await two.requests._keep_handed()
    fleet.go("lamp")
    one.link.release()  # and now the cluster says: nobody
    await settled()
    found = await two.read(execution.execution_id)
    assert (found.retry_safe, found.delivery) == (False, Delivery.PUBLISHED)


async def test_a_slow_cluster_is_not_given_the_same_again_by_the_same_worker(fleet, one):
    one.link.is_held = True
    await one.send()
    for _ in range(3):
        fleet.clock.advance(UNHANDED_SECONDS - 1)
        await one.retry()
    assert len(one.requested) == 1
    assert len(one.requests) == 1


async def test_without_a_link_nothing_is_claimed(fleet, one):
    execution_id = await waiting(fleet, one)
    one.link.lose()
    one.requests.offer("lamp")
    await settled()
    assert (await one.read(execution_id)).retry_safe


async def test_when_the_store_is_away_nothing_is_said_to_be_safe(fleet, one):
    one.link.is_held = True
    execution = await one.send()
    await settled()
    fleet.down()
    one.link.release()
    one.requests.offer("lock")
    await settled()
    fleet.down(down=False)
    assert not (await one.read(execution.execution_id)).retry_safe


async def test_that_the_cluster_has_a_request_is_kept_a_little_later_if_it_has_not_ended(
    fleet, one, two, monkeypatch
):
    monkeypatch.setattr(module, "HANDED_LAG", 0.01)
    kept = []
    original = fleet.store.handed

    async def handed(ids):
        await original(ids)
        kept.append(set(ids))

    fleet.store.handed = handed
    fleet.come("lock", DONE)
    fleet.come("lamp")
    ended, lives = await one.send("lock"), await one.send("lamp")
    fleet.down()
    await asyncio.sleep(0.03)  # at least one try in vain
    fleet.down(down=False)
    one.link.redeliver()
    await eventually(lambda: kept)
    assert kept[-1] - {ended.execution_id} == {lives.execution_id}
    await two.requests.stop()
    assert one.requests._handed == set()


async def test_stopping_waits_a_little_and_keeps_what_is_known(fleet, one):
    fleet.come("lamp")
    await one.send()
    await settled()
    one.link.is_held = True
    await one.send()
    await settled()
    assert len(one.requests) == 1
    await one.requests.stop()
    assert len(one.requests) == 0
    assert len(fleet.store._unhanded) == 1


async def test_a_request_that_fails_takes_no_other_with_it(fleet, one):
    fleet.things["lock"] = lambda *_: 1 / 0
    fleet.come("lamp")
    await one.send("lock")
    await one.send("lamp")
    await settled()
    assert [thing for thing, _ in fleet.got] == ["lamp"]


async def test_a_canceled_request_that_finds_nobody_ends(fleet, one):
    one.link.is_held = True
    execution = await one.send()
    await settled()
    asked = await one.operations.cancel(execution.execution_id, lambda _: None, lambda found: found)
    assert (asked.status, asked.retry_safe) == (Status.SENT, False)
    one.link.release()
    await settled()
    found = await one.read(execution.execution_id)
    assert (found.status, found.retry_safe) == (Status.CANCELED, True)
    assert one.operations.counters["executions.CANCELED"] == 1
    assert one.told[-1] == (execution.execution_id, "ended")


async def test_an_announcement_that_was_kept_is_no_sign_of_life(fleet, one):
    await waiting(fleet, one)
    fleet.come("lamp")
    one.link.announce("lamp", ANNOUNCEMENT, Source.RETAINED)
    await settled()
    assert fleet.got == []


async def test_a_thing_is_told_the_time_ahead_of_a_request_if_it_was_not_of_late(fleet, one):
    fleet.come("lamp")

    async def told_with_a_request():
        before = len(one.link.times)
        await one.send()
        await settled()
        return one.link.times[before:]

    assert await told_with_a_request() == [("lamp", fleet.clock.unix())]
    assert await told_with_a_request() == []
    fleet.clock.jump(-3600)
    assert await told_with_a_request() == [("lamp", fleet.clock.unix())]


async def test_what_is_remembered_of_times_told_is_bounded(fleet, one, monkeypatch):
    monkeypatch.setattr(module, "TOLD_MAX", 2)
    for thing in ("a", "b", "a", "c"):
        one.requests.tell_time(thing)
    assert list(one.requests._told) == ["a", "c"]
