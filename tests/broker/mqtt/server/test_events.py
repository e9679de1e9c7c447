"""What the server tells its host, and what the host has it do."""

from __future__ import annotations

from typing import Any

import pytest

from support.brokers import front_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.engine.store import RecordKind
from thingctl_broker.mqtt.engine.sys_topics import COUNTS, LOADS
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import PacketType, Will
from thingctl_protocol.topics import Topics

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")


class Host:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def client_connected(self, client_id, username):
        self.told.append(("connected", client_id, username))

    def client_disconnected(self, client_id):
        self.told.append(("disconnected", client_id))

    def subscribed(self, client_id, topic_filter, qos):
        self.told.append(("subscribed", client_id, topic_filter, qos))

    def unsubscribed(self, client_id, topic_filter):
        self.told.append(("unsubscribed", client_id, topic_filter))

    def message_received(self, client_id, message):
        self.told.append(("message", client_id, message.topic, message.payload, message.qos, message.retain))


@pytest.fixture
async def running():
    async with front_broker() as running:
        yield running


@pytest.fixture
def host(running):
    running.front.events.append(Host())
    return running.front.events[0]


async def publish(client, topic, payload, *, qos=0, retain=False):
    client.send(CODEC_3.encode_publish(topic.encode(), payload, qos=qos, packet_id=qos and 9, retain=retain))
    if qos == 1:
        await client.expect(PacketType.PUBACK)
    elif qos == 2:
        await client.expect(PacketType.PUBREC)
        client.send(b"\x62\x02\x00\x09")
        await client.expect(PacketType.PUBCOMP)


async def test_clients_and_their_subscriptions(running, host):
    client = await RawClient.connected(running.address, "c", username="lamp")
    own = Topics().request_filter("lamp")
    assert await client.subscribe("a/#", own, "a/+/#/b", qos=1) == [1, 1, 0x80]
    client.send(packets.encode_unsubscribe(2, ["a/#", "b", own]))
    await client.expect(PacketType.UNSUBACK)
    client.send(b"\xe0\x00")
    await eventually(lambda: ("disconnected", "c") in host.told)
    assert host.told == [
        ("connected", "c", "lamp"),
        ("subscribed", "c", "a/#", 1),
        ("unsubscribed", "c", "a/#"),
        ("disconnected", "c"),
    ]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
async def test_each_ordinary_message_once(running, host, qos, retain):
    client = await RawClient.connected(running.address, "c")
    for i in range(3):
        await publish(client, "a", b"%d" % i, qos=qos, retain=retain)
    await client.ping()
    assert host.told[1:] == [("message", "c", "a", b"%d" % i, qos, retain) for i in range(3)]


async def test_a_qos_2_message_that_comes_twice_is_one(running, host):
    client = await RawClient.connected(running.address, "c")
    packet = CODEC_3.encode_publish(b"a", b"x", qos=2, packet_id=9)
    client.send(packet + packet)
    for _ in range(2):
        await client.expect(PacketType.PUBREC)
    assert host.told[1:] == [("message", "c", "a", b"x", 2, False)]


async def test_neither_commands_nor_what_is_refused(running, host):
    client = await RawClient.connected(running.address, "lamp")
    await publish(client, Topics().actions("lamp"), b"{}", qos=1, retain=True)
    await publish(client, "$other", b"x", qos=1)
    running.service.send("lamp", "turnOn")
    await client.ping()
    assert host.told == [("connected", "lamp", None)]


async def test_a_will_when_it_is_published(running, host):
    leaves = await RawClient.connected(running.address, "leaves", will=Will("wills/a", b"x", 1, retain=True))
    leaves.send(b"\xe0\x00")
    await leaves.expect_end()
    dies = await RawClient.connected(running.address, "dies", will=Will("wills/b", b"y", 1, retain=True))
    dies.reset()
    await eventually(lambda: ("disconnected", "dies") in host.told)
    assert [told for told in host.told if told[0] == "message"] == [
        ("message", "dies", "wills/b", b"y", 1, True)
    ]


