"""Workers on a mosquitto and a PostgreSQL, each part with a process id to read its CPU time by."""

from __future__ import annotations

import contextlib
import re
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import mosquitto
import postgres
from processes import BenchError, Child, tree_cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = "fleet"
"""The topic root: mosquitto matches no ``$share/…/$…``."""

START_SECONDS: Final = 120.0


class Place(NamedTuple):
    """What workers are started on."""

    mqtt: int
    mosquitto: int
    """Its process id."""
    server: postgres.Postgres
    cores: frozenset[int]


class Worker(NamedTuple):
    """A worker that runs."""

    pid: int
    http: int
    seconds: float
    """From its start until it served."""
    cpu: float
    """CPU seconds of that."""


@contextlib.contextmanager
def place(cores: frozenset[int]) -> Iterator[Place]:
    """Run mosquitto and PostgreSQL."""
    with mosquitto.running(cores) as (broker, port), postgres.running(cores) as server:
        yield Place(port, broker.pid, server, cores)


@contextlib.contextmanager
def worker(
    on: Place, database: str, name: str, token: str, *, root: str = ROOT, profile: Path | None = None
) -> Iterator[Worker]:
    """Run one worker as it is shipped, but for the limit of requests for each token.

    ``profile``: where cProfile writes what it found when the worker ends.
    """
    with tempfile.TemporaryDirectory(prefix="thingctl-bench-") as folder:
        config = Path(folder, "worker.toml")
        config.write_text(
            f'open = true\n[mqtt]\ntopic_root = "{root}"\n'
            f'[link]\nurls = ["mqtt://127.0.0.1:{on.mqtt}"]\nworker = "{name}"\n'
            f'[store]\nurl = "{on.server.url(database)}"\n'
            '[http]\nbind = "127.0.0.1:0"\nrequests_per_second = 0\n'
        )
        program = str(Path(sys.executable).with_name("thingctl"))
        argv = [program, "serve", "--config", str(config), "--data-dir", folder]
        if profile is not None:
            argv = [sys.executable, "-m", "cProfile", "-o", str(profile), *argv]
        began = time.monotonic()
        with Child(f"worker {name}", argv, cores=on.cores, env={"THINGCTL_ADMIN_TOKEN": token}) as child:
            http = _printed_port(child)
            yield Worker(child.pid, http, time.monotonic() - began, tree_cpu_seconds(child.pid))


def database(server: postgres.Postgres) -> str:
    """The name of a new, empty database."""
    name = f"bench_{secrets.token_hex(4)}"
    server.ask(f"CREATE DATABASE {name}")
    return name


def _printed_port(child: Child) -> int:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        found = re.match(r"http\s+http://[^\s:/]+:(\d+)", child.line(START_SECONDS))
        if found:
            return int(found[1])
    raise BenchError(f"{child.name} does not say where it serves")
