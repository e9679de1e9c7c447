"""Bad input of every kind: a clear error or a counted drop, and a bystander who is served throughout."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from support.operators import Operator
from support.paho import Listening, paho
from support.processes import Serving, output, serving
from support.waits import soon
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.packets import Connect

pytestmark = pytest.mark.system

THING = "lamp"


def response_topic(thing: str, execution_id: str) -> str:
    return f"$emqx/commands/things/{thing}/executions/{execution_id}/response"


@pytest.fixture(scope="module")
def broker(tmp_path_factory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("data"), "--in-memory") as broker:
        yield broker
        said = output(broker.process)
    assert "Traceback" not in said
    assert '"level": "error"' not in said


@pytest.fixture
def operator(broker) -> Iterator[Operator]:
    operator = Operator(broker.http_address)
    yield operator
    operator.close()


@pytest.fixture
def lamp(broker) -> Iterator[Listening]:
    with paho(broker.mqtt_address, THING) as lamp:
        lamp.listen(f"$emqx/commands/things/{THING}/executions/+/request")
        yield lamp


@pytest.fixture(autouse=True)
def bystander(broker) -> Iterator[None]:
    """Commands and telemetry of somebody else, all the time; every one must arrive."""
    stop, sent, seen, slowest = threading.Event(), [], [], 0.0

    def answer(client, _data, message) -> None:
        execution_id = message.topic.split("/")[5]
        client.publish(response_topic("bystander", execution_id), json.dumps({"status": "SUCCEEDED"}), 1)

    with paho(broker.mqtt_address, "bystander") as thing, paho(broker.mqtt_address, "watcher") as watcher:
        thing.on_message = answer
        thing.listen("$emqx/commands/things/bystander/executions/+/request")
        watcher.listen("bystander/news")
        watcher.on_message = lambda *_: seen.append(1)
        operator = Operator(broker.http_address)

        def go_on() -> None:
            nonlocal slowest
            while not stop.is_set():
                began = time.monotonic()
                execution_id = operator.send("bystander", "poll")
                thing.publish("bystander/news", b"x", 1)
                operator.until(execution_id, "SUCCEEDED")
                sent.append(execution_id)
                slowest = max(slowest, time.monotonic() - began)

        going = threading.Thread(target=go_on)
        going.start()
        yield
        stop.set()
        going.join(20)
        operator.close()
        with suppress(AssertionError):
            soon(lambda: len(seen) >= len(sent))
    assert sent, "the bystander was not served at all"
    assert len(seen) >= len(sent), "telemetry of the bystander was lost"
    assert slowest < 5, f"the bystander waited {slowest:.1f} s"


BAD_RESPONSES = {
    "oversized": json.dumps({"status": "SUCCEEDED", "result": "x" * 200_000}).encode(),
    "not JSON": b"SUCCEEDED",
    "not UTF-8": b"\xff\xfe{}",
    "empty": b"",
    "an array": b'["SUCCEEDED"]',
    "no status": b'{"result":1}',
    "an unknown status": b'{"status":"DONE"}',
    "a status that is the broker's": b'{"status":"TIMED_OUT"}',
    "a status that is no text": b'{"status":5}',
    "nested too deeply": b'{"status":"SUCCEEDED","result":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a reason that is none": b'{"status":"FAILED","statusReason":"broken"}',
    "two values": b'{"status":"SUCCEEDED"}{"status":"FAILED"}',
    "cut short": b'{"status":"SUCCEEDED","result":"x',
}


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("kind", BAD_RESPONSES)
def test_a_bad_response_is_dropped_and_the_good_one_behind_it_counts(lamp, operator, kind, qos):
    execution_id = operator.send(THING, "turnOn")
    assert execution_id in lamp.heard().topic
    lamp.say(response_topic(THING, execution_id), BAD_RESPONSES[kind], qos=qos)
    lamp.say(response_topic(THING, execution_id), b'{"status":"IN_PROGRESS"}', qos=qos)
    assert operator.until(execution_id, "IN_PROGRESS")
    lamp.say(response_topic(THING, execution_id), b'{"status":"SUCCEEDED","result":{"on":true}}', qos=qos)
    assert operator.until(execution_id, "SUCCEEDED")["result"] == {"on": True}


def test_another_things_execution_cannot_be_answered(broker, lamp, operator):
    execution_id = operator.send(THING, "turnOn")
    with paho(broker.mqtt_address, "door") as door:
        door.say(response_topic(THING, execution_id), b'{"status":"SUCCEEDED"}')
        door.say(response_topic("door", execution_id), b'{"status":"SUCCEEDED"}')
    assert operator.get(execution_id)["status"] == "SENT"
    lamp.say(response_topic(THING, execution_id), b'{"status":"FAILED"}')
    operator.until(execution_id, "FAILED")


@pytest.mark.parametrize(
    "execution_id", ["0193c0de-0000-7000-8000-000000000000", "x", "-" * 128, "a" * 500, "\u2713"]
)
def test_an_unknown_execution_is_dropped(lamp, operator, execution_id):
    for _ in range(50):
        lamp.say(response_topic(THING, execution_id), b'{"status":"SUCCEEDED"}')
    known = operator.send(THING, "turnOn")
    lamp.say(response_topic(THING, known), b'{"status":"SUCCEEDED"}')
    operator.until(known, "SUCCEEDED")


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"thingId": "nobody", "action": "turnOn"}, 404, None),
        ({"thingId": "a/b", "action": "turnOn"}, 400, "/thingId"),
        ({"thingId": THING, "action": ""}, 400, "/action"),
        ({"thingId": THING}, 400, None),
        ({"thingId": THING, "action": "turnOn", "params": [1]}, 400, "/params"),
        ({"thingId": THING, "action": "turnOn", "params": {"x": "y" * 200_000}}, None, None),
        ({"thingId": THING, "action": "turnOn", "ttl": 0}, 400, "/ttl"),
        ({"thingId": THING, "action": "turnOn", "ttl": "soon"}, 400, "/ttl"),
        ({"thingId": THING, "action": "turnOn", "colour": 1}, 400, None),
        ([], 400, None),
    ],
)
def test_a_bad_command_is_refused_in_words(lamp, operator, body, status, pointer):
    answer = operator.call("POST", "/api/v1/commands", body)
    assert 400 <= answer.status < 500
    if status is not None:
        assert answer.status in {status, 422}
    assert answer.body["detail"]
    if pointer is not None:
        assert pointer in json.dumps(answer.body)


MALFORMED = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": bytes.fromhex("160301020001000001fc0303"),
    "a length without end": b"\x10\xff\xff\xff\xff\xff",
    "zeroes": b"\0" * 1000,
    "a CONNECT of 256 MB": b"\x10\xff\xff\xff\x7f",
    "MQTT 6": b"\x10\x11\x00\x04MQTT\x06\x02\x00\x3c\x00\x00\x04lamp",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_no_mqtt_is_cut_off(broker, kind):
    for _ in range(20):
        with socket.create_connection(broker.mqtt_address, timeout=10) as sock:
            sock.sendall(MALFORMED[kind])
            try:
                while sock.recv(100):
                    pass
            except ConnectionResetError:
                pass


MALFORMED_INSIDE = {
    "a second CONNECT": packets.encode_connect(Connect("x", True, 60, None, None, None)),
    "a packet type of the broker's": b"\xd0\x00",
    "QoS 3": b"\x36\x05\x00\x01a\x00\x01",
    "identifier 0": b"\x32\x05\x00\x01a\x00\x00",
    "a wildcard": b"\x30\x03\x00\x01#",
    "not UTF-8": b"\x30\x03\x00\x01\xff",
    "nothing to subscribe to": b"\x82\x02\x00\x01",
    "a PUBLISH of 256 MB": b"\x30\xff\xff\xff\x7f\x00\x01a" + b"x" * 100_000,
}


@pytest.mark.parametrize("behind", [False, True], ids=["commands only", "with amqtt"])
@pytest.mark.parametrize("kind", MALFORMED_INSIDE)
def test_a_malformed_packet_ends_its_connection(broker, kind, behind):
    with socket.create_connection(broker.mqtt_address, timeout=10) as sock:
        sock.sendall(packets.encode_connect(Connect("vandal", True, 60, None, None, None)))
        assert sock.recv(4) == b"\x20\x02\x00\x00"
        if behind:
            sock.sendall(packets.encode_subscribe(1, [("news/#", 1)]))
            assert sock.recv(5)[0] == 0x90
        sock.sendall(MALFORMED_INSIDE[kind])
        try:
            assert sock.recv(100) == b""
        except ConnectionResetError:
            pass
