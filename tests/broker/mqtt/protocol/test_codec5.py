"""MQTT 5 as a codec: strict, each refusal by its rule and with its reason; paho is the peer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from support import mqtt_samples as samples
from thingctl_broker.mqtt.protocol.codec import ConnackProperties
from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.connect import parse_connect
from thingctl_broker.mqtt.protocol.fields import encode_length
from thingctl_broker.mqtt.protocol.frames import Frame, MalformedPacket
from thingctl_broker.mqtt.protocol.packets import (
    Acknowledgement,
    ConnectRefused,
    Disconnect,
    PacketType,
    Publish,
    Subscribe,
    SubscriptionRequest,
    TooManyFilters,
)
from thingctl_broker.mqtt.protocol.reason_codes import Reason


def parse(frame: Frame) -> object:
    """Take any packet of a client apart, as a connection does."""
    if frame.first >> 4 == PacketType.PUBLISH:
        return CODEC_5.parse_publish(frame)
    match CODEC_5.check_shape(frame):
        case PacketType.CONNECT:
            return parse_connect(frame)
        case PacketType.SUBSCRIBE:
            return CODEC_5.parse_subscribe(frame, 9)
        case PacketType.UNSUBSCRIBE:
            return CODEC_5.parse_unsubscribe(frame, 9)
        case PacketType.DISCONNECT:
            return CODEC_5.parse_disconnect(frame)
        case PacketType.PINGREQ:
            return None
        case _:
            return CODEC_5.parse_acknowledgement(frame)


def packet_of(wire: str) -> bytes:
    """A packet from its first byte and its body; the length between them is worked out."""
    first, body = bytes.fromhex(wire)[:1], bytes.fromhex(wire)[1:]
    return first + encode_length(len(body)) + body


RIGHT = {
    "30 0001 61 00": Publish("a", 0, False, False, 0, b""),
    "3b 0001 61 0007 00 78": Publish("a", 1, True, True, 7, b"x"),
    "30 0000 03 23 0001 78": Publish("", 0, False, False, 0, b"x", topic_alias=1),
    "32 0001 61 0007 0d 02 00000009 08 0001 72 09 0001 00 78": Publish(
        "a", 1, False, False, 7, b"x", 9, 0, bytes.fromhex("08 0001 72 09 0001 00"), "r"
    ),
    "40 0007": Acknowledgement(7),
    "50 0007 97": Acknowledgement(7, 0x97),
    "62 0007 92 00": Acknowledgement(7, 0x92),
    "70 0007 00 04 1f 0001 78": Acknowledgement(7, 0, "x"),
    "82 0007 02 0b 05 0001 61 2e": Subscribe(7, [SubscriptionRequest("a", 2, True, True, 2)], 5),
    "a2 0007 00 0001 61": (7, ["a"]),
    "c0": None,
    "e0": Disconnect(),
    "e0 04": Disconnect(4),
    "e0 00 05 11 00000009": Disconnect(0, 9),
}


@pytest.mark.parametrize("wire", RIGHT)
def test_packets_say_what_is_in_them(wire):
    assert parse(samples.frame(packet_of(wire))) == RIGHT[wire]


WRONG = [
    ("MQTT5 section 2.1.2", 0x82, "00"),
    ("MQTT5 section 2.1.2", 0x82, "20 0000 00"),
    ("MQTT5 section 2.1.2", 0x82, "90 0001 00 00"),
    ("MQTT5 section 2.1.2", 0x82, "b0 0001 00 00"),
    ("MQTT5 section 2.1.2", 0x82, "d0"),
    ("MQTT5-4.12.0-7", 0x82, "f0 18 00"),
    *(
        ("MQTT5-2.1.3-1", 0x81, f"{first} 0001")
        for first in ["42", "52", "60", "72", "80", "a0", "c1", "e2", "f1", "11"]
    ),
    ("MQTT5 section 3.12.1", 0x81, "c0 00"),
    ("MQTT5-3.3.1-4", 0x81, "36 0001 61 0001 00"),
    ("MQTT5-3.3.1-2", 0x81, "38 0001 61 00"),
    ("MQTT5-2.2.1-3", 0x82, "32 0001 61 0000 00"),
    ("MQTT5 section 2.1.4", 0x81, "30 0001 61"),
    ("MQTT5 section 3.3.2.1", 0x82, "30 0000 00 78"),
    ("MQTT5-3.3.2-8", 0x94, "30 0001 61 03 23 0000"),
    ("MQTT5-3.3.2-14", 0x82, "30 0001 61 04 08 0001 2b"),
    ("MQTT5-3.3.4-6", 0x82, "30 0001 61 02 0b 01"),
    ("MQTT5 section 3.3.2.3.2", 0x82, "30 0001 61 02 01 02"),
    ("MQTT5 section 2.2.2.2", 0x82, "30 0001 61 04 01 01 01 01"),
    ("MQTT5 section 2.2.2.2", 0x81, "30 0001 61 03 21 0001"),
    ("MQTT5 section 2.2.2.1", 0x81, "30 0001 61 05 01 01"),
    ("MQTT5-1.5.4-1", 0x81, "30 0003 eda080 00"),
    ("MQTT5-1.5.4-2", 0x81, "30 0001 00 00"),
    ("MQTT5-1.5.4-1", 0x81, "30 0001 61 04 03 0001 ff"),
    ("MQTT5-3.4.2-1", 0x82, "40 0001 01"),
    ("MQTT5-3.5.2-1", 0x82, "50 0001 92"),
    ("MQTT5-3.6.2-1", 0x82, "62 0001 10"),
    ("MQTT5-3.7.2-1", 0x82, "70 0001 80"),
    ("MQTT5 section 2.1.4", 0x81, "40 00"),
    ("MQTT5 section 2.1.4", 0x81, "40 0001 00 00 00"),
    ("MQTT5-2.2.1-3", 0x82, "82 0000 00 0001 61 00"),
    ("MQTT5-3.8.3-2", 0x82, "82 0001 00"),
    ("MQTT5-3.8.3-5", 0x81, "82 0001 00 0001 61 40"),
    ("MQTT5 section 3.8.3.1", 0x82, "82 0001 00 0001 61 03"),
    ("MQTT5 section 3.8.3.1", 0x82, "82 0001 00 0001 61 30"),
    ("MQTT5-3.8.3-4", 0x82, "82 0001 00 000a 24736861 72652f67 2f61 04"),
    ("MQTT5 section 3.8.2.1.2", 0x82, "82 0001 02 0b 00 0001 61 00"),
    ("MQTT5 section 2.2.2.2", 0x82, "82 0001 04 0b 01 0b 02 0001 61 00"),
    ("MQTT5-3.10.3-2", 0x82, "a2 0001 00"),
    ("MQTT5 section 2.2.2.2", 0x81, "a2 0001 02 0b 01 0001 61"),
    ("MQTT5-3.14.2-1", 0x82, "e0 8b"),
    ("MQTT5 section 3.14.2.2.5", 0x82, "e0 00 04 1c 0001 78"),
]


@pytest.mark.parametrize(("rule", "reason", "wire"), WRONG)
@pytest.mark.conforms(
    "MQTT5-1.5.4-1",
    "MQTT5-1.5.4-2",
    "MQTT5-2.1.3-1",
    "MQTT5-2.2.1-3",
    "MQTT5-3.3.1-2",
    "MQTT5-3.3.1-4",
    "MQTT5-3.3.2-1",
    "MQTT5-3.3.2-8",
    "MQTT5-3.3.2-14",
    "MQTT5-3.3.2-19",
    "MQTT5-3.3.4-6",
    "MQTT5-3.4.2-1",
    "MQTT5-3.5.2-1",
    "MQTT5-3.6.1-1",
    "MQTT5-3.6.2-1",
    "MQTT5-3.7.2-1",
    "MQTT5-3.8.1-1",
    "MQTT5-3.8.3-2",
    "MQTT5-3.8.3-4",
    "MQTT5-3.8.3-5",
    "MQTT5-3.10.1-1",
    "MQTT5-3.10.3-2",
    "MQTT5-3.14.1-1",
    "MQTT5-3.14.2-1",
    "MQTT5-3.15.1-1",
    "MQTT5-4.12.1-2",
)
def test_what_breaks_a_rule_is_refused_by_it(rule, reason, wire):
    with pytest.raises(MalformedPacket) as fault:
        parse(samples.frame(packet_of(wire)))
    assert (fault.value.rule, fault.value.reason) == (rule, reason)


ENDS_ANYWHERE = {"e0 00 05 11 00000009": {0, 1}, "70 0007 00 04 1f 0001 78": {2, 3}, "62 0007 92 00": {2, 3}}
"""Lengths at which a cut packet is whole again: what follows in it may be left out."""


@pytest.mark.parametrize("wire", [w for w in RIGHT if w[:2] in {"40", "50", "62", "70", "82", "a2", "e0"}])
def test_every_truncation_is_refused_or_a_shorter_packet(wire):
    body = packet_of(wire)[2:]
    whole = ENDS_ANYWHERE.get(wire, {2} if wire[0] in "457" else {0})
    for length in range(len(body)):
        packet = packet_of(wire)[:1] + bytes((length,)) + body[:length]
        if length in whole and wire[0] not in "8a":
            parse(samples.frame(packet))
            continue
        with pytest.raises(MalformedPacket):
            parse(samples.frame(packet))


def test_a_publish_cut_within_its_properties_is_refused():
    packet = packet_of("32 0001 61 0007 0d 02 00000009 08 0001 72 09 0001 00 78")
    for length in range(len(packet) - 3):
        with pytest.raises(MalformedPacket):
            parse(samples.frame(packet[:1] + bytes((length,)) + packet[2 : 2 + length]))


def test_more_filters_than_are_taken_are_refused():
    many = "0001 61 00" * 10
    with pytest.raises(TooManyFilters):
        parse(samples.frame(packet_of(f"82 0001 00 {many}")))


@given(
    st.sampled_from(sorted(RIGHT)), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=4)
)
def test_a_mutated_packet_is_refused_or_a_packet(wire, changes):
    packet = bytearray(packet_of(wire))
    for at, byte in changes:
        if at != 1 and at < len(packet):
            packet[at] = byte
    try:
        parse(Frame(packet[0], bytes(packet), 2))
    except (MalformedPacket, ConnectRefused):
        return


@given(st.binary(max_size=60), st.integers(0, 255))
def test_noise_is_refused_or_a_packet(body, first):
    try:
        parse(Frame(first, bytes((first, len(body))) + body, 2))
    except (MalformedPacket, ConnectRefused):
        return


@given(
    st.integers(0, 0xFFFFFFFF),
    st.lists(st.tuples(samples.texts, samples.texts), max_size=3),
    st.binary(max_size=200),
    samples.payloads,
)
@pytest.mark.conforms("MQTT5-3.3.2-16", "MQTT5-3.3.2-17", "MQTT5-3.3.2-18", "MQTT5-7.0.0-2")
def test_what_paho_puts_together_comes_apart_and_goes_on_unchanged(expiry, pairs, correlation, payload):
    sent = PahoProperties(PacketTypes.PUBLISH)
    sent.MessageExpiryInterval = expiry
    sent.CorrelationData = correlation
    sent.ResponseTopic = "answers"
    if pairs:
        sent.UserProperty = pairs
    body = b"\0\1a\0\7" + sent.pack() + payload
    publish = CODEC_5.parse_publish(samples.frame(b"\x32" + encode_length(len(body)) + body))
    assert (publish.message_expiry, publish.response_topic, publish.payload) == (expiry, "answers", payload)
    again = CODEC_5.encode_publish(
        b"a", payload, qos=1, packet_id=7, properties=publish.properties, message_expiry=expiry
    )
    assert CODEC_5.parse_publish(samples.frame(again)) == publish
    read = PahoProperties(PacketTypes.PUBLISH)
    read.unpack(again[samples.frame(again).start + 5 :])
    assert (read.CorrelationData, getattr(read, "UserProperty", [])) == (correlation, pairs)


@pytest.mark.parametrize(
    ("packet", "wire"),
    [
        (CODEC_5.encode_connack(Reason.SUCCESS, session_present=True), "20 01 00 00"),
        (CODEC_5.encode_connack(Reason.BANNED, session_present=True), "20 00 8a 00"),
        (
            CODEC_5.encode_connack(
                0, properties=ConnackProperties(receive_maximum=9, retain_available=True, server_keep_alive=5)
            ),
            "20 00 00 08 21 0009 25 01 13 0005",
        ),
        (CODEC_5.encode_puback(7), "40 0007"),
        (CODEC_5.encode_pubrec(7, Reason.QUOTA_EXCEEDED), "50 0007 97"),
        (CODEC_5.encode_pubrel(7), "62 0007"),
        (CODEC_5.encode_pubcomp(7, Reason.PACKET_IDENTIFIER_NOT_FOUND, "x"), "70 0007 92 04 1f 0001 78"),
        (CODEC_5.encode_suback(7, [1, Reason.NOT_AUTHORIZED]), "90 0007 00 01 87"),
        (CODEC_5.encode_unsuback(7, [0x11]), "b0 0007 00 11"),
        (CODEC_5.encode_disconnect(0x9C, server_reference="b"), "e0 9c 04 1c 0001 62"),
        (CODEC_5.encode_publish(b"a", b"x"), "30 0001 61 00 78"),
        (
            CODEC_5.encode_publish(b"", b"x", subscription_ids=(1, 300), topic_alias=2),
            "30 0000 08 0b 01 0b ac02 23 0002 78",
        ),
    ],
)
@pytest.mark.conforms(
    "MQTT5-2.2.1-2",
    "MQTT5-2.2.2-1",
    "MQTT5-3.2.2-1",
    "MQTT5-3.2.2-6",
    "MQTT5-3.14.2-2",
    "MQTT5-4.3.1-1",
)
def test_packets_are_put_together_as_the_standard_has_them(packet, wire):
    assert packet == packet_of(wire)
