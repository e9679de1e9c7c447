"""Packets: strict as the standard asks, each refusal named by its rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import mqtt_samples as samples
from thingctl_broker.mqtt.protocol import frames, packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.connect import parse_connect
from thingctl_broker.mqtt.protocol.fields import encode_length
from thingctl_broker.mqtt.protocol.frames import Frame, FrameScanner, MalformedPacket
from thingctl_broker.mqtt.protocol.packets import NEVER, Connect, ConnectRefused, PacketType, Will
from thingctl_broker.mqtt.protocol.reason_codes import Reason

MOST = 100
"""Filters in one packet."""


def parse(frame: Frame) -> object:
    """Take any packet of a client apart, as a connection does."""
    if frame.first >> 4 == PacketType.PUBLISH:
        return packets.parse_publish(frame)
    match packets.check_shape(frame):
        case PacketType.CONNECT:
            return parse_connect(frame)
        case PacketType.SUBSCRIBE:
            return packets.parse_subscribe(frame, MOST)
        case PacketType.UNSUBSCRIBE:
            return packets.parse_unsubscribe(frame, MOST)
        case PacketType.PUBACK | PacketType.PUBREC | PacketType.PUBREL | PacketType.PUBCOMP:
            return packets.parse_packet_id(frame)
        case kind:
            return kind


@pytest.mark.parametrize("parser", [packets.parse_subscribe, packets.parse_unsubscribe])
def test_more_filters_than_are_taken_are_refused_as_soon_as_that_is_known(parser):
    encode = (
        (lambda filters: packets.encode_subscribe(1, [(f, 0) for f in filters]))
        if parser is packets.parse_subscribe
        else (lambda filters: packets.encode_unsubscribe(1, filters))
    )
    assert len(parser(samples.frame(encode(["a"] * MOST)), MOST)[1]) == MOST
    with pytest.raises(packets.TooManyFilters, match="more than 100 filters"):
        parser(samples.frame(encode(["a"] * (MOST + 1))), MOST)
    broken_behind = encode(["a"] * (MOST + 1))[:-1] + b"\xff"
    with pytest.raises(packets.TooManyFilters):  # what follows is not looked at
        parser(samples.frame(broken_behind), MOST)


# What is put together is what is taken apart.


@given(samples.connects())
@pytest.mark.conforms("MQTT-3.1.3-1")
def test_a_connect_comes_back_as_it_was(connect):
    assert parse_connect(samples.frame(packets.encode_connect(connect))) == connect


@given(samples.publishes_with_meaning())
def test_a_publish_comes_back_as_it_was(publish):
    assert packets.parse_publish(samples.frame(samples.encode(publish))) == publish


@given(samples.packet_ids, samples.filters)
def test_a_subscribe_comes_back_as_it_was(packet_id, wanted):
    frame = samples.frame(packets.encode_subscribe(packet_id, wanted))
    assert packets.parse_subscribe(frame, MOST) == (packet_id, wanted)


@given(samples.packet_ids, st.lists(samples.topics, min_size=1))
def test_an_unsubscribe_comes_back_as_it_was(packet_id, filters):
    frame = samples.frame(packets.encode_unsubscribe(packet_id, filters))
    assert packets.parse_unsubscribe(frame, MOST) == (packet_id, filters)


@pytest.mark.parametrize(
    ("encoded", "as_the_standard_has_it"),
    [
        (CODEC_3.encode_puback(0x0102), "40 02 01 02"),
        (CODEC_3.encode_pubrec(0xFFFF), "50 02 ff ff"),
        (CODEC_3.encode_pubcomp(1), "70 02 00 01"),
        (packets.encode_unsuback(10), "b0 02 00 0a"),
        (packets.encode_suback(10, [0, 1, 2, 0x80]), "90 06 00 0a 00 01 02 80"),
        (CODEC_3.encode_connack(Reason.SUCCESS), "20 02 00 00"),
        (CODEC_3.encode_connack(Reason.SUCCESS, session_present=True), "20 02 01 00"),
        (CODEC_3.encode_connack(Reason.NOT_AUTHORIZED, session_present=True), "20 02 00 05"),
        (CODEC_3.encode_publish(b"a/b", b"x"), "30 06 00 03 61 2f 62 78"),
        (CODEC_3.encode_publish(b"a/b", b"", qos=1, packet_id=10), "32 07 00 03 61 2f 62 00 0a"),
        (packets.encode_subscribe(10, [("a/b", 1), ("c/d", 2)]), "82 0e 000a 0003 612f62 01 0003 632f64 02"),
        (packets.encode_unsubscribe(10, ["a/b", "c/d"]), "a2 0c 000a 0003 612f62 0003 632f64"),
        (packets.PINGRESP, "d0 00"),
    ],
)
@pytest.mark.conforms("MQTT-2.2.2-1", "MQTT-2.3.1-5", "MQTT-3.1.4-4", "MQTT-4.3.1-1")
def test_what_is_put_together_is_what_the_standard_shows(encoded, as_the_standard_has_it):
    assert encoded == bytes.fromhex(as_the_standard_has_it)


@pytest.mark.conforms("MQTT-3.1.3-3")
def test_the_connect_that_the_standard_shows():
    connect = Connect("id", True, 10, "u", b"p", Will("w", b"m", 1, False))
    assert packets.encode_connect(connect) == bytes.fromhex(
        "10 1a 0004 4d515454 04 ce 000a 0002 6964 0001 77 0001 6d 0001 75 0001 70"
    )


# What is broken is refused by the rule that it breaks.

CONNECT_HEAD = b"\x00\x04MQTT\x04"


def connect_body(flags: int, payload: bytes = b"\x00\x04lamp", head: bytes = CONNECT_HEAD) -> bytes:
    body = head + bytes([flags]) + b"\x00\x3c" + payload
    return b"\x10" + encode_length(len(body)) + body


BROKEN = [
    ("section 2.2.1", "a packet that only a server sends", "20 02 00 00"),
    ("section 2.2.1", "a SUBACK", "90 03 00 01 00"),
    ("section 2.2.1", "an UNSUBACK", "b0 02 00 01"),
    ("section 2.2.1", "a PINGRESP", "d0 00"),
    ("section 2.2.1", "reserved type 0", "00 00"),
    ("section 2.2.1", "reserved type 15", "f0 00"),
    ("MQTT-2.2.2-2", "flags on a CONNECT", "11 00"),
    ("MQTT-2.2.2-2", "flags on a PUBACK", "42 02 00 01"),
    ("MQTT-2.2.2-2", "flags on a PUBREC", "52 02 00 01"),
    ("MQTT-2.2.2-2", "no flags on a PUBREL", "60 02 00 01"),
    ("MQTT-2.2.2-2", "flags on a PUBCOMP", "72 02 00 01"),
    ("MQTT-2.2.2-2", "no flags on a SUBSCRIBE", "80 06 00 01 00 01 61 00"),
    ("MQTT-2.2.2-2", "no flags on an UNSUBSCRIBE", "a0 05 00 01 00 01 61"),
    ("MQTT-2.2.2-2", "flags on a PINGREQ", "c1 00"),
    ("MQTT-2.2.2-2", "flags on a DISCONNECT", "e8 00"),
    ("section 2.2.3", "a PUBACK without its identifier", "40 00"),
    ("section 2.2.3", "a PUBREL with a byte too many", "62 03 00 01 00"),
    ("section 2.2.3", "a PINGREQ with a body", "c0 01 00"),
    ("section 2.2.3", "a DISCONNECT with a body", "e0 01 00"),
    ("section 2.2.3", "an empty PUBLISH", "30 00"),
    ("section 2.2.3", "half the length of a topic", "30 01 00"),
    ("section 2.2.3", "a topic longer than its packet", "30 04 00 20 61 62"),
    ("section 2.2.3", "a QoS 1 PUBLISH that ends in its identifier", "32 04 00 01 61 00"),
    ("section 2.2.3", "a SUBSCRIBE without its identifier", "82 01 00"),
    ("section 2.2.3", "a filter without its QoS", "82 05 00 01 00 01 61"),
    ("section 2.2.3", "a filter longer than its packet", "a2 05 00 01 00 02 61"),
    ("section 2.2.3", "a CONNECT that ends in its client identifier", connect_body(2, b"\x00\x04la")),
    ("section 2.2.3", "a CONNECT that ends before its user name", connect_body(0x82)),
    ("section 2.2.3", "a CONNECT that ends before its password", connect_body(0xC2, b"\x00\x01c\x00\x01u")),
    ("section 2.2.3", "a CONNECT that ends before its will", connect_body(0x06)),
    ("section 2.2.3", "an empty CONNECT", "10 00"),
    ("MQTT-2.3.1-1", "a PUBLISH with identifier 0", "32 05 00 01 61 00 00"),
    ("MQTT-2.3.1-1", "a SUBSCRIBE with identifier 0", "82 06 00 00 00 01 61 00"),
    ("MQTT-2.3.1-1", "an UNSUBSCRIBE with identifier 0", "a2 05 00 00 00 01 61"),
    ("MQTT-1.5.3-1", "a topic that is not UTF-8", "30 03 00 01 ff"),
    ("MQTT-1.5.3-1", "half a surrogate pair", "30 05 00 03 ed a0 80"),
    ("MQTT-1.5.3-1", "an overlong encoding", "30 04 00 02 c0 80"),
    ("MQTT-1.5.3-1", "a client identifier that is not UTF-8", connect_body(2, b"\x00\x01\xff")),
    ("MQTT-1.5.3-2", "U+0000 in a topic", "30 03 00 01 00"),
    ("MQTT-1.5.3-2", "U+0000 in a filter", "82 06 00 01 00 01 00 00"),
    ("MQTT-1.5.3-2", "U+0000 in a user name", connect_body(0x82, b"\x00\x01c\x00\x01\x00")),
    ("MQTT-3.1.2-1", "another protocol's name", connect_body(2, head=b"\x00\x04MQTX\x04")),
    ("MQTT-3.1.2-3", "the reserved flag", connect_body(3)),
    ("MQTT-3.1.2-11", "a will's QoS without a will", connect_body(0x0A)),
    ("MQTT-3.1.2-11", "a will's RETAIN without a will", connect_body(0x22)),
    ("MQTT-3.1.2-14", "a will of QoS 3", connect_body(0x1E, b"\x00\x01c\x00\x01w\x00\x00")),
    ("MQTT-3.1.2-22", "a password without a user name", connect_body(0x42, b"\x00\x01c\x00\x01p")),
    ("MQTT-3.1.3-1", "a byte behind the last field", connect_body(2, b"\x00\x01c\x00")),
    ("MQTT-3.3.1-4", "QoS 3", "36 05 00 01 61 00 01"),
    ("MQTT-3.3.1-2", "DUP at QoS 0", "38 03 00 01 61"),
    ("MQTT-3.8.3-3", "nothing to subscribe to", "82 02 00 01"),
    ("MQTT-3.8.3-4", "a requested QoS of 3", "82 06 00 01 00 01 61 03"),
    ("MQTT-3.8.3-4", "reserved bits beside a requested QoS", "82 06 00 01 00 01 61 41"),
    ("MQTT-3.10.3-2", "nothing to unsubscribe from", "a2 02 00 01"),
]


@pytest.mark.parametrize("apart", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize(
    ("rule", "what", "packet"), BROKEN, ids=[f"{rule}: {what}" for rule, what, _ in BROKEN]
)
@pytest.mark.conforms(
    "MQTT-1.5.3-1",
    "MQTT-1.5.3-2",
    "MQTT-2.2.2-2",
    "MQTT-2.3.1-1",
    "MQTT-3.1.2-1",
    "MQTT-3.1.2-3",
    "MQTT-3.1.2-9",
    "MQTT-3.1.2-11",
    "MQTT-3.1.2-13",
    "MQTT-3.1.2-14",
    "MQTT-3.1.2-15",
    "MQTT-3.1.2-18",
    "MQTT-3.1.2-19",
    "MQTT-3.1.2-20",
    "MQTT-3.1.2-21",
    "MQTT-3.1.2-22",
    "MQTT-3.1.3-1",
    "MQTT-3.1.3-3",
    "MQTT-3.1.3-4",
    "MQTT-3.1.3-11",
    "MQTT-3.3.1-2",
    "MQTT-3.3.1-4",
    "MQTT-3.3.2-1",
    "MQTT-3.6.1-1",
    "MQTT-3.8.1-1",
    "MQTT-3.8.3-1",
    "MQTT-3.8.3-3",
    "MQTT-3.8.3-4",
    "MQTT-3.10.1-1",
    "MQTT-3.10.3-2",
    "MQTT-3.14.1-1",
    "MQTT-4.7.3-2",
)
def test_what_breaks_a_rule_is_refused_by_it(rule, what, packet, apart):
    packet = bytes.fromhex(packet) if isinstance(packet, str) else packet
    scanner = FrameScanner(1000)
    chunks = [bytes([byte]) for byte in packet] if apart else [packet]
    (frame,) = [frame for chunk in chunks for frame in scanner.feed(chunk)]
    with pytest.raises(MalformedPacket) as fault:
        parse(frame)
    assert fault.value.rule == rule
    assert str(fault.value) == f"[{rule}] {fault.value.text}"


def test_every_rule_that_is_named_has_a_case_that_breaks_it():
    source = "".join(Path(module.__file__).read_text() for module in (packets, frames))
    named = set(re.findall(r'MalformedPacket\(\s*"([^"]+)"', source))
    assert named - {rule for rule, _, _ in BROKEN} == set()


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (connect_body(2, head=b"\x00\x04MQTT\x06"), Reason.UNSUPPORTED_PROTOCOL_VERSION),
        (connect_body(2, head=b"\x00\x04MQTT\x03"), Reason.UNSUPPORTED_PROTOCOL_VERSION),
        (connect_body(2, head=b"\x00\x06MQIsdp\x04"), Reason.UNSUPPORTED_PROTOCOL_VERSION),
        (connect_body(0, b"\x00\x00"), Reason.CLIENT_IDENTIFIER_NOT_VALID),
    ],
)
@pytest.mark.conforms("MQTT-3.1.2-2", "MQTT5-3.1.2-2")
def test_a_connect_that_must_be_answered_is_refused_with_its_code(packet, code):
    with pytest.raises(ConnectRefused) as refusal:
        parse(samples.frame(packet))
    assert refusal.value.code is code


def test_the_fewest_and_the_most_that_a_connect_may_have():
    assert parse(samples.frame(connect_body(2, b"\x00\x00"))) == Connect("", True, 60, None, None, None)
    most = Connect("c" * 0xFFFF, False, 0xFFFF, "", b"", Will("w", b"", 2, True), session_expiry=NEVER)
    assert parse(samples.frame(packets.encode_connect(most))) == most


# Nothing but a refusal gets out, whatever a valid packet is turned into.

mutations = st.lists(
    st.tuples(st.sampled_from(["flip", "insert", "delete"]), st.integers(0, 10_000), st.integers(1, 255)),
    min_size=1,
    max_size=4,
)


def mutated(packet: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(packet)
    for how, place, value in changes:
        if not data or how == "insert":
            data.insert(place % (len(data) + 1), value)
        elif how == "flip":
            data[place % len(data)] ^= value
        else:
            del data[place % len(data)]
    return bytes(data)


@given(samples.encoded, mutations)
def test_a_mutated_packet_is_refused_or_a_packet(packet, changes):
    stream = mutated(packet, changes) + b"\xc0\x00"
    try:
        for frame in FrameScanner(2000).feed(stream):
            parse(frame)
    except (MalformedPacket, ConnectRefused):
        pass


@given(samples.encoded)
def test_a_valid_packet_is_taken(packet):
    parse(samples.frame(packet))
