"""Real processes, each ended by the handle of the test that started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from support.waits import soon

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
TOKEN = "tctl_a-token-for-tests-0123456789-0123456789"


@contextmanager
def process(*command: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose output, both streams, is in ``output(process)``; killed if it still runs."""
    with tempfile.TemporaryFile("w+") as log:
        started = subprocess.Popen(
            [str(part) for part in command],
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.log = log  # type: ignore[attr-defined]
        try:
            yield started
        finally:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def output(started: subprocess.Popen[str]) -> str:
    """What a process has printed so far."""
    handle = started.log.fileno()  # type: ignore[attr-defined]
    return os.pread(handle, 10_000_000, 0).decode(errors="replace")


def until_said(started: subprocess.Popen[str], text: str, seconds: float = 30.0) -> str:
    """Wait until a process has printed ``text``; return all it has printed."""
    soon(lambda: text in output(started) or started.poll() is not None, seconds)
    said = output(started)
    assert text in said, f"it ended with {started.poll()} and said:\n{said}"
    return said


class Serving(NamedTuple):
    """A ``thingctl serve`` that runs."""

    process: subprocess.Popen[str]
    mqtt: str
    http: str

    @property
    def mqtt_address(self) -> tuple[str, int]:
        host, port = self.mqtt.partition("://")[2].rsplit(":", 1)
        return host, int(port)

    @property
    def http_address(self) -> tuple[str, int]:
        host, port = self.http.partition("://")[2].rsplit(":", 1)
        return host, int(port)

    @property
    def client_environment(self) -> dict[str, str]:
        return {"THINGCTL_URL": self.http, "THINGCTL_TOKEN": TOKEN}


@contextmanager
def serving(
    data_dir: Path,
    *options: str,
    enrolment: str = "--open",
    environment: dict[str, str] | None = None,
) -> Iterator[Serving]:
    """Run ``thingctl serve --open`` (or ``--closed``) on free ports, with the token ``TOKEN``."""
    ports = ("--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0")
    command = (BIN / "thingctl", "serve", enrolment, *ports, "--data-dir", data_dir, *options)
    with process(*command, **{"THINGCTL_ADMIN_TOKEN": TOKEN} | (environment or {})) as started:
        until_said(started, "\ndata ")
        words = dict(
            line.split()[:2] for line in output(started).splitlines() if line[:4] in {"mqtt", "http"}
        )
        yield Serving(started, words["mqtt"], words["http"])


def free_address() -> str:
    """An address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"
