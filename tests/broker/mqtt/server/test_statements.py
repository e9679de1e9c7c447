"""What both standards ask of a server, over real sockets, where no other test of the front shows it."""

from __future__ import annotations

import asyncio

import pytest

from support import wire5
from support.brokers import Running, front_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.frames import Frame
from thingctl_broker.mqtt.protocol.packets import Connect, PacketType
from thingctl_broker.mqtt.protocol.properties import PacketBody5, Value
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.mqtt.server.limits import MqttLimits

CODECS = {4: CODEC_3, 5: CODEC_5}
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
FORBIDDEN = b"$SYS/x"
"""A topic that no client may publish."""


@pytest.fixture
async def running():
    async with front_broker() as running:
        yield running


def hello(version: int, client_id: str = "lamp") -> bytes:
    if version == 5:
        return wire5.connect(client_id)
    return packets.encode_connect(Connect(client_id, True, 0, None, None, None))


async def come(running: Running, version: int = 5, client_id: str = "lamp", data: bytes = b"") -> RawClient:
    """Connect, by a CONNECT of one's own if given."""
    client = await RawClient.open(running.address)
    client.send(data or hello(version, client_id))
    connack = await client.expect(PacketType.CONNACK)
    assert connack.packet[3] == 0
    return client


async def listen(client: RawClient, *filters: str, version: int = 5, qos: int = 1) -> None:
    if version == 5:
        client.send(wire5.subscribe(99, *filters, options=qos))
        await client.expect(PacketType.SUBACK)
    else:
        await client.subscribe(*filters, qos=qos, packet_id=99)


async def answer_of(client: RawClient, kind: PacketType) -> tuple[int, int]:
    """The packet identifier and the reason code of the next packet."""
    answer = CODEC_5.parse_acknowledgement(await client.expect(kind))
    return answer.packet_id, answer.reason


def connack_of(frame: Frame) -> tuple[int, int, dict[int, Value]]:
    """Session Present, the reason code, and the properties."""
    body = PacketBody5(frame)
    return body.byte(), body.byte(), body.properties(PacketType.CONNACK).values


async def goodbye(client: RawClient) -> int:
    """The reason code of a DISCONNECT, behind which nothing comes."""
    frame = await client.expect(PacketType.DISCONNECT)
    await client.expect_end()
    return frame.packet[frame.start]


# Connecting.


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.conforms("MQTT-3.1.4-4", "MQTT-3.2.0-1", "MQTT5-3.2.0-1")
async def test_the_first_packet_of_the_server_is_the_connack(running, version):
    client = await RawClient.open(running.address)
    publish = CODECS[version].encode_publish(b"a", b"x", qos=1, packet_id=1)
    client.send(hello(version) + publish + b"\xc0\x00")
    assert (await client.expect(PacketType.CONNACK)).packet[3] == 0
    await client.expect(PacketType.PUBACK)
    await client.expect(PacketType.PINGRESP)


@pytest.mark.parametrize("level", [3, 6])
@pytest.mark.conforms("MQTT-3.1.2-2", "MQTT-3.2.2-5", "MQTT5-3.1.2-2")
async def test_an_unknown_level_is_answered_and_the_connection_ends(running, level):
    client = await RawClient.open(running.address)
    client.send(wire5.packet(0x10, wire5.text("MQTT"), bytes([level, 2]), b"\0\0", wire5.text("lamp")))
    assert (await client.expect(PacketType.CONNACK)).packet[2:] == b"\0\1"
    await client.expect_end()


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.conforms("MQTT-3.1.3-5", "MQTT5-3.1.3-5")
async def test_every_identifier_that_a_server_must_take_is_taken(running, version):
    for client_id in ("0", *(LETTERS[start : start + 23] for start in (0, 20, 39))):
        await come(running, version, client_id)


@pytest.mark.conforms("MQTT5-3.1.0-2", "MQTT5-3.2.0-2")
async def test_a_second_connect_is_a_protocol_error(running):
    client = await come(running)
    client.send(hello(5))
    assert await goodbye(client) == Reason.PROTOCOL_ERROR


