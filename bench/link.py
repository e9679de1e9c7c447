"""CPU time of one worker's link per command, beside paho doing the same by the same broker.

A round trip is: a request is published with an expiry (QoS 1), mosquitto acknowledges it, the
thing answers, the answer is handled and acknowledged. A worker has nothing else to do here: no
table, no HTTP. Workers take turns in one run, each in a process of its own; what they cost is
their own CPU time, user and system, so other work on the machine matters little. Ratios travel.

    python bench/link.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import select
import socket
import sys
import time
from collections import deque
from statistics import median
from typing import Any, Final

import mosquitto
from processes import BenchError, Child

ROOT: Final = "bench"
THING: Final = "lamp"
REQUEST: Final = (
    b'{"commandId":"0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f","action":"setTemperature","params":{"value":24}}'
)
RESPONSE: Final = b'{"status":"SUCCEEDED","result":{"currentTemperature":24}}'
EXPIRY: Final = 30
SECONDS: Final = 300.0
CONTENDERS: Final = {
    "link": "the link, uvloop",
    "link-asyncio": "the link, asyncio's own loop",
    "paho": "paho 2, its own thread-free loop",
}


# -- the thing


def thing(port: int) -> None:
    """Answer each request at once, over a bare socket: all things of the fleet in one connection."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    topic = f"{ROOT}/things/+/executions/+/request".encode()
    sock.sendall(b"\x10\x12\0\x04MQTT\x04\x02\0\0\0\x06things")
    sock.sendall(bytes([0x82, len(topic) + 5, 0, 1]) + len(topic).to_bytes(2) + topic + b"\x01")
    buffer = bytearray()
    ready = False
    while data := sock.recv(1 << 18):
        buffer += data
        out = bytearray()
        at = 0
        while True:
            start = at + 2
            if len(buffer) < start:
                break
            length = buffer[at + 1]
            if length & 0x80:
                length = length & 0x7F | buffer[start] << 7 if len(buffer) > start else 1 << 20
                start += 1
            if len(buffer) < start + length:
                break
            kind, body = buffer[at] >> 4, bytes(buffer[start : start + length])
            at = start + length
            if kind == 9 and not ready:
                ready = True
                print(json.dumps({"event": "ready"}), flush=True)
            elif kind == 3:
                end = 2 + int.from_bytes(body[:2])
                answer = body[2 : end - len("request")] + b"response"
                out += b"\x40\x02" + body[end : end + 2]
                packet = len(answer).to_bytes(2) + answer + body[end : end + 2] + RESPONSE
                size = len(packet)
                out += (
                    b"\x32"
                    + (bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7]))
                    + packet
                )
        del buffer[:at]
        if out:
            sock.sendall(out)


# -- the workers


