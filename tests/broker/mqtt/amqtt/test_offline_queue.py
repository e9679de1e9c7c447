"""What waits for a client that is away is bounded: the oldest goes, and only that client loses anything."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from amqtt.session import Session
from structlog.testing import capture_logs

from support.brokers import plugin_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.amqtt.offline_queue import OfflineQueue, bound
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.packets import PacketType

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")


class Message(NamedTuple):
    topic: str
    data: bytes


class Lost:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, topic: str) -> None:
        assert topic == "t"
        self.count += 1


def drained(queue: OfflineQueue) -> list[bytes]:
    return [queue.get_nowait().data for _ in range(queue.qsize())]


async def test_beyond_so_many_messages_the_oldest_goes():
    lost = Lost()
    queue = OfflineQueue(3, 1000, lost)
    for i in range(5):
        await queue.put(Message("t", b"%d" % i))
    assert drained(queue) == [b"2", b"3", b"4"]
    assert lost.count == 2
    assert queue.empty()


async def test_beyond_so_many_bytes_as_many_go_as_must():
    lost = Lost()
    queue = OfflineQueue(100, 10, lost)
    for size in (4, 2, 2, 8):
        await queue.put(Message("t", b"x" * size))
    assert [len(data) for data in drained(queue)] == [8]
    assert lost.count == 3
    await queue.put(Message("t", b"x" * 9))  # what was taken out counts no more
    assert len(drained(queue)) == 1
    await queue.put(Message("t", b"x" * 10))
    assert drained(queue) == []
    assert lost.count == 4


async def test_a_session_keeps_what_it_has_and_is_bounded_once():
    session, lost = Session(), Lost()
    for i in range(4):
        await session.retained_messages.put(Message("t", b"%d" % i))
    bound(session, 3, 1000, lost)
    queue = session.retained_messages
    bound(session, 1, 1, lost)
    assert session.retained_messages is queue
    assert drained(queue) == [b"1", b"2", b"3"]


async def test_a_client_that_comes_back_finds_the_newest_and_another_finds_all(tmp_path):
    async with plugin_broker(tmp_path, limits={"away_messages": 10}) as running:
        for name in ("long away", "other"):
            client = await RawClient.connected(running.address, name, clean=False, username=name)
            await client.subscribe(f"news/{name}")
            client.send(b"\xe0\x00")
            await client.expect_end()
        await eventually(lambda: not running.front._leaving)
        source = await RawClient.connected(running.address, "source")
        with capture_logs() as logs:
            for name, count in (("long away", 25), ("other", 10)):
                for i in range(count):
                    source.send(
                        packets.encode_publish(f"news/{name}".encode(), b"%d" % i, qos=1, packet_id=1)
                    )
                    await source.expect(PacketType.PUBACK)
            sessions = [running.broker.sessions[name][0] for name in ("long away", "other")]
            await eventually(lambda: all(s.retained_messages.qsize() == 10 for s in sessions))
            await eventually(lambda: running.service.counters["front.awayLost"] == 15)
        lost = [(entry["client"], entry["topic"]) for entry in logs if entry.get("fault") == "awayLost"]
        assert lost == [("long away", "news/long away")]
        for name, first in (("long away", 15), ("other", 0)):
            client = await RawClient.connected(running.address, name, clean=False, username=name)
            heard = []
            for _ in range(10):
                publish = await client.expect_publish()
                client.send(packets.encode_puback(publish.packet_id))
                heard.append(int(publish.payload))
            assert sorted(heard) == list(range(first, first + 10))
