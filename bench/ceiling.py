"""How much the load tools carry, against a driver that does less than any broker can.

It takes N things' connections, keeps a window of requests in flight, acknowledges each
response and sends the next request: no routing, no table, no parsing. What the fleet
then spends per command is its own cost; what the driver spends is the floor under every
broker in Python: one read, two writes, and nothing else.

    python bench/ceiling.py --things 1000     the fleet
    python bench/ceiling.py --messages        the load of ordinary messages, over a plain splice
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mqtt_wire
from cores import plan_cores
from processes import Child, allow_many_files

if TYPE_CHECKING:
    from cores import Cores

FLEET = Path(__file__).with_name("fleet.py")
TRAFFIC = Path(__file__).with_name("traffic.py")


class Driver:
    """N connections, and a window of requests over them in turn."""

    def __init__(self, things: int, window: int) -> None:
        self.window = window
        self.things = things
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.listener.getsockname()[1]
        self.fds: list[int] = []
        self.sockets: list[socket.socket] = []
        self.requests: dict[int, bytes] = {}
        self.turn = self.done = 0
        self.epoll = select.epoll()

    def accept_all(self) -> None:
        """Take every connection through CONNECT and SUBSCRIBE."""
        self.listener.settimeout(30)
        for _ in range(self.things):
            sock, _ = self.listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(10)
            _take(sock, 1)
            sock.sendall(b"\x20\x02\x00\x00")
            filter_ = _take(sock, 1)[6:-1]
            sock.sendall(b"\x90\x03\x00\x01\x01")
            self.requests[sock.fileno()] = _request(filter_)
            self.sockets.append(sock)
            self.fds.append(sock.fileno())
            self.epoll.register(sock.fileno(), select.EPOLLIN)

    def run(self, seconds: float) -> float:
        """Drive for so long; return executions per second."""
        self.done = 0
        for _ in range(self.window):
            self.next()
        start = time.monotonic()
        end = start + seconds
        while time.monotonic() < end:
            for fd, _ in self.epoll.poll(1.0):
                data = os.read(fd, 65536)
                if not data:
                    raise SystemExit("ceiling: the fleet closed a connection")
                # The fleet's acknowledgement and response come in one write.
                answered = data.count(b'{"status":"SUCCEEDED"')
                os.write(fd, b"\x40\x02\x00\x01" * answered)
                self.done += answered
                for _ in range(answered):
                    self.next()
        return self.done / (time.monotonic() - start)

    def next(self) -> None:
        fd = self.fds[self.turn]
        self.turn = (self.turn + 1) % len(self.fds)
        os.write(fd, self.requests[fd])


class Splice:
    """One subscriber and one publisher: each one's bytes go to the other, PUBACKs too."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]

    def accept(self) -> tuple[int, int]:
        """Take the subscriber, then the publisher, through their handshakes."""
        self.listener.settimeout(30)
        self.sockets = [self.listener.accept()[0] for _ in range(2)]
        for sock, subscribes in zip(self.sockets, (True, False), strict=True):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(10)
            _take(sock, 1)
            sock.sendall(b"\x20\x02\x00\x00")
            if subscribes:
                _take(sock, 1)
                sock.sendall(b"\x90\x03\x00\x01\x01")
        return self.sockets[0].fileno(), self.sockets[1].fileno()

    def serve(self) -> None:
        """Hand bytes on until a connection ends."""
        one, other = self.accept()
        peers = {one: other, other: one}
        epoll = select.epoll()
        for fd in peers:
            epoll.register(fd, select.EPOLLIN)
        while True:
            for fd, _ in epoll.poll(1.0):
                data = os.read(fd, 65536)
                if not data or data == mqtt_wire.DISCONNECT:
                    return
                os.write(peers[fd], data)


def _take(sock: socket.socket, packets: int) -> bytes:
    """Read until something came; the handshake's packets are small and come whole."""
    data = b""
    while not data:
        data = sock.recv(4096 * packets)
    return data


def _request(topic_filter: bytes) -> bytes:
    topic = topic_filter.replace(b"+", b"01934490-0000-7000-8000-000000000000")
    payload = (
        b'{"commandId":"01934490-0000-7000-8000-000000000001","action":"setTemperature",'
        b'"params":{"value":24},"timestamp":1748390400,"ttl":60}'
    )
    length = 4 + len(topic) + len(payload)
    return (
        b"\x32"
        + bytes((length & 127 | 128, length >> 7))
        + len(topic).to_bytes(2, "big")
        + topic
        + b"\x00\x01"
        + payload
    )


def fleet_ceiling(options: argparse.Namespace, cores: Cores) -> dict[str, Any]:
    """What the fleet carries."""
    driver = Driver(options.things, options.window)
    argv = [sys.executable, str(FLEET), "--port", str(driver.port), "--things", str(options.things)]
    with Child("fleet", argv, cores=cores.fleet) as fleet:
        driver.accept_all()
        fleet.expect("ready", 30)
        driver.run(0.3)
        fleet.ask("report")
        cpu = time.process_time()
        per_second = driver.run(options.seconds)
        cpu = time.process_time() - cpu
        report = fleet.ask("report")
    cost = report["cpu_us_per_request"]
    return {
        "things": options.things,
        "window": options.window,
        "executions_per_second": round(per_second),
        "driver_cpu_us_per_execution": round(cpu * 1e6 / driver.done, 1),
        "fleet_busy": report["busy"],
        "fleet_cpu_us_per_execution": cost,
        "fleet_ceiling_per_second": round(1e6 / cost),
    }


def traffic_ceiling(options: argparse.Namespace, cores: Cores, qos: int) -> dict[str, Any]:
    """What the load of ordinary messages carries, 1 to 1 with a window of 100."""
    splice = Splice()
    thread = threading.Thread(target=splice.serve)
    argv = [sys.executable, str(TRAFFIC), "--port", str(splice.port)]
    with Child("traffic", argv, cores=cores.fleet) as load:
        thread.start()
        load.ask(json.dumps({"do": "flows", "publishers": 1, "copies": 1, "qos": qos}), "flows")
        order = {"do": "run", "window": 100, "warmup": 0.3, "seconds": options.seconds, "pids": [os.getpid()]}
        found = load.ask(json.dumps(order), "run")
    thread.join()
    return {
        "qos": qos,
        "messages_per_second": round(found["per_second"]),
        "splice_cpu_us_per_message": found["cpu_us"],
        "load_cpu_us_per_message": round(found["load_busy"] * 1e6 / found["per_second"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--things", type=int, default=1000)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument(
        "--messages", action="store_true", help="the load of ordinary messages, not the fleet"
    )
    options = parser.parse_args()
    allow_many_files()
    cores = plan_cores()
    os.sched_setaffinity(0, cores.server)
    if options.messages:
        for qos in (0, 1):
            print(json.dumps(traffic_ceiling(options, cores, qos)))
    else:
        print(json.dumps(fleet_ceiling(options, cores)))


if __name__ == "__main__":
    main()