@pytest.mark.conforms(
    "MQTT5-3.1.2-4",
    "MQTT5-3.1.2-5",
    "MQTT5-3.1.2-6",
    "MQTT5-3.1.3-2",
    "MQTT5-3.1.4-4",
    "MQTT5-3.2.2-2",
    "MQTT5-3.2.2-3",
)
async def test_clean_start_and_session_present(running):
    expiry = b"\x11" + (60).to_bytes(4)
    for clean, present in ((False, 0), (False, 1), (True, 0), (False, 1)):
        client = await RawClient.open(running.address)
        client.send(wire5.connect("lamp", expiry, clean=clean))
        assert connack_of(await client.expect(PacketType.CONNACK))[:2] == (present, 0)
        if not present:
            assert not running.front.engine.sessions.get("lamp").subscriptions
            await listen(client, "news")
        else:
            assert list(running.front.engine.sessions.get("lamp").subscriptions) == ["news"]
        client.send(b"\xe0\x00")
        await client.expect_end()
    other = await RawClient.open(running.address)
    other.send(wire5.connect("other", clean=False))
    assert connack_of(await other.expect(PacketType.CONNACK))[:2] == (0, 0)


@pytest.mark.conforms("MQTT5-3.1.3-6", "MQTT5-3.1.3-7", "MQTT5-3.2.2-16")
async def test_a_client_without_an_identifier_hears_of_the_one_that_it_gets(running):
    given = []
    for _ in range(2):
        client = await RawClient.open(running.address)
        client.send(wire5.connect(""))
        given.append(connack_of(await client.expect(PacketType.CONNACK))[2][0x12])
    assert given[0] != given[1]
    assert {connection.client_id for connection in running.front.connections} == set(given)


@pytest.mark.conforms("MQTT5-3.1.2-28", "MQTT5-3.1.4-5", "MQTT5-4.12.0-6")
async def test_the_connack_of_a_plain_client_says_what_this_server_takes(running):
    client = await RawClient.open(running.address)
    client.send(wire5.connect("lamp"))
    present, reason, said = connack_of(await client.expect(PacketType.CONNACK))
    assert (present, reason) == (0, 0)
    assert not {0x15, 0x16, 0x1A} & said.keys(), "neither authentication nor response information"
    limits = running.front.limits
    assert said[0x21] == limits.qos2_held
    assert said[0x22] == limits.topic_aliases
    assert said[0x27] == limits.packet_bytes


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wire5.connect("lamp", flags=1), Reason.MALFORMED_PACKET),
        (wire5.connect("lamp", b"\x21\x00\x00"), Reason.PROTOCOL_ERROR),
        (wire5.connect("lamp", b"\x15" + wire5.text("m")), Reason.BAD_AUTHENTICATION_METHOD),
    ],
)
@pytest.mark.conforms(
    "MQTT5-3.1.4-1",
    "MQTT5-3.2.2-7",
    "MQTT5-3.2.2-8",
    "MQTT5-3.14.0-1",
    "MQTT5-4.12.0-1",
    "MQTT5-4.12.0-4",
    "MQTT5-4.13.2-1",
)
async def test_a_connect_that_breaks_a_rule_is_refused_with_its_reason(running, data, reason):
    client = await RawClient.open(running.address)
    client.send(data)
    assert (await client.expect(PacketType.CONNACK)).packet[2:4] == bytes([0, reason])
    await client.expect_end()


@pytest.mark.parametrize(
    ("flags", "rest"),
    [
        (4, wire5.text(b"\xff") + wire5.text("x")),
        (0x80, wire5.text(b"\xed\xa0\x80")),
    ],
    ids=["will topic", "user name"],
)
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.conforms("MQTT-3.1.3-10", "MQTT-3.1.3-11", "MQTT5-3.1.3-11", "MQTT5-3.1.3-12")
async def test_the_texts_of_a_connect_are_utf_8(running, version, flags, rest):
    client = await RawClient.open(running.address)
    empty = b"\0" if version == 5 else b""
    head = wire5.text("MQTT") + bytes([version, flags | 2]) + b"\0\0" + empty + wire5.text("lamp")
    client.send(wire5.packet(0x10, head, empty if flags == 4 else b"", rest))
    if version == 5:
        assert (await client.expect(PacketType.CONNACK)).packet[3] == Reason.MALFORMED_PACKET
    await client.expect_end()
    assert running.service.counters["front.malformed"] == 1


