"""What workers of a cluster cost, part by part, beside the broker of one process.

    python bench/workers.py [--workers 1,2] [--windows 64,500] [--things 1000]
    python bench/workers.py --parts mirror --mirrored 100000

Starts mosquitto (for the cluster), PostgreSQL (with fsync) and workers, a fleet of simulated
things and callers with keep-alive over all workers. Everything measured shares one core, the
load has the others. Above all it measures CPU time for each execution of each part (each
worker, PostgreSQL with all its processes, mosquitto): that travels between machines as ratios
do, executions/s do not. The embedded broker, over HTTP with its journal, runs beside it.

    trips     executions: CPU time, and WAL of each; what it costs a worker that serves
              none of them to hear of them all; what an idle worker costs
    mirror    a worker with many things: memory and start-up, with announcements and without

Progress goes to stderr, tables to stdout, everything to the JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import clusters
import mosquitto
import postgres
import worker_report
from cores import plan_cores
from figures import median
from fleet_parts import thing_name
from measure import fleet_on
from mirrored import fill, mirror_rows
from processes import BenchError, Child, allow_many_files, tree_cpu_seconds
from servers import BENCH, Server, environment, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cores import Cores

RESULTS: Final = Path(__file__).with_name("results")


class Setting(NamedTuple):
    """Workers that are up, with a fleet."""

    name: str
    title: str
    workers: int
    hearing: bool
    """Whether one more worker hears of everything and serves nothing."""
    ports: list[int]
    token: str
    parts: dict[str, int]
    """Process ids."""
    database: str
    """Empty: the embedded broker."""
    things: int
    idle_us: float
    """CPU microseconds a second of one worker without work."""


class Run:
    """One run: what to measure, and what was found."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.o = options
        self.cores: Cores = plan_cores()
        self.began = time.monotonic()
        self.found: dict[str, Any] = {
            "environment": environment(),
            "pinned_apart": self.cores.apart,
            "things": options.things,
            "seconds_per_run": options.seconds,
            "trips": [],
            "disk": {},
            "mirror": [],
        }

    def say(self, text: str) -> None:
        """Progress."""
        print(f"[{time.monotonic() - self.began:6.1f} s] {text}", file=sys.stderr, flush=True)

    def everything(self) -> None:
        """Measure what was asked for."""
        with clusters.place(self.cores.server) as on:
            self.found["postgresql"] = on.server.ask("SHOW server_version")
            if "trips" in self.o.parts:
                self.trips(on)
            if "mirror" in self.o.parts:
                self.found["mirror"] = mirror_rows(on, self.o.mirrored, self.say)

    def trips(self, on: clusters.Place) -> None:
        """Every setting in turn, up alone: a worker that idles is not free."""
        with self.embedded() as (setting, fleet):
            self.measured(on, setting, fleet)
        places: list[dict[str, Any]] = [{"workers": workers} for workers in self.o.workers]
        if not self.o.profile:
            places.append({"workers": 1, "hearing": True})
        if self.o.cold:
            places += [{"workers": workers, "cold": True} for workers in self.o.workers]
        for place in places:
            with self.cluster(on, **place) as (setting, fleet):
                self.measured(on, setting, fleet)

    def measured(self, on: clusters.Place, setting: Setting, fleet: Child) -> None:
        """Runs with each window; rows with their medians."""
        cold = setting.things != self.o.things
        for window in self.o.windows[:1] if cold else self.o.windows:
            runs = []
            for turn in range(1 if cold else self.o.repeats):  # afterwards they are warm
                runs.append(self.run_once(on, setting, fleet, window))
                self.say(
                    f"{setting.title}, window {window}, run {turn + 1} of {self.o.repeats}: "
                    f"{runs[-1]['per_second']:,.0f}/s, {runs[-1]['parts_us']}, lost {runs[-1]['lost']}"
                )
            row = {"name": setting.name, "title": setting.title, "workers": setting.workers}
            row |= {"hearing": setting.hearing, "window": window, "idle_us": setting.idle_us}
            self.found["trips"].append(row | merge(runs))

    def run_once(self, on: clusters.Place, setting: Setting, fleet: Child, window: int) -> dict[str, Any]:
        """One run of one load."""
        fleet.ask("report")
        before = written(on.server)
        argv = [
            sys.executable,
            str(BENCH / "http_load.py"),
            f"--token={setting.token}",
        ]  # it may begin with -
        argv += ["--things", str(setting.things), "--window", str(window)]
        argv += ["--warmup", str(self.o.warmup), "--seconds", str(self.o.seconds)]
        for port in setting.ports:
            argv += ["--port", str(port)]
        for name, pid in setting.parts.items():
            argv += ["--cpu-of", f"{name}={pid}"]
        with Child("http_load.py", argv, cores=self.cores.controller) as load:
            found = load.expect("result", self.o.seconds + self.o.warmup + 120)
        report = fleet.ask("report")
        found["fleet_us"] = report["cpu_us_per_request"]
        if setting.database:
            found["wal_bytes"] = round((written(on.server) - before) / found["sent"])
        return found

    @contextlib.contextmanager
    def embedded(self) -> Iterator[tuple[Setting, Child]]:
        """The broker of one process, with its journal."""
        with (
            serve(self.cores.server, journal=True) as server,
            fleet_on(server, self.cores, self.o.things) as (fleet, _),
        ):
            (pid,) = server.pids
            parts = {"broker": pid}
            idle = idle_us(pid, self.o.idle)
            yield (
                Setting(
                    "embedded",
                    "one broker",
                    0,
                    False,
                    [server.http],
                    server.token,
                    parts,
                    "",
                    self.o.things,
                    idle,
                ),
                fleet,
            )

    @contextlib.contextmanager
    def cluster(
        self, on: clusters.Place, workers: int, *, hearing: bool = False, cold: bool = False
    ) -> Iterator[tuple[Setting, Child]]:
        """So many workers on a database of their own."""
        token, database = secrets.token_urlsafe(24), clusters.database(on.server)
        title = f"{workers} worker{'s' * (workers > 1)}" + ", one more that only hears" * hearing
        title += ", each thing's first command in a minute" * cold
        things = self.o.cold if cold else self.o.things
        if cold:
            with clusters.worker(on, database, "maker", token):
                pass  # makes the tables
            fill(on.server.url(database), [thing_name(i) for i in range(things)])
        with contextlib.ExitStack() as stack:
            started = []
            for i in range(workers):
                profile = self.o.profile if self.o.profile and not i else None
                up = clusters.worker(on, database, f"w{i + 1}", token, profile=profile)
                started.append(stack.enter_context(up))
            parts = {f"worker {i + 1}": worker.pid for i, worker in enumerate(started)}
            if hearing:
                up = clusters.worker(on, database, "hears", token, root="elsewhere")
                parts["hearing"] = stack.enter_context(up).pid
            parts |= {"PostgreSQL": on.server.pid, "mosquitto": on.mosquitto}
            server = Server(on.mqtt, [], root=clusters.ROOT)
            fleet, _ = stack.enter_context(fleet_on(server, self.cores, things))
            idle = idle_us(started[0].pid, self.o.idle)
            ports = [worker.http for worker in started]
            yield (
                Setting(
                    f"workers-{workers}{'-hearing' * hearing}{'-cold' * cold}",
                    title, workers, hearing, ports, token, parts, database, things, idle,
                ),
                fleet,
            )  # fmt: skip
            rows, tables, indexes = sizes(on.server, database)
            if rows > self.found["disk"].get("executions", 0):  # of few, half the pages are empty
                self.found["disk"] = {
                    "executions": rows,
                    "table_bytes": round(tables / rows),
                    "index_bytes": round(indexes / rows),
                }


