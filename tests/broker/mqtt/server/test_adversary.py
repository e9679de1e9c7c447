"""Clients that mean harm, over real sockets: nothing is left of them, and others are served throughout.

``THINGCTL_MUTATIONS`` says how many mutated packets are sent (3,000 unless told).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from support.brokers import RunningPlugin, plugin_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.fields import encode_length
from thingctl_broker.mqtt.protocol.frames import FrameScanner, MalformedPacket
from thingctl_broker.mqtt.protocol.packets import Connect, PacketType, Will
from thingctl_protocol.statuses import Status

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")

MUTATIONS = int(os.environ.get("THINGCTL_MUTATIONS", "3000"))
REQUESTS = "$emqx/commands/things/{}/executions/+/request"
LIMITS = {"connect_timeout": 0.8, "write_timeout": 1.0}


class Bystander:
    """A thing that answers, and a listener that hears it; it counts how often that went well."""

    def __init__(self, running: RunningPlugin, client: RawClient) -> None:
        self.running = running
        self.client = client
        self.rounds = 0

    async def serve(self) -> None:
        while True:
            execution = self.running.service.send("bystander", "poll")
            self.client.send(CODEC_3.encode_publish(b"bystander/news", b"x"))
            wanted = {"/request", "bystander/news"}
            while wanted:
                publish = await self.client.expect_publish()
                wanted -= {part for part in wanted if publish.topic.endswith(part)}
                if publish.qos:
                    self.client.send(CODEC_3.encode_puback(publish.packet_id))
            topic = self.running.front.topics.response("bystander", execution.execution_id).encode()
            self.client.send(CODEC_3.encode_publish(topic, b'{"status":"SUCCEEDED"}'))
            await eventually(lambda execution=execution: execution.status is Status.SUCCEEDED, 3)
            self.rounds += 1
            await asyncio.sleep(0.005)


@pytest.fixture
async def running(tmp_path) -> AsyncIterator[RunningPlugin]:
    """A broker with a bystander, and the proof that nothing has grown afterwards."""
    async with plugin_broker(tmp_path, limits=LIMITS) as running:
        client = await RawClient.connected(running.address, "bystander", keep_alive=0)
        await client.subscribe(REQUESTS.format("bystander"), "bystander/#", qos=1)
        await eventually(lambda: len(running.front.connections) == 1)
        tasks = len(asyncio.all_tasks())
        filters = {topic_filter for topic_filter, _, _ in running.front.engine.tree}
        bystander = Bystander(running, client)
        serving = asyncio.create_task(bystander.serve())
        yield running
        await eventually(lambda: len(running.front.connections) == 1)
        engine = running.front.engine
        await eventually(lambda: [session.client_id for session in engine.sessions] == ["bystander"])
        assert {topic_filter for topic_filter, _, _ in engine.tree} == filters
        rounds = bystander.rounds
        await eventually(lambda: bystander.rounds > rounds or serving.done())
        assert not serving.done(), serving.exception()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        (connection,) = running.front.connections
        assert connection.client_id == "bystander"
        assert not connection._receiver.qos2_held
        assert running.front._clients.keys() == running.front._present.keys() == {"bystander"}


def hello(client_id: str, **options) -> bytes:
    fields = {"clean_session": True, "keep_alive": 60, "username": None, "password": None, "will": None}
    return packets.encode_connect(Connect(client_id, **{**fields, **options}))


def repertoire(name: str) -> list[bytes]:
    """Packets that are all in order, together."""
    return [
        packets.encode_subscribe(1, [(REQUESTS.format(name), 1), ("$emqx/commands/things/+/#", 0)]),
        packets.encode_subscribe(2, [("news/#", 2), ("other/+", 0)]),
        CODEC_3.encode_publish(b"news/a", b"21.5", qos=0),
        CODEC_3.encode_publish(b"news/b", b"x" * 300, qos=1, packet_id=3),
        CODEC_3.encode_publish(b"other/c", b"", qos=2, packet_id=4),
        b"\x62\x02\x00\x04",
        CODEC_3.encode_publish(
            f"$emqx/commands/things/{name}/executions/0193/response".encode(), b"{}", qos=1, packet_id=5
        ),
        CODEC_3.encode_publish(f"$emqx/commands/things/{name}/actions".encode(), b"{}", qos=2, packet_id=6),
        CODEC_3.encode_puback(1),
        CODEC_3.encode_pubrec(2),
        CODEC_3.encode_pubcomp(3),
        packets.encode_unsubscribe(7, ["news/#", REQUESTS.format(name)]),
        b"\xc0\x00",
        b"\xe0\x00",
    ]


def text(data: str) -> bytes:
    return len(data.encode()).to_bytes(2) + data.encode()


def packet5(first: int, body: bytes) -> bytes:
    return bytes([first]) + encode_length(len(body)) + body


def hello5(client_id: str, *, will: Will | None = None) -> bytes:
    """A CONNECT of MQTT 5 with a session expiry, a Receive Maximum and a topic alias maximum."""
    flags = 0x82 if will is None else 0x82 | 0x04 | will.qos << 3
    body = text("MQTT") + bytes([5, flags, 0, 60]) + b"\x0b\x11\0\0\0\0\x21\0\x05\x22\0\x05" + text(client_id)
    if will is not None:
        body += b"\x05\x18\0\0\0\0" + text(will.topic) + text(will.payload.decode())
    return packet5(0x10, body + text(client_id))


def repertoire5(name: str) -> list[bytes]:
    """The same in MQTT 5, with properties."""
    user = b"\x26" + text("key") + text("value")
    response = f"$emqx/commands/things/{name}/executions/0193/response".encode()
    return [
        packet5(0x82, b"\0\x01\x02\x0b\x07" + text("news/#") + b"\x2d" + text("$share/g/+/a") + b"\x01"),
        packet5(0x82, b"\0\x02\0" + text(REQUESTS.format(name)) + b"\x01"),
        CODEC_5.encode_publish(b"news/a", b"x", topic_alias=1, properties=user),
        CODEC_5.encode_publish(b"", b"x" * 300, qos=1, packet_id=3, topic_alias=1, message_expiry=5),
        CODEC_5.encode_publish(b"other/c", b"", qos=2, packet_id=4, retain=True),
        CODEC_5.encode_pubrel(4),
        CODEC_5.encode_publish(response, b"{}", qos=1, packet_id=5, properties=b"\x01\x01" + user),
        CODEC_5.encode_puback(1, 0x97, "no room"),
        CODEC_5.encode_pubrec(2, 0x80),
        CODEC_5.encode_pubcomp(3, 0x92),
        packet5(0xA2, b"\0\x07\0" + text("news/#")),
        b"\xc0\x00",
        packet5(0xE0, b"\x04\x05\x11\0\0\0\0"),
    ]


def mutate(packet: bytes, dice: random.Random) -> bytes:
    data = bytearray(packet)
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(data) + 1)
        match dice.randrange(4):
            case 0 if data:
                data[place % len(data)] ^= 1 << dice.randrange(8)
            case 1 if data:
                data[place % len(data)] = dice.randrange(256)
            case 2 if data:
                del data[place % len(data)]
            case _:
                data.insert(place, dice.randrange(256))
    return bytes(data)


async def read_to_the_end(client: RawClient) -> None:
    """Take whatever comes until the connection ends or nothing more comes."""
    try:
        async with asyncio.timeout(0.02):
            while await client._reader.read(65536):
                pass
    except (TimeoutError, ConnectionError):
        pass


async def test_what_is_mutated_is_in_order_otherwise(running):
    """Or else all of it would be refused for the same fault."""
    client = await RawClient.open(running.address)
    client.send(hello5("vandal", will=Will("news/wills", b"gone", 1, retain=False)))
    assert (await client.expect(PacketType.CONNACK)).packet[3] == 0
    client.send(b"".join(repertoire5("vandal")))
    kinds = []
    while (frame := await client.receive()) is not None:
        kinds.append(PacketType(frame.first >> 4))
    assert kinds.count(PacketType.SUBACK) == 2
    assert kinds.count(PacketType.PUBACK) == 2
    assert {PacketType.PUBREC, PacketType.PUBCOMP, PacketType.UNSUBACK, PacketType.PINGRESP} <= set(kinds)
    assert not running.service.counters["front.malformed"]


@pytest.mark.parametrize("version", [4, 5])
async def test_mutated_packets(running, version):  # noqa: C901 each kind of harm is a branch
    dice = random.Random(os.environ.get("THINGCTL_SEED", "1"))
    left = MUTATIONS

    async def attack(number: int) -> None:
        nonlocal left
        while left > 0:
            name = f"vandal-{number}"
            will = Will("news/wills", b"gone", 1, retain=False) if dice.random() < 0.2 else None
            if version == 5:
                greeting, rest = hello5(name, will=will), repertoire5(name)
            else:
                greeting, rest = hello(name, will=will, username=name), repertoire(name)
            client = await RawClient.open(running.address)
            if dice.random() < 0.2:
                client.send(mutate(greeting, dice))
                left -= 1
            else:
                client.send(greeting)
            dice.shuffle(rest)
            for packet in rest[: dice.randint(1, 8)]:
                if dice.random() < 0.6:
                    client.send(mutate(packet, dice))
                    left -= 1
                else:
                    client.send(packet)
                if dice.random() < 0.3:
                    await asyncio.sleep(0)
            if dice.random() < 0.5:
                await read_to_the_end(client)
            if dice.random() < 0.5:
                client.reset()
            else:
                client._writer.close()

    await asyncio.gather(*(attack(i) for i in range(12)))
    # A mutated CONNECT may have asked for a session to be kept.
    await eventually(lambda: len(running.front.connections) == 1)
    for session in running.front.engine.sessions:
        if not session.is_connected:
            running.front.engine.end(session, 0.0)


async def test_1000_silent_connections(running):
    clients = [await RawClient.open(running.address) for _ in range(1000)]
    await eventually(lambda: running.service.counters["front.connectTimeout"] == 1000, 20)
    for client in clients:
        await client.expect_end()


async def test_200_connects_that_are_reset(running):
    for i in range(200):
        client = await RawClient.open(running.address)
        client.send(hello(f"c{i % 7}", will=Will("news/wills", b"", 1, retain=False) if i % 2 else None))
        for _ in range(i % 5):
            await asyncio.sleep(0)
        client.reset()


async def test_drips(running):
    stream = hello("dripping") + b"".join(repertoire("dripping"))
    clients = [await RawClient.open(running.address) for _ in range(10)]
    for i, byte in enumerate(stream):
        for client in clients[i % 10 :]:
            client.send(bytes([byte]))
        if i % 20 == 0:
            await asyncio.sleep(0)
    for client in clients:
        client.reset()


async def test_everything_at_once_in_one_segment(running):
    listener = await RawClient.connected(running.address, "listener")
    await listener.subscribe("at/once")
    for i in range(30):
        client = await RawClient.open(running.address)
        client.send(
            hello("hasty")
            + packets.encode_subscribe(1, [(REQUESTS.format("hasty"), 1), ("news/#", 1)])
            + CODEC_3.encode_publish(b"at/once", b"%d" % i, qos=1, packet_id=2)
            + b"\xc0\x00"
        )
        seen = {(await client.receive()).first >> 4 for _ in range(4)}
        assert seen == {PacketType.CONNACK, PacketType.SUBACK, PacketType.PUBACK, PacketType.PINGRESP}
        message = await listener.expect_publish()
        assert message.payload == b"%d" % i
        listener.send(CODEC_3.encode_puback(message.packet_id))
        client.reset()
    await listener.close()


@pytest.mark.parametrize("length", [0x80, 0xFF, 0x7F])
async def test_huge_lengths(running, length):
    for first in (0x10, 0x30, 0x82):
        client = await RawClient.open(running.address)
        if first != 0x10:
            client.send(hello("huge"))
        client.send(bytes([first, 0xFF, 0xFF, length, length]) + b"\x00\x01a" * 10)
        await read_to_the_end(client)
        client.reset()


async def test_a_subscribe_with_as_many_filters_as_there_may_be(running):
    client = await RawClient.connected(running.address, "greedy")
    most, others = running.front.limits.filters, running.front.limits.other_subscriptions
    codes = await client.subscribe(*[f"f/{i}/+" for i in range(most)])
    assert codes.count(1) == others
    assert codes.count(0x80) == most - others
    codes = await client.subscribe(
        *[REQUESTS.format("greedy").replace("+", f"{i}") for i in range(500)], packet_id=2
    )
    assert codes == [0x80] * 500
    own = [
        "$emqx/commands/things/greedy/#",
        "$emqx/commands/things/greedy/executions/#",
        "$emqx/commands/things/greedy/+/+/+",
    ]
    codes = await client.subscribe(*own * (most // 3), packet_id=3)
    assert codes == [1] * len(codes)
    await client.expect_publish()  # the time
    client.send(packets.encode_unsubscribe(4, [f"f/{i}/+" for i in range(most)]))
    await client.expect(PacketType.UNSUBACK)
    client.send(b"\xe0\x00")
    await client.expect_end()


async def test_filters_of_very_many_levels_are_refused(running):
    """Each level of one with wildcards is an object: 65,000 took 15 MB, and a client may have 1000 filters."""
    client = await RawClient.connected(running.address, "greedy")
    at_most = "/".join(["+"] * 200)
    filters = [at_most, at_most + "/#", "+/" * 30_000 + "#", f"$share/g/{at_most}", f"$share/g/{at_most}/a"]
    tracemalloc.start()
    try:
        assert await client.subscribe(*filters) == [1, 0x80, 0x80, 1, 0x80]
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()
    client.send(b"\xe0\x00")
    await client.expect_end()


@pytest.mark.parametrize(
    "packet",
    [
        packets.encode_subscribe(1, [("", 0)] * 300_000),
        packets.encode_subscribe(1, [("a", 0)] * 2000),
        packets.encode_subscribe(1, [("/" * 65_000, 0)] * 15),
        packets.encode_unsubscribe(1, ["a"] * 300_000),
        packets.encode_unsubscribe(1, ["a"] * 2000),
    ],
    ids=["nothing", "many", "levels", "leaving nothing", "leaving many"],
)
async def test_a_subscribe_of_a_mebibyte_takes_no_time(running, packet):
    client = await RawClient.connected(running.address, "greedy")
    connection = running.front._clients["greedy"]
    (frame,) = FrameScanner(len(packet)).feed(packet)
    before = time.process_time()
    with pytest.raises(MalformedPacket, match="limit"):
        connection._on_packet(frame)
    assert time.process_time() - before < 0.1  # half a second, when everything was looked at
    client.send(packet)
    await read_to_the_end(client)
    client.reset()


async def test_identifiers_used_again_and_again(running):
    client = await RawClient.connected(running.address, "lamp")
    for qos in (1, 2):
        for _ in range(100):
            client.send(CODEC_3.encode_publish(b"news/a", b"x", qos=qos, packet_id=7))
            client.send(
                CODEC_3.encode_publish(b"$emqx/commands/things/lamp/actions", b"", qos=qos, packet_id=7)
            )
    for _ in range(100):
        client.send(b"\x62\x02\x00\x07")
        client.send(CODEC_3.encode_puback(7) + CODEC_3.encode_pubrec(7) + CODEC_3.encode_pubcomp(7))
        client.send(packets.encode_unsubscribe(7, ["never/subscribed", REQUESTS.format("lamp")]))
    client.send(b"\xc0\x00")
    kinds = []
    while PacketType.PINGRESP not in kinds:
        kinds.append((await client.receive()).first >> 4)
    client.send(b"\xe0\x00")
    await eventually(lambda: not any(c.client_id == "lamp" for c in running.front.connections))


async def test_clients_that_do_not_read(running):
    deaf = [await RawClient.connected(running.address, f"deaf-{i}") for i in range(5)]
    for client in deaf:
        await client.subscribe("news/#", qos=0)
        client._writer.transport.pause_reading()
    source = await RawClient.connected(running.address, "source")
    packet = CODEC_3.encode_publish(b"news/a", b"x" * 50_000)
    end = asyncio.get_running_loop().time() + 10
    while running.service.counters["front.writeTimeout"] < 5:
        assert asyncio.get_running_loop().time() < end
        source.send(packet)
        await asyncio.sleep(0.002)
    for client in [*deaf, source]:
        client.reset()


async def test_commands_to_clients_that_do_not_read(running):
    deaf = await RawClient.connected(running.address, "deaf")
    await deaf.subscribe(REQUESTS.format("deaf"), qos=1)
    deaf._writer.transport.pause_reading()
    params = b'{"x":"' + b"y" * 100_000 + b'"}'
    executions = [running.service.send("deaf", "fill", params) for _ in range(500)]
    await eventually(lambda: running.service.things.get("deaf").online is False)
    assert running.service.counters["front.writeBuffer"] + running.service.counters["front.writeTimeout"] == 1
    for execution in executions:
        running.service.cancel(execution.execution_id)
    deaf.reset()


async def test_a_flood_of_telemetry(running):
    """A publisher that never waits has its messages handled as they come: none of them waits."""
    client = await RawClient.connected(running.address, "flood")
    packet = CODEC_3.encode_publish(b"news/a", b"x" * 20) * 1000
    received = running.front.engine.totals.received
    for _ in range(30):
        client.send(packet)
        await client._writer.drain()
        await asyncio.sleep(0)
    await eventually(lambda: running.front.engine.totals.received >= received + 30_000)
    client.reset()
