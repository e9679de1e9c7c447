"""How much the fleet simulator carries: a driver that does less for a command than any broker can.

It takes N things' connections, keeps a window of requests in flight, acknowledges each
response and sends the next request: no routing, no table, no parsing. What the fleet
then spends per command is its own cost; what the driver spends is the floor under every
broker in Python: one read, two writes, and nothing else.

    python bench/fleet.py ... is started by this script:  python bench/ceiling.py --things 1000
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
import time
from pathlib import Path

from cores import plan_cores
from processes import Child, allow_many_files

FLEET = Path(__file__).with_name("fleet.py")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--things", type=int, default=1000)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    allow_many_files()
    cores = plan_cores()
    os.sched_setaffinity(0, cores.server)
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
    print(
        json.dumps(
            {
                "things": options.things,
                "window": options.window,
                "executions_per_second": round(per_second),
                "driver_cpu_us_per_execution": round(cpu * 1e6 / driver.done, 1),
                "fleet_busy": report["busy"],
                "fleet_cpu_us_per_execution": cost,
                "fleet_ceiling_per_second": round(1e6 / cost),
            }
        )
    )


if __name__ == "__main__":
    main()