@pytest.mark.conforms("MQTT5-3.1.4-3")
async def test_a_client_that_is_taken_over_is_told_0x8e(running):
    client = await come(running)
    await come(running)
    assert await goodbye(client) == Reason.SESSION_TAKEN_OVER


@pytest.mark.conforms("MQTT5-3.1.2-22", "MQTT5-3.2.2-22")
async def test_keep_alive_runs_out_as_the_client_said(running):
    client = await come(running, data=wire5.connect("lamp", keep_alive=1))
    async with asyncio.timeout(4):
        assert await goodbye(client) == Reason.KEEP_ALIVE_TIMEOUT


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.conforms("MQTT-3.12.4-1", "MQTT5-3.12.4-1")
async def test_a_ping_is_answered(running, version):
    client = await come(running, version)
    client.send(b"\xc0\x00")
    assert (await client.expect(PacketType.PINGRESP)).packet == b"\xd0\x00"


# Publishing.


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.conforms(
    "MQTT-2.3.1-6",
    "MQTT-3.3.4-1",
    "MQTT5-2.2.1-5",
    "MQTT5-3.3.4-1",
    "MQTT5-4.3.2-4",
    "MQTT5-4.3.3-8",
    "MQTT5-4.3.3-10",
    "MQTT5-4.3.3-11",
)
async def test_an_exchange_keeps_its_identifier(running, version):
    encode = CODECS[version].encode_publish
    listener = await come(running, version, "listener")
    await listen(listener, "a", version=version, qos=2)
    source = await come(running, version, "source")
    source.send(encode(b"a", b"0"))
    source.send(encode(b"a", b"1", qos=1, packet_id=7))
    assert await answer_of(source, PacketType.PUBACK) == (7, 0)
    for dup in (False, True):
        source.send(encode(b"a", b"2", qos=2, packet_id=9, dup=dup))
        assert await answer_of(source, PacketType.PUBREC) == (9, 0)
    source.send(b"\x62\x02\x00\x09")
    assert await answer_of(source, PacketType.PUBCOMP) == (9, 0)
    parse = CODECS[version].parse_publish
    heard = [parse(await listener.expect(PacketType.PUBLISH)) for _ in range(3)]
    assert [(m.payload, m.qos) for m in heard] == [(b"0", 0), (b"1", 1), (b"2", 2)]
    listener.send(b"\x50\x02" + heard[2].packet_id.to_bytes(2))
    assert await answer_of(listener, PacketType.PUBREL) == (heard[2].packet_id, 0)
    listener.send(b"\xc0\x00")
    await listener.expect(PacketType.PINGRESP)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.conforms("MQTT-4.3.2-2", "MQTT5-4.3.2-5", "MQTT5-4.3.3-12")
async def test_an_identifier_that_was_acknowledged_means_another_message(running, version, qos):
    codec = CODECS[version]
    listener = await come(running, version, "listener")
    await listen(listener, "a", version=version, qos=0)
    source = await come(running, version, "source")
    for payload, dup in ((b"1", False), (b"2", False), (b"3", True)):
        source.send(codec.encode_publish(b"a", payload, qos=qos, packet_id=7, dup=dup))
        await source.expect(PacketType.PUBACK if qos == 1 else PacketType.PUBREC)
        if qos == 2:
            source.send(b"\x62\x02\x00\x07")
            await source.expect(PacketType.PUBCOMP)
        assert codec.parse_publish(await listener.expect(PacketType.PUBLISH)).payload == payload


