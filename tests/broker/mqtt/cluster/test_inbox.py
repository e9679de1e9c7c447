"""What is received: handled together, acknowledged in order, tried again, never in the way of others."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from support.cluster import TOPICS, Worker
from support.waits import eventually
from thingctl_broker.cluster.link_port import PresenceReport, Source
from thingctl_broker.mqtt.cluster.inbox import LOOSE_MAX, LinkInbox
from thingctl_broker.mqtt.protocol.packets5 import Received
from thingctl_broker.system.backoff import ExponentialBackoff
from thingctl_protocol.limits import ANNOUNCEMENT_MAX, PAYLOAD_MAX


def response(packet_id, execution_id="e", payload=b"{}", qos=1):
    return Received(TOPICS.response("lamp", execution_id), payload, qos, False, packet_id)


class Gates:
    """Lets each execution's handler through when the test says so."""

    def __init__(self):
        self.open = set()
        self.broken = set()
        self.calls = []

    async def __call__(self, thing, execution_id=""):
        self.calls.append(execution_id)
        if execution_id in self.broken:
            raise RuntimeError("the store is down")
        await eventually(lambda: execution_id in self.open)


async def test_they_are_acknowledged_in_the_order_in_which_they_came():
    gates, acknowledged = Gates(), []
    worker = Worker(gates)
    inbox = LinkInbox(TOPICS, worker, acknowledged.append)
    for packet_id, execution_id in ((11, "a"), (12, "b"), (13, "c")):
        inbox.take(response(packet_id, execution_id))
    await eventually(lambda: gates.calls == ["a", "b", "c"])
    gates.open |= {"b", "c"}
    await eventually(lambda: len(worker.responses) == 2)
    assert not acknowledged
    gates.open.add("a")
    await eventually(lambda: inbox.is_empty)
    assert acknowledged == [11, 12, 13]
    assert worker.ids == ["b", "c", "a"]


async def test_one_that_cannot_be_handled_holds_up_nobody_and_is_tried_again():
    gates, acknowledged = Gates(), []
    gates.open |= {"a", "b"}
    gates.broken.add("a")
    worker = Worker(gates)
    inbox = LinkInbox(TOPICS, worker, acknowledged.append)
    with structlog.testing.capture_logs() as logs:
        inbox.take(response(1, "a"))
        inbox.take(response(2, "b"))
        await eventually(lambda: gates.calls.count("a") > 2)
    assert acknowledged == [2]
    assert not inbox.is_empty
    assert [log["error"] for log in logs] == ["the store is down"]  # once, not each time
    gates.broken.clear()
    await eventually(lambda: inbox.is_empty)
    assert acknowledged == [2, 1]


async def test_nothing_is_acknowledged_or_begun_again_once_the_connection_is_gone():
    gates, acknowledged = Gates(), []
    gates.broken.add("bad")
    worker = Worker(gates)
    inbox = LinkInbox(TOPICS, worker, acknowledged.append)
    inbox.take(response(1, "slow"))
    inbox.take(response(2, "bad"))
    await eventually(lambda: "bad" in gates.calls)
    inbox.close()
    gates.open.add("slow")
    await eventually(lambda: worker.ids == ["slow"])
    await eventually(lambda: not inbox._tasks)
    assert not acknowledged


async def test_one_that_is_sent_again_while_it_is_handled_is_handled_and_acknowledged_once():
    gates, acknowledged = Gates(), []
    worker = Worker(gates)
    inbox = LinkInbox(TOPICS, worker, acknowledged.append)
    inbox.take(response(1, "a"))
    inbox.take(response(1, "a"))
    gates.open.add("a")
    await eventually(lambda: inbox.is_empty)
    assert (acknowledged, worker.ids) == ([1], ["a"])
    inbox.take(response(1, "a"))  # another message by the same identifier
    await eventually(lambda: inbox.is_empty)
    assert acknowledged == [1, 1]


async def test_each_kind_goes_where_it_belongs():
    worker, acknowledged = Worker(), []
    inbox = LinkInbox(TOPICS, worker, acknowledged.append)
    inbox.take(response(1, "e1", b""))
    inbox.take(Received(TOPICS.actions("lamp"), b"", 1, False, 2))
    inbox.take(Received(TOPICS.actions("lamp"), b"{}", 1, True, 3))
    inbox.take(Received(TOPICS.presence("lamp"), b'{"online":true,"clientId":"c","at":5}', 1, False, 4))
    inbox.take(Received(TOPICS.presence("lamp"), b'{"online":false}', 0, False, 0))
    await eventually(lambda: inbox.is_empty and len(worker.presences) == 2)
    assert worker.responses == [("lamp", "e1", b"")]
    assert worker.announcements == [("lamp", b"", Source.LIVE), ("lamp", b"{}", Source.RETAINED)]
    assert worker.presences == [PresenceReport("lamp", True, "c", 5), PresenceReport("lamp", False)]
    assert acknowledged == [1, 2, 3, 4]
    assert not worker.drops


