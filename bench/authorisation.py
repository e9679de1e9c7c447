"""What authorisation adds to a command: open against closed, in one run, block by block.

Two brokers, each ``thingctl serve`` in a process of its own with one device connected over
TCP. ``open``: no credentials on MQTT, the admin token on HTTP, no schema. ``closed``: the
device signed in with a password and bound by rules, the token limited to one thing and one
action, the params checked against the schema that the device announced. The same operator
sends a command and waits for its verdict (``?wait``), one at a time, in turns.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import mqtt_wire

BIN: Final = Path(sys.executable).parent
TOKEN: Final = "tctl_bench-0123456789-0123456789-0123456789"
THING: Final = "thermostat-001"
ROOT: Final = f"$emqx/commands/things/{THING}"
BODY: Final = json.dumps({"thingId": THING, "action": "setTemperature", "params": {"value": 24}, "ttl": 60})
SCHEMA: Final = {
    "type": "object",
    "properties": {"value": {"type": "number", "minimum": 5, "maximum": 30}},
    "required": ["value"],
    "additionalProperties": False,
}
BLOCK: Final = 100
"""Commands to one broker before it is the other's turn."""


class Device(threading.Thread):
    """Answers every request at once, on a blocking socket."""

    def __init__(self, address: tuple[str, int], password: str, announcement: bytes) -> None:
        super().__init__(daemon=True)
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(mqtt_wire.connect("bench", username=THING, password=password))
        assert self.sock.recv(4)[3:] == b"\0", "the broker does not let the device in"
        self.sock.sendall(mqtt_wire.subscribe(1, f"{ROOT}/executions/+/request"))
        assert self.sock.recv(100)[-1] == 1
        if announcement:
            self.sock.sendall(mqtt_wire.publish(f"{ROOT}/actions", announcement))

    def run(self) -> None:
        rest = b""
        while data := self.sock.recv(65536):
            rest += data
            done = 0
            for first, body, end in mqtt_wire.packets(rest):
                done = end
                if first & 0xF0 == mqtt_wire.PUBLISH:
                    length = int.from_bytes(rest[body : body + 2], "big")
                    topic = rest[body + 2 : body + 2 + length]
                    packet_id = rest[body + 2 + length : body + 4 + length]
                    answer = topic[: -len(b"request")] + b"response"
                    self.sock.sendall(
                        mqtt_wire.puback(packet_id) + mqtt_wire.publish(answer, b'{"status":"SUCCEEDED"}', 7)
                    )
            rest = rest[done:]


class Side:
    """A broker, its device, and an operator's connection to it."""

    def __init__(self, stack: ExitStack, *, closed: bool) -> None:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        process = subprocess.Popen(
            [BIN / "thingctl", "serve", "--closed" if closed else "--open", "--data-dir", directory,
             "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"],
            env=os.environ | {"THINGCTL_ADMIN_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.process = process
        stack.callback(process.wait, 10)
        stack.callback(process.terminate)
        told: dict[str, str] = {}
        assert process.stdout is not None
        while "data" not in told:
            word, value, *_ = process.stdout.readline().split()
            told[word] = value
        self.host = told["http"].removeprefix("http://")
        self.connection = http.client.HTTPConnection(self.host, timeout=30)
        self.token = TOKEN
        password = "any"
        announcement = b""
        if closed:
            added = self.call("POST", "/api/v1/things", json.dumps({"name": THING}))
            password = added["credentials"]["password"]
            limits = {"things": ["thermostat-*"], "actions": ["setTemperature"]}
            body = {"name": "bench", "scopes": ["commands:send", "commands:read"]} | limits
            self.token = self.call("POST", "/api/v1/tokens", json.dumps(body))["token"]
            action = {"name": "setTemperature", "paramsSchema": SCHEMA}
            announcement = json.dumps({"agentVersion": "1", "actions": [action]}).encode()
        host, port = told["mqtt"].removeprefix("mqtt://").split(":")
        self.device = Device((host, int(port)), password, announcement)
        self.device.start()
        self.took: list[int] = []

    def cpu(self) -> float:
        """Seconds of CPU time that the broker has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def call(self, method: str, path: str, body: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        content = json.loads(response.read())
        assert response.status < 300, content
        return content

    def block(self) -> list[int]:
        """Nanoseconds of each of a block's commands."""
        took = []
        for _ in range(BLOCK):
            began = time.perf_counter_ns()
            execution = self.call("POST", "/api/v1/commands?wait=10", BODY)
            took.append(time.perf_counter_ns() - began)
            assert execution["status"] == "SUCCEEDED", execution
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=20, help=f"of {BLOCK} commands on each side (20)")
    options = parser.parse_args()
    with ExitStack() as stack:
        sides = {"open": Side(stack, closed=False), "closed": Side(stack, closed=True)}
        for side in sides.values():
            side.block()  # warm
        ratios = []
        before = {name: side.cpu() for name, side in sides.items()}
        for number in range(options.rounds):
            medians = {}
            turns = list(sides.items())
            for name, side in turns if number % 2 else reversed(turns):
                block = side.block()
                side.took += block
                medians[name] = statistics.median(block)
            ratios.append(medians["closed"] / medians["open"])
        count = options.rounds * BLOCK
        cpu = {name: round((side.cpu() - before[name]) / count * 1e6, 1) for name, side in sides.items()}
    figures = {name: round(statistics.median(side.took) / 1000, 1) for name, side in sides.items()}
    print(
        json.dumps(
            {
                "p50_us": figures,
                "broker_cpu_us_per_command": cpu,
                "ratio_of_p50": round(figures["closed"] / figures["open"], 3),
                "median_of_the_rounds_ratios": round(statistics.median(ratios), 3),
                "commands_each": options.rounds * BLOCK,
            }
        )
    )


if __name__ == "__main__":
    main()