@pytest.mark.conforms("MQTT5-4.3.3-9")
async def test_an_identifier_that_was_refused_means_another_message(running):
    listener = await come(running, client_id="listener")
    await listen(listener, "a", qos=0)
    source = await come(running, client_id="source")
    source.send(CODEC_5.encode_publish(FORBIDDEN, b"x", qos=2, packet_id=7))
    assert await answer_of(source, PacketType.PUBREC) == (7, Reason.NOT_AUTHORIZED)
    source.send(CODEC_5.encode_publish(b"a", b"x", qos=2, packet_id=7))
    assert await answer_of(source, PacketType.PUBREC) == (7, 0)
    assert CODEC_5.parse_publish(await listener.expect(PacketType.PUBLISH)).payload == b"x"


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.conforms("MQTT-3.3.1-3", "MQTT5-3.3.1-3")
async def test_dup_is_of_one_connection(running, version):
    codec = CODECS[version]
    listener = await come(running, version, "listener")
    await listen(listener, "a", version=version)
    source = await come(running, version, "source")
    source.send(codec.encode_publish(b"a", b"x", qos=1, packet_id=7, dup=True))
    await source.expect(PacketType.PUBACK)
    assert not codec.parse_publish(await listener.expect(PacketType.PUBLISH)).dup


@pytest.mark.conforms("MQTT-4.6.0-6")
async def test_answers_come_in_the_order_of_what_they_answer(running):
    source = await come(running, 4, "source")
    source.send(
        b"".join(CODEC_3.encode_publish(b"a", b"x", qos=1 + i % 2, packet_id=i + 1) for i in range(20))
    )
    answers = [await source.receive() for _ in range(20)]
    assert [packets.parse_packet_id(frame) for frame in answers if frame] == list(range(1, 21))


@pytest.mark.parametrize(("qos", "kind"), [(1, PacketType.PUBACK), (2, PacketType.PUBREC)])
@pytest.mark.conforms("MQTT5-3.4.2-1", "MQTT5-3.5.2-1")
async def test_a_publish_is_answered_with_what_became_of_it(running, qos, kind):
    listener = await come(running, client_id="listener")
    await listen(listener, "a", qos=0)
    source = await come(running, client_id="source")
    for packet_id, (topic, reason) in enumerate(
        [(b"a", 0), (b"b", Reason.NO_MATCHING_SUBSCRIBERS), (FORBIDDEN, Reason.NOT_AUTHORIZED)], 1
    ):
        source.send(CODEC_5.encode_publish(topic, b"x", qos=qos, packet_id=packet_id))
        assert await answer_of(source, kind) == (packet_id, reason)


@pytest.mark.conforms("MQTT5-3.6.2-1", "MQTT5-3.7.2-1")
async def test_an_unknown_identifier_is_told_0x92(running):
    client = await come(running)
    client.send(b"\x62\x02\x00\x07")
    assert await answer_of(client, PacketType.PUBCOMP) == (7, Reason.PACKET_IDENTIFIER_NOT_FOUND)
    client.send(b"\x50\x02\x00\x07")
    assert await answer_of(client, PacketType.PUBREL) == (7, Reason.PACKET_IDENTIFIER_NOT_FOUND)


@pytest.mark.conforms("MQTT5-4.3.3-13")
async def test_an_exchange_goes_on_though_its_message_has_expired(running):
    source = await come(running, client_id="source")
    source.send(CODEC_5.encode_publish(b"a", b"x", qos=2, packet_id=7, message_expiry=0))
    await source.expect(PacketType.PUBREC)
    source.send(b"\x62\x02\x00\x07")
    assert await answer_of(source, PacketType.PUBCOMP) == (7, 0)


@pytest.mark.conforms("MQTT5-3.3.2-9", "MQTT5-3.3.2-12")
async def test_every_alias_up_to_the_maximum_is_taken_and_no_other():
    async with front_broker(limits=MqttLimits(topic_aliases=3)) as running:
        listener = await come(running, client_id="listener")
        await listen(listener, "#", qos=0)
        source = await come(running, client_id="source")
        for topic in (b"t%d", b""):
            for alias in (1, 2, 3):
                name = topic % alias if topic else b""
                source.send(CODEC_5.encode_publish(name, b"x", topic_alias=alias))
        heard = [CODEC_5.parse_publish(await listener.expect(PacketType.PUBLISH)).topic for _ in range(6)]
        assert heard == ["t1", "t2", "t3"] * 2
        source.send(CODEC_5.encode_publish(b"t4", b"x", topic_alias=4))
        assert await goodbye(source) == Reason.TOPIC_ALIAS_INVALID