def cpu() -> float:
    """CPU seconds of this process so far, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def tell(trips: int, begun: float, since: float) -> None:
    """Say what a run has cost."""
    line = {
        "event": "done",
        "us": (cpu() - begun) / trips * 1e6,
        "perSecond": trips / (time.monotonic() - since),
    }
    print(json.dumps(line), flush=True)


class Waiting:
    """Hands each response to whoever waits for it."""

    def __init__(self) -> None:
        self.futures: dict[str, asyncio.Future[None]] = {}

    async def responded(self, _thing: str, execution_id: str, _payload: bytes) -> None:
        self.futures.pop(execution_id).set_result(None)

    async def announced(self, *_: object) -> None:
        """Nothing announces anything here."""

    async def present(self, *_: object) -> None:
        """Nothing comes or goes here."""

    def dropped(self, _thing: str, reason: str, text: str) -> None:
        raise BenchError(f"{reason}: {text}")


async def link(port: int, trips: int, window: int) -> None:
    """The product's link."""
    from thingctl_broker.mqtt.cluster.link import ClusterLink  # noqa: PLC0415 - not for the others
    from thingctl_broker.mqtt.cluster.settings import LinkSettings  # noqa: PLC0415
    from thingctl_protocol.topics import Topics  # noqa: PLC0415

    waiting = Waiting()
    worker = ClusterLink(
        LinkSettings(urls=(f"mqtt://127.0.0.1:{port}",), group="bench", worker="w"), Topics(ROOT)
    )
    await worker.start(waiting, lambda _: None)
    loop = asyncio.get_running_loop()

    async def run(count: int) -> None:
        left = iter(range(count))

        async def one_after_another() -> None:
            for number in left:
                execution_id = f"0193448f-5d1c-7000-9b3c-{number:012d}"
                waiting.futures[execution_id] = answered = loop.create_future()
                await worker.publish_request(THING, execution_id, REQUEST, EXPIRY)
                await answered

        await asyncio.gather(*(one_after_another() for _ in range(window)))

    await run(trips // 5)
    begun, since = cpu(), time.monotonic()
    await run(trips)
    tell(trips, begun, since)
    await worker.stop()


class PahoWorker:
    """The same by paho, as lean as it can be had: callbacks, one thread, acknowledged by hand."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client  # noqa: PLC0415
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion  # noqa: PLC0415
        from paho.mqtt.packettypes import PacketTypes  # noqa: PLC0415
        from paho.mqtt.properties import Properties  # noqa: PLC0415

        self._properties: Any = lambda: Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        self._left = self._answered = 0
        self.granted = False
        client: Any = Client(
            CallbackAPIVersion.VERSION2, "w", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
        )
        self.client = client
        client.max_inflight_messages = 65535
        client.on_socket_open = lambda _c, _u, s: s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.connect("127.0.0.1", port)
        client.subscribe(f"$share/bench/{ROOT}/things/+/executions/+/response", 1)

    def turn(self) -> None:
        """Wait for the socket once, and do what is to be done."""
        client = self.client
        sock = client.socket()
        assert sock is not None
        if select.select([sock], [sock] if client.want_write() else [], [], 1)[0]:
            client.loop_read()
        if client.want_write():
            client.loop_write()
        client.loop_misc()

    def run(self, count: int, window: int) -> None:
        """Make so many round trips."""
        self._left, self._answered = count, 0
        for _ in range(window):
            self._publish()
        while self._answered < count:
            self.turn()

    def _publish(self) -> None:
        if self._left:
            self._left -= 1
            properties = self._properties()
            properties.MessageExpiryInterval = EXPIRY
            topic = f"{ROOT}/things/{THING}/executions/0193448f-5d1c-7000-9b3c-{self._left:012d}/request"
            self.client.publish(topic, REQUEST, qos=1, properties=properties)

    def _on_subscribe(self, *_: object) -> None:
        self.granted = True

    def _on_message(self, client: Any, _data: Any, message: Any) -> None:
        assert message.topic.split("/")[-1] == "response"
        client.ack(message.mid, message.qos)
        self._answered += 1
        self._publish()


def paho(port: int, trips: int, window: int) -> None:
    """Paho's turn."""
    worker = PahoWorker(port)
    while not worker.granted:
        worker.turn()
    worker.run(trips // 5, window)
    begun, since = cpu(), time.monotonic()
    worker.run(trips, window)
    tell(trips, begun, since)
    worker.client.disconnect()


def work(contender: str, port: int, trips: int, window: int) -> None:
    """Be one of the workers."""
    if contender == "paho":
        paho(port, trips, window)
    elif contender == "link":
        import uvloop  # noqa: PLC0415 - one contender's

        uvloop.run(link(port, trips, window))
    else:
        asyncio.run(link(port, trips, window))


# -- the run


def measure(contenders: list[str], trips: int, window: int, repeats: int) -> dict[str, dict[str, float]]:
    """CPU microseconds per round trip, and round trips per second, in the median of the repeats."""
    found: dict[str, deque[dict[str, Any]]] = {contender: deque() for contender in contenders}
    for repeat in range(repeats):
        for contender in contenders:
            with mosquitto.running() as (_, port):
                argv = [sys.executable, __file__, "--port", str(port)]
                with Child("thing", [*argv, "--as", "thing"]) as answering:
                    answering.expect("ready", 30)
                    argv += ["--as", contender, "--trips", str(trips), "--window", str(window)]
                    with Child(contender, argv) as worker:
                        done = worker.expect("done", SECONDS)
            found[contender].append(done)
            print(f"{repeat + 1}/{repeats} {contender}: {done['us']:.1f} us", file=sys.stderr)
    return {
        contender: {key: median(run[key] for run in runs) for key in ("us", "perSecond")}
        for contender, runs in found.items()
    }


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trips", type=int, default=20_000, help="round trips in one run")
    parser.add_argument("--window", type=int, default=64, help="requests in flight")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--as", dest="role", choices=["thing", *CONTENDERS], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "thing":
        thing(arguments.port)
    elif arguments.role:
        work(arguments.role, arguments.port, arguments.trips, arguments.window)
    else:
        try:
            found = measure(list(CONTENDERS), arguments.trips, arguments.window, arguments.repeats)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 1
        print("| worker | CPU us per round trip | of paho's | round trips/s |\n|---|---|---|---|")
        for contender, figures in found.items():
            ratio = figures["us"] / found["paho"]["us"]
            row = f"{figures['us']:.1f} | {ratio:.2f} | {figures['perSecond']:,.0f}"
            print(f"| {CONTENDERS[contender]} | {row} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
