"""Things that are ready for requests, over a raw connection, and what they answer."""

from __future__ import annotations

from typing import Any

from support.brokers import Running
from support.wire import RawClient
from thingctl_broker.commands.execution import Execution
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3

REQUESTS = "$emqx/commands/things/{}/executions/+/request"


async def thing(running: Running, name: str = "lamp", **options: Any) -> RawClient:
    """A client that has subscribed to its requests, at QoS 1."""
    client = await RawClient.connected(running.address, name, **options)
    assert await client.subscribe(REQUESTS.format(name)) == [1]
    return client


def answer(
    running: Running,
    execution: Execution,
    *,
    qos: int = 1,
    packet_id: int = 7,
    payload: bytes = b'{"status":"SUCCEEDED"}',
) -> bytes:
    """The PUBLISH of a response."""
    topic = running.front.topics.response(execution.thing, execution.execution_id).encode()
    return CODEC_3.encode_publish(topic, payload, qos=qos, packet_id=packet_id)