@pytest.mark.conforms("MQTT5-3.3.2-7")
async def test_an_alias_ends_with_its_connection(running):
    expiry = b"\x11" + (60).to_bytes(4)
    client = await come(running, data=wire5.connect("lamp", expiry, clean=False))
    client.send(CODEC_5.encode_publish(b"a", b"x", topic_alias=1) + b"\xe0\x00")
    await client.expect_end()
    client = await come(running, data=wire5.connect("lamp", expiry, clean=False))
    client.send(CODEC_5.encode_publish(b"", b"x", topic_alias=1))
    assert await goodbye(client) == Reason.PROTOCOL_ERROR


# Subscribing.


@pytest.mark.conforms(
    "MQTT5-2.2.1-6",
    "MQTT5-3.8.4-1",
    "MQTT5-3.8.4-2",
    "MQTT5-3.8.4-5",
    "MQTT5-3.8.4-6",
    "MQTT5-3.8.4-7",
    "MQTT5-3.9.3-1",
    "MQTT5-3.9.3-2",
    "MQTT5-3.10.4-4",
    "MQTT5-3.10.4-5",
    "MQTT5-3.10.4-6",
    "MQTT5-3.11.3-1",
    "MQTT5-3.11.3-2",
    "MQTT5-4.8.2-1",
    "MQTT5-4.8.2-2",
)
async def test_each_filter_has_its_reason_code_in_order(running):
    client = await come(running)
    granted = ["a", "$share/g/a/#"]
    refused = ["a#", "$share//a", "$share/g", "$share/g+/a", "$share/g/", "a+/b"]
    client.send(wire5.subscribe(7, granted[0], *refused, granted[1], options=2))
    frame = await client.expect(PacketType.SUBACK)
    body = PacketBody5(frame)
    assert body.packet_id() == 7
    body.properties(PacketType.SUBACK)
    assert body.take(body.left) == bytes([2, *[Reason.TOPIC_FILTER_INVALID] * len(refused), 2])
    assert sorted(f for f, _, _ in running.front.engine.tree) == sorted(granted)
    client.send(wire5.unsubscribe(8, "never", "a", "$share/g/a/#"))
    body = PacketBody5(await client.expect(PacketType.UNSUBACK))
    assert body.packet_id() == 8
    body.properties(PacketType.UNSUBACK)
    assert body.take(body.left) == bytes([Reason.NO_SUBSCRIPTION_EXISTED, 0, 0])
    assert not len(running.front.engine.tree)


@pytest.mark.conforms("MQTT-3.10.3-1")
async def test_the_filters_of_an_unsubscribe_are_utf_8(running):
    client = await come(running, 4)
    client.send(wire5.packet(0xA2, b"\0\1", wire5.text(b"\xff")))
    await client.expect_end()
    assert running.service.counters["front.malformed"] == 1


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("topic", ["\ufeffa", "a/", "/a", "A", "a b", "\u0041\u030a", "\uffff"])
@pytest.mark.conforms("MQTT-1.5.3-3", "MQTT-4.7.3-4", "MQTT5-1.5.4-3", "MQTT5-4.7.3-4")
async def test_nothing_is_made_of_a_topic_but_what_it_is(running, version, topic):
    codec = CODECS[version]
    listener = await come(running, version, "listener")
    await listen(listener, "a", "\u00c5", topic, version=version, qos=0)
    source = await come(running, version, "source")
    source.send(codec.encode_publish(topic.encode(), b"x"))
    assert codec.parse_publish(await listener.expect(PacketType.PUBLISH)).topic == topic
    listener.send(b"\xc0\x00")
    await listener.expect(PacketType.PINGRESP)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.conforms("MQTT-4.7.3-3", "MQTT5-4.7.3-3")