def idle_us(pid: int, seconds: float) -> float:
    """CPU microseconds a second of a process that has nothing to do."""
    time.sleep(min(1.0, seconds))
    before = tree_cpu_seconds(pid)
    time.sleep(seconds)
    return round((tree_cpu_seconds(pid) - before) / seconds * 1e6)


def written(server: postgres.Postgres) -> float:
    """WAL bytes so far."""
    return float(server.ask("SELECT pg_current_wal_lsn() - '0/0'"))


def sizes(server: postgres.Postgres, database: str) -> tuple[int, int, int]:
    """Executions, and the bytes of their tables and of the indexes."""
    found = server.ask(
        "SELECT (SELECT count(*) FROM thingctl.executions), sum(pg_table_size(inhrelid)), "
        "sum(pg_indexes_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'thingctl.executions'::regclass",
        database,
    )
    rows, tables, indexes = map(int, found.split("|"))
    return rows, tables, indexes


def merge(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Repeated runs as one row: medians, and sums of what must not be lost."""

    def middle(values: list[float]) -> float:
        return round(median(values).middle, 1)

    row: dict[str, Any] = {name: middle([run[name] for run in runs]) for name in ("per_second", "fleet_us")}
    if "wal_bytes" in runs[0]:
        row["wal_bytes"] = round(median(run["wal_bytes"] for run in runs).middle)
    for name in ("parts_us", "post_latency_ms", "ended_ms"):
        row[name] = {key: middle([run[name][key] for run in runs]) for key in runs[0][name]}
    row["runs"] = len(runs)
    row["sent"], row["lost"] = sum(run["sent"] for run in runs), sum(run["lost"] for run in runs)
    return row


def numbers(text: str) -> list[int]:
    """A list of numbers, by commas."""
    return [int(part.replace("_", "")) for part in text.split(",") if part]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=lambda text: text.split(","), default=["trips", "mirror"])
    parser.add_argument("--workers", type=numbers, default=[1, 2])
    parser.add_argument("--windows", type=numbers, default=[64, 500], help="commands in flight, of all")
    parser.add_argument("--things", type=int, default=1000)
    parser.add_argument("--cold", type=int, default=5000, help="things of whom each is new; 0: not measured")
    parser.add_argument("--mirrored", type=int, default=100_000, help="things of the part mirror")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument(
        "--warmup",
        type=float,
        default=3.0,
        help="seconds in which each thing is spoken to, and known to be there",
    )
    parser.add_argument("--idle", type=float, default=5.0, help="seconds without work that are measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", type=Path, help="cProfile the first worker; its figures are no figures")
    parser.add_argument("--json", type=Path, help="where the JSON goes (bench/results/workers-TIME.json)")
    return parser


def main() -> int:
    options = arguments().parse_args()
    # As an exception, so that everything is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    allow_many_files()
    for name, found in (("mosquitto", mosquitto.find()), ("PostgreSQL", postgres.find())):
        if found is None:
            raise SystemExit(f"{name} is not installed")
    run = Run(options)
    try:
        run.everything()
    except KeyboardInterrupt:
        run.say("stopped; here is what was measured")
    except BenchError as error:
        raise SystemExit(f"workers.py: {error}") from None
    path = options.json or RESULTS / f"workers-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    run.found["model"] = worker_report.model(run.found)
    path.write_text(json.dumps(run.found, indent=1) + "\n")
    print(worker_report.tables(run.found))
    return 1 if any(row["lost"] for row in run.found["trips"]) else 0


if __name__ == "__main__":
    sys.exit(main())
