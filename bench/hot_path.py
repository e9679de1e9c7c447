"""The command path alone, without a kernel: what our own code costs per command, step by step.

The front and the service as they are put together in the product, on a transport that
keeps what is written. What a run over TCP costs beyond this is system calls and the
event loop. Good for comparing two versions on a noisy machine: time is this process's
CPU time, and each figure is the least of several batches.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from typing import TYPE_CHECKING, Final

import mqtt_wire
from fleet_parts import SUCCEEDED, thing_name
from in_process import PARAMS, TTL
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.mqtt.auth.authenticator import OpenAuthenticator
from thingctl_broker.mqtt.server.connection import DeviceConnection
from thingctl_broker.mqtt.server.server import MqttServer
from thingctl_broker.system.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH: Final = 2000
THINGS: Final = 1000


class KeepingTransport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self, port: int, **extra: object) -> None:
        super().__init__({"peername": ("127.0.0.1", port), **extra})
        self.written: list[bytes] = []
        self.write = self.written.append  # type: ignore[method-assign,assignment] # as cheap as can be

    def close(self) -> None:
        """Nothing is open."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0


class Path:
    """Things on the front, and commands to them one batch at a time."""

    def __init__(self) -> None:
        self.front = MqttServer(gatekeeper=OpenAuthenticator())
        self.service = CommandService(clock=SystemClock(), link=self.front, journal=NullJournal())
        self.connections: list[DeviceConnection] = []
        self.transports: list[KeepingTransport] = []
        self.turn = 0

    async def connect(self) -> None:
        """Bring every thing to where it awaits requests."""
        await self.front.start(self.service, [])
        for i in range(THINGS):
            connection, transport = DeviceConnection(self.front), KeepingTransport(1024 + i)
            connection.connection_made(transport)
            name = thing_name(i)
            connection.data_received(mqtt_wire.connect(name, username=name))
            topic = self.front.topics.request_filter(name)
            connection.data_received(mqtt_wire.subscribe(1, topic))
            transport.written.clear()
            self.connections.append(connection)
            self.transports.append(transport)

    def batch(self) -> dict[str, float]:
        """Send, acknowledge and answer ``BATCH`` commands; CPU microseconds per command of each step."""
        chosen = [(self.turn + i) % THINGS for i in range(BATCH)]
        self.turn += BATCH
        names = [thing_name(i) for i in chosen]
        send = self.service.send

        def send_all() -> None:
            for name in names:
                send(name, "setTemperature", PARAMS, TTL)

        return {"send": _cpu(send_all), **self.answer()}

    def answer(self) -> dict[str, float]:
        """Acknowledge and answer all that was published, each packet on its own."""
        acknowledgements: list[tuple[DeviceConnection, bytes]] = []
        responses: list[tuple[DeviceConnection, bytes]] = []
        for connection, transport in zip(self.connections, self.transports, strict=True):
            for packet in transport.written:
                puback, response = _answers(packet)
                acknowledgements.append((connection, puback))
                responses.append((connection, response))
        steps = {
            "acknowledged": _cpu(lambda: _feed(acknowledgements)),
            "responded": _cpu(lambda: _feed(responses)),
        }
        for transport in self.transports:
            transport.written.clear()
        return steps


def _feed(received: list[tuple[DeviceConnection, bytes]]) -> None:
    for connection, data in received:
        connection.data_received(data)


def _answers(request: bytes) -> tuple[bytes, bytes]:
    _, body, _ = next(mqtt_wire.packets(request))
    behind = body + 2 + int.from_bytes(request[body : body + 2], "big")
    packet_id, topic = request[behind : behind + 2], request[body + 2 : behind]
    answer = mqtt_wire.publish(topic.removesuffix(b"request") + b"response", SUCCEEDED, 7)
    return mqtt_wire.puback(packet_id), answer


def _cpu(work: Callable[[], object]) -> float:
    before = time.process_time_ns()
    work()
    return (time.process_time_ns() - before) / 1000 / BATCH


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--batches", type=int, default=30, help=f"of {BATCH} commands (30)")
    parser.add_argument("--profile", action="store_true", help="cProfile over them, to stderr, instead")
    options = parser.parse_args()
    path = Path()
    await path.connect()
    path.batch()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    if options.profile:
        _profile(path, options.batches)
        return
    batches = [path.batch() for _ in range(options.batches)]
    least = {step: round(min(batch[step] for batch in batches), 2) for step in batches[0]}
    total = round(sum(least.values()), 2)
    applied = path.service.counters["responses.applied"]
    assert applied == (options.batches + 1) * BATCH, "every command ended"
    print(json.dumps({"cpu_us_per_command": total, **least, "commands": applied}))
    await path.front.stop()


def _profile(path: Path, batches: int) -> None:
    import cProfile  # noqa: PLC0415 not for the figures
    import pstats  # noqa: PLC0415

    with cProfile.Profile() as profile:
        for _ in range(batches):
            path.batch()
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    asyncio.run(main())
