"""A controller over the HTTP API: send, wait for the end, read every execution back.

W keep-alive connections with one POST outstanding on each. When the time is over, the
newest executions are read until they have ended, and then every execution is read once
and its status counted: what was accepted and has no end is lost.

    executions/s = POSTs answered in the window / (window + time until the last had ended)

so a server that accepts faster than it executes gains nothing by it. The CPU time of single
parts (``--cpu-of``) is that of the window alone: the reading belongs to no execution.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, deque
from typing import Any, Final

from figures import latencies
from fleet_parts import thing_name
from http_client import Exchange, HttpClient
from processes import cpu_seconds, tree_cpu_seconds

TERMINAL: Final = frozenset({"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED"})
PATH: Final = "/api/v1/commands"
DRAIN_SECONDS: Final = 15.0


class HttpLoad:
    """One run against one server."""

    def __init__(
        self,
        client: HttpClient,
        token: str,
        things: int,
        pids: list[int],
        parts: dict[str, int] | None = None,
    ) -> None:
        self.client = client
        self.pids = pids
        self.parts = parts or {}
        self.things = [thing_name(i).encode() for i in range(things)]
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self.head = f"HTTP/1.1\r\nHost: bench\r\n{authorization}"
        self.post = f"POST {PATH} {self.head}Content-Type: application/json\r\nContent-Length: ".encode()
        self.turn = 0
        self.end = 0.0
        self.ids: list[str] = []
        self.refused: Counter[int] = Counter()
        self.took: list[int] = []
        self.statuses: Counter[str] = Counter()
        self.durations: list[int] = []

    def run(self, warmup: float, seconds: float) -> dict[str, Any]:
        """POST for ``warmup`` and then measure ``seconds`` of it; then see what became of each."""
        self._post_for(warmup)
        before, refused = len(self.ids), self.refused.total()
        self.took.clear()
        parts = {name: tree_cpu_seconds(pid) for name, pid in self.parts.items()}
        cpu, began = cpu_seconds(self.pids), time.monotonic()
        self._post_for(seconds)
        window = time.monotonic() - began
        parts = {name: tree_cpu_seconds(pid) - parts[name] for name, pid in self.parts.items()}
        self._wait_for(self.ids[-2 * len(self.client.connections) :])
        passed = time.monotonic() - began
        cpu = cpu_seconds(self.pids) - cpu
        executions = len(self.ids) - before
        result = {
            "executions": executions,
            "seconds": round(window, 4),
            "drain_seconds": round(passed - window, 4),
            "per_second": round(executions / passed, 1),
            "refused": dict(self.refused),
            "refused_in_window": self.refused.total() - refused,
            "cpu_us_per_execution": round(cpu * 1e6 / executions, 2) if executions and self.pids else None,
            "server_busy": round(cpu / passed, 3),
            "post_latency_ms": latencies(self.took),
            "parts_us": {name: round(used * 1e6 / max(1, executions), 1) for name, used in parts.items()},
        }
        self._read_all(DRAIN_SECONDS, self.ids)
        ended = {status: count for status, count in self.statuses.items() if status in TERMINAL}
        return {
            **result,
            "ended_ms": latencies(self.durations),
            "sent": len(self.ids),
            "ended": ended,
            "lost": len(self.ids) - sum(ended.values()),
        }

    def _post_for(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.client.run(self._next_post, self._posted, seconds + 30)

    def _next_post(self) -> Exchange | None:
        if time.monotonic() >= self.end:
            return None
        thing = self.things[self.turn % len(self.things)]
        self.turn += 1
        body = b'{"thingId":"%b","action":"setTemperature","params":{"value":24,"t0":%d},"ttl":60}' % (
            thing,
            time.monotonic_ns(),
        )
        return Exchange(b"%b%d\r\n\r\n%b" % (self.post, len(body), body), None)

    def _posted(self, _: object, status: int, body: bytes, took: int) -> None:
        if status not in {200, 201, 202}:
            self.refused[status] += 1
            return
        at = body.index(b'"executionId":"') + 15
        self.ids.append(body[at : body.index(b'"', at)].decode())
        self.took.append(took)

    def _wait_for(self, ids: list[str]) -> None:
        """Return when these executions have ended, or the time for it is over."""
        self._read_all(DRAIN_SECONDS, ids)
        self.statuses.clear()
        self.durations.clear()

    def _read_all(self, seconds: float, ids: list[str]) -> None:
        """Read each execution, again and again while it has not ended; count the last of its statuses."""
        end = time.monotonic() + seconds
        waiting = deque(ids)

        def next_get() -> Exchange | None:
            if not waiting:
                return None
            execution_id = waiting.popleft()
            return Exchange(f"GET {PATH}/{execution_id} {self.head}\r\n".encode(), execution_id)

        def got(execution_id: str, status: int, body: bytes, _: int) -> None:
            found = json.loads(body) if status == 200 else {}
            state = str(found.get("status", f"HTTP {status}"))
            if state in TERMINAL or status != 200 or time.monotonic() >= end:
                self.statuses[state] += 1
                if "durationSeconds" in found:
                    self.durations.append(int(found["durationSeconds"] * 1e9))
            else:
                waiting.append(execution_id)

        self.client.run(next_get, got, seconds + 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--port", dest="ports", type=int, action="append", required=True, help="may be repeated: in turn"
    )
    parser.add_argument("--token", default="", help="of the API (none)")
    parser.add_argument("--things", type=int, default=1000)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--cpu-pids", default="", help="processes whose CPU time counts, by commas")
    parser.add_argument(
        "--cpu-of", metavar="NAME=PID", action="append", default=[], help="a part, with its child processes"
    )
    options = parser.parse_args()
    parts = {name: int(pid) for name, _, pid in (part.partition("=") for part in options.cpu_of)}
    pids = [int(pid) for pid in options.cpu_pids.split(",") if pid]
    client = HttpClient(options.host, options.ports, options.window)
    load = HttpLoad(client, options.token, options.things, pids, parts)
    result = load.run(options.warmup, options.seconds)
    client.close()
    print(json.dumps({"event": "result", **result}), flush=True)


if __name__ == "__main__":
    main()
