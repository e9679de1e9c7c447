"""The fakes that ship do what they say."""

import asyncio

import pytest

from broker_support import AT, NOW, HeldJournal, make_execution
from support.cluster import Worker
from support.waits import eventually
from thingctl_broker.cluster.link_port import Handed, LinkDown, PresenceReport, Source
from thingctl_broker.testing import (
    FakeClusterLink,
    InMemoryJournal,
    InMemoryLink,
    ManualClock,
    Published,
    Requested,
    service_with_fakes,
)

DONE = b'{"status":"SUCCEEDED"}'


def test_a_manual_clock_stands_still_until_it_is_moved():
    clock = ManualClock(monotonic=5.0, unix=100.0)
    assert (clock.monotonic(), clock.unix()) == (5.0, 100.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.unix()) == (7.5, 102.5)


def test_a_jump_moves_the_wall_clock_alone():
    clock = ManualClock(monotonic=5.0, unix=100.0)
    clock.jump(-60.0)
    assert (clock.monotonic(), clock.unix()) == (5.0, 40.0)


def test_a_link_in_memory_remembers_what_would_have_gone_out():
    link = InMemoryLink()
    assert link.publish_request("lamp", "1", b"{}", again=True) is True
    link.publish_cancel("lamp", "1")
    assert link.published == [Published("lamp", "1", b"{}", again=True)]
    assert link.canceled == [("lamp", "1")]
    link.acknowledging = False
    assert link.publish_request("lamp", "2", b"{}", again=False) is False


def test_a_service_with_fakes_knows_its_things_and_that_none_is_there():
    journal = HeldJournal()
    service, link, _clock = service_with_fakes(["a", "b"], journal)
    assert [thing.name for thing in service.things] == ["a", "b"]
    assert not any(thing.online for thing in service.things)
    assert service.journal is journal
    service.reachable("a")
    service.send("a", "x")
    assert link.published == []


def test_a_journal_in_memory_keeps_what_is_committed_and_calls_back_in_order():
    journal, called = InMemoryJournal(), []
    journal.then(lambda: called.append("idle"))
    journal.record(one := make_execution())
    journal.then(lambda: called.append("one"))
    journal.take()
    journal.record(two := make_execution())
    journal.then(lambda: called.append("two"))
    assert called == ["idle"]
    journal.commit()  # what was taken, and no more
    assert (called, list(journal.rows)) == (["idle", "one"], [one.execution_id])
    journal.commit()
    assert (called, list(journal.rows)) == (["idle", "one", "two"], [one.execution_id, two.execution_id])
    assert journal.idle
    journal.forget(one.execution_id)
    journal.commit()
    assert [found.execution_id for found in journal.recover(NOW, AT)] == [two.execution_id]


async def test_a_journal_that_stops_has_written_what_was_left():
    journal = InMemoryJournal()
    await journal.start()
    execution = make_execution()
    journal.record(execution)
    await journal.stop()
    journal.release()
    assert [found.execution_id for found in journal.recover(NOW, AT)] == [execution.execution_id]


def test_a_journal_in_memory_keeps_executions_as_they_stood_when_they_were_taken():
    journal = InMemoryJournal()
    journal.record(execution := make_execution())
    journal.take()
    execution.published(AT)
    journal.commit()
    assert next(journal.recover(NOW, AT)).attempts == 0


def test_a_journal_in_memory_fails_as_a_full_disk_does():
    journal, called = InMemoryJournal(), []
    journal.record(stays := make_execution())
    journal.record(goes := make_execution())
    journal.then(
        lambda: called.append("kept"), lambda: (called.append("lost"), journal.forget(goes.execution_id))
    )
    journal.then(lambda: called.append("kept in the end"))
    journal.take()
    journal.fail()
    assert (called, journal.accepting, journal.rows) == (["lost"], False, {})
    journal.commit()
    assert (called, journal.accepting) == (["lost", "kept in the end"], True)
    assert list(journal.rows) == [stays.execution_id]


