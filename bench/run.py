"""thingctl measured, beside its peers, in one run.

    python bench/run.py            the line that matters, in about a minute, then the table
    python bench/run.py --full     everything; half an hour
    python bench/run.py --parts storm --things 1000,5000 --servers thingctl,mosquitto

Progress goes to stderr, the table to stdout, and everything to bench/results/*.json.
A server is pinned to one core, the load to the others; each figure is the median of
repeated short runs.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import measure
import report
from cores import plan_cores
from ordinary import SERVERS, Ordinary
from peers import Peers
from processes import BenchError, Child, allow_many_files
from servers import Contender, Server, contenders, environment

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS: Final = ("trips", "storm", "telemetry", "ordinary")
QUICK_SERVERS: Final = ("thingctl-in-process", "thingctl-http", "mosquitto", "amqtt")
RESULTS: Final = Path(__file__).with_name("results")


class Place(NamedTuple):
    """A server that is up, one load on it, and what its runs found."""

    contender: Contender
    server: Server
    fleet: Child
    via: str
    window: int
    runs: list[dict[str, Any]]


class Run:
    """One run: what to measure, and what was found."""

    def __init__(self, options: argparse.Namespace, chosen: list[Contender]) -> None:
        self.o = options
        self.cores = plan_cores()
        self.began = time.monotonic()
        self.contenders: list[Contender] = []
        self.found: dict[str, Any] = {
            "environment": environment(),
            "pinned_apart": self.cores.apart,
            "seconds_per_run": options.seconds,
            "repeats": options.repeats,
            "trips": [],
            "storm": [],
            "telemetry": [],
            "ordinary": [],
            "skipped": {},
        }
        for contender in chosen:
            if contender.missing:
                self.skip(contender, contender.missing)
            else:
                self.contenders.append(contender)

    def skip(self, contender: Contender, reason: str) -> None:
        """Leave a server, or what is left of it, out, and say so."""
        self.found["skipped"][contender.name] = reason
        self.say(f"{contender.title}: skipped: {reason}")

    def say(self, text: str) -> None:
        """Progress."""
        print(f"[{time.monotonic() - self.began:6.1f} s] {text}", file=sys.stderr, flush=True)

    def everything(self) -> None:
        """Measure every part, sizes outermost, so that peers are measured close together in time."""
        for things in self.o.things:
            fitting = [contender for contender in self.contenders if things <= contender.things_max]
            if "trips" in self.o.parts:
                self.trips(fitting, things)
            for contender in fitting:
                if "storm" in self.o.parts:
                    self.guarded(self.storm, contender, things)
                if "telemetry" in self.o.parts and things == max(self.o.things):
                    self.guarded(self.telemetry, contender, things)
        if "ordinary" in self.o.parts:
            self.ordinary()

    def ordinary(self) -> None:
        """Messages that are no commands."""
        part = Ordinary(self.o, self.cores, self.say)
        self.found["ordinary"] = part.rows
        part.everything(self.contenders)
        self.found["skipped"] |= part.skipped

    def guarded(self, part: Callable[[Contender, int], None], contender: Contender, things: int) -> None:
        """Measure; what one server does not stand is noted and costs the others nothing."""
        try:
            part(contender, things)
        except BenchError as error:
            self.found["skipped"][f"{contender.name}, {things} things"] = str(error)
            self.say(f"{contender.title}, {things:,} things: {error}")

    def trips(self, chosen: list[Contender], things: int) -> None:
        """Command round trips: every server up with its own fleet, and the runs taken in turns.

        What else the machine does during one round then hits all of them.
        """
        with contextlib.ExitStack() as stack:
            places: list[Place] = []

            def connect(contender: Contender, things: int) -> None:
                server = stack.enter_context(contender.start(self.cores.server))
                fleet, _ = stack.enter_context(measure.fleet_on(server, self.cores, things))
                places.extend(
                    Place(contender, server, fleet, via, window, [])
                    for via in contender.via
                    for window in self.o.windows
                )

            for contender in chosen:
                self.guarded(connect, contender, things)
            for turn in range(self.o.repeats):
                for place in places:
                    self.guarded(partial(self.trip, place, turn), place.contender, things)
        for place in places:
            if place.runs:
                self.found["trips"].append(
                    {
                        "server": place.contender.name,
                        "title": place.contender.title,
                        "journal": place.contender.journal,
                        "via": place.via,
                        "things": things,
                        "window": place.window,
                        **measure.merge(place.runs),
                    }
                )

    def trip(self, place: Place, turn: int, contender: Contender, things: int) -> None:
        """One run of one load on one server."""
        found = measure.round_trips(
            place.server,
            place.fleet,
            self.cores,
            via=place.via,
            things=things,
            window=place.window,
            seconds=self.o.seconds,
        )
        place.runs.append(found)
        self.say(
            f"round {turn + 1} of {self.o.repeats}: {contender.title}, {place.via}, {things:,} things, "
            f"window {place.window}: {found['per_second']:,.0f}/s, lost {found['lost']}"
        )

    def storm(self, contender: Contender, things: int) -> None:
        """All connect at once, all drop at once."""
        if contender.name in {
            "thingctl-in-process-memory",
            "thingctl-http",
            "thingctl-http-memory",
            "fastapi",
        }:
            return  # their connections are those of another row
        row = {
            "server": contender.name,
            "title": contender.title,
            "things": things,
            **measure.storm(contender, self.cores, things, self.o.repeats),
        }
        self.found["storm"].append(row)
        self.say(f"{contender.title}: {things:,} things connected in {row['connect_seconds']} s")

    def telemetry(self, contender: Contender, things: int) -> None:
        """What unrelated messages cost a command."""
        if contender.name not in {"thingctl-in-process", "mosquitto"}:
            return
        found = measure.telemetry(
            contender, self.cores, things, repeats=self.o.repeats, seconds=self.o.seconds
        )
        self.found["telemetry"].append(
            {"server": contender.name, "title": contender.title, "things": things, **found}
        )
        p99 = [found[name]["latency_ms"].get("p99") for name in ("quiet", "busy")]
        self.say(f"{contender.title}: p99 {p99[0]} ms quiet, {p99[1]} ms beside telemetry")


def numbers(text: str) -> list[int]:
    """A list of numbers, by commas."""
    return [int(part.replace("_", "")) for part in text.split(",") if part]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="about a minute (what is done when nothing is said)"
    )
    size.add_argument("--full", action="store_true", help="every size, window, peer and part")
    parser.add_argument("--parts", type=lambda text: text.split(","), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--things", type=numbers, help="sizes of the fleet, e.g. 100,1000")
    parser.add_argument("--windows", type=numbers, help="commands in flight, e.g. 1,64")
    parser.add_argument("--servers", help="names, or their beginnings, by commas; see the JSON for names")
    parser.add_argument("--seconds", type=float, help="of each run (quick: 1.2, full: 1.5)")
    parser.add_argument("--repeats", type=int, help="runs of each figure (quick: 5, full: 3)")
    parser.add_argument("--idle-filters", type=int, help="idle filters beside ordinary messages (10000)")
    parser.add_argument(
        "--ordinary-things", type=int, help="that connect with an ordinary filter (quick: 2000, full: 10000)"
    )
    parser.add_argument("--install-peers", action="store_true", help="install FastAPI and aedes out of tree")
    parser.add_argument("--peers-dir", type=Path, help="where those are (~/.cache/thingctl-bench)")
    parser.add_argument("--json", type=Path, help="where the JSON goes (bench/results/TIME.json)")
    return parser


def settle(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in what was not said."""
    full = options.full
    options.parts = options.parts or (list(PARTS) if full else ["trips"])
    options.things = options.things or ([100, 1000, 5000, 10000] if full else [1000])
    options.windows = options.windows or ([1, 64] if full else [64])
    options.seconds = options.seconds or (1.5 if full else 1.2)
    options.repeats = options.repeats or (3 if full or options.parts == ["ordinary"] else 5)
    options.idle_filters = options.idle_filters or 10_000
    options.ordinary_things = options.ordinary_things or (10_000 if full else 2000)
    for part in options.parts:
        if part not in PARTS:
            raise SystemExit(f"no part is named {part!r}; there are {', '.join(PARTS)}")
    return options


def choose(options: argparse.Namespace, everyone: list[Contender]) -> list[Contender]:
    """The servers that were asked for."""
    if options.servers:
        wanted = tuple(options.servers.split(","))
        return [contender for contender in everyone if contender.name.startswith(wanted)]
    if options.parts == ["ordinary"]:
        return [contender for contender in everyone if contender.name in SERVERS]
    if options.full or options.parts != ["trips"]:
        return everyone
    return [contender for contender in everyone if contender.name in QUICK_SERVERS]


def main() -> int:
    options = settle(arguments().parse_args())
    # As an exception, so that every server and fleet is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    allow_many_files()
    peers = Peers(options.peers_dir)
    if options.install_peers:
        for failure in peers.install():
            print(f"not installed: {failure}", file=sys.stderr)
    run = Run(options, choose(options, contenders(peers)))
    try:
        run.everything()
    except KeyboardInterrupt:
        run.say("stopped; here is what was measured")
    path: Path = options.json or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    report.write(run.found, path)
    if "trips" in options.parts:
        print(report.headline(run.found))
        print()
    print(report.tables(run.found))
    lost = sum(row["lost"] for row in run.found["trips"] if row["server"].startswith("thingctl"))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
