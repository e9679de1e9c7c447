"""The link on a cluster that is played by hand, packet by packet."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from support.brokers import front_broker
from support.cluster import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBLISH,
    TOPICS,
    UNSUBSCRIBE,
    Worker,
    hand_played,
    packet,
    publish,
    settings,
)
from support.waits import eventually
from thingctl_broker.cluster.link_port import Handed, LinkDown, Source
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.auth.authenticator import OpenAuthenticator
from thingctl_broker.mqtt.cluster.link import ClusterLink
from thingctl_broker.mqtt.protocol.packets import ConnectRefused
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.system.backoff import ExponentialBackoff

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr("thingctl_broker.mqtt.cluster.session.QUIET", 0.05)
    monkeypatch.setattr("thingctl_broker.mqtt.cluster.link.CAUGHT_UP_AFTER", 0.05)
    monkeypatch.setattr("thingctl_broker.mqtt.cluster.dialer.ROUNDS", ExponentialBackoff(0.02, 15.0))


@pytest.fixture
async def cluster():
    async with hand_played() as cluster:
        yield cluster


class Started:
    """A link that is up, its worker, its side of the first connection, and its changes of state."""

    def __init__(self, link, worker, peer, states):
        self.link, self.worker, self.peer, self.states = link, worker, peer, states


@pytest.fixture
async def started(cluster):
    links = []

    async def start(worker=None, fields=None, **welcome):
        worker = worker or Worker()
        link = ClusterLink(settings(cluster.url, **(fields or {})), TOPICS)
        states = []
        starting = asyncio.ensure_future(link.start(worker, states.append))
        peer = await cluster.attached(**welcome)
        await starting
        links.append(link)
        return Started(link, worker, peer, states)

    yield start
    for link in links:
        await link._stop_running()
        if link._session is not None:
            link._session.connection.abort("the test is over")


async def test_it_joins_the_group_with_a_session_that_is_kept(cluster):
    link = ClusterLink(settings(cluster.url, username="u", password="p", receive_maximum=7), TOPICS)
    states = []
    starting = asyncio.ensure_future(link.start(Worker(), states.append))
    peer = await cluster.accept()
    connect = await peer.welcome()
    assert connect.body[:7] == b"\0\x04MQTT\x05"
    assert connect.body[7] == 0xC0  # user name and password; clean start false
    assert b"\x11" + (3600).to_bytes(4) in connect.body
    assert b"\x21\0\x07" in connect.body
    assert b"\x27" + (1024 * 1024).to_bytes(4) in connect.body
    assert b"\x22" not in connect.body[10:30]  # no topic aliases, please
    assert b"thingctl-g-w1" in connect.body
    assert not link.connected
    subscribe = await peer.grant()
    for kind in ("executions/+/response", "actions", "presence"):
        assert f"$share/g/fleet/things/+/{kind}".encode() + b"\x01" in subscribe.body
    await starting
    assert (link.connected, states) == (True, [True])
    await link._stop_running()
    link._session.connection.abort("")


async def test_a_request_is_published_with_what_is_left_of_its_time(started):
    up = await started()
    asking = asyncio.ensure_future(up.link.publish_request("lamp", "e1", b"{}", 1.5))
    found = await up.peer.expect(PUBLISH)
    assert TOPICS.request("lamp", "e1").encode() in found.body
    assert b"\x02" + (2).to_bytes(4) in found.body
    assert found.first == 0x32
    assert not asking.done()
    up.peer.puback(found.packet_id, 0x10)
    assert await asking is Handed.NOBODY


async def test_as_many_are_in_flight_as_the_cluster_wants_and_the_others_wait_in_order(started):
    up = await started(properties=b"\x21\0\x02")
    asking = [asyncio.ensure_future(up.link.publish_request("lamp", f"e{i}", b"{}", 9)) for i in range(6)]
    await eventually(lambda: len(up.link._session.outbox._waiting) == 4)
    seen = []
    for _ in asking:
        found = await up.peer.expect(PUBLISH)
        seen.append(found.body.split(b"/")[4].decode())
        up.peer.puback(found.packet_id)
    assert seen == [f"e{i}" for i in range(6)]
    assert set(await asyncio.gather(*asking)) == {Handed.TAKEN}


async def test_a_receive_maximum_of_1_is_kept(started):
    up = await started(properties=b"\x21\0\x01")
    asking = [asyncio.ensure_future(up.link.publish_request("lamp", "e", b"{}", 9)) for _ in range(3)]
    for _ in asking:
        found = await up.peer.expect(PUBLISH)
        assert len(up.link._session.outbox._in_flight) == 1
        up.peer.puback(found.packet_id)
    await asyncio.gather(*asking)


async def test_cancel_and_time(started):
    up = await started()
    up.link.publish_cancel("lamp", "e1")
    found = await up.peer.expect(PUBLISH)
    assert (found.first, TOPICS.cancel("lamp", "e1").encode() in found.body) == (0x32, True)
    up.peer.puback(found.packet_id, 0x10)
    up.link.publish_time("lamp", 5.0)
    found = await up.peer.expect(PUBLISH)
    assert (found.first, found.body.endswith(b'{"timestamp":5.0}')) == (0x30, True)


async def test_without_a_connection_requests_fail_at_once_and_time_is_let_be(cluster):
    link = ClusterLink(settings(cluster.url), TOPICS)
    with pytest.raises(LinkDown):
        await link.publish_request("lamp", "e", b"{}", 5)
    with pytest.raises(LinkDown):
        link.publish_cancel("lamp", "e")
    link.publish_time("lamp", 1)
    assert not await link.stop()


async def test_a_lost_connection_fails_what_is_in_flight_and_nothing_is_sent_again(started, cluster):
    up = await started()
    asking = asyncio.ensure_future(up.link.publish_request("lamp", "e1", b"{}", 30))
    await up.peer.expect(PUBLISH)
    up.peer.drop()
    with pytest.raises(LinkDown, match="lost"):
        await asking
    again = await cluster.attached(present=True)
    await again.grant(UNSUBSCRIBE, 1)
    await eventually(lambda: up.link.connected)
    assert up.states == [True, False, True]
    second = asyncio.ensure_future(up.link.publish_request("lamp", "e2", b"{}", 30))
    found = await again.expect(PUBLISH)  # not e1
    assert b"e2" in found.body
    again.puback(found.packet_id)
    assert await second is Handed.TAKEN


async def test_gmqtt_does_not_connect_again_by_itself(started, cluster):
    up = await started()
    up.link._session.connection._client.reconnect_delay = 0  # it would be there first
    up.peer.drop()
    await cluster.attached()
    await eventually(lambda: up.link.connected)
    assert len(cluster._all) == 2


async def test_a_late_acknowledgement_never_goes_over_a_later_connection(started, cluster):
    """The identifier may be another message's by then, which would be lost."""
    gate = asyncio.Event()

    async def before(thing, execution_id):
        if execution_id == "old":
            await gate.wait()
        else:
            await asyncio.Event().wait()  # never handled

    worker = Worker(before)
    up = await started(worker)
    up.peer.send(publish(TOPICS.response("lamp", "old"), b"{}", 7))
    await eventually(lambda: not up.link._session.inbox.is_empty)
    up.peer.drop()
    again = await cluster.attached()
    await eventually(lambda: up.link.connected)
    again.send(publish(TOPICS.response("lamp", "new"), b"{}", 7))
    await eventually(lambda: not up.link._session.inbox.is_empty)
    gate.set()
    await eventually(lambda: worker.ids == ["old"])
    asking = asyncio.ensure_future(up.link.publish_request("lamp", "e", b"{}", 30))
    found = await again.receive()
    assert found.kind == PUBLISH  # and no PUBACK before it
    again.puback(found.packet_id)
    await asking