async def test_the_longest_topic_there_can_be_passes(running, version):
    codec, topic = CODECS[version], "t" * 65_535
    listener = await come(running, version, "listener")
    await listen(listener, topic, version=version, qos=0)
    source = await come(running, version, "source")
    source.send(codec.encode_publish(topic.encode(), b"x"))
    assert codec.parse_publish(await listener.expect(PacketType.PUBLISH)).topic == topic


# Violations, and the end.


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x36\x00", Reason.MALFORMED_PACKET),
        (CODEC_5.encode_publish(b"a/+", b"x"), Reason.TOPIC_NAME_INVALID),
        (wire5.packet(0x82, b"\0\1\0", wire5.text(b"\xff"), b"\1"), Reason.MALFORMED_PACKET),
        (wire5.packet(0xA2, b"\0\1\0", wire5.text(b"\xff")), Reason.MALFORMED_PACKET),
        (wire5.subscribe(0, "a"), Reason.PROTOCOL_ERROR),
        (b"\xf0\x00", Reason.PROTOCOL_ERROR),
    ],
)
@pytest.mark.conforms(
    "MQTT5-3.3.2-2",
    "MQTT5-3.8.3-1",
    "MQTT5-3.10.3-1",
    "MQTT5-3.14.2-1",
    "MQTT5-3.14.4-1",
    "MQTT5-3.14.4-2",
    "MQTT5-4.7.0-1",
    "MQTT5-4.13.1-1",
    "MQTT5-4.13.2-1",
)
async def test_a_violation_is_answered_with_its_reason_code(running, data, reason):
    client = await come(running)
    client.send(data + b"\xc0\x00")
    assert await goodbye(client) == reason


@pytest.mark.parametrize("pair", [(b"\xff", b"v"), (b"k", b"\xff"), (b"k", b"\0")])
@pytest.mark.conforms("MQTT5-1.5.7-1")
async def test_both_texts_of_a_user_property_are_utf_8(running, pair):
    client = await come(running)
    given = wire5.properties(b"\x26" + wire5.text(pair[0]) + wire5.text(pair[1]))
    client.send(wire5.packet(0x30, wire5.text("a"), given, b"x"))
    assert await goodbye(client) == Reason.MALFORMED_PACKET


@pytest.mark.parametrize("number", [0x03, 0x08], ids=["content type", "response topic"])
@pytest.mark.conforms("MQTT5-3.3.2-13", "MQTT5-3.3.2-19")
async def test_the_texts_of_properties_are_utf_8(running, number):
    client = await come(running)
    given = wire5.properties(bytes([number]) + wire5.text(b"\xff"))
    client.send(wire5.packet(0x30, wire5.text("a"), given, b"x"))
    assert await goodbye(client) == Reason.MALFORMED_PACKET


@pytest.mark.parametrize(("end", "is_published"), [(b"\xe0\x00", False), (b"\xe0\x01\x04", True)])
@pytest.mark.conforms("MQTT5-3.14.4-3")
async def test_a_goodbye_says_whether_the_will_is_published(running, end, is_published):
    listener = await come(running, client_id="listener")
    await listen(listener, "wills", qos=0)
    will = wire5.properties() + wire5.text("wills") + wire5.text("gone")
    client = await come(running, data=wire5.connect("lamp", flags=4, rest=will))
    client.send(end)
    await client.expect_end()
    listener.send(b"\xc0\x00")
    await listener.expect(PacketType.PUBLISH if is_published else PacketType.PINGRESP)


@pytest.mark.conforms("MQTT5-3.1.2-29")
async def test_a_client_that_wants_no_words_gets_none(running):
    client = await come(running, data=wire5.connect("lamp", b"\x17\x00"))
    for qos, kind in ((1, PacketType.PUBACK), (2, PacketType.PUBREC)):
        client.send(CODEC_5.encode_publish(FORBIDDEN, b"x", qos=qos, packet_id=qos))
        answer = CODEC_5.parse_acknowledgement(await client.expect(kind))
        assert (answer.reason, answer.reason_string) == (Reason.NOT_AUTHORIZED, "")


