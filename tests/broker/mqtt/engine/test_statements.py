"""What both standards ask of a server, on the engine alone, where no other test of it shows it."""

from __future__ import annotations

import pytest

from support import mqtt_samples as samples
from support.engine_client import NEVER, NOW, Answer, EngineClient, client
from support.wire5 import packet, properties, text
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.message import published
from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.packets import PacketType, Will
from thingctl_broker.mqtt.server.limits import MqttLimits

WILL = Will("wills", b"gone", 1, retain=False)
VERSIONS = pytest.mark.parametrize("version", [4, 5])


@pytest.fixture
def engine():
    return Engine(MqttLimits())


@VERSIONS
@pytest.mark.parametrize(
    ("topic_filter", "heard"),
    [
        ("a", ["a"]),
        ("A", []),
        ("a/#", ["a", "a/b", "a/b/c", "a/"]),
        ("a/+", ["a/b", "a/"]),
        ("+", ["a"]),
        ("+/b", ["a/b"]),
        ("#", ["a", "a/b", "a/b/c", "a/"]),
        ("+/x", []),
        ("$x/#", ["$x/x"]),
    ],
)
@pytest.mark.conforms(
    "MQTT-3.3.2-3",
    "MQTT-4.5.0-1",
    "MQTT-4.7.2-1",
    "MQTT5-3.3.2-3",
    "MQTT5-4.5.0-1",
    "MQTT5-4.7.2-1",
)
def test_a_subscriber_gets_what_its_filters_match(engine, version, topic_filter, heard):
    here = client(engine, "here", topic_filter, version=version)
    away = client(engine, "away", topic_filter, version=version, expiry=NEVER)
    away.leave()
    source = client(engine, "source")
    for topic in ("a", "a/b", "a/b/c", "a/", "$x/x"):
        source.publish(topic)
    away.connect()
    assert [m.topic for m in here.read()] == heard
    assert [m.topic for m in away.read()] == heard


@VERSIONS
@pytest.mark.conforms("MQTT-4.1.0-2", "MQTT5-4.1.0-1")
def test_a_session_lasts_while_its_client_is_connected(engine, version):
    reader = client(engine, "reader", "a", version=version)
    brief = client(engine, "brief", "a", version=5, expiry=1)
    engine.tick(NOW + 1e9)
    client(engine, "source").publish("a", now=NOW + 1e9)
    assert len(reader.read()) == len(brief.read()) == 1


# Retained messages.


@VERSIONS
@pytest.mark.conforms("MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-7", "MQTT5-3.3.1-5")
def test_a_retained_message_keeps_its_qos_and_the_last_one_counts(engine, version):
    source = client(engine, "source", version=version)
    for payload, qos in ((b"old", 1), (b"new", 2)):
        source.publish("a", payload, qos, retain=True)
    source.publish("b", b"sure", 1, retain=True)
    source.publish("b", b"unsure", 0, retain=True)
    (a,) = client(engine, "one", "a", qos=2, version=version).read()
    (b,) = client(engine, "two", "b", qos=2, version=version).read()
    assert [(m.payload, m.qos, m.retain) for m in (a, b)] == [(b"new", 2, True), (b"unsure", 0, True)]


@VERSIONS
@pytest.mark.conforms("MQTT-3.3.1-12", "MQTT5-3.3.1-8")
def test_a_message_without_retain_leaves_what_is_retained_alone(engine, version):
    source = client(engine, "source", version=version)
    source.publish("a", b"kept", retain=True)
    source.publish("a", b"passing")
    source.publish("a", b"")
    source.publish("b", b"passing")
    late = client(engine, "late", "#", version=version)
    assert late.payloads() == [b"kept"]


@pytest.mark.conforms("MQTT-3.1.2-7")
def test_a_retained_message_outlives_the_session_of_its_publisher(engine):
    source = client(engine, "source")
    source.publish("a", b"kept", retain=True)
    source.leave()
    assert client(engine, "late", "a").payloads() == [b"kept"]


# Wills.


