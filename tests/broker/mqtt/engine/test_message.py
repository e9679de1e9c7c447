"""Messages: how they are made of packets, what they weigh, and when they expire."""

from __future__ import annotations

import pytest

from thingctl_broker.mqtt.engine.message import OVERHEAD_BYTES, Message, last_will, published
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import Publish, Will


@pytest.mark.parametrize("size", [0, 1, 120, 130, 16_000, 17_000, 2_100_000])
def test_a_plain_message_is_the_publish_of_mqtt_3(size):
    message = Message("a/ü", b"x" * size, qos=2, retain=True)
    assert message.plain() == CODEC_3.encode_publish("a/ü".encode(), b"x" * size)
    assert message.plain() is message.plain(), "encoded once for all who get it"


def test_a_message_weighs_what_it_carries():
    message = Message("ü", b"1234", properties=b"123")
    assert message.size == 2 + 4 + 3 + OVERHEAD_BYTES


def test_seconds_left_are_rounded_up():
    message = Message("a", b"", expires_at=10.0)
    assert [message.seconds_left(now) for now in (0.0, 8.5, 9.0, 9.99, 10.0, 11.5)] == [10, 2, 1, 1, 0, -1]
    assert Message("a", b"").seconds_left(10.0**9) is None


def test_a_publish_and_a_will_become_messages():
    publish = Publish("a", 1, True, False, 7, b"x", message_expiry=5, properties=b"p", response_topic="r")
    message = published(publish, "c", 100.0)
    assert (message.topic, message.payload, message.qos, message.retain) == ("a", b"x", 1, True)
    assert (message.publisher, message.properties, message.expires_at) == ("c", b"p", 105.0)
    will = last_will(Will("w", b"x", 2, True, message_expiry=3, properties=b"q"), "c", 100.0)
    assert (will.topic, will.qos, will.retain, will.expires_at, will.properties) == (
        "w",
        2,
        True,
        103.0,
        b"q",
    )
