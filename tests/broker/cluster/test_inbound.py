"""What things say: kept before it counts as heard, and whatever comes twice or late."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from support.fleet import Fleet, settled
from thingctl_broker.cluster.inbound import ANSWERS_MAX, SAYINGS
from thingctl_broker.cluster.link_port import PresenceReport, Source
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_protocol.statuses import Status

DONE, FAILED, HALF = b'{"status":"SUCCEEDED"}', b'{"status":"FAILED"}', b'{"status":"IN_PROGRESS"}'
ANNOUNCEMENT = b'{"actions":[{"name":"turnOn"}]}'


@pytest.fixture
async def sent(fleet, one):
    fleet.come("lamp")
    execution = await one.send()
    await settled()
    return execution.execution_id


async def test_a_response_ends_it_once(one, two, sent):
    for _ in range(2):
        await two.incoming.responded("lamp", sent, DONE)
    assert (await one.read(sent)).status is Status.SUCCEEDED
    counters = two.operations.counters
    assert (counters["responses.applied"], counters["responses.repeated"]) == (1, 1)
    assert two.told == [(sent, "ended")]
    await two.incoming.responded("lamp", sent, FAILED)
    assert counters["responses.conflicting"] == 1
    assert (await one.read(sent)).conflicts == 1


async def test_a_flood_of_responses_to_one_execution_is_cut_and_its_verdict_still_counts(one, sent):
    with capture_logs() as logs:
        flood = [one.incoming.responded("lamp", sent, HALF) for _ in range(1000)]
        await asyncio.gather(*flood, one.incoming.responded("lamp", sent, DONE))
    assert one.operations.counters["dropped.tooMany"] == 1000 - ANSWERS_MAX
    assert one.operations.counters["responses.applied"] == ANSWERS_MAX + 1
    assert [log["event"] for log in logs] == ["message dropped"]
    assert (await one.read(sent)).status is Status.SUCCEEDED
    await asyncio.gather(*(one.incoming.responded("lamp", sent, FAILED) for _ in range(1000)))
    assert one.operations.counters["responses.conflicting"] == 2 * ANSWERS_MAX
    assert not one.incoming._answers


async def test_a_thing_that_says_ever_new_things_of_itself_is_written_down_by_turns(fleet, one, two):
    puts = []
    put = fleet.documents.put

    async def counted(records, **options):
        puts.append(records)
        return await put(records, **options)

    fleet.documents.put = counted
    with capture_logs() as logs:
        for n in range(500):
            await one.incoming.announced("lamp", b'{"actions":[{"name":"a%d"}]}' % n, Source.LIVE)
            await one.incoming.present(PresenceReport("lamp", online=n % 2 > 0, client_id="c", at=None))
    assert len(puts) <= SAYINGS.burst
    assert [log["event"] for log in logs] == ["a thing says more of itself than is kept at once"]
    await one.sweeper.write()
    await settled()
    lamp = two.mirror.things.get("lamp")
    assert (lamp.announcement.actions[0].name, lamp.online) == ("a499", True)
    await one.incoming.present(PresenceReport("lock", online=True, client_id="c", at=None))
    await settled()
    assert two.mirror.things.get("lock").online


async def test_what_comes_late_stands_beside_the_verdict(fleet, one, two, sent):
    fleet.clock.advance(30)
    await one.sweeper.expire()
    await two.incoming.responded("lamp", sent, DONE)
    found = await one.read(sent)
    assert (found.status, found.late.status, two.told) == (
        Status.TIMED_OUT,
        Status.SUCCEEDED,
        [(sent, "late")],
    )
    assert two.operations.counters["responses.late"] == 1


@pytest.mark.parametrize(
    ("thing", "execution", "payload", "reason"),
    [
        ("lamp", None, b"{", "badPayload"),
        ("lamp", None, b'{"status":"SENT"}', "badPayload"),
        ("lock", None, DONE, "wrongThing"),
        ("lamp", "none", DONE, "unknownExecution"),
    ],
)
async def test_what_means_nothing_is_dropped_and_told_once_a_minute(  # noqa: PLR0917 a table
    fleet, sent, thing, execution, payload, reason
):
    one = fleet.members[0]
    with capture_logs() as logs:
        for _ in range(3):
            await one.incoming.responded(thing, execution or sent, payload)
    assert one.operations.counters[f"dropped.{reason}"] == 3
    assert [log["reason"] for log in logs if log["event"] == "message dropped"] == [reason]
    fleet.clock.advance(60)
    with capture_logs() as logs:
        await one.incoming.responded(thing, execution or sent, payload)
    assert len(logs) == 1
    assert (await one.read(sent)).status is Status.SENT
    with capture_logs() as logs:
        one.incoming.dropped(thing, "another", "another fault")  # one reason does not hide another
    assert len(logs) == 1


async def test_a_response_that_cannot_be_kept_comes_again(fleet, one, sent):
    fleet.down()
    one.link.respond("lamp", sent, DONE)
    await settled()
    assert len(one.link.unacknowledged) == 1
    assert one.told[-1] == (sent, "published")
    fleet.down(down=False)
    one.link.redeliver()
    await settled()
    assert (one.link.unacknowledged, one.told[-1]) == ([], (sent, "ended"))


async def test_an_announcement_is_known_at_every_worker_and_greeted(fleet, one, two):
    one.link.announce("lamp", ANNOUNCEMENT)
    await settled()
    assert [a.name for a in two.mirror.things.get("lamp").announcement.actions] == ["turnOn"]
    assert one.link.times == [("lamp", fleet.clock.unix())]
    one.link.announce("lamp", b"")
    await settled()
    assert two.mirror.things.get("lamp").announcement is None
    assert len(one.link.times) == 1, "who withdraws it is not there to be greeted"


async def test_the_same_announcement_again_is_not_written_again(fleet, one):
    one.link.announce("lamp", ANNOUNCEMENT)
    await settled()
    fleet.documents.put = None
    one.link.announce("lamp", ANNOUNCEMENT, Source.RETAINED)
    await settled()
    assert one.link.unacknowledged == []


async def test_an_announcement_that_cannot_be_kept_is_not_acknowledged_however_often_it_comes(fleet, one):
    fleet.down()
    for _ in range(3):
        with pytest.raises(StoreDown):
            await one.incoming.announced("lamp", ANNOUNCEMENT, Source.LIVE)
    fleet.down(down=False)
    await one.incoming.announced("lamp", ANNOUNCEMENT, Source.LIVE)
    assert ("announcement", "lamp") in fleet.documents.records


async def test_what_is_no_announcement_is_dropped(one):
    await one.incoming.announced("lamp", b"[]", Source.LIVE)
    assert one.operations.counters["dropped.badAnnouncement"] == 1


async def test_strangers_are_dropped_unless_enrolment_is_open(fleet, one):
    await one.incoming.announced("ghost", ANNOUNCEMENT, Source.LIVE)
    await one.incoming.present(PresenceReport("ghost", online=True))
    assert one.operations.counters["dropped.unknownThing"] == 2
    lab = Fleet()
    open_one, other = await lab.member(enrols=True), await lab.member(enrols=True)
    await open_one.incoming.present(PresenceReport("ghost", online=True, client_id="g"))
    await open_one.incoming.announced("ghost", ANNOUNCEMENT, Source.LIVE)
    await settled()
    found = other.mirror.things.get("ghost")
    assert (found.online, found.client_id, len(found.announcement.actions)) == (True, "g", 1)
    await lab.stop()


async def present(member, *, online, client_id="a", at=None):
    await member.incoming.present(PresenceReport("lamp", online=online, client_id=client_id, at=at))
    await settled()


async def test_a_thing_comes_and_goes_for_all_workers(fleet, one, two):
    start = fleet.clock.unix()
    fleet.clock.advance(100)
    await present(one, online=True, at=start + 10)
    lamp = two.mirror.things.get("lamp")
    assert (lamp.online, lamp.since, lamp.client_id) == (True, start + 10, "a")
    assert one.link.times == [("lamp", fleet.clock.unix())]
    await present(two, online=False, at=start + 20)
    lamp = one.mirror.things.get("lamp")
    assert (lamp.online, lamp.since) == (False, start + 20)
    assert len(one.link.times) == 1


async def test_who_left_before_it_came_back_is_still_there(fleet, one):
    """Messages overtake one another: come at 1, gone at 2, come at 3, in any order."""
    start = fleet.clock.unix()
    fleet.clock.advance(100)
    for order in ((1, 3, 2), (3, 1, 2), (3, 2, 1), (1, 2, 3), (2, 3, 1), (2, 1, 3)):
        for moment in order:
            await present(one, online=moment != 2, at=start + moment)
        lamp = one.mirror.things.get("lamp")
        assert (lamp.online, lamp.since) == (True, start + 3), order
        start += 10


async def test_the_end_of_a_connection_that_was_taken_over_is_not_the_things(fleet, one):
    await present(one, online=True, client_id="old")
    fleet.clock.advance(1)
    await present(one, online=True, client_id="new")
    fleet.clock.advance(1)
    await present(one, online=False, client_id="old")
    assert one.mirror.things.get("lamp").online
    await present(one, online=False, client_id="")  # a will, which does not say whose it is
    assert not one.mirror.things.get("lamp").online


async def test_a_clock_that_is_ahead_does_not_keep_a_thing_online_for_ever(fleet, one):
    await present(one, online=True, at=fleet.clock.unix() + 1e6)
    fleet.clock.advance(1)
    await present(one, online=False)
    assert not one.mirror.things.get("lamp").online


async def test_presence_that_cannot_be_kept_comes_again(fleet, one):
    fleet.down()
    for _ in range(2):
        with pytest.raises(StoreDown):
            await present(one, online=True, at=fleet.clock.unix())
    fleet.down(down=False)
    await present(one, online=True, at=fleet.clock.unix())
    assert ("presence", "lamp") in fleet.documents.records