async def test_a_message_is_acknowledged_when_it_is_handled_and_not_before(started):
    gate = asyncio.Event()

    async def before(*_):
        await gate.wait()

    up = await started(Worker(before))
    up.peer.send(publish(TOPICS.response("lamp", "e"), b"{}", 300))
    up.link.publish_time("lamp", 1)
    assert (await up.peer.receive()).kind == PUBLISH
    gate.set()
    assert (await up.peer.expect(PUBACK)).packet_id == 300


@pytest.mark.parametrize(
    "properties",
    [
        b"\xff",  # nobody's identifier
        b"\x26\0\x01\xff\0\x01\xff",  # a user property that is no UTF-8
        b"\x23\0\x05",  # a topic alias, though none were allowed
        b"\x01\x07",
        b"\x0b\x05\x0b\x06",  # twice
        b"\x09\xff\xff",  # shorter than it says
        b"\x26\0\x01a\0\x01b" * 500,
    ],
)
async def test_no_property_keeps_a_message_from_being_handled_and_acknowledged(started, properties):
    up = await started()
    up.peer.send(publish(TOPICS.response("lamp", "e"), b"{}", 5, properties=properties))
    assert (await up.peer.expect(PUBACK)).packet_id == 5
    assert up.worker.ids == ["e"]


