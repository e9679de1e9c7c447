"""Workers of a cluster: mosquitto stands in for the cluster, a real PostgreSQL is the table."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agent.harness import Mosquitto
from support.postgres import PostgresServer
from support.processes import BIN, TOKEN, Serving, output, process, until_said

ROOT = "fleet"
"""The topic root: mosquitto matches no ``$share/…/$…``."""


class Cluster(NamedTuple):
    """What workers are started on."""

    mosquitto: Mosquitto
    server: PostgresServer
    store: str

    @property
    def address(self) -> tuple[str, int]:
        """Where things connect."""
        return "127.0.0.1", self.mosquitto.port


@contextmanager
def starting(
    cluster: Cluster,
    folder: Path,
    name: str,
    *options: object,
    extra: str = "",
    admin_token: str = TOKEN,
) -> Iterator[subprocess.Popen[str]]:
    """Start a worker, with a file of settings and files of its own in ``folder``/``name``.

    ``extra``: more settings, in TOML.
    """
    home = folder / name
    home.mkdir(exist_ok=True)
    config = home / "worker.toml"
    config.write_text(
        f'[mqtt]\ntopic_root = "{ROOT}"\n'
        f'[link]\nurls = ["{cluster.mosquitto.url}"]\nworker = "{name}"\n'
        f'[store]\nurl = "{cluster.store}"\n{extra}'
    )
    command = (BIN / "thingctl", "serve", "--config", config, "--data-dir", home, *options)
    with process(*command, THINGCTL_ADMIN_TOKEN=admin_token) as started:
        yield started


@contextmanager
def working(
    cluster: Cluster, folder: Path, name: str = "w1", *options: object, **more: str
) -> Iterator[Serving]:
    """Run a worker on a free port; it serves when this is entered. ``more``: as ``starting`` takes it."""
    with starting(cluster, folder, name, "--http", "127.0.0.1:0", *options, **more) as started:
        until_said(started, "\ndata ")
        words = dict(
            line.split()[:2] for line in output(started).splitlines() if line[:4] in {"mqtt", "http"}
        )
        yield Serving(started, words["mqtt"], words["http"])