@pytest.mark.conforms("MQTT5-3.1.2-24", "MQTT5-3.4.2-2", "MQTT5-3.5.2-2", "MQTT5-3.14.2-3")
async def test_words_are_left_out_where_the_packet_would_be_too_long(running):
    client = await come(running, data=wire5.connect("lamp", b"\x27" + (20).to_bytes(4)))
    client.send(CODEC_5.encode_publish(FORBIDDEN, b"x", qos=1, packet_id=1))
    assert len((await client.expect(PacketType.PUBACK)).packet) <= 20
    client.send(CODEC_5.encode_publish(FORBIDDEN, b"x", qos=2, packet_id=2))
    assert len((await client.expect(PacketType.PUBREC)).packet) <= 20
    client.send(b"\x36\x00")
    assert len((await client.expect(PacketType.DISCONNECT)).packet) <= 20


@pytest.mark.conforms("MQTT5-3.2.2-19")
async def test_a_refusal_is_no_longer_than_the_client_takes(running):
    client = await RawClient.open(running.address)
    will = wire5.properties() + wire5.text("$SYS") + wire5.text("x")
    client.send(wire5.connect("lamp", b"\x27" + (20).to_bytes(4), flags=4, rest=will))
    frame = await client.expect(PacketType.CONNACK)
    assert (frame.packet[3], len(frame.packet)) == (Reason.NOT_AUTHORIZED, 5)
    await client.expect_end()


@pytest.mark.parametrize(("client_id", "most"), [("lamp", 15), ("", 40)])
@pytest.mark.conforms("MQTT5-3.1.2-24")
async def test_a_client_that_does_not_take_its_connack_is_turned_away(running, client_id, most):
    client = await RawClient.open(running.address)
    client.send(wire5.connect(client_id, b"\x27" + most.to_bytes(4)) + b"\xc0\x00")
    frame = await client.expect(PacketType.CONNACK)
    assert (frame.packet[3], len(frame.packet)) == (Reason.PACKET_TOO_LARGE, 5)
    await client.expect_end()
    assert running.front.engine.sessions.get(client_id) is None


@pytest.mark.conforms("MQTT5-3.1.2-24")
async def test_an_answer_that_the_client_does_not_take_is_not_sent(running):
    client = await come(running, data=wire5.connect("lamp", b"\x27" + (20).to_bytes(4)))
    client.send(wire5.subscribe(1, *(f"t{i}" for i in range(14))))
    assert len((await client.expect(PacketType.SUBACK)).packet) <= 20
    client.send(wire5.unsubscribe(2, *(f"t{i}" for i in range(15))))
    assert await goodbye(client) == Reason.PACKET_TOO_LARGE


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.conforms("MQTT5-3.1.2-24")
async def test_a_request_that_the_device_does_not_take_is_not_sent(running, qos):
    lamp = await come(running, data=wire5.connect("lamp", b"\x27" + (500).to_bytes(4)))
    await listen(lamp, "$emqx/commands/things/lamp/executions/+/request", qos=qos)
    long = running.service.send("lamp", "turnOn", b'{"x":"' + b"y" * 500 + b'"}')
    short = running.service.send("lamp", "turnOn")
    request = CODEC_5.parse_publish(await lamp.expect(PacketType.PUBLISH))
    assert short.execution_id in request.topic
    await eventually(lambda: long.is_terminal)
    assert long.reason.reason_code == "REFUSED_BY_DEVICE"
    assert "takes 500" in long.reason.reason_description
    assert not short.is_terminal


@pytest.mark.conforms("MQTT-4.8.0-2")
async def test_an_error_of_the_server_closes_the_connection_that_it_came_on(running, monkeypatch):
    bystander = await come(running, 4, "bystander")
    client = await come(running, 4)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    def fail(*_: object) -> int:
        raise RuntimeError("out of order")

    with monkeypatch.context() as broken:
        broken.setattr(running.front.engine, "publish", fail)
        client.send(CODEC_3.encode_publish(b"a", b"x", qos=1, packet_id=1))
        await client.expect_end()
    await bystander.ping()