@pytest.mark.parametrize("topic", [b"", b"\xff", b"fleet/things/lamp/executions/e/request", b"a" * 60000])
async def test_no_topic_keeps_the_link_from_going_on(started, topic):
    up = await started()
    up.peer.send(publish(topic, b"\xff", 5) + publish(TOPICS.response("lamp", "e"), b"{}", 6))
    assert [(await up.peer.expect(PUBACK)).packet_id for _ in range(2)] == [5, 6]
    assert up.worker.reasons == ["unknownTopic"]


async def test_a_packet_that_makes_no_sense_ends_the_connection_and_the_link_goes_on(started, cluster):
    up = await started()
    with structlog.testing.capture_logs() as logs:
        up.peer.send(packet(PUBLISH, b"\0\x05ab", 2))
        await cluster.attached()
        await eventually(lambda: up.link.connected)
    assert any("ends too soon" in log.get("reason", "") for log in logs)


@pytest.mark.parametrize(
    ("connack", "said"),
    [
        (b"\0\x86\0", "bad user name or password"),
        (b"\0\x87\0", "not authorized"),
        (b"\0\x01", "MQTT 3.1.1 only"),
        (b"\0\0\x02\x2a\0", "no shared subscriptions"),
        (b"\0\0\x02\x28\0", "no wildcard subscriptions"),
        (b"\0\0\x02\x24\0", "no QoS 1"),
    ],
)
async def test_what_waiting_does_not_mend_ends_the_start_in_words(cluster, connack, said):
    link = ClusterLink(settings(cluster.url), TOPICS)
    starting = asyncio.ensure_future(link.start(Worker(), lambda _: None))
    peer = await cluster.accept()
    await peer.receive()
    peer.send(packet(CONNACK, connack))
    if connack == b"\0\x01":
        peer.drop()
    with pytest.raises(ConfigurationError, match=f"link: mqtt://.*{said}"):
        await starting


async def test_a_refused_subscription_names_the_acl(cluster):
    link = ClusterLink(settings(cluster.url, username="u"), TOPICS)
    starting = asyncio.ensure_future(link.start(Worker(), lambda _: None))
    peer = await cluster.accept()
    await peer.welcome()
    asked = await peer.receive()
    peer.send(packet(9, asked.packet_id.to_bytes(2) + b"\0\x01\x01\x87"))
    with pytest.raises(
        ConfigurationError, match=r"subscription to \$share.*response.*ACL must let the user 'u'"
    ):
        await starting


class OnlyMqtt3(OpenAuthenticator):
    """Refuses MQTT 5, as a broker does that does not know it."""

    def admit(self, connect, peer):
        if connect.version == 5:
            raise ConnectRefused(Reason.UNSUPPORTED_PROTOCOL_VERSION, "what is that?")
        return super().admit(connect, peer)