@pytest.mark.parametrize(
    ("topic", "payload", "thing", "reason"),
    [
        (TOPICS.response("lamp", "e"), b"x" * (PAYLOAD_MAX + 1), "lamp", "tooLarge"),
        (TOPICS.actions("lamp"), b"x" * (ANNOUNCEMENT_MAX + 1), "lamp", "tooLarge"),
        (TOPICS.presence("lamp"), b"", "lamp", "badPresence"),
        (TOPICS.presence("lamp"), b'{"online":1}', "lamp", "badPresence"),
        (TOPICS.request("lamp", "e"), b"{}", "", "unknownTopic"),
        ("fleet/things/la mp/actions", b"{}", "", "unknownTopic"),
        ("", b"{}", "", "unknownTopic"),
    ],
)
async def test_what_means_nothing_is_acknowledged_and_told(topic, payload, thing, reason):
    worker, acknowledged = Worker(), []
    inbox = LinkInbox(TOPICS, worker, acknowledged.append)
    inbox.take(Received(topic, payload, 1, False, 9))
    assert acknowledged == [9]
    assert [(who, why) for who, why, _ in worker.drops] == [(thing, reason)]
    assert inbox.is_empty


async def test_even_counting_what_is_dropped_may_fail():
    worker, acknowledged = Worker(), []
    worker.dropped = None  # not callable
    inbox = LinkInbox(TOPICS, worker, acknowledged.append)
    with structlog.testing.capture_logs() as logs:
        inbox.take(Received("x", b"", 1, False, 9))
    assert acknowledged == [9]
    assert logs


async def test_a_flood_at_qos_0_is_bounded():
    gates = Gates()
    worker = Worker(gates)
    inbox = LinkInbox(TOPICS, worker, lambda _: None)
    for _ in range(LOOSE_MAX + 5):
        inbox.take(response(0, "a", qos=0))
    assert worker.reasons == ["tooMany"] * 5
    gates.open.add("a")
    await eventually(lambda: inbox.is_empty)
    inbox.take(response(0, "a", qos=0))
    await eventually(lambda: inbox.is_empty)
    assert len(worker.responses) == LOOSE_MAX + 1


ANY_TOPIC = st.text(max_size=60) | st.sampled_from(
    [
        TOPICS.response("lamp", "e"),
        TOPICS.actions("lamp"),
        TOPICS.presence("lamp"),
        TOPICS.request("lamp", "e"),
    ]
)
ANY_PAYLOAD = st.binary(max_size=80) | st.sampled_from(
    [b'{"online":true}', b'{"online":true,"at":1e999}', b'{"online":"yes"}', b"[" * 2000, b"\xed\xa0\x80"]
)


@given(st.lists(st.tuples(ANY_TOPIC, ANY_PAYLOAD, st.integers(0, 1), st.booleans()), max_size=8))
def test_whatever_things_send_is_acknowledged_once_and_the_inbox_goes_on(messages):
    async def play():
        acknowledged = []
        inbox = LinkInbox(TOPICS, Worker(), acknowledged.append)
        for packet_id, (topic, payload, qos, retain) in enumerate(messages, 1):
            inbox.take(Received(topic, payload, qos, retain, packet_id if qos else 0))
        await eventually(lambda: inbox.is_empty)
        assert acknowledged == [i for i, (_, _, qos, _) in enumerate(messages, 1) if qos]

    asyncio.run(play())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=12))
def test_every_message_is_acknowledged_once_and_those_that_went_well_in_order(script):
    """Each message: whether its first attempt fails, and after how many turns of the loop it is handled."""

    async def play():
        acknowledged, failed = [], set()

        async def before(thing, execution_id):
            fails, turns = script[int(execution_id)]
            for _ in range(turns):
                await asyncio.sleep(0)
            if fails and execution_id not in failed:
                failed.add(execution_id)
                raise RuntimeError

        inbox = LinkInbox(TOPICS, Worker(before), acknowledged.append)
        for i in range(len(script)):
            inbox.take(response(i + 1, str(i)))
        await eventually(lambda: inbox.is_empty)
        assert sorted(acknowledged) == list(range(1, len(script) + 1))
        well = [i for i in acknowledged if not script[i - 1][0]]
        assert well == sorted(well)

    with structlog.testing.capture_logs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("thingctl_broker.mqtt.cluster.inbox.RETRY", ExponentialBackoff(0.001, 10.0))
        asyncio.run(play())