async def test_what_the_host_publishes_reaches_clients_and_no_host(running, host):
    client = await RawClient.connected(running.address, "c")
    await client.subscribe("a", qos=1)
    running.front.publish("a", b"1", qos=1, retain=True)
    message = await client.expect_publish()
    assert (message.topic, message.payload, message.qos, message.retain) == ("a", b"1", 1, False)
    assert [kept.payload for kept in running.front.retained("#")] == [b"1"]
    assert [told[0] for told in host.told] == ["connected", "subscribed"]


async def test_what_the_host_retains_reaches_later_subscribers_only(running):
    client = await RawClient.connected(running.address, "c")
    await client.subscribe("a", qos=0)
    running.front.retain("a", b"1", qos=1)
    await client.ping()
    later = await RawClient.connected(running.address, "later")
    await later.subscribe("a", qos=0)
    assert (await later.expect_publish()).retain
    running.front.retain("a", b"")
    assert running.front.retained("a") == []


async def test_the_figures_have_the_names_that_are_published(running):
    figures = running.front.figures()
    assert figures.keys() - {"uptime"} <= COUNTS.keys() | LOADS.keys()
    assert LOADS.keys() <= figures.keys()
    client = await RawClient.connected(running.address, "c")
    await publish(client, "a", b"x", qos=1, retain=True)
    await client.subscribe("a", qos=0)
    await client.expect_publish()
    running.front.publish("b", b"")
    now = running.front.figures()
    assert {
        name: now[name] - figures[name] for name in now if name.startswith(("clients", "publish_r", "sub"))
    } == {
        "clients_connected": 1,
        "clients_disconnected": 0,
        "clients_expired": 0,
        "clients_maximum": 1,
        "clients_total": 1,
        "publish_received": 1,
        "subscriptions": 1,
    }
    assert (now["publish_sent"], now["retained"], now["connects"], now["sockets"]) == (1, 1, 1, 1)
    assert now["uptime"] > figures["uptime"]


async def test_traffic_is_counted_in_bytes_and_packets(running):
    client = await RawClient.connected(running.address, "lamp")
    requests = Topics().request_filter("lamp")
    await client.subscribe(requests, "a", qos=1)
    for qos in (0, 1):
        for _ in range(2):  # the second one is on a topic that is known
            client.send(CODEC_3.encode_publish(b"a", b"x" * 1000, qos=qos, packet_id=qos and 9))
            copy = await client.receive()
            if qos:
                assert copy.first >> 4 in {PacketType.PUBACK, PacketType.PUBLISH}
                other = await client.receive()
                message = copy if copy.first >> 4 == PacketType.PUBLISH else other
                client.send(CODEC_3.encode_puback(packets.parse_publish(message).packet_id))
    running.service.send("lamp", "turnOn")
    request = await client.expect(PacketType.PUBLISH)
    client.send(CODEC_3.encode_puback(packets.parse_publish(request).packet_id))
    await client.ping()
    figures = running.front.figures()
    # CONNECT, SUBSCRIBE, four PUBLISH, two PUBACKs of messages and one of the request, PINGREQ
    assert figures["messages_received"] == 10
    # CONNACK, SUBACK, four PUBLISH, two PUBACKs, the request, PINGRESP
    assert figures["messages_sent"] == 10
    received = client.bytes_sent
    assert figures["bytes_received"] == received
    assert figures["bytes_sent"] == client.bytes_received


class Records:
    """A store that keeps what it is given in memory."""

    def __init__(self):
        self.kept = {}

    def put(self, kind, key, value):
        self.kept[kind, key] = value

    def delete(self, kind, key):
        self.kept.pop((kind, key), None)

    def then(self, kept):
        kept()

    def load(self, kind):
        return iter(())


async def test_figures_are_not_stored():
    records = Records()
    async with front_broker(store=records) as running:
        running.front.publish("$SYS/broker/uptime", b"1 seconds", retain=True)
        running.front.publish("a", b"x", retain=True)
        assert records.kept.keys() == {(RecordKind.RETAINED, b"a")}
        assert len(running.front.retained("$SYS/#")) == 1
