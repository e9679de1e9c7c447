"""Ordinary messages alone, without a kernel: what our own code costs per delivered message.

The server as it is put together in the product, on transports that keep what is written. Each turn feeds a
chunk from the publishers, as one read would bring it, flushes, and feeds the subscribers' PUBACKs. Good for
comparing two versions on a noisy machine: time is this process's CPU time, and each figure is the least of
several batches.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from typing import Final, NamedTuple

import mqtt_wire
from hot_path import KeepingTransport
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.mqtt.auth.authenticator import OpenAuthenticator
from thingctl_broker.mqtt.server.connection import DeviceConnection
from thingctl_broker.mqtt.server.server import MqttServer
from thingctl_broker.system.clock import SystemClock

TURNS: Final = 40
"""Of each shape in a batch."""

PAYLOAD: Final = b"x" * 100


class Wire(NamedTuple):
    """A client's connection, and what is written to it."""

    connection: DeviceConnection
    transport: KeepingTransport

    def take(self) -> bytes:
        """What was written since the last time."""
        written = b"".join(self.transport.written)
        self.transport.written.clear()
        return written


class Shape(NamedTuple):
    """Who publishes to whom: ``chunk`` messages come with one read."""

    publishers: int
    copies: int
    qos: int
    chunk: int

    @property
    def deliveries(self) -> int:
        """In one turn."""
        return self.publishers * self.copies * self.chunk


SHAPES: Final = {
    "1 to 1, QoS 0": Shape(1, 1, 0, 100),
    "1 to 1, QoS 1": Shape(1, 1, 1, 100),
    "50 to 50, QoS 0": Shape(50, 1, 0, 5),
    "50 to 50, QoS 1": Shape(50, 1, 1, 5),
    "1 to 50, QoS 0": Shape(1, 50, 0, 5),
}


class Exchange:
    """One shape's clients on a server."""

    def __init__(self, server: MqttServer, shape: Shape, name: str, version: int) -> None:
        self.shape = shape
        self.pairs: list[tuple[Wire, bytes, list[Wire]]] = []
        for n in range(shape.publishers):
            topic = f"{name}/{n}/value"
            ids = range(1, shape.chunk + 1)
            chunk = b"".join(
                mqtt_wire.publish(topic, PAYLOAD, i if shape.qos else None, version=version) for i in ids
            )
            subscribers = [
                client(server, f"{name}-sub-{n}-{i}", topic, shape.qos, version) for i in range(shape.copies)
            ]
            self.pairs.append((client(server, f"{name}-pub-{n}", version=version), chunk, subscribers))

    async def turn(self) -> float:
        """Publish and take a chunk from each; CPU nanoseconds without the load's own."""
        spent = feed([(wire.connection, chunk) for wire, chunk, _ in self.pairs])
        count = 0
        while True:
            before = time.process_time_ns()
            await asyncio.sleep(0)  # the server flushes in the loop's next turn
            spent += time.process_time_ns() - before
            answers = []
            for wire, _, subscribers in self.pairs:
                wire.take()
                for subscriber in subscribers:
                    answer, taken = acknowledge(subscriber.take())
                    count += taken
                    if answer:
                        answers.append((subscriber.connection, answer))
            if count == self.shape.deliveries and not answers:
                return spent
            spent += feed(answers)


def client(server: MqttServer, name: str, topic_filter: str = "", qos: int = 0, version: int = 4) -> Wire:
    """Connect one, with a filter or without."""
    wire = Wire(DeviceConnection(server), KeepingTransport(1024))
    wire.connection.connection_made(wire.transport)
    wire.connection.data_received(mqtt_wire.connect(name, version=version))
    if topic_filter:
        wire.connection.data_received(mqtt_wire.subscribe(1, topic_filter, qos, version=version))
    wire.take()
    return wire


def acknowledge(data: bytes) -> tuple[bytes, int]:
    """The PUBACKs for what came, and how many messages came."""
    out, count = [], 0
    for first, body, _ in mqtt_wire.packets(data):
        count += first & 0xF0 == mqtt_wire.PUBLISH
        if first & 0x06:
            at = body + 2 + (data[body] << 8 | data[body + 1])
            out.append(mqtt_wire.puback(data[at : at + 2]))
    return b"".join(out), count


def feed(received: list[tuple[DeviceConnection, bytes]]) -> float:
    """Have each connection take its bytes; CPU nanoseconds."""
    before = time.process_time_ns()
    for connection, data in received:
        connection.data_received(data)
    return time.process_time_ns() - before


async def profiled(exchanges: list[Exchange], turns: int) -> None:
    """Say where time goes."""
    import cProfile  # noqa: PLC0415 not for the figures
    import pstats  # noqa: PLC0415

    with cProfile.Profile() as profile:
        for exchange in exchanges:
            for _ in range(turns):
                await exchange.turn()
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(40)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--batches", type=int, default=15, help=f"of {TURNS} turns of each shape (15)")
    parser.add_argument("--shape", help="the beginning of one's name")
    parser.add_argument("--version", type=int, default=4, choices=(4, 5), help="of MQTT: 4 is 3.1.1 (4)")
    parser.add_argument("--profile", action="store_true", help="cProfile over them, to stderr, instead")
    options = parser.parse_args()
    server = MqttServer(gatekeeper=OpenAuthenticator())
    service = CommandService(clock=SystemClock(), link=server, journal=NullJournal())
    await server.start(service, [])
    chosen = {name: shape for name, shape in SHAPES.items() if name.startswith(options.shape or "")}
    exchanges = {
        name: Exchange(server, shape, f"s{i}", options.version)
        for i, (name, shape) in enumerate(chosen.items())
    }
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    if options.profile:
        await profiled(list(exchanges.values()), options.batches * TURNS)
        return
    least = dict.fromkeys(exchanges, float("inf"))
    for _ in range(options.batches):
        for name, exchange in exchanges.items():
            spent = sum([await exchange.turn() for _ in range(TURNS)])
            least[name] = min(least[name], spent / 1000 / TURNS / exchange.shape.deliveries)
    print(json.dumps({name: round(value, 3) for name, value in least.items()}))
    await server.stop()


if __name__ == "__main__":
    asyncio.run(main())
