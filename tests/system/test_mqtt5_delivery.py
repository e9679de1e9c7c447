"""MQTT 5 as paho, an encoder of its own, sees it: properties and options of messages that come through the broker."""

from __future__ import annotations

import time
from contextlib import ExitStack

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from support.paho import DEADLINE, Listening
from support.processes import serving

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("data"), "--in-memory") as broker:
        yield broker.mqtt_address


@pytest.fixture
def client(broker):
    with ExitStack() as stack:

        def connect(name: str, **properties: object) -> Listening:
            made = Listening(name, protocol=mqtt.MQTTv5)
            given = properties_of(PacketTypes.CONNECT, **properties)
            made.connect(*broker, clean_start=not properties, properties=given)
            made.loop_start()
            made.was_known = made.sessions.get(timeout=DEADLINE)
            stack.callback(made.vanish)
            return made

        yield connect


def properties_of(kind: int, **given: object) -> Properties:
    made = Properties(kind)
    for name, value in given.items():
        setattr(made, name, value)
    return made


def listen(client: Listening, topic_filter: str, number: int = 0, **options: object) -> list[int]:
    """Subscribe with options, and with a subscription identifier if there is a number."""
    properties = properties_of(
        PacketTypes.SUBSCRIBE, **({"SubscriptionIdentifier": number} if number else {})
    )
    client.subscribe(topic_filter, options=SubscribeOptions(**options), properties=properties)
    return client._granted.get(timeout=DEADLINE)


def say(
    client: Listening, topic: str, payload: bytes = b"x", *, retain: bool = False, **given: object
) -> None:
    properties = properties_of(PacketTypes.PUBLISH, **given)
    client.publish(topic, payload, 1, retain, properties).wait_for_publish(DEADLINE)


def test_properties_are_forwarded_and_user_properties_keep_their_order(client):
    pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("", "")]
    listener, source = client("listener"), client("source")
    listen(listener, "all", 7, qos=1)
    given = {"ResponseTopic": "answers", "CorrelationData": b"\x00\xff", "ContentType": "text/plain"}
    say(source, "all", UserProperty=pairs, PayloadFormatIndicator=1, **given)
    found = listener.heard().properties
    assert found.UserProperty == pairs
    assert found.PayloadFormatIndicator == 1
    assert {name: getattr(found, name) for name in given} == given
    assert found.SubscriptionIdentifier == [7]


def test_no_local_and_retain_as_published(client):
    one, other = client("one"), client("other")
    listen(one, "local", qos=1, noLocal=True)
    listen(other, "local", qos=1, retainAsPublished=True)
    say(one, "local", b"mine", retain=True)
    say(other, "local", b"theirs")
    assert one.heard().payload == b"theirs"
    assert [(m.payload, m.retain) for m in (other.heard(), other.heard())] == [
        (b"mine", True),
        (b"theirs", False),
    ]
    say(one, "local", b"", retain=True)


@pytest.mark.parametrize(("handling", "comes"), [(0, [True, True]), (1, [True, False]), (2, [False, False])])
def test_retain_handling(client, handling, comes):
    one = client("one")
    say(one, "kept", b"kept", retain=True)
    for is_expected in comes:
        listen(one, "kept", qos=1, retainHandling=handling)
        say(one, "kept", b"live")
        if is_expected:
            assert one.heard().payload == b"kept"
        assert one.heard().payload == b"live"
    say(one, "kept", b"", retain=True)


def test_a_message_that_waited_has_less_time_left_and_an_expired_one_does_not_come(client):
    away = client("away", SessionExpiryInterval=60)
    listen(away, "news", qos=1)
    away.end()
    source = client("source")
    say(source, "news", b"short", MessageExpiryInterval=1)
    say(source, "news", b"long", MessageExpiryInterval=30)
    time.sleep(1.2)  # the interval that is measured
    back = client("away", SessionExpiryInterval=60)
    message = back.heard()
    assert (back.was_known, message.payload) == (True, b"long")
    assert 1 <= message.properties.MessageExpiryInterval <= 29


def test_a_session_ends_when_its_expiry_interval_has_passed(client):
    client("brief", SessionExpiryInterval=1).end()
    time.sleep(1.5)  # the interval that is measured
    assert not client("brief", SessionExpiryInterval=1).was_known
