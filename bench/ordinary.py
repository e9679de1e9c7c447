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
from figures import median, ratio
from processes import BenchError, Child, rss_bytes
from servers import BENCH, amqtt_alone, keepers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from cores import Cores
    from servers import Contender, Server

SERVERS: Final = ("thingctl-in-process", "mosquitto", "amqtt")
"""``thingctl-in-process`` is ``thingctl serve``; the commands inside it run for the last figures alone."""

TELEMETRY: Final = 5000
"""Messages a second beside which commands are measured."""

KEEPERS: Final = 64
"""Publishers to sessions that are away, one message of each in flight."""

KEPT: Final = 200
"""Messages for each of those sessions in one run: below every server's bound."""

IDLE_CLIENTS: Final = 100
AMQTT_FILTERS: Final = 500
"""Idle filters beside amqtt alone: its cost of a message grows with them."""

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
KEPT_SESSIONS: Final = "QoS 1 to kept sessions"
MEMORY: Final = "a client with one filter"
CONNECT: Final = "a thing connects"
CONNECT_MORE: Final = "a thing with an ordinary filter connects"
ALONE: Final = "a command alone"
BESIDE_TELEMETRY: Final = f"a command beside {TELEMETRY:,} messages/s"


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
        chosen = [
            amqtt_alone() if contender.name == "amqtt" else contender
            for contender in contenders
            if contender.name in SERVERS
        ]
        with self.up(chosen) as places:
            for shape in SHAPES:
                self.in_turns(shape, places, shape.name)
            self.beside_idle(places)
        self.kept(chosen)
        with self.up(chosen) as places:
            self.connecting(places)
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

    def each(self, places: list[Place], action: Callable[[Place], Any]) -> None:
        """Do it on every server in turn; one that fails is left out from then on."""
        for place in list(places):
            try:
                action(place)
            except BenchError as error:
                places.remove(place)
                self.skip(place.contender, str(error))

    # Messages.

    def in_turns(self, shape: Shape, places: list[Place], name: str) -> None:
        """One shape of traffic on every server."""
        found: dict[str, list[dict[str, Any]]] = {place.contender.name: [] for place in places}

        def begin(place: Place) -> None:
            place.order("flows", publishers=shape.publishers, copies=shape.copies, qos=shape.qos)

        def run(place: Place) -> None:
            order = {"window": shape.window, "warmup": measure.WARMUP, "seconds": self.o.seconds}
            found[place.contender.name].append(place.order("run", **order))

        self.each(places, begin)
        for _ in range(self.o.repeats):
            self.each(places, run)
        self.each(places, lambda place: place.order("end"))
        for place in places:
            self.add_runs(name, place, found[place.contender.name])

    def add_runs(self, name: str, place: Place, runs: list[dict[str, Any]]) -> None:
        """A row of repeated runs."""
        self.add(
            name,
            place.contender,
            "CPU us",
            [run["cpu_us"] for run in runs if run["cpu_us"] is not None],
            per_second=round(median(run["per_second"] for run in runs).middle),
            server_busy=median(run["server_busy"] for run in runs).middle,
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

        def subscribe(place: Place) -> None:
            most = AMQTT_FILTERS if place.contender.family == "amqtt" else self.o.idle_filters
            filters = idle_filters(min(most, self.o.idle_filters) // IDLE_CLIENTS)
            place.order("clients", count=IDLE_CLIENTS, name="idle-{n}", filters=filters)

        self.each(places, subscribe)
        self.in_turns(ONE_TO_ONE, places, BESIDE_IDLE)

    def kept(self, chosen: list[Contender]) -> None:
        """QoS 1 to sessions that are away: with and without a disk."""
        families = {contender.family for contender in chosen}
        with self.up([each for each in keepers() if each.family in families]) as places:
            found: dict[str, list[dict[str, Any]]] = {place.contender.name: [] for place in places}

            def run(place: Place) -> None:
                found[place.contender.name].append(self.kept_run(place))

            for _ in range(self.o.repeats):
                self.each(places, run)
            for place in places:
                self.add_runs(KEPT_SESSIONS, place, found[place.contender.name])

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

    def connecting(self, places: list[Place]) -> None:
        """Memory of a client with one filter; CPU time of a thing that connects, without one and with."""
        self.each(places, self.memory)
        found: dict[tuple[str, str], list[float]] = {}

        def connect(place: Place) -> None:
            commands = f"{place.server.root}/things/thing-{{n:05d}}/executions/+/request"
            for name, filters in ((CONNECT, [commands]), (CONNECT_MORE, [commands, "site/{n}/config"])):
                run = place.order("clients", count=self.things(place), name="thing-{n:05d}", filters=filters)
                found.setdefault((name, place.contender.name), []).append(run["cpu_us"])
                place.order("leave")

        for _ in range(self.o.repeats):
            self.each(places, connect)
        for name in (CONNECT, CONNECT_MORE):
            for place in places:
                values = found[name, place.contender.name]
                self.add(name, place.contender, "CPU us", values, things=self.things(place))

    def memory(self, place: Place) -> None:
        """Resident memory of clients with one filter each, before anything else has connected."""
        things = self.things(place)
        before = rss_bytes(place.server.pids)
        place.order("clients", count=things, name="client-{n:05d}", filters=["site/{n}/config"])
        time.sleep(SETTLE_SECONDS)
        each = (rss_bytes(place.server.pids) - before) / things / 1024
        self.add(MEMORY, place.contender, "KiB", [each], things=things)
        place.order("leave")

    def things(self, place: Place) -> int:
        """How many connect: amqtt alone stands fewer."""
        return int(min(self.o.ordinary_things, place.contender.things_max))

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

                p99s(ALONE)
                telemetry = ("--first", "90000", "--telemetry", str(TELEMETRY))
                with measure.fleet_on(place.server, self.cores, 50, *telemetry):
                    p99s(BESIDE_TELEMETRY)


def comparisons(rows: list[dict[str, Any]]) -> list[tuple[str, str, float]]:
    """What is compared, whose it is, and how many times the second figure the first is."""
    found = {(row["measure"], row["server"]): row for row in rows}
    made = []
    for after, before in ((BESIDE_IDLE, ONE_TO_ONE.name), (CONNECT_MORE, CONNECT), (BESIDE_TELEMETRY, ALONE)):
        for (name, server), row in found.items():
            times = ratio(row["value"], found.get((before, server), {}).get("value"))
            if name == after and times is not None:
                made.append((f"{after} / {before}", row["title"], times))
    sync, off = (found.get((KEPT_SESSIONS, f"thingctl-{mode}"), {}) for mode in ("sync", "off"))
    for title, name in (("CPU us", "value"), ("messages per s", "per_second")):
        times = ratio(sync.get(name), off.get(name))
        if times is not None:
            made.append((f"{KEPT_SESSIONS}, {title}, persistence sync / off", "thingctl serve", times))
    return made


def idle_filters(each: int) -> list[str]:
    """So many filters of one client: exact ones, and both wildcards, none of which matches ``load/``."""
    kinds = ("idle/{n}/%d/value", "idle/{n}/%d/+", "idle/+/%d/{n}/#")
    return [kinds[number % 3] % number for number in range(each)]