async def test_a_broker_of_mqtt_3_is_refused_in_words(monkeypatch):
    monkeypatch.setattr("thingctl_broker.mqtt.server.connection._MQTT_5", b"never")  # so its CONNACK is old
    async with front_broker(gatekeeper=OnlyMqtt3()) as running:
        link = ClusterLink(settings(f"mqtt://127.0.0.1:{running.address[1]}"), TOPICS)
        with pytest.raises(ConfigurationError, match=r"MQTT 3\.1\.1 only; workers need MQTT 5"):
            async with asyncio.timeout(20):
                await link.start(Worker(), lambda _: None)


async def test_what_may_pass_is_tried_again(cluster):
    link = ClusterLink(settings(cluster.url), TOPICS)
    starting = asyncio.ensure_future(link.start(Worker(), lambda _: None))
    with structlog.testing.capture_logs() as logs:
        peer = await cluster.accept()
        await peer.receive()
        peer.send(packet(CONNACK, b"\0\x89\0"))
        (await cluster.accept()).drop()
        peer = await cluster.attached()
        await starting
    reasons = [log["reason"] for log in logs if "reason" in log]
    assert "server busy" in reasons[0]
    assert "closed before CONNACK" in reasons[1]
    await link._stop_running()
    link._session.connection.abort("")


async def test_who_is_refused_later_tries_again_slowly(started, cluster):
    up = await started()
    with structlog.testing.capture_logs() as logs:
        up.peer.drop()
        peer = await cluster.accept()
        await peer.receive()
        peer.send(packet(CONNACK, b"\0\x87\0"))
        await eventually(lambda: any(log["log_level"] == "error" for log in logs))
    error = next(log for log in logs if log["log_level"] == "error")
    assert "not authorized" in error["reason"]
    assert error["retryIn"] >= 15


async def test_another_client_with_the_same_id_is_told_and_not_fought_with(started):
    up = await started()
    with structlog.testing.capture_logs() as logs:
        up.peer.send(packet(DISCONNECT, b"\x8e\0"))
        await eventually(lambda: any("another client" in log["event"] for log in logs))
    assert any("another client came" in log.get("reason", "") for log in logs)
    assert up.states == [True, False]


async def test_a_silent_cluster_is_given_up(started, monkeypatch):
    up = await started()
    connection = up.link._session.connection
    monkeypatch.setattr("thingctl_broker.mqtt.cluster.connection._SILENCE", 0.0)
    connection._watch_silence()
    assert (await connection.lost).startswith("nothing was heard from the cluster for")


async def test_to_stop_is_to_leave_the_group_finish_and_end_the_session(started):
    gate = asyncio.Event()

    async def before(*_):
        await gate.wait()

    up = await started(Worker(before))
    up.peer.send(publish(TOPICS.response("lamp", "e1"), b"{}", 1))
    await eventually(lambda: not up.link._session.inbox.is_empty)
    stopping = asyncio.ensure_future(up.link.stop())
    left = await up.peer.grant(UNSUBSCRIBE)
    assert left.body.count(b"$share/g/") == 3
    up.peer.send(publish(TOPICS.response("lamp", "e2"), b"{}", 2))  # it was queued
    gate.set()
    assert [(await up.peer.expect(PUBACK)).packet_id for _ in range(2)] == [1, 2]
    assert (await up.peer.expect(DISCONNECT)).body == b"\0\x05\x11\0\0\0\0"
    assert await stopping
    assert up.states == [True, False]


async def test_what_cannot_be_handled_in_time_is_left_to_others(started, monkeypatch):
    monkeypatch.setattr("thingctl_broker.mqtt.cluster.link.STOP_WITHIN", 0.1)

    async def before(*_):
        raise RuntimeError("the store is down")

    up = await started(Worker(before))
    up.peer.send(publish(TOPICS.response("lamp", "e1"), b"{}", 1))
    await eventually(lambda: not up.link._session.inbox.is_empty)
    stopping = asyncio.ensure_future(up.link.stop())
    await up.peer.grant(UNSUBSCRIBE)
    assert (await up.peer.expect(DISCONNECT)).body == b"\0\0"  # the session is kept
    assert not await stopping


