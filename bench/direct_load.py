"""A controller that speaks MQTT itself: for brokers that know nothing of commands.

One connection, W commands in flight over N things in turn: publish (QoS 1) on ``request``,
and the execution has ended when a message on its ``response`` topic arrives. It keeps the
least that a controller can keep: id, time of sending, status. A blocking socket does: all
that comes in one read is answered in one write.
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from typing import Any, Final

import mqtt_wire
from figures import latencies
from fleet_parts import ROOT, thing_name
from processes import cpu_seconds

LOST_AFTER: Final = 10.0
"""Seconds without any response at the end, after which what is still open is lost."""


class DirectLoad:
    """The connection and what is in flight on it."""

    def __init__(
        self, host: str, port: int, things: int, *, root: str = ROOT, pids: tuple[int, ...] = ()
    ) -> None:
        self.pids = pids
        self.sock = socket.create_connection((host, port), timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        self.topics = [f"{root}/things/{thing_name(i)}/executions/".encode() for i in range(things)]
        self.open: dict[bytes, int] = {}
        self.turn = self.sequence = self.failed = self.stray = 0
        self.nonce = f"{time.time_ns() & 0xFFFFFFFFFFFFFFFF:016x}"
        self.took: list[int] = []
        self.sock.sendall(mqtt_wire.connect("bench-controller"))
        self.expect(mqtt_wire.CONNACK)
        self.sock.sendall(mqtt_wire.subscribe(1, f"{root}/things/+/executions/+/response"))
        self.expect(mqtt_wire.SUBACK)

    def close(self) -> None:
        """End the session."""
        self.sock.sendall(mqtt_wire.DISCONNECT)
        self.sock.close()

    def expect(self, kind: int) -> None:
        data = self.sock.recv(65536)
        if not data or data[0] & 0xF0 != kind:
            raise SystemExit(f"direct_load: the broker answered {data[:8].hex() or 'nothing'}")

    def run(self, window: int, warmup: float, seconds: float) -> dict[str, Any]:
        """Keep ``window`` commands in flight; measure ``seconds`` of it behind ``warmup``."""
        self.sock.settimeout(LOST_AFTER)
        self.took.clear()
        self.failed = self.stray = 0
        start = time.monotonic() + warmup
        end = start + seconds
        self.sock.sendall(b"".join(self.command() for _ in range(window)))
        sent = window
        before = 0
        began = cpu = 0.0
        while (now := time.monotonic()) < end:
            if not began and now >= start:
                before, began, cpu = len(self.took), now, cpu_seconds(self.pids)
            ended = self.receive(refill=True)
            if not ended and not self.open:
                break
            sent += ended
        measured = self.took[before:]
        passed = time.monotonic() - began
        cpu = cpu_seconds(self.pids) - cpu
        while self.open and self.receive(refill=False) >= 0:
            pass
        lost = len(self.open)
        self.open.clear()
        return {
            "executions": len(measured),
            "seconds": round(passed, 4),
            "per_second": round(len(measured) / passed, 1),
            "sent": sent,
            "ended": {"SUCCEEDED": len(self.took) - self.failed, "FAILED": self.failed},
            "lost": lost,
            "stray": self.stray,
            "cpu_us_per_execution": round(cpu * 1e6 / len(measured), 2) if measured and self.pids else None,
            "server_busy": round(cpu / passed, 3),
            "latency_ms": latencies(measured),
        }

    def command(self) -> bytes:
        """The next request."""
        self.sequence += 1
        execution_id = f"{self.sequence:08x}-0000-7000-8000-{self.nonce[:12]}".encode()
        topic = self.topics[self.turn]
        self.turn = (self.turn + 1) % len(self.topics)
        self.open[execution_id] = time.monotonic_ns()
        payload = (
            b'{"commandId":"%b","action":"setTemperature","params":{"value":24},"timestamp":%d,"ttl":60}'
            % (execution_id, time.time())
        )
        return mqtt_wire.publish(topic + execution_id + b"/request", payload, self.sequence % 65535 + 1)

    def receive(self, *, refill: bool) -> int:
        """Take in what has come; return how many executions ended, -1 when nothing came in time."""
        try:
            data = self.sock.recv(262_144)
        except TimeoutError:
            return -1
        if not data:
            raise SystemExit("direct_load: the broker closed the connection")
        if self.rest:
            data = self.rest + data
        now = time.monotonic_ns()
        out: list[bytes] = []
        ended = end = 0
        for first, body, end in mqtt_wire.packets(data):
            if first & 0xF0 != mqtt_wire.PUBLISH:
                continue
            behind = body + 2 + (data[body] << 8 | data[body + 1])
            out.append(b"\x40\x02" + data[behind : behind + 2])
            # …/executions/{id}/response
            execution_id = data[behind - 45 : behind - 9]
            sent_at = self.open.pop(execution_id, None)
            if sent_at is None:
                self.stray += 1
                continue
            ended += 1
            self.took.append(now - sent_at)
            if data.find(b'"SUCCEEDED"', behind, end) < 0:
                self.failed += 1
        self.rest = data[end:]
        if refill:
            out.extend(self.command() for _ in range(ended))
        if out:
            self.sock.sendall(b"".join(out))
        return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--root", default=ROOT)
    parser.add_argument("--things", type=int, default=1000)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--cpu-pids", default="", help="processes whose CPU time counts, by commas")
    options = parser.parse_args()
    pids = tuple(int(pid) for pid in options.cpu_pids.split(",") if pid)
    load = DirectLoad(options.host, options.port, options.things, root=options.root, pids=pids)
    result = load.run(options.window, options.warmup, options.seconds)
    load.close()
    print(json.dumps({"event": "result", **result}), flush=True)


if __name__ == "__main__":
    main()
