"""PUBLISH of MQTT 5: whatever its properties are, the message comes out whole."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.cluster import publish
from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.packets5 import Received, parse_publish


def body_of(encoded):
    at = 1
    while encoded[at] & 0x80:
        at += 1
    return encoded[0], encoded[at + 1 :]


@given(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.binary(max_size=300),
    st.integers(0, 0xFFFF),
    st.binary(max_size=300),
    st.booleans(),
)
def test_a_message_comes_out_whatever_its_properties(topic, payload, packet_id, properties, retain):
    encoded = publish(topic, payload, packet_id, properties=properties, flags=int(retain))
    found = parse_publish(*body_of(encoded))
    assert found == Received(topic, payload, 1 if packet_id else 0, retain, packet_id)


@given(
    st.text(st.characters(codec="utf-8"), max_size=200),
    st.binary(max_size=300) | st.integers(16_000, 17_000).map(bytes),
    st.integers(0, 0xFFFF),
    st.none() | st.integers(1, 0xFFFFFFFF),
)
def test_what_is_put_together_is_taken_apart_again(topic, payload, packet_id, expires_in):
    encoded = CODEC_5.encode_publish(
        topic.encode(), payload, qos=1 if packet_id else 0, packet_id=packet_id, message_expiry=expires_in
    )
    properties = b"" if expires_in is None else b"\x02" + expires_in.to_bytes(4)
    assert encoded == publish(topic, payload, packet_id, properties=properties)
    assert parse_publish(*body_of(encoded)) == Received(
        topic, payload, 1 if packet_id else 0, False, packet_id
    )


def test_puback():
    assert CODEC_5.encode_puback(258) == b"\x40\x02\x01\x02"


def test_a_topic_that_is_no_utf_8_is_nobodys():
    assert parse_publish(*body_of(publish(b"fleet/\xff", b"x", 1))).topic == "fleet/\ufffd"


@given(st.integers(0x30, 0x3F), st.binary(max_size=60))
def test_anything_is_taken_apart_or_refused(first, body):
    with contextlib.suppress(ValueError):
        assert parse_publish(first, body).payload in body


@pytest.mark.parametrize(
    "body", [b"", b"\0\x01a", b"\0\x01a\0\x01\x80\x80\x80\x80\x01", b"\0\x01a\0\x01\x05ab"]
)
def test_what_ends_too_soon_is_refused(body):
    with pytest.raises(ValueError, match="PUBLISH"):
        parse_publish(0x32, body)
