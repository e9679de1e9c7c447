"""Ordinary messages, beside mosquitto and amqtt alone: what each one costs the broker.

Every server is up with a load of its own, and the runs are taken in turns.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import measure
from figures import median
from processes import BenchError, Child, rss_bytes
from servers import BENCH, keepers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from cores import Cores
    from servers import Contender, Server

SERVERS: Final = ("thingctl-in-process", "mosquitto", "amqtt")
TELEMETRY: Final = 5000
"""Messages a second beside which commands are measured."""

KEEPERS: Final = 64
"""Publishers to sessions that are away, one message of each in flight."""

KEPT: Final = 200
"""Messages for each of those sessions in one run: below every server's bound."""

IDLE_CLIENTS: Final = 100
ANSWER_SECONDS: Final = 300.0
SETTLE_SECONDS: Final = 0.5


class Shape(NamedTuple):
    """Who publishes to whom, and how."""

    name: str
    publishers: int
    copies: int
    qos: int
    window: int


ONE_TO_ONE: Final = Shape("1 to 1, QoS 0", 1, 1, 0, 100)
SHAPES: Final = (
    ONE_TO_ONE,
    Shape("1 to 1, QoS 1", 1, 1, 1, 100),
    Shape("50 to 50, QoS 0", 50, 1, 0, 5),
    Shape("50 to 50, QoS 1", 50, 1, 1, 5),
    Shape("1 to 50, QoS 0", 1, 50, 0, 5),
)
BESIDE_IDLE: Final = "1 to 1, QoS 0, beside idle filters"


class Place(NamedTuple):
    """A server that is up, and its load."""

    contender: Contender
    server: Server
    load: Child

    def order(self, do: str, **fields: Any) -> dict[str, Any]:
        """Have the load do something; return what it found."""
        order = {"do": do, "pids": self.server.pids, **fields}
        return self.load.ask(json.dumps(order), do, ANSWER_SECONDS)


