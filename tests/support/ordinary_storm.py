"""A broker that is killed again and again under ordinary messages, and MQTT 3.1.1 clients that keep account.

Publishers number their messages and remember which of them the broker acknowledged. Subscribers, whose
sessions are kept, come and go, lose some of their own acknowledgements, and remember what they received.
At the end each acknowledged message must be there, in order, and at QoS 2 once.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from support.processes import free_address
from support.waits import Deadline, eventually
from support.wire import RawClient
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.frames import Frame
from thingctl_broker.mqtt.protocol.packets import PacketType

PUBLISHERS = 3
SUBSCRIBERS = 3
NEWCOMER_EVERY = 4
"""Kills between two subscribers that join the storm."""
WINDOW = 8
"""Messages of one publisher that the broker has not acknowledged."""
PACE = 0.01
"""Seconds between two messages of one publisher."""
ACKNOWLEDGEMENTS_LOST = 0.01
"""The part of a subscriber's acknowledgements with which its connection breaks instead."""
QUIET = 10.0
"""Seconds without a message after which what is missing is lost."""


class KillableBroker(Protocol):
    """A broker process on a port and a directory that outlive it."""

    @property
    def mqtt(self) -> int: ...
    def start(self) -> None: ...
    async def ready(self) -> None: ...
    def kill(self) -> None: ...


