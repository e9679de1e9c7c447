"""The measurements: one server, one fleet, and what is read off them."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from figures import median
from processes import BenchError, Child, core_seconds, cpu_seconds, rss_bytes
from servers import BENCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cores import Cores
    from servers import Contender, Server

CONNECT_SECONDS: Final = 120.0
WARMUP: Final = 0.3
SETTLE_SECONDS: Final = 1.5


@contextlib.contextmanager
def fleet_on(
    server: Server, cores: Cores, things: int, *options: str
) -> Iterator[tuple[Child, dict[str, Any]]]:
    """Connect a fleet; yield it and its ``ready`` line."""
    argv = [sys.executable, str(BENCH / "fleet.py"), "--port", str(server.mqtt), "--root", server.root]
    argv += ["--things", str(things), *options]
    with Child("fleet", argv, cores=cores.fleet) as fleet:
        ready = fleet.expect("ready", CONNECT_SECONDS)
        if ready["lost"]:
            raise BenchError(f"{ready['lost']} of {things} things were not let in")
        yield fleet, ready


def round_trips(
    server: Server, fleet: Child, cores: Cores, *, via: str, things: int, window: int, seconds: float
) -> dict[str, Any]:
    """One run of one load."""
    fleet.ask("report")
    before, core, own = time.monotonic(), core_seconds(cores.server), cpu_seconds(server.pids)
    if via == "in process":
        assert server.control is not None
        order = {"do": "run", "things": things, "window": window, "warmup": WARMUP, "seconds": seconds}
        result = server.control.ask(json.dumps(order), "result", seconds + 60)
    else:
        result = _controller(server, cores, via, things=things, window=window, seconds=seconds)
    passed = time.monotonic() - before
    others = core_seconds(cores.server) - core - (cpu_seconds(server.pids) - own)
    result["others_busy"] = round(max(0.0, others / passed), 3)
    report = fleet.ask("report")
    if via == "HTTP":
        result["latency_ms"] = report["done_ms"]
    result["fleet_repeated"] = report["repeated"]
    result["fleet_cpu_us"] = report["cpu_us_per_request"]
    return result


def _controller(
    server: Server, cores: Cores, via: str, *, things: int, window: int, seconds: float
) -> dict[str, Any]:
    script, port = ("http_load.py", server.http) if via == "HTTP" else ("direct_load.py", server.mqtt)
    argv = [sys.executable, str(BENCH / script), "--port", str(port)]
    argv += ["--things", str(things), "--window", str(window)]
    argv += ["--warmup", str(WARMUP), "--seconds", str(seconds)]
    argv += ["--cpu-pids", ",".join(str(pid) for pid in server.pids)]
    if via == "HTTP":
        argv += [f"--token={server.token}"]  # it may begin with -
    else:
        argv += ["--root", server.root]
    with Child(script, argv, cores=cores.controller) as controller:
        return controller.expect("result", seconds + 120)


def merge(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Repeated runs as one row: medians, and sums of what must not be lost."""
    rates = median(run["per_second"] for run in runs)
    names = sorted({name for run in runs for name in run["latency_ms"]})
    return {
        "per_second": round(rates.middle),
        "least": round(rates.least),
        "most": round(rates.most),
        "runs": rates.runs,
        "latency_ms": {
            name: round(
                median(run["latency_ms"][name] for run in runs if name in run["latency_ms"]).middle, 3
            )
            for name in names
        },
        "cpu_us_per_execution": _middle(runs, "cpu_us_per_execution"),
        "cpu_us_range": _range(runs, "cpu_us_per_execution"),
        "server_busy": _middle(runs, "server_busy"),
        "others_busy": _middle(runs, "others_busy"),
        "fleet_cpu_us": _middle(runs, "fleet_cpu_us"),
        "sent": sum(run["sent"] for run in runs),
        "ended": _summed(run["ended"] for run in runs),
        "lost": sum(run["lost"] for run in runs),
        "repeated": sum(run["fleet_repeated"] for run in runs),
    }


def _middle(runs: list[dict[str, Any]], name: str) -> float | None:
    values = [run[name] for run in runs if run.get(name) is not None]
    return round(median(values).middle, 3) if values else None


def _range(runs: list[dict[str, Any]], name: str) -> list[float]:
    values = [run[name] for run in runs if run.get(name) is not None]
    return [min(values), max(values)] if values else []


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for status, number in count.items():
            total[status] = total.get(status, 0) + number
    return total


def storm(contender: Contender, cores: Cores, things: int, repeats: int) -> dict[str, Any]:
    """Connect all at once, drop all at once, and again: seconds, stalls, and memory per connection."""
    connects, stalls, cpu_in, cpu_out = [], [], [], []
    with contender.start(cores.server) as server:
        before, cpu_before = rss_bytes(server.pids), cpu_seconds(server.pids)
        with fleet_on(server, cores, things) as (fleet, ready):
            connects.append(ready["seconds"])
            time.sleep(0.5)
            per_connection = (rss_bytes(server.pids) - before) / things
            cpu = cpu_seconds(server.pids)
            cpu_in.append(cpu - cpu_before)
            for turn in range(repeats):
                if turn:
                    connects.append(fleet.ask("connect", "ready", CONNECT_SECONDS)["seconds"])
                    time.sleep(0.5)
                    cpu_in.append(cpu_seconds(server.pids) - cpu)
                    cpu += cpu_in[-1]
                stalls.append(_drop(server, fleet))
                cpu_out.append(cpu_seconds(server.pids) - cpu)
                cpu += cpu_out[-1]
    seconds = median(connects)
    known = [stall for stall in stalls if stall is not None]
    return {
        "connect_seconds": round(seconds.middle, 3),
        "connect_least": round(seconds.least, 3),
        "connect_most": round(seconds.most, 3),
        "rss_kib_per_connection": round(per_connection / 1024, 1),
        "connect_cpu_us": round(median(cpu_in).middle * 1e6 / things, 1),
        "drop_cpu_us": round(median(cpu_out).middle * 1e6 / things, 1),
        "drop_stall_ms": round(median(known).middle, 1) if known else None,
        "runs": seconds.runs,
    }


def _drop(server: Server, fleet: Child) -> float | None:
    """Drop everything; return how long the server's loop stood still, if it can say so."""
    control = server.control
    beats = control is not None and not server.http
    if control is not None and beats:
        control.ask('{"do":"stalls"}', "stalls")
    fleet.ask("drop", "dropped")
    time.sleep(SETTLE_SECONDS)
    if control is None or not beats:
        return None
    longest: float = control.ask('{"do":"stalls"}', "stalls")["longest_ms"]
    return longest


def telemetry(
    contender: Contender, cores: Cores, things: int, repeats: int, seconds: float
) -> dict[str, Any]:
    """Command latency with and without 1,000 unrelated QoS 0 messages a second."""
    found: dict[str, Any] = {}
    with contender.start(cores.server) as server, fleet_on(server, cores, things) as (fleet, _):

        def runs(window: int) -> dict[str, Any]:
            return merge(
                [
                    round_trips(
                        server,
                        fleet,
                        cores,
                        via=contender.via[0],
                        things=things,
                        window=window,
                        seconds=seconds,
                    )
                    for _ in range(repeats)
                ]
            )

        found["quiet"] = runs(1)
        with fleet_on(server, cores, 50, "--first", "90000", "--telemetry", "1000"):
            found["busy"] = runs(1)
    return found