class Ordinary:
    """The part: ``rows`` is what it found."""

    def __init__(self, options: argparse.Namespace, cores: Cores, say: Callable[[str], None]) -> None:
        self.o = options
        self.cores = cores
        self.say = say
        self.rows: list[dict[str, Any]] = []
        self.skipped: dict[str, str] = {}

    def everything(self, contenders: list[Contender]) -> None:
        """Measure it all on those of the servers that this part knows."""
        chosen = [contender for contender in contenders if contender.name in SERVERS]
        with self.up(chosen) as places:
            for shape in SHAPES:
                self.in_turns(shape, places, shape.name)
            self.beside_idle(places)
        self.kept(chosen)
        for contender in chosen:
            self.guarded(contender, self.connecting)
        for contender in chosen:
            if contender.name != "amqtt":
                self.guarded(contender, self.beside_telemetry)

    def guarded(self, contender: Contender, part: Callable[[Contender], None]) -> None:
        try:
            part(contender)
        except BenchError as error:
            self.skip(contender, str(error))

    def skip(self, contender: Contender, reason: str) -> None:
        """Leave out what this server does not stand, and say so."""
        self.skipped[f"{contender.name}, ordinary"] = reason
        self.say(f"{contender.title}: {reason}")

    @contextlib.contextmanager
    def up(self, chosen: list[Contender]) -> Iterator[list[Place]]:
        """Those of the servers that start, each with a load of its own."""
        with contextlib.ExitStack() as stack:
            places = []
            for contender in chosen:
                if contender.missing:
                    self.skip(contender, contender.missing)
                    continue
                try:
                    places.append(stack.enter_context(self.place(contender)))
                except BenchError as error:
                    self.skip(contender, str(error))
            yield places

    @contextlib.contextmanager
    def place(self, contender: Contender) -> Iterator[Place]:
        """One server with its load."""
        with contender.start(self.cores.server) as server:
            argv = [sys.executable, str(BENCH / "traffic.py"), "--port", str(server.mqtt)]
            with Child("traffic", argv, cores=self.cores.fleet) as load:
                yield Place(contender, server, load)

    # Messages.

    def in_turns(self, shape: Shape, places: list[Place], name: str) -> None:
        """One shape of traffic on every server."""
        found: dict[str, list[dict[str, Any]]] = {place.contender.name: [] for place in places}
        for place in places:
            place.order("flows", publishers=shape.publishers, copies=shape.copies, qos=shape.qos)
        for _ in range(self.o.repeats):
            for place in places:
                run = place.order("run", window=shape.window, warmup=measure.WARMUP, seconds=self.o.seconds)
                found[place.contender.name].append(run)
        for place in places:
            place.order("end")
            self.add_runs(name, place, found[place.contender.name])

    def add_runs(self, name: str, place: Place, runs: list[dict[str, Any]]) -> None:
        """A row of repeated runs."""
        self.add(
            name,
            place.contender,
            "CPU us",
            [run["cpu_us"] for run in runs if run["cpu_us"] is not None],
            per_second=round(median(run["per_second"] for run in runs).middle),
            load_busy=median(run["load_busy"] for run in runs).middle,
            lost=sum(run["lost"] for run in runs),
        )

    def add(self, name: str, contender: Contender, unit: str, values: list[float], **more: Any) -> None:
        """A row; without values there is none."""
        if not values:
            self.skip(contender, f"{name}: nothing arrived")
            return
        middle, least, most, runs = median(values)
        row: dict[str, Any] = {
            "measure": name,
            "server": contender.name,
            "title": contender.title,
            "unit": unit,
        }
        row |= {"value": middle, "least": least, "most": most, "runs": runs, **more}
        self.rows.append(row)
        self.say(f"{name}: {contender.title}: {middle:,.1f} {unit}")

    def beside_idle(self, places: list[Place]) -> None:
        """1 to 1 again, where clients have filters that match none of it."""
        for place in places:
            each = (500 if place.contender.name == "amqtt" else self.o.idle_filters) // IDLE_CLIENTS
            place.order("clients", count=IDLE_CLIENTS, name="idle-{n}", filters=idle_filters(each))
        self.in_turns(ONE_TO_ONE, places, BESIDE_IDLE)

    def kept(self, chosen: list[Contender]) -> None:
        """QoS 1 to sessions that are away: with and without a disk."""
        families = {contender.family for contender in chosen}
        with self.up([each for each in keepers() if each.family in families]) as places:
            found: dict[str, list[dict[str, Any]]] = {place.contender.name: [] for place in places}
            for _ in range(self.o.repeats):
                for place in places:
                    found[place.contender.name].append(self.kept_run(place))
            for place in places:
                self.add_runs("QoS 1 to kept sessions", place, found[place.contender.name])

    @staticmethod
    def kept_run(place: Place) -> dict[str, Any]:
        """Publish while the subscribers are away, then let them take what was kept."""
        place.order("flows", publishers=KEEPERS, copies=1, qos=1, kept=True)
        place.order("away")
        found = place.order("run", window=1, messages=KEPT)
        found["lost"] += place.order("back", messages=KEPT)["lost"]
        place.order("end")
        return found

    # Connections.

    def connecting(self, contender: Contender) -> None:
        """Memory of a client with one filter; CPU time of a thing that connects, with one and without."""
        things = min(self.o.ordinary_things, contender.things_max)
        with self.place(contender) as place:
            before = rss_bytes(place.server.pids)
            place.order("clients", count=things, name="client-{n:05d}", filters=["site/{n}/config"])
            time.sleep(SETTLE_SECONDS)
            memory = (rss_bytes(place.server.pids) - before) / things / 1024
            self.add("a client with one filter", contender, "KiB", [memory], things=things)
            place.order("leave")
            commands = f"{place.server.root}/things/thing-{{n:05d}}/executions/+/request"
            for name, filters in (
                ("a thing connects", [commands]),
                ("a thing with one ordinary filter connects", [commands, "site/{n}/config"]),
            ):
                found = place.order("clients", count=things, name="thing-{n:05d}", filters=filters)
                self.add(name, contender, "CPU us", [found["cpu_us"]], things=things)
                place.order("leave")

    def beside_telemetry(self, contender: Contender) -> None:
        """Commands one at a time, alone and beside ordinary messages that one client takes."""
        with self.place(contender) as place:
            place.order("clients", count=1, name="telemetry-reader", filters=["telemetry/#"])
            things = 100
            with measure.fleet_on(place.server, self.cores, things) as (fleet, _):

                def p99s(name: str) -> None:
                    values = [
                        measure.round_trips(
                            place.server,
                            fleet,
                            self.cores,
                            via=contender.via[0],
                            things=things,
                            window=1,
                            seconds=self.o.seconds,
                        )["latency_ms"]["p99"]
                        for _ in range(self.o.repeats)
                    ]
                    heard = place.order("heard")["count"]
                    self.add(name, contender, "p99 ms", values, heard=heard)

                p99s("a command alone")
                telemetry = ("--first", "90000", "--telemetry", str(TELEMETRY))
                with measure.fleet_on(place.server, self.cores, 50, *telemetry):
                    p99s("a command beside 5,000 messages/s")


def idle_filters(each: int) -> list[str]:
    """So many filters of one client: exact ones, and both wildcards, none of which matches ``load/``."""
    kinds = ("idle/{n}/%d/value", "idle/{n}/%d/+", "idle/+/%d/{n}/#")
    return [kinds[number % 3] % number for number in range(each)]
