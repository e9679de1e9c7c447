"""How messages become packets: properties, aliases, expiry."""

from __future__ import annotations

import pytest

from support.engine_client import NOW, EngineClient
from thingctl_broker.mqtt.engine.encoder import TOPIC_ALIASES
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.server.limits import MqttLimits


def pair(**fields):
    owner = Engine(MqttLimits())
    reader = EngineClient(owner, "reader", version=5)
    reader.connect(**fields)
    reader.subscribe("#", 1, subscription_id=7)
    source = EngineClient(owner, "source")
    source.connect()
    return reader, source


@pytest.mark.conforms("MQTT5-3.3.2-4", "MQTT5-3.3.2-6")
def test_expiry_is_what_is_left_and_application_properties_go_on_unchanged():
    reader, source = pair()
    forwarded = b"\x26\x00\x01a\x00\x01b"  # a user property
    source.publish("t", b"x", 1, properties=forwarded, expires_at=NOW + 9.5)
    (message,) = reader.read()
    assert message.properties == {
        "UserProperty": [("a", "b")],
        "MessageExpiryInterval": 10,
        "SubscriptionIdentifier": [7],
    }


def test_a_topic_has_an_alias_from_the_second_time_on():
    reader, source = pair(topic_alias_maximum=2)
    for topic in ("a", "b", "c", "a", "b", "c"):
        source.publish(topic, b"x", 0)
    heard = [(m.topic, m.properties.get("TopicAlias")) for m in reader.read()]
    assert heard == [("a", 1), ("b", 2), ("c", None), ("", 1), ("", 2), ("c", None)]


@pytest.mark.conforms("MQTT5-3.1.2-26", "MQTT5-3.3.2-7", "MQTT5-3.3.2-11")
def test_aliases_are_of_one_connection_and_bounded():
    reader, source = pair(topic_alias_maximum=65_535)
    for i in range(TOPIC_ALIASES + 5):
        source.publish(f"t{i}", b"x", 0)
    assert sum("TopicAlias" in m.properties for m in reader.read()) == TOPIC_ALIASES
    reader.leave()
    reader.connect(topic_alias_maximum=5)
    reader.subscribe("#", 0)
    source.publish("t0", b"x", 0)
    (message,) = reader.read()
    assert (message.topic, message.properties["TopicAlias"]) == ("t0", 1)


@pytest.mark.conforms("MQTT5-3.3.2-5")
def test_an_expired_message_is_not_sent():
    reader, source = pair()
    for qos in (0, 1):
        source.publish("t", b"x", qos, expires_at=NOW)
    assert reader.read() == []
