"""Devices whose link comes and goes: what was acknowledged reaches them, beside mosquitto as the reference."""

from __future__ import annotations

import pytest

from support.operators import Operator
from support.peers import Peer
from support.processes import serving
from support.waits import soon
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import PacketType, Will, encode_subscribe

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("none_stays_open")]

REQUESTS = "$emqx/commands/things/device/executions/+/request"


def away(address, *filters, qos=1):
    """A client with a kept session that has left."""
    client = Peer(address, "device", clean=False)
    client.subscribe(*filters, qos=qos)
    client.leave()


@pytest.mark.parametrize("qos", [1, 2])
def test_a_device_that_loses_its_link_while_messages_come_gets_them_again(address, qos):
    away(address, "news", qos=qos)
    source = Peer(address, "source")
    for i in range(30):
        source.publish("news", b"%d" % i, qos)
    for _ in range(3):
        device = Peer(address, "device", clean=False)
        assert device.present
        assert [m.payload for m in device.messages(20)] == [b"%d" % i for i in range(20)]
        device.reset()
    device = Peer(address, "device", clean=False)
    heard = []
    while len(heard) < 30:
        frame = device.receive()
        if frame.first >> 4 == PacketType.PUBLISH:
            message = CODEC_3.parse_publish(frame)
            heard.append(message)
            if qos == 1:
                device.send(CODEC_3.encode_puback(message.packet_id))
            else:
                device.send(CODEC_3.encode_pubrec(message.packet_id))
        elif frame.first >> 4 == PacketType.PUBREL:
            device.send(CODEC_3.encode_pubcomp(CODEC_3.parse_acknowledgement(frame).packet_id))
    assert [m.payload for m in heard] == [b"%d" % i for i in range(30)]
    assert [m.dup for m in heard] == [True] * 20 + [False] * 10


def test_a_client_that_is_slow_to_acknowledge_is_served_meanwhile(address):
    away(address, "news")
    source = Peer(address, "source")
    source.publish("news", b"x")
    listener = Peer(address, "listener")
    listener.subscribe("telemetry")
    device = Peer(address, "device", clean=False)
    (message,) = device.messages(1)
    device.send(b"\xc0\x00", CODEC_3.encode_publish(b"telemetry", b"21", qos=1, packet_id=5))
    device.send(encode_subscribe(6, [("more", 1)]))
    answers = {device.receive().first >> 4 for _ in range(3)}
    assert answers == {PacketType.PINGRESP, PacketType.PUBACK, PacketType.SUBACK}
    assert [m.payload for m in listener.messages(1)] == [b"21"]
    device.send(CODEC_3.encode_puback(message.packet_id))


def test_telemetry_displaces_no_alarm(address):
    away(address, "aw/#")
    source = Peer(address, "source")
    source.publish("aw/alarm", b"alarm")
    for i in range(1100):
        source.publish("aw/telemetry", b"%d" % i, 0)
    source.publish("aw/end", b"end")
    device = Peer(address, "device", clean=False)
    assert [m.payload for m in device.messages(2)] == [b"alarm", b"end"]


def test_the_will_of_a_device_that_flaps_comes_and_so_does_that_of_its_successor(address):
    listener = Peer(address, "listener")
    listener.subscribe("wills")
    for i in range(3):
        Peer(address, "device", clean=False, will=Will("wills", b"%d" % i, 1, retain=False)).reset()
        (will,) = listener.messages(1)
        listener.send(CODEC_3.encode_puback(will.packet_id))
        assert will.payload == b"%d" % i


def test_commands_reach_a_device_right_after_it_is_back(tmp_path):
    with serving(tmp_path) as serve:
        operator = Operator(serve.http_address)
        away(serve.mqtt_address, "news", REQUESTS)
        source = Peer(serve.mqtt_address, "source")
        for i in range(30):
            source.publish("news", b"%d" % i)
        Peer(serve.mqtt_address, "device", clean=False).reset()
        device = Peer(serve.mqtt_address, "device", clean=False)
        execution_id = operator.send("device", "turnOn", ttl=5)
        topics = [m.topic for m in device.messages(21)]
        assert topics.count("news") == 20
        assert topics[-1].endswith(f"{execution_id}/request")
        soon(lambda: operator.get(execution_id)["delivery"] == "PUBLISHED")
        operator.close()