@VERSIONS
@pytest.mark.parametrize("retain", [True, False])
@pytest.mark.conforms("MQTT-3.1.2-17", "MQTT5-3.1.2-14", "MQTT5-3.1.2-15")
def test_a_will_with_retain_is_retained(engine, version, retain):
    dying = EngineClient(engine, "dying", version=version)
    dying.connect(will=WILL._replace(retain=retain))
    dying.leave(will=True)
    late = client(engine, "late", "wills", version=version)
    assert late.payloads() == [b"gone"] * retain


@VERSIONS
@pytest.mark.parametrize("says_goodbye", [True, False])
@pytest.mark.conforms("MQTT-3.1.2-10", "MQTT5-3.1.2-10")
def test_a_will_is_published_once(engine, version, says_goodbye):
    heir = client(engine, "heir", "wills", version=version)
    dying = EngineClient(engine, "dying", version=version, expiry=100)
    dying.connect(will=WILL)
    dying.leave(will=not says_goodbye)
    dying.connect(clean=True)
    dying.leave(will=True)
    engine.tick(NOW + 1000)
    assert heir.payloads() == [b"gone"] * (not says_goodbye)


@pytest.mark.conforms("MQTT-3.1.2-12")
def test_no_will_is_published_for_a_client_without_one(engine):
    heir = client(engine, "heir", "#")
    client(engine, "plain").leave(will=True)
    assert heir.read() == []


@pytest.mark.conforms("MQTT5-3.1.3-10")
def test_the_user_properties_of_a_will_keep_their_order(engine):
    pairs = [("b", "1"), ("a", "2"), ("b", "0")]
    encoded = b"".join(b"\x26" + text(key) + text(value) for key, value in pairs)
    heir = client(engine, "heir", "wills", version=5)
    dying = EngineClient(engine, "dying", version=5)
    dying.connect(will=WILL._replace(properties=encoded))
    dying.leave(will=True)
    (message,) = heir.read()
    assert message.properties["UserProperty"] == pairs


# Messages.


@pytest.mark.conforms(
    "MQTT5-3.3.2-4",
    "MQTT5-3.3.2-15",
    "MQTT5-3.3.2-16",
    "MQTT5-3.3.2-17",
    "MQTT5-3.3.2-18",
    "MQTT5-3.3.2-20",
)
def test_properties_of_the_publisher_reach_the_subscriber_as_they_are(engine):
    pairs = [("b", "1"), ("a", "2"), ("b", "0")]
    given = properties(
        b"\x01\x01",
        b"\x08" + text("answers"),
        b"\x26" + text("b") + text("1"),
        b"\x09" + text(b"\0\xff"),
        b"\x26" + text("a") + text("2"),
        b"\x03" + text("text/plain"),
        b"\x26" + text("b") + text("0"),
    )
    publish = CODEC_5.parse_publish(samples.frame(packet(0x32, text("a"), b"\0\7", given, b"x")))
    reader = client(engine, "reader", "a", version=5)
    engine.publish(published(publish, "source", NOW), NOW)
    (message,) = reader.read()
    assert message.properties == {
        "PayloadFormatIndicator": 1,
        "ResponseTopic": "answers",
        "CorrelationData": b"\0\xff",
        "ContentType": "text/plain",
        "UserProperty": pairs,
    }


@pytest.mark.conforms("MQTT5-3.1.2-27")
def test_a_client_that_takes_no_alias_gets_none(engine):
    reader = client(engine, "reader", "a", version=5)
    source = client(engine, "source")
    for _ in range(3):
        source.publish("a")
    assert [(m.topic, m.properties) for m in reader.read()] == [("a", {})] * 3


@pytest.mark.conforms("MQTT5-4.3.3-7")
def test_a_message_that_was_sent_does_not_expire(engine):
    away = client(engine, "away", "a", qos=2, version=5, expiry=NEVER)
    client(engine, "source").publish("a", b"x", 2, expires_at=NOW + 1)
    assert away.payloads() == [b"x"]
    away.leave()
    away.connect(NOW + 10)
    (again,) = away.read()
    assert (again.payload, again.dup) == (b"x", True)


