"""Ordinary MQTT between two paho clients, through the broker that sends commands."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import suppress

import pytest

from support.paho import Listening, paho
from support.processes import Serving, output, serving

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def broker(tmp_path_factory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("data"), "--in-memory") as broker:
        yield broker
        said = output(broker.process)
    assert "Traceback" not in said
    assert '"error"' not in said


@pytest.fixture
def address(broker) -> tuple[str, int]:
    return broker.mqtt_address


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.conforms(
    "MQTT-4.6.0-5",
    "MQTT-4.6.0-6",
    "MQTT-7.0.0-2",
    "MQTT-7.1.1-1",
    "MQTT5-4.2-1",
    "MQTT5-4.6.0-5",
    "MQTT5-4.6.0-6",
)
def test_telemetry_comes_once_and_in_order(address, qos):
    with paho(address, "console") as console, paho(address, "sensor") as sensor:
        assert console.listen("plant/+/temperature", qos=qos) == [qos]
        for i in range(200):
            sensor.publish(f"plant/{i % 3}/temperature", str(i), qos)
        heard = [console.heard() for _ in range(200)]
        assert [int(message.payload) for message in heard] == list(range(200))
        assert {(message.qos, message.retain) for message in heard} == {(qos, False)}
        with pytest.raises(queue.Empty):
            console.messages.get(timeout=0.2)


@pytest.mark.conforms("MQTT-3.10.4-2")
def test_what_is_unsubscribed_from_comes_no_more(address):
    with paho(address, "console") as console, paho(address, "sensor") as sensor:
        console.listen("plant/a", "plant/b")
        console.unsubscribe("plant/a")
        sensor.say("plant/end")
        console.listen("plant/end")
        sensor.say("plant/a", b"1")
        sensor.say("plant/b", b"2")
        assert console.heard().payload == b"2"


@pytest.mark.conforms("MQTT-3.3.1-5")
def test_a_retained_message_comes_to_who_subscribes_later_until_it_is_cleared(address):
    with paho(address, "sensor") as sensor:
        sensor.say("retained/state", b"old", retain=True)
        sensor.say("retained/state", b"on", retain=True)
        with paho(address, "console") as console:
            console.listen("retained/#")
            message = console.heard()
            assert (message.payload, message.retain) == (b"on", True)
            sensor.say("retained/state", b"off", retain=True)
            message = console.heard()
            assert (message.payload, message.retain) == (b"off", False)
        sensor.say("retained/state", b"", retain=True)
        with paho(address, "console") as console:
            console.listen("retained/#")
            sensor.say("retained/other", b"now")
            assert console.heard().payload == b"now"


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.conforms("MQTT-3.1.2-8", "MQTT-3.1.2-16", "MQTT-3.1.2-17")
def test_a_will_is_published_when_a_client_is_lost_and_not_when_it_leaves(address, retain):
    def willing(client: Listening) -> None:
        client.will_set(f"wills/{retain}", b"lost", 1, retain)

    with paho(address, "console") as console:
        console.listen("wills/#")
        with paho(address, "leaving", prepare=willing):
            pass
        lost = Listening("lost")
        willing(lost)
        lost.begin(address)
        lost.vanish()
        message = console.heard()
        assert (message.topic, message.payload, message.retain) == (f"wills/{retain}", b"lost", False)
        with pytest.raises(queue.Empty):
            console.messages.get(timeout=0.2)
    with paho(address, "late") as late, paho(address, "sensor") as sensor:
        late.listen("wills/#")
        sensor.say("wills/end", b"end")
        assert late.heard().payload == (b"lost" if retain else b"end")
        sensor.say(f"wills/{retain}", b"", retain=True)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.conforms("MQTT-3.1.2-5")
def test_what_is_published_while_a_client_is_away_waits_for_it(address, qos):
    with paho(address, f"console-{qos}", clean_session=False) as console:
        assert not console.was_known
        console.listen("queue/#", qos=qos)
    with paho(address, "sensor") as sensor:
        for i in range(50):
            sensor.say("queue/a", b"%d" % i, qos=qos)
    with paho(address, f"console-{qos}", clean_session=False) as console:
        assert console.was_known
        heard = {}
        while len(heard) < 50:
            message = console.heard()
            # amqtt may send what was just on its way when the client came back twice, and says so [MQTT-3.3.1-1].
            assert message.dup or message.payload not in heard
            heard[message.payload] = message
        assert sorted(map(int, heard)) == list(range(50))
        assert {(message.qos, message.retain) for message in heard.values()} == {(qos, False)}
        behind = []
        with suppress(queue.Empty):
            while True:
                behind.append(console.messages.get(timeout=0.2))
        assert all(message.dup for message in behind)


@pytest.mark.conforms("MQTT-3.1.2-6")
def test_a_kept_session_is_forgotten_by_a_clean_one(address):
    with paho(address, "forgetful", clean_session=False) as console:
        console.listen("forgotten/#")
    with paho(address, "forgetful", clean_session=True), paho(address, "sensor") as sensor:
        sensor.say("forgotten/a", b"1")
    with paho(address, "forgetful", clean_session=False) as console, paho(address, "sensor") as sensor:
        assert not console.was_known
        console.listen("remembered")
        sensor.say("forgotten/a", b"2")
        sensor.say("remembered", b"3")
        assert console.heard().payload == b"3"


def test_large_messages_pass(address):
    with paho(address, "console") as console, paho(address, "sensor") as sensor:
        console.listen("large/#")
        for i in range(5):
            sensor.say(f"large/{i}", bytes([i]) * 900_000)
        assert [(m.payload[0], len(m.payload)) for m in (console.heard() for _ in range(5))] == [
            (i, 900_000) for i in range(5)
        ]


def test_topics_of_any_language_pass(address):
    with paho(address, "console") as console, paho(address, "sensor") as sensor:
        console.listen("größe/+/\U0001f321")
        sensor.say("größe/küche/\U0001f321", "wärmer".encode())
        assert console.heard().topic == "größe/küche/\U0001f321"


@pytest.mark.conforms("MQTT-4.7.2-1")
def test_nobody_publishes_under_a_dollar_and_nobody_listens_there(address):
    with paho(address, "console") as console, paho(address, "sensor") as sensor:
        assert console.listen("$emqx/commands/#") == [0x80]
        console.listen("#", "$SYS/#")
        sensor.say("$SYS/broker/fake", b"x", retain=True)
        sensor.say("$emqx/commands/things/console/executions/x/request", b"{}")
        sensor.say("end", b"end")
        assert console.heard().topic == "end"


@pytest.mark.conforms("MQTT-3.1.3-6")
def test_a_client_without_a_name_is_given_one(address):
    with paho(address) as one, paho(address) as other, paho(address, "sensor") as sensor:
        one.listen("nameless")
        other.listen("nameless")
        sensor.say("nameless", b"x")
        assert one.heard().payload == other.heard().payload == b"x"
