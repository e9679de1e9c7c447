"""What the store carries: conditional transitions a second, and what each costs the worker and PostgreSQL.

    python bench/store.py [--seconds 5] [--callers 64,500] [--workers 1] [--url postgresql://…]

Each caller adds an execution that is on its way already, waits for the commit, responds
SUCCEEDED, waits for that commit, and begins again: two transitions. Figures are CPU time (user
and system) per transition, from both sides; the rate depends on the machine and its disk.
Without ``--url`` a PostgreSQL of its own is started, with fsync, on a core of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import msgspec

import postgres
from cores import plan_cores
from processes import tree_cpu_seconds
from thingctl_broker.commands.execution import Execution
from thingctl_broker.storage.postgres import transition_sql
from thingctl_broker.storage.postgres.settings import StoreSettings
from thingctl_broker.storage.postgres.store import PostgresStore
from thingctl_protocol.identifiers import IdSource
from thingctl_protocol.messages import Response
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingctl_broker.storage.postgres.executions import PostgresExecutions

WARMUP: Final = 1.0
THINGS: Final = 1000
PARAMS: Final = b'{"temperature":21.5,"mode":"heat"}'
RESPONSE: Final = Response(Status.SUCCEEDED, msgspec.Raw(b'{"ok":true}'))


class Deaf:
    """Hears everything, as a worker must, and does nothing with it."""

    def changed(self, execution_ids: Sequence[str], ended: Sequence[str]) -> None: ...
    def document_changed(self, kind: str, name: str) -> None: ...
    def rollout_changed(self, command_id: str) -> None: ...
    def missed(self) -> None: ...


class Load:
    """So many callers, each with one call at a time."""

    def __init__(self, stores: list[PostgresStore], callers: int) -> None:
        self.callers = callers
        self.transitions = 0
        self.latencies: list[float] = []
        self._stores = [store.executions for store in stores]
        self._ids = IdSource()
        self._running = True

    async def run(self, seconds: float, postmaster: int) -> dict[str, Any]:
        tasks = [
            asyncio.create_task(self._call(self._stores[i % len(self._stores)], f"thing-{i % THINGS}"))
            for i in range(self.callers)
        ]
        await asyncio.sleep(WARMUP)
        done, batched = self.transitions, self._batches()
        self.latencies.clear()
        began, own, theirs = time.monotonic(), time.process_time(), tree_cpu_seconds(postmaster)
        await asyncio.sleep(seconds)
        passed = time.monotonic() - began
        done = self.transitions - done
        batched = self._batches() - batched
        client, server = time.process_time() - own, tree_cpu_seconds(postmaster) - theirs
        self._running = False
        await asyncio.gather(*tasks)
        ordered = sorted(self.latencies)
        return {
            "workers": len(self._stores),
            "callers": self.callers,
            "transitions_per_second": round(done / passed),
            "calls_per_batch": round(done / batched, 1),
            "client_us": round(client / done * 1e6, 1),
            "server_us": round(server / done * 1e6, 1),
            "per_server_core_second": round(done / server),
            "p50_ms": round(ordered[len(ordered) // 2] * 1000, 2),
            "p99_ms": round(ordered[len(ordered) * 99 // 100] * 1000, 2),
        }

    def _batches(self) -> int:
        lanes = (store.batches for store in self._stores)
        return sum(lane.adding.batches + lane.responding.batches for lane in lanes)

    async def _call(self, executions: PostgresExecutions, thing: str) -> None:
        while self._running:
            unix = time.time()
            began = time.monotonic()
            execution = Execution(
                self._ids.make(int(unix * 1000), int.from_bytes(os.urandom(8))),
                self._ids.make(int(unix * 1000), int.from_bytes(os.urandom(8))),
                thing, "setTemperature", PARAMS, 60, unix, 0.0, "operator", published_at=unix,
            )  # fmt: skip
            await executions.add(execution, queue_max=1000)
            await executions.respond(thing, execution.execution_id, RESPONSE)
            self.transitions += 2
            self.latencies.append(time.monotonic() - began)


def silence() -> None:
    """Tell nobody of anything: what telling costs is the difference."""
    for name in ("ADD", "RESPOND"):
        statement: str = getattr(transition_sql, name)
        setattr(
            transition_sql,
            name,
            statement.replace(f"pg_notify('{transition_sql.CHANNEL}', payload)", "length(payload)"),
        )


async def measure(
    url: str, postmaster: int, callers: int, *, seconds: float, workers: int, parallel: int
) -> dict[str, Any]:
    stores = [PostgresStore(StoreSettings(url=url)) for _ in range(workers)]
    for store in stores:
        lanes = store.executions.batches
        lanes.adding.parallel = lanes.responding.parallel = parallel
        await store.start(Deaf())
    try:
        return await Load(stores, callers).run(seconds, postmaster)
    finally:
        for store in stores:
            await store.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--callers", default="64,500")
    parser.add_argument("--url", default="")
    parser.add_argument("--postmaster", type=int, default=0, help="its process id, with --url")
    parser.add_argument("--without-notify", action="store_true")
    parser.add_argument("--workers", type=int, default=1, help="stores among which the callers are divided")
    parser.add_argument("--parallel", type=int, default=1, help="batches of a kind under way at once")
    options = parser.parse_args()
    if options.without_notify:
        silence()
    cores = plan_cores()
    url, postmaster = options.url, options.postmaster
    with ExitStack() as stack:
        if not url:
            server = stack.enter_context(postgres.running(cores.server))
            url, postmaster = server.url(), server.pid
        os.sched_setaffinity(0, cores.fleet)
        for callers in map(int, options.callers.split(",")):
            row = asyncio.run(
                measure(
                    url,
                    postmaster,
                    callers,
                    seconds=options.seconds,
                    workers=options.workers,
                    parallel=options.parallel,
                )
            )
            print(json.dumps({"notify": not options.without_notify, "parallel": options.parallel} | row))


if __name__ == "__main__":
    main()