def test_a_journal_in_memory_may_crash_between_the_disk_and_the_telling():
    journal, called = InMemoryJournal(), []
    journal.record(execution := make_execution())
    journal.then(lambda: called.append("kept"))
    journal.take()
    journal.write()
    assert (called, list(journal.rows)) == ([], [execution.execution_id])


@pytest.fixture
async def cluster_link():
    link, worker, states = FakeClusterLink(), Worker(), []
    await link.start(worker, states.append)
    return link, worker, states


async def test_over_a_fake_link_a_thing_answers_and_of_any_other_the_cluster_says_that_nobody_listens(
    cluster_link,
):
    link, worker, states = cluster_link
    link.things["lamp"] = lambda execution_id, request: [b'{"status":"IN_PROGRESS"}', DONE]
    assert await link.publish_request("lamp", "e1", b"{}", 30.0) is Handed.TAKEN
    assert await link.publish_request("door", "e2", b"{}", 30.0) is Handed.NOBODY
    await link.settled()
    assert worker.ids == ["e1", "e1"]
    assert link.requested == [Requested("lamp", "e1", b"{}", 30.0), Requested("door", "e2", b"{}", 30.0)]
    link.publish_cancel("lamp", "e1")
    link.publish_time("lamp", 5.0)
    assert (link.canceled, link.times) == ([("lamp", "e1")], [("lamp", 5.0)])
    assert states == [True]
    assert await link.stop()
    assert states == [True, False]


async def test_without_a_connection_nothing_goes_out(cluster_link):
    link, _, states = cluster_link
    link.lose()
    link.publish_time("lamp", 5.0)
    for attempt in (
        link.publish_request("lamp", "e", b"{}", 1),
        link.adopt("c"),
        link.catch_up(),
    ):
        with pytest.raises(LinkDown):
            await attempt
    with pytest.raises(LinkDown):
        link.publish_cancel("lamp", "e")
    link.restore()
    assert (states, link.requested, link.times) == ([True, False, True], [], [])


async def test_a_slow_cluster_holds_requests_until_it_answers_or_is_lost(cluster_link):
    link, _, _ = cluster_link
    link.is_held = True
    asking = [asyncio.ensure_future(link.publish_request("lamp", "e", b"{}", 1)) for _ in range(2)]
    await eventually(lambda: len(link.requested) == 2)
    link.lose()
    for ask in asking:
        with pytest.raises(LinkDown):
            await ask
    link.restore()
    ask = asyncio.ensure_future(link.publish_request("lamp", "e", b"{}", 1))
    await eventually(lambda: len(link.requested) == 3)
    link.release()
    assert await ask is Handed.NOBODY


async def test_what_the_worker_raises_on_is_delivered_again(cluster_link):
    link, worker, _ = cluster_link
    tries = []

    async def before(*args):
        tries.append(args)
        if len(tries) == 1:
            raise RuntimeError

    worker.before = before
    link.respond("lamp", "e", DONE)
    await link.settled()
    assert (worker.ids, len(link.unacknowledged)) == ([], 1)
    assert not await link.stop()
    link.redeliver()
    await link.settled()
    assert (worker.ids, link.unacknowledged) == (["e"], [])


async def test_presence_announcements_and_what_was_kept(cluster_link):
    link, worker, _ = cluster_link
    link.say(PresenceReport("lamp", online=True))
    link.announce("lamp", b"{}")
    link.retained["door"] = b"{}"
    await link.catch_up()
    link.kept["thingctl-g-dead"] = [("lamp", "e", DONE)]
    await link.adopt("thingctl-g-dead")
    await link.adopt("thingctl-g-dead")
    assert worker.presences == [PresenceReport("lamp", online=True)]
    assert worker.announcements == [("lamp", b"{}", Source.LIVE), ("door", b"{}", Source.RETAINED)]
    assert worker.responses == [("lamp", "e", DONE)]