async def test_to_adopt_is_to_leave_the_group_in_its_name_first(started, cluster):
    up = await started()
    adopting = asyncio.ensure_future(up.link.adopt("thingctl-g-dead"))
    heir = await cluster.accept()
    connect = await heir.welcome(present=True)
    assert b"thingctl-g-dead" in connect.body
    heir.send(publish(TOPICS.actions("lamp"), b"{}", 1))
    # Its answers come in the order in which the packets are handled: the subscriptions go at once.
    packets = [await heir.receive(), await heir.receive()]
    left = next(found for found in packets if found.kind == UNSUBSCRIBE)
    heir.send(packet(11, left.packet_id.to_bytes(2) + b"\0\0\0\0"))
    assert (await heir.expect(DISCONNECT)).body == b"\0\x05\x11\0\0\0\0"
    await adopting
    assert up.worker.announcements == [("lamp", b"{}", Source.RETAINED)]
    assert up.link.connected


async def test_where_no_session_was_kept_there_is_nothing_to_adopt(started, cluster):
    up = await started()
    adopting = asyncio.ensure_future(up.link.adopt("thingctl-g-dead"))
    heir = await cluster.accept()
    await heir.welcome(present=False)
    assert (await heir.expect(DISCONNECT)).body == b"\0\x05\x11\0\0\0\0"
    await adopting


async def test_an_adoption_that_breaks_off_leaves_the_session(started, cluster):
    up = await started()
    adopting = asyncio.ensure_future(up.link.adopt("thingctl-g-dead"))
    heir = await cluster.accept()
    await heir.welcome(present=True)
    await heir.receive()
    heir.drop()
    with pytest.raises(LinkDown):
        await adopting
    adopting = asyncio.ensure_future(up.link.adopt("thingctl-g-dead"))
    heir = await cluster.accept()
    await heir.receive()
    heir.send(packet(CONNACK, b"\0\x87\0"))
    with pytest.raises(LinkDown, match=r"cannot be adopted: .*not authorized"):
        await adopting


async def test_what_was_announced_before_is_heard_on_request(started):
    up = await started()
    catching_up = asyncio.ensure_future(up.link.catch_up())
    asked = await up.peer.grant(count=1)
    assert asked.body[3:] == b"\0\x16fleet/things/+/actions\x01"
    up.peer.send(publish(TOPICS.actions("lamp"), b"{}", 1, flags=1))
    assert (await up.peer.expect(PUBACK)).packet_id == 1
    while not up.peer.has_sent:  # what is said live goes on, and holds it up not at all
        up.peer.send(publish(TOPICS.presence("lamp"), b'{"online":true}'))
        await asyncio.sleep(0.01)
    assert (await up.peer.grant(UNSUBSCRIBE, 1)).body[3:] == b"\0\x16fleet/things/+/actions"
    await catching_up
    assert up.worker.announcements == [("lamp", b"{}", Source.RETAINED)]


async def test_an_owner_that_fails_to_take_note_does_not_stop_the_link(cluster):
    def on_state(connected):
        raise RuntimeError

    link = ClusterLink(settings(cluster.url), TOPICS)
    with structlog.testing.capture_logs():
        starting = asyncio.ensure_future(link.start(Worker(), on_state))
        await cluster.attached()
        await starting
    assert link.connected
    await link._stop_running()
    link._session.connection.abort("")


async def test_a_connection_lost_again_and_again_hints_at_another_worker_with_the_name(started, cluster):
    """Not every broker says that another client came: mosquitto just drops the first one."""
    up = await started()
    with structlog.testing.capture_logs() as logs:
        peer = up.peer
        for lost in range(1, 4):
            assert not any("the same name" in log["event"] for log in logs), lost
            peer.drop()
            peer = await cluster.attached()
    (hint,) = [log for log in logs if "the same name" in log["event"]]
    assert (hint["log_level"], hint["clientId"]) == ("error", "thingctl-g-w1")
