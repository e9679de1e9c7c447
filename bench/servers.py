"""What is measured: how each server is started, pinned to the server's core, and spoken to."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import mosquitto
from fleet_parts import ROOT
from processes import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from peers import Peers

BENCH: Final = Path(__file__).parent
START_SECONDS: Final = 30.0


@dataclass
class Server:
    """A running server. ``control`` obeys ``run`` and ``stalls`` (see ``in_process``)."""

    mqtt: int
    pids: list[int]
    root: str = ROOT
    http: int = 0
    token: str = ""
    control: Child | None = None


@dataclass(frozen=True)
class Contender:
    """A server that can be measured. ``via``: which loads it takes."""

    name: str
    title: str
    via: tuple[str, ...]
    start: Callable[[frozenset[int]], AbstractContextManager[Server]]
    things_max: int = 1_000_000
    journal: bool | None = None
    """Whether executions outlive the process; None: not its business."""
    missing: str | None = None
    """Why it cannot be measured here."""

    @property
    def family(self) -> str:
        """The product: the first word of its name."""
        return self.name.partition("-")[0]


@contextlib.contextmanager
def serve(cores: frozenset[int], *, journal: bool, settings: str = "") -> Iterator[Server]:
    """The product as it is shipped, ``thingctl serve``, but for the limit of requests for each token.

    ``settings``: more of broker.toml.
    """
    token = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="thingctl-bench-") as folder:
        where = ["--data-dir", folder, *([] if journal else ["--in-memory"])]
        config = Path(folder, "broker.toml")
        config.write_text(
            "[http]\nrequests_per_second = 0\n" + settings
        )  # one operator stands for all there are
        where += ["--config", str(config)]
        argv = [str(Path(sys.executable).with_name("thingctl")), "serve", "--open"]
        argv += ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", *where]
        env = {"THINGCTL_ADMIN_TOKEN": token}
        with Child("thingctl serve", argv, cores=cores, env=env) as child:
            mqtt, http = _printed_ports(child)
            yield Server(mqtt, [child.pid], http=http, token=token)


def _printed_ports(child: Child) -> tuple[int, int]:
    """The ports that ``thingctl serve`` prints at its start."""
    found: dict[str, int] = {}
    while len(found) < 2:
        line = child.line(START_SECONDS)
        for scheme, port in re.findall(r"(mqtt|http)://[^\s:/]+:(\d+)", line):
            found.setdefault(scheme, int(port))
    return found["mqtt"], found["http"]


@contextlib.contextmanager
def _controlled(name: str, argv: list[str], cores: frozenset[int]) -> Iterator[Server]:
    """A server that tells its ports in a JSON line and obeys orders on stdin."""
    with tempfile.TemporaryDirectory(prefix="thingctl-bench-") as folder:
        argv = [folder if part == "DATA" else part for part in argv]
        with Child(name, argv, cores=cores) as child:
            ready = child.expect("ready", START_SECONDS)
            yield Server(
                ready["mqtt"],
                [child.pid],
                root=ready.get("root", ROOT),
                http=ready.get("http", 0),
                control=child,
            )


@contextlib.contextmanager
def _mosquitto(cores: frozenset[int], *, kept: bool = False) -> Iterator[Server]:
    with mosquitto.running(cores, kept=kept) as (child, port):
        yield Server(port, [child.pid])


@contextlib.contextmanager
def _fastapi(python: Path, cores: frozenset[int]) -> Iterator[Server]:
    """mosquitto and its tracker, on one core together."""
    http = mosquitto.free_port()
    with mosquitto.running(cores) as (broker, mqtt):
        argv = [str(python), str(BENCH / "peer_fastapi.py"), str(mqtt), str(http)]
        with Child("fastapi", argv, cores=cores) as child:
            child.expect("ready", START_SECONDS)
            mosquitto.wait_for_port(child, http)
            yield Server(mqtt, [broker.pid, child.pid], http=http)


def contenders(peers: Peers) -> list[Contender]:
    """Everything that can be held side by side, ours first."""
    no_mosquitto = None if mosquitto.find() else "mosquitto is not installed"
    ours = [sys.executable, str(BENCH / "our_broker.py")]
    amqtt = [sys.executable, str(BENCH / "peer_amqtt.py")]
    aedes = [peers.node, str(BENCH / "peer_aedes.mjs"), str(peers.node_folder)]
    return [
        Contender(
            "thingctl-in-process",
            "thingctl, in process",
            ("in process",),
            lambda cores: _controlled("thingctl in process", [*ours, "--data-dir", "DATA"], cores),
            journal=True,
        ),
        Contender(
            "thingctl-in-process-memory",
            "thingctl, in process, in memory",
            ("in process",),
            lambda cores: _controlled(
                "thingctl in process", [*ours, "--data-dir", "DATA", "--in-memory"], cores
            ),
            journal=False,
        ),
        Contender(
            "thingctl-http",
            "thingctl serve",
            ("HTTP",),
            lambda cores: serve(cores, journal=True),
            journal=True,
        ),
        Contender(
            "thingctl-http-memory",
            "thingctl serve --in-memory",
            ("HTTP",),
            lambda cores: serve(cores, journal=False),
            journal=False,
        ),
        Contender("mosquitto", "bare mosquitto", ("MQTT",), _mosquitto, missing=no_mosquitto),
        Contender(
            "fastapi",
            "mosquitto + paho + FastAPI",
            ("HTTP",),
            lambda cores: _fastapi(peers.python, cores),
            journal=False,
            missing=no_mosquitto or peers.missing_fastapi(),
        ),
        Contender(
            "aedes",
            "aedes with a tracker in it",
            ("in process", "HTTP"),
            lambda cores: _controlled("aedes", aedes, cores),
            journal=False,
            missing=peers.missing_aedes(),
        ),
        Contender(
            "amqtt",
            "amqtt's listeners, plain plugin",
            ("in process",),
            lambda cores: _controlled("amqtt", amqtt, cores),
            things_max=1000,  # connecting 5,000 takes it half a minute
            journal=False,
        ),
    ]


def amqtt_alone() -> Contender:
    """amqtt as it comes: its own listeners, and no plugin but the one that lets everybody in."""
    argv = [sys.executable, str(BENCH / "peer_amqtt.py"), "--alone"]
    return Contender(
        "amqtt", "amqtt alone", (), lambda cores: _controlled("amqtt", argv, cores), things_max=1000
    )


def keepers() -> list[Contender]:
    """Those that keep sessions over a restart, and ours without."""

    def ours(mode: str) -> Contender:
        settings = f'[mqtt]\npersistence = "{mode}"\n'
        return Contender(
            f"thingctl-{mode}",
            f"thingctl serve, persistence {mode}",
            (),
            lambda cores: serve(cores, journal=True, settings=settings),
        )

    missing = None if mosquitto.find() else "mosquitto is not installed"
    theirs = Contender(
        "mosquitto-kept",
        "mosquitto, persistence true",
        (),
        lambda cores: _mosquitto(cores, kept=True),
        missing=missing,
    )
    return [ours("off"), ours("sync"), theirs]


def environment() -> dict[str, object]:
    """What a reader of the figures must know of the machine; nothing that names it."""
    return {
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
        "kernel": os.uname().release.split("-")[0],
        "journal_on": _filesystem(Path(tempfile.gettempdir())),
    }


def _filesystem(folder: Path) -> str:
    """The kind of file system that the journals lie on: on tmpfs they never reach a disk."""
    found = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]
