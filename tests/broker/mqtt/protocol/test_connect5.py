"""A CONNECT of MQTT 5: what it says, and the rule that each broken one breaks."""

import pytest

from support import mqtt_samples as samples
from thingctl_broker.mqtt.protocol.connect import parse_connect
from thingctl_broker.mqtt.protocol.fields import encode_length
from thingctl_broker.mqtt.protocol.frames import MalformedPacket
from thingctl_broker.mqtt.protocol.packets import Connect, ConnectRefused, Will
from thingctl_broker.mqtt.protocol.reason_codes import Reason


def connect_of(flags: int, rest: str) -> bytes:
    body = b"\0\4MQTT\5" + bytes([flags]) + b"\0\x3c" + bytes.fromhex(rest)
    return b"\x10" + encode_length(len(body)) + body


WHOLE = connect_of(
    0xEE,
    "19 11 0000000a 21 0005 27 00001000 22 0007 17 00 26 0001 6b 0001 76"
    "0001 63 14 18 00000002 02 00000003 01 01 03 0001 74 08 0001 72 0001 77 0001 6d 0001 75 0001 70",
)


@pytest.mark.conforms("MQTT5-3.1.2-9", "MQTT5-3.1.3-1", "MQTT5-3.1.3-3")
def test_a_connect_says_what_is_in_it():
    will = Will("w", b"m", 1, True, 2, 3, bytes.fromhex("01 01 03 0001 74 08 0001 72"))
    assert parse_connect(samples.frame(WHOLE)) == Connect(
        "c", True, 60, "u", b"p", will, (), 5, False, 10, 5, 4096, 7, wants_problem_information=False
    )


def test_a_password_needs_no_user_name():
    connect = parse_connect(samples.frame(connect_of(0x42, "00 0001 63 0001 70")))
    assert (connect.username, connect.password) == (None, b"p")


@pytest.mark.conforms("MQTT5-3.1.2-9", "MQTT5-3.1.2-17", "MQTT5-3.1.2-19")
def test_every_truncation_is_malformed():
    body = WHOLE[2:]
    for length in range(7, len(body)):
        with pytest.raises(MalformedPacket):
            parse_connect(samples.frame(b"\x10" + encode_length(length) + body[:length]))


@pytest.mark.conforms("MQTT5-4.12.0-1", "MQTT5-4.12.0-4")
def test_enhanced_authentication_is_refused():
    with pytest.raises(ConnectRefused) as refusal:
        parse_connect(samples.frame(connect_of(2, "04 15 0001 6d 0001 63")))
    assert refusal.value.code is Reason.BAD_AUTHENTICATION_METHOD


@pytest.mark.parametrize(
    ("rule", "reason", "flags", "rest"),
    [
        ("MQTT5-3.1.2-3", 0x81, 3, "00 0000"),
        ("MQTT5-3.1.2-11", 0x81, 0x0A, "00 0000"),
        ("MQTT5-3.1.2-12", 0x81, 0x1E, "00 0000"),
        ("MQTT5-3.1.2-13", 0x81, 0x22, "00 0000"),
        ("MQTT5-3.1.3-1", 0x81, 2, "00 0000 00"),
        ("MQTT5 section 3.1.2.11.3", 0x82, 2, "03 21 0000 0000"),
        ("MQTT5 section 3.1.2.11.4", 0x82, 2, "05 27 00000000 0000"),
        ("MQTT5 section 3.1.2.11.6", 0x82, 2, "02 19 02 0000"),
        ("MQTT5 section 3.1.2.11.7", 0x82, 2, "02 17 02 0000"),
        ("MQTT5 section 3.1.2.11.10", 0x82, 2, "04 16 0001 61 0000"),
        ("MQTT5 section 2.2.2.2", 0x82, 2, "06 21 0001 21 0001 0000"),
        ("MQTT5 section 2.2.2.2", 0x81, 2, "03 23 0001 0000"),
        ("MQTT5 section 2.2.2.2", 0x81, 2, "05 18 00000001 0000"),
        ("MQTT5 section 2.2.2.2", 0x81, 2, "01 00 0000"),
        ("MQTT5 section 2.2.2.1", 0x81, 2, "02 21 0001 0000"),
        ("MQTT5-1.5.5-1", 0x81, 2, "80 00 0000"),
        ("MQTT5 section 1.5.5", 0x81, 2, "80 80 80 80 00 0000"),
        ("MQTT5-1.5.4-1", 0x81, 2, "00 0003 eda080"),
        ("MQTT5-1.5.4-1", 0x81, 2, "00 0001 ff"),
        ("MQTT5-1.5.4-2", 0x81, 2, "00 0001 00"),
        ("MQTT5-3.3.2-14", 0x82, 6, "00 0000 04 08 0001 23 0001 77 0000"),
    ],
)
@pytest.mark.conforms(
    "MQTT5-1.5.4-1",
    "MQTT5-1.5.4-2",
    "MQTT5-1.5.5-1",
    "MQTT5-3.1.2-3",
    "MQTT5-3.1.2-11",
    "MQTT5-3.1.2-12",
    "MQTT5-3.1.2-13",
    "MQTT5-3.1.2-16",
    "MQTT5-3.1.2-18",
    "MQTT5-3.1.3-1",
    "MQTT5-3.1.3-4",
    "MQTT5-3.3.2-14",
)
def test_what_breaks_a_rule_is_refused_by_it(rule, reason, flags, rest):
    with pytest.raises(MalformedPacket) as fault:
        parse_connect(samples.frame(connect_of(flags, rest)))
    assert (fault.value.rule, fault.value.reason) == (rule, reason)