@VERSIONS
@pytest.mark.conforms("MQTT5-4.3.3-2", "MQTT5-4.3.3-3", "MQTT5-4.3.3-4")
def test_the_flow_of_qos_2_to_a_client(engine, version):
    reader = client(engine, "reader", "a", qos=2, version=version)
    client(engine, "source").publish("a", b"x", 2)
    (message,) = reader.read()
    assert (message.qos, message.dup, message.packet_id > 0) == (2, False, True)
    assert message.packet_id in reader.session.in_flight
    for _ in range(2):
        reader.session.on_pubrec(message.packet_id, 0, NOW)
        assert reader.read() == [Answer(PacketType.PUBREL, message.packet_id)]
    reader.session.on_pubcomp(message.packet_id, NOW)
    assert not reader.session.in_flight


# Unsubscribing.


@VERSIONS
@pytest.mark.conforms("MQTT-3.10.4-1", "MQTT-3.10.4-2", "MQTT5-3.10.4-1", "MQTT5-3.10.4-2")
def test_only_the_very_filter_is_unsubscribed_from(engine, version):
    reader = client(engine, "reader", "a/b", "a/+", "A/b", version=version)
    for other in ("a/#", "+/b", "a/b/", "#"):
        assert not engine.unsubscribe(reader.session, other)
    assert engine.unsubscribe(reader.session, "a/+")
    assert sorted(reader.session.subscriptions) == ["A/b", "a/b"]
    source = client(engine, "source")
    assert source.publish("a/c") == 0
    assert source.publish("a/b") == 1


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.conforms("MQTT-3.10.4-3", "MQTT5-3.10.4-3")
def test_a_delivery_that_has_begun_outlives_the_subscription(engine, version, qos):
    reader = client(engine, "reader", "a", qos=qos, version=version, expiry=NEVER)
    client(engine, "source").publish("a", b"x", qos)
    (message,) = reader.read()
    engine.unsubscribe(reader.session, "a")
    reader.leave()
    reader.connect()
    (again,) = reader.read()
    assert (again.payload, again.packet_id) == (b"x", message.packet_id)
    reader.acknowledge(again)
    assert not reader.session.in_flight


# Shared subscriptions.


@pytest.mark.conforms("MQTT5-4.8.2-3")
def test_each_member_of_a_group_has_the_qos_that_it_was_granted(engine):
    members = [client(engine, f"m{qos}", "$share/g/a", qos=qos, version=5) for qos in (0, 1)]
    source = client(engine, "source")
    for _ in range(4):
        source.publish("a", b"x", 2)
    assert [[m.qos for m in member.read()] for member in members] == [[0, 0], [1, 1]]


@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.conforms("MQTT5-4.8.2-4", "MQTT5-4.8.2-5")
def test_a_qos_2_message_stays_with_its_member_of_a_group(engine, comes_back):
    members = [client(engine, f"m{i}", "$share/g/a", qos=2, version=5, expiry=10) for i in range(2)]
    client(engine, "source").publish("a", b"x", 2)
    (taker,) = [member for member in members if member.read()]
    (other,) = [member for member in members if member is not taker]
    taker.leave()
    if comes_back:
        taker.connect(NOW + 1)
        (again,) = taker.read()
        taker.acknowledge(again)
    engine.tick(NOW + 1000)
    assert other.read() == []


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.conforms("MQTT5-4.4.0-2", "MQTT5-4.8.2-6")
def test_a_message_that_a_member_of_a_group_refuses_goes_to_no_other(engine, qos):
    members = [client(engine, f"m{i}", "$share/g/a", qos=qos, version=5, expiry=10) for i in range(2)]
    client(engine, "source").publish("a", b"x", qos)
    (taker,) = [member for member in members if member.session.in_flight]
    (packet_id,) = taker.session.in_flight
    taker.read()
    if qos == 1:
        taker.session.on_puback(packet_id, NOW)  # whatever its reason code
    else:
        taker.session.on_pubrec(packet_id, 0x83, NOW)
    taker.leave()
    taker.connect()
    assert [member.read() for member in members] == [[], []]
