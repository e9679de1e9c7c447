"""What a simulated fleet is made of: its things' names and states, and its counts."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Any, Final

from figures import latencies

if TYPE_CHECKING:
    import socket

ROOT: Final = "$emqx/commands"
SUCCEEDED: Final = b'{"status":"SUCCEEDED","result":{"ok":true}}'


def thing_name(number: int) -> str:
    """The name of the thing with that number, which every load tool here agrees on."""
    return f"thing-{number:05d}"


class Thing:
    """One connection's state."""

    __slots__ = ("name", "next_id", "number", "rest", "sock", "stage", "timed", "unsent")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.sock: socket.socket | None = None
        self.stage = 0  # 0: nothing, 1: CONNECT sent, 2: SUBSCRIBE sent, 3: subscribed
        self.next_id = 1
        self.rest = b""
        self.unsent = b""
        self.timed: dict[int, int] = {}


class Counts:
    """What happened since the last report."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu = usage.ru_utime + usage.ru_stime
        self.requests = self.repeated = self.responses = self.acknowledged = self.telemetry = 0
        self.arrived: list[int] = []
        self.done: list[int] = []

    def report(self) -> dict[str, Any]:
        """The counts, latencies, and how busy this process was."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime - self.cpu
        seconds = time.monotonic() - self.began
        return {
            "seconds": round(seconds, 3),
            "requests": self.requests,
            "repeated": self.repeated,
            "responses": self.responses,
            "acknowledged": self.acknowledged,
            "telemetry": self.telemetry,
            "cpu_us_per_request": round(cpu * 1e6 / self.requests, 2) if self.requests else None,
            "busy": round(cpu / seconds, 3) if seconds else 0.0,
            "arrived_ms": latencies(self.arrived),
            "done_ms": latencies(self.done),
        }
