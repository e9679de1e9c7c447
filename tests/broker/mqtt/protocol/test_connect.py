"""A CONNECT says which version its client speaks."""

import pytest

from support import mqtt_samples as samples
from thingctl_broker.mqtt.protocol.connect import parse_connect
from thingctl_broker.mqtt.protocol.fields import encode_length
from thingctl_broker.mqtt.protocol.packets import NEVER, ConnectRefused
from thingctl_broker.mqtt.protocol.reason_codes import Reason


def connect_of(name: bytes, level: int, rest: bytes = b"\x02\x00\x3c\x00\x01c") -> bytes:
    body = len(name).to_bytes(2, "big") + name + bytes([level]) + rest
    return b"\x10" + encode_length(len(body)) + body


@pytest.mark.parametrize(
    ("name", "level", "version", "is_bridge"),
    [
        (b"MQIsdp", 3, 3, False),
        (b"MQTT", 4, 4, False),
        (b"MQIsdp", 0x83, 3, True),
        (b"MQTT", 0x84, 4, True),
    ],
)
def test_the_version_and_bridges_are_told_by_name_and_level(name, level, version, is_bridge):
    connect = parse_connect(samples.frame(connect_of(name, level)))
    assert (connect.version, connect.is_bridge, connect.client_id) == (version, is_bridge, "c")


@pytest.mark.parametrize(
    ("name", "level"),
    [(b"MQIsdp", 4), (b"MQTT", 3), (b"MQTT", 0x83), (b"MQIsdp", 0x84), (b"MQTT", 0x85), (b"MQTT", 6)],
)
def test_other_names_and_levels_are_refused_with_an_answer(name, level):
    with pytest.raises(ConnectRefused) as refusal:
        parse_connect(samples.frame(connect_of(name, level)))
    assert refusal.value.code is Reason.UNSUPPORTED_PROTOCOL_VERSION


@pytest.mark.parametrize(("flags", "expiry"), [(2, 0), (0, NEVER)])
def test_a_session_of_mqtt_3_is_kept_for_ever_or_not_at_all(flags, expiry):
    connect = parse_connect(samples.frame(connect_of(b"MQTT", 4, bytes([flags]) + b"\x00\x3c\x00\x01c")))
    assert connect.session_expiry == expiry