class KillableMosquitto:
    """Mosquitto, which writes its sessions to the disk when it is told to end."""

    def __init__(self, directory: Path) -> None:
        self.mqtt = int(free_address().rsplit(":", 1)[1])
        self._settings = directory / "mosquitto.conf"
        self._settings.write_text(
            f"listener {self.mqtt} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {directory}/\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["mosquitto", "-c", str(self._settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def ready(self) -> None:
        while True:
            try:
                client = await RawClient.open(("127.0.0.1", self.mqtt))
            except OSError:
                await asyncio.sleep(0.01)
            else:
                await client.close()
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class _KeptClient:
    """A client whose session is kept."""

    def __init__(self, port: int, client_id: str, chance: random.Random) -> None:
        self.client_id = client_id
        self.faults: list[str] = []
        self._address = "127.0.0.1", port
        self._chance = chance
        self._is_kept = False
        """Whether the broker has acknowledged something that it can know by the session alone."""

    async def _open(self) -> RawClient:
        client = await RawClient.open(self._address)
        client.send(packets.encode_connect(packets.Connect(self.client_id, False, 60, None, None, None)))
        try:
            answer = await _next(client)
        except OSError:
            client.reset()
            raise
        assert answer.packet[answer.start + 1] == 0, answer
        if self._is_kept and not answer.packet[answer.start] & 1:
            self.faults.append(f"the session of {self.client_id} is gone")
            self._forget()
        return client

    def _forget(self) -> None:
        self._is_kept = False


@dataclass
class _Sent:
    topic: str
    number: int
    qos: int
    is_received: bool = False
    """Whether its PUBREC came."""

    def packet(self, packet_id: int, *, dup: bool) -> bytes:
        if self.is_received:
            return _pubrel(packet_id)
        payload = str(self.number).encode()
        return CODEC_3.encode_publish(
            self.topic.encode(), payload, qos=self.qos, packet_id=packet_id, dup=dup
        )


class OrdinaryPublisher(_KeptClient):
    """Publishes numbers at QoS 1 and at QoS 2, each on a topic of its own."""

    def __init__(self, port: int, client_id: str, chance: random.Random) -> None:
        super().__init__(port, client_id, chance)
        self.topics = {qos: f"site/{client_id}/{qos}" for qos in (1, 2)}
        self.next = dict.fromkeys(self.topics.values(), 0)
        self.acknowledged: dict[str, set[int]] = {topic: set() for topic in self.topics.values()}
        self.sent_again = 0
        self.is_stopping = False
        self._pending: dict[int, _Sent] = {}
        self._last_id = 0

    async def run(self) -> None:
        """Publish until it is told to stop and everything is acknowledged."""
        while not self._is_done:
            try:
                await self._live()
            except OSError:
                await asyncio.sleep(0.02)

    @property
    def _is_done(self) -> bool:
        return self.is_stopping and not self._pending

    async def _live(self) -> None:
        client = await self._open()
        for packet_id, sent in self._pending.items():
            client.send(sent.packet(packet_id, dup=True))
            self.sent_again += 1
        reading = asyncio.ensure_future(self._read(client))
        try:
            while not reading.done() and not self._is_done:
                if not self.is_stopping and len(self._pending) < WINDOW:
                    self._publish(client)
                await asyncio.wait([reading], timeout=PACE)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            client.reset()

    def _publish(self, client: RawClient) -> None:
        qos = self._chance.choice((1, 2))
        topic = self.topics[qos]
        sent = _Sent(topic, self.next[topic], qos)
        self.next[topic] += 1
        self._last_id = self._last_id % 65535 + 1
        self._pending[self._last_id] = sent
        client.send(sent.packet(self._last_id, dup=False))

    async def _read(self, client: RawClient) -> None:
        while True:
            frame = await _next(client)
            packet_id = packets.parse_packet_id(frame)
            sent = self._pending.get(packet_id)
            if sent is None:
                continue  # an answer to what was sent twice
            self.acknowledged[sent.topic].add(sent.number)
            if frame.first >> 4 == PacketType.PUBREC:
                sent.is_received = self._is_kept = True
                client.send(_pubrel(packet_id))
            else:
                del self._pending[packet_id]


class OrdinarySubscriber(_KeptClient):
    """Subscribes to everything of the publishers, and comes and goes."""

    def __init__(
        self, port: int, client_id: str, chance: random.Random, next_numbers: Callable[[], dict[str, int]]
    ) -> None:
        super().__init__(port, client_id, chance)
        self.received: dict[str, list[int]] = defaultdict(list)
        self.first: dict[str, int] | None = None
        """The number of each topic from which on it must have all; None until its SUBACK came."""
        self.visits = 0
        self._next_numbers = next_numbers
        self._unreleased: set[int] = set()

    def count(self) -> int:
        """Messages received, with those that came again."""
        return sum(map(len, self.received.values()))

    async def come_and_go(self) -> None:
        """Visit the broker until cancelled."""
        while True:
            await self._visit(self._chance.uniform(0.05, 0.6))
            await asyncio.sleep(self._chance.uniform(0.02, 0.2))

    async def stay(self, is_complete: Callable[[], bool]) -> None:
        """Receive what is missing, until nothing has come for some time."""
        before, quiet = -1, Deadline(QUIET)
        while not is_complete() and not quiet.has_passed():
            if self.count() != before:
                before, quiet = self.count(), Deadline(QUIET)
            await self._visit(0.3)

    async def _visit(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._live()
        except OSError:
            pass

    async def _live(self) -> None:
        client = await self._open()
        self.visits += 1
        try:
            if not self._is_kept:
                client.send(packets.encode_subscribe(1, [("site/#", 2)]))
            while True:
                self._take(client, await _next(client))
        finally:
            client.reset()

    def _take(self, client: RawClient, frame: Frame) -> None:
        kind = frame.first >> 4
        if kind == PacketType.SUBACK:
            self._is_kept = True
            self.first = self.first or self._next_numbers()
        elif kind == PacketType.PUBREL:
            packet_id = packets.parse_packet_id(frame)
            self._unreleased.discard(packet_id)
            self._answer(client, CODEC_3.encode_pubcomp(packet_id))
        elif kind == PacketType.PUBLISH:
            self._take_publish(client, packets.parse_publish(frame))

    def _take_publish(self, client: RawClient, publish: packets.Publish) -> None:
        packet_id = publish.packet_id
        assert packet_id is not None
        if publish.qos == 1:
            self.received[publish.topic].append(int(publish.payload))
            self._answer(client, CODEC_3.encode_puback(packet_id))
            return
        if packet_id not in self._unreleased:
            self._unreleased.add(packet_id)
            self.received[publish.topic].append(int(publish.payload))
        self._answer(client, CODEC_3.encode_pubrec(packet_id))

    def _answer(self, client: RawClient, packet: bytes) -> None:
        if self._chance.random() < ACKNOWLEDGEMENTS_LOST:
            raise ConnectionResetError
        client.send(packet)

    def _forget(self) -> None:
        super()._forget()
        self._unreleased.clear()


@dataclass
class OrdinaryStorm:
    """The account of a storm."""

    publishers: list[OrdinaryPublisher] = field(default_factory=list)
    subscribers: list[OrdinarySubscriber] = field(default_factory=list)
    kills: int = 0

    @property
    def acknowledged(self) -> int:
        return sum(len(numbers) for p in self.publishers for numbers in p.acknowledged.values())

    @property
    def sent_again(self) -> int:
        return sum(publisher.sent_again for publisher in self.publishers)

    def next_numbers(self) -> dict[str, int]:
        """The number that each topic's next message will have."""
        return {topic: number for p in self.publishers for topic, number in p.next.items()}

    def missing(self, subscriber: OrdinarySubscriber) -> dict[str, set[int]]:
        """The acknowledged messages that a subscriber did not get, by topic."""
        first = subscriber.first or {}
        found = {}
        for publisher in self.publishers:
            for topic, numbers in publisher.acknowledged.items():
                due = {n for n in numbers if topic in first and n >= first[topic]}
                if lost := due - set(subscriber.received[topic]):
                    found[topic] = lost
        return found

    def faults(self) -> list[str]:
        """What the broker did wrong."""
        found = [fault for client in (*self.publishers, *self.subscribers) for fault in client.faults]
        for subscriber in self.subscribers:
            name = subscriber.client_id
            found += [
                f"{name}: {len(lost)} lost of {topic}: {sorted(lost)[:5]}"
                for topic, lost in self.missing(subscriber).items()
            ]
            for topic, numbers in subscriber.received.items():
                firsts = list(dict.fromkeys(numbers))
                if firsts != sorted(firsts):
                    found.append(f"{name}: order of {topic} is broken")
                if topic.endswith("/2") and len(firsts) != len(numbers):
                    found.append(f"{name}: {len(numbers) - len(firsts)} doubled of {topic}")
        return found


async def blow_ordinary(broker: KillableBroker, kills: int, seed: int) -> OrdinaryStorm:
    """Kill a broker ``kills`` times under ordinary messages; return the account. The broker runs at the end."""
    chance = random.Random(seed)
    storm = OrdinaryStorm()
    broker.start()
    await broker.ready()
    tasks: list[asyncio.Task[None]] = []

    def join() -> None:
        name = f"reader-{len(storm.subscribers)}"
        reader = OrdinarySubscriber(broker.mqtt, name, random.Random(chance.random()), storm.next_numbers)
        storm.subscribers.append(reader)
        tasks.append(asyncio.create_task(reader.come_and_go()))

    for number in range(PUBLISHERS):
        storm.publishers.append(
            OrdinaryPublisher(broker.mqtt, f"writer-{number}", random.Random(chance.random()))
        )
    for _ in range(SUBSCRIBERS):
        join()
    await eventually(lambda: all(reader.first is not None for reader in storm.subscribers))
    publishing = [asyncio.create_task(publisher.run()) for publisher in storm.publishers]
    try:
        while storm.kills < kills:
            before = storm.acknowledged
            if storm.kills % NEWCOMER_EVERY == 1:
                join()
            await asyncio.sleep(chance.uniform(0.1, 0.5))  # the moment of the kill is chance
            await eventually(lambda: storm.acknowledged > before + 10)  # noqa: B023 called in this turn
            broker.kill()
            storm.kills += 1
            broker.start()
            await broker.ready()
        await eventually(lambda: all(reader.first is not None for reader in storm.subscribers))
        for publisher in storm.publishers:
            publisher.is_stopping = True
        await asyncio.wait_for(asyncio.gather(*publishing), 30)
        await _cancel(tasks)
        await asyncio.gather(
            *(r.stay(lambda r=r: not storm.missing(r)) for r in storm.subscribers)  # type: ignore[misc]
        )
    finally:
        await _cancel([*tasks, *publishing])
    return storm


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _next(client: RawClient) -> Frame:
    """The next packet; OSError when there is none."""
    frame = await client.receive()
    if frame is None:
        raise ConnectionResetError
    return frame


def _pubrel(packet_id: int) -> bytes:
    return b"\x62\x02" + packet_id.to_bytes(2, "big")
