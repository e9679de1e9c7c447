"""What runs inside a broker's own process: a load on its service, a heartbeat, and their remote control.

stdin speaks JSON lines, stdout answers each with one: ``{"do":"run","window":64,…}`` drives
the service and answers ``result``; ``{"do":"stalls"}`` answers with the longest time for
which the loop stood still since the question before.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from figures import latencies
from fleet_parts import thing_name

if TYPE_CHECKING:
    from collections.abc import Callable

DRAIN_SECONDS: Final = 15.0
PARAMS: Final = b'{"value":24}'
TTL: Final = 60


class InProcessLoad:
    """Keeps W executions outstanding on whatever ``send`` sends to."""

    def __init__(self, send: Callable[[str], str]) -> None:
        """``send(thing)`` sends one command and returns the id of its execution."""
        self._send = send
        self._open: dict[str, int] = {}
        self._took: list[int] = []
        self._ended: dict[str, int] = {}
        self._things: list[str] = []
        self._turn = self._free = self._sent = 0
        self._refilling = False
        self._refill_scheduled = False
        self._empty = asyncio.Event()

    def ended(self, execution_id: str, status: str) -> None:
        """The owner of the executions says that one has ended."""
        sent_at = self._open.pop(execution_id, None)
        if sent_at is None:
            return
        self._took.append(time.perf_counter_ns() - sent_at)
        self._ended[status] = self._ended.get(status, 0) + 1
        self._free += 1
        if self._refilling:
            # Behind the broker's work on this response, and for all that end in one turn of the loop.
            if not self._refill_scheduled:
                self._refill_scheduled = True
                asyncio.get_running_loop().call_soon(self._refill)
        elif not self._open:
            self._empty.set()

    async def run(self, things: int, window: int, warmup: float, seconds: float) -> dict[str, Any]:
        """Keep ``window`` outstanding; measure ``seconds`` of it behind ``warmup``."""
        self._things = [thing_name(i) for i in range(things)]
        self._open.clear()
        self._took, self._ended = [], {}
        self._free, self._sent, self._refilling = window, 0, True
        self._empty.clear()
        self._refill()
        await asyncio.sleep(warmup)
        before, cpu, began = len(self._took), time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        measured = self._took[before:]
        passed, cpu = time.monotonic() - began, time.process_time() - cpu
        self._refilling = False
        if self._open:
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._empty.wait()
            except TimeoutError:
                pass  # what is still open is lost, and said to be
        return {
            "executions": len(measured),
            "seconds": round(passed, 4),
            "per_second": round(len(measured) / passed, 1),
            "sent": self._sent,
            "ended": self._ended,
            "lost": len(self._open),
            "cpu_us_per_execution": round(cpu * 1e6 / len(measured), 2) if measured else None,
            "server_busy": round(cpu / passed, 3),
            "latency_ms": latencies(measured),
        }

    def _refill(self) -> None:
        self._refill_scheduled = False
        things, now = self._things, time.perf_counter_ns
        while self._free and self._refilling:
            self._free -= 1
            thing = things[self._turn % len(things)]
            self._turn += 1
            self._sent += 1
            at = now()
            self._open[self._send(thing)] = at


class Heartbeat:
    """How long the loop stood still at the longest."""

    PERIOD: Final = 0.002

    def __init__(self) -> None:
        self._longest = 0.0

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(self.PERIOD)
            self._longest = max(self._longest, time.monotonic() - before - self.PERIOD)

    def longest(self) -> float:
        """The longest stall in seconds since the question before."""
        found, self._longest = self._longest, 0.0
        return found


async def obey(load: InProcessLoad, **ready: Any) -> None:
    """Say ``ready``, then do what stdin says until it ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    heartbeat = Heartbeat()
    beating: asyncio.Task[None] | None = None
    tell("ready", **ready)
    try:
        while line := await reader.readline():
            order = json.loads(line)
            match order.pop("do"):
                case "run":
                    tell("result", **await load.run(**order))
                case "stalls":
                    if beating is None:
                        beating = loop.create_task(heartbeat.beat())
                    tell("stalls", longest_ms=round(heartbeat.longest() * 1000, 2))
                case "quit":
                    break
    finally:
        if beating is not None:
            beating.cancel()
        transport.close()


def tell(event: str, **fields: Any) -> None:
    """Write one JSON line."""
    print(json.dumps({"event": event, **fields}), flush=True)
