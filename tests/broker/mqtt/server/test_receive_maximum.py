"""An MQTT 5 client never has more unacknowledged messages than it takes, requests and ordinary ones together."""

from __future__ import annotations

import pytest

from support.brokers import front_broker
from support.wire import RawClient
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.packets import PacketType
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_protocol.statuses import Delivery

REQUESTS = b"$emqx/commands/things/lamp/executions/+/request"


def text(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def hello(receive_maximum: int) -> bytes:
    body = text(b"MQTT") + b"\x05\x02\x00\x00" + b"\x03\x21" + receive_maximum.to_bytes(2) + text(b"lamp")
    return b"\x10" + bytes([len(body)]) + body


def subscribe(*filters: bytes) -> bytes:
    body = b"\x00\x01\x00" + b"".join(text(f) + b"\x01" for f in filters)
    return b"\x82" + bytes([len(body)]) + body


@pytest.mark.parametrize("most", [1, 2, 5, 100])
@pytest.mark.conforms("MQTT5-3.3.4-9", "MQTT5-3.3.4-10", "MQTT5-4.9.0-1", "MQTT5-4.9.0-2", "MQTT5-4.9.0-3")
async def test_requests_and_messages_share_what_the_client_takes(most):
    async with front_broker() as running:
        lamp = await RawClient.open(running.address)
        lamp.send(hello(most))
        await lamp.expect(PacketType.CONNACK)
        lamp.send(subscribe(REQUESTS, b"news"))
        await lamp.expect(PacketType.SUBACK)
        source = await RawClient.connected(running.address, "source")
        executions = []
        for i in range(12):
            executions.append(running.service.send("lamp", "turnOn"))
            source.send(CODEC_3.encode_publish(b"news", b"%d" % i, qos=1, packet_id=i + 1))
            await source.expect(PacketType.PUBACK)
        news, unanswered, served = [], [], 0
        while len(news) + served < 24:
            while len(unanswered) < min(most, 24 - len(news) - served):
                unanswered.append(CODEC_5.parse_publish(await lamp.expect(PacketType.PUBLISH)))
            lamp.send(b"\xc0\x00")
            await lamp.expect(PacketType.PINGRESP)  # and nothing else comes before it
            publish = unanswered.pop(0)
            if publish.topic == "news":
                news.append(publish.payload)
            else:
                served += 1
            lamp.send(CODEC_3.encode_puback(publish.packet_id))
        assert news == [b"%d" % i for i in range(12)]
        assert {execution.delivery for execution in executions} == {Delivery.DELIVERED}


async def test_a_client_that_sends_more_than_the_server_takes_is_told_0x93():
    async with front_broker(limits=MqttLimits(qos2_held=3)) as running:
        lamp = await RawClient.open(running.address)
        lamp.send(hello(10))
        await lamp.expect(PacketType.CONNACK)
        for i in range(4):
            lamp.send(CODEC_5.encode_publish(b"news", b"x", qos=2, packet_id=i + 1))
        for _ in range(3):
            await lamp.expect(PacketType.PUBREC)
        assert (await lamp.expect(PacketType.DISCONNECT)).packet[2] == Reason.RECEIVE_MAXIMUM_EXCEEDED
        await lamp.expect_end()
