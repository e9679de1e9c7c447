"""A PostgreSQL of its own, with fsync, for as long as a ``with`` block lasts."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mosquitto import free_port
from processes import BenchError, on_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

USER: Final = "thingctl"
START_SECONDS: Final = 60.0

_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "256MB",
    # No checkpoint in a short run: it would write every page once more, in whole.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "fsync": "on",
    "synchronous_commit": "on",
}


def find() -> Path | None:
    """The folder of the newest PostgreSQL that is installed (Debian puts it outside the PATH)."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    postgres = shutil.which("postgres")
    return Path(postgres).parent if postgres and shutil.which("initdb") else None


class Postgres:
    """A server that runs."""

    def __init__(self, folder: Path, port: int, pid: int) -> None:
        self._folder = folder
        self.port = port
        self.pid = pid
        """Of the postmaster, whose children all the others are."""

    def url(self, database: str = "postgres") -> str:
        """Where a database is."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def ask(self, statement: str, database: str = "postgres") -> str:
        """What psql answers, unaligned and bare."""
        argv = [str(self._folder / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement]
        ran = subprocess.run(
            [*argv, self.url(database)], capture_output=True, text=True, check=False, timeout=120
        )
        if ran.returncode:
            raise BenchError(f"psql: {ran.stderr.strip()}")
        return ran.stdout.strip()


@contextlib.contextmanager
def running(cores: frozenset[int] | None = None) -> Iterator[Postgres]:
    """Run PostgreSQL. It will not run as root: then somebody else does it."""
    folder = find()
    if folder is None:
        raise BenchError("PostgreSQL is not installed")
    prefix, user = _as_somebody()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="thingctl-bench-") as home:
        if user is not None:
            os.chown(home, user, -1)
        data = Path(home, "data")
        environ = {"PATH": os.environ["PATH"], "HOME": home, "LC_ALL": "C.UTF-8"}
        initdb = [folder / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        made = subprocess.run(
            [*prefix, *map(str, initdb)], capture_output=True, text=True, check=False, env=environ, cwd="/"
        )
        if made.returncode:
            raise BenchError(f"initdb: {made.stderr.strip()}")
        flags = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        argv = [*prefix, str(folder / "postgres"), "-D", str(data), "-c", f"port={port}", *flags]
        with (
            Path(home, "log").open("wb") as log,
            on_cores(cores),
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ) as child,
        ):
            try:
                server = Postgres(folder, port, child.pid)
                _wait_for(server, child)
                yield server
            finally:
                _end(child)


def _as_somebody() -> tuple[list[str], int | None]:
    """What goes before a command so that root does not run it, and who runs it then."""
    if os.geteuid():
        return [], None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            ids = (f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups")
            return ["setpriv", *ids], entry.pw_uid
    raise BenchError("PostgreSQL refuses to run as root, and there is no other user")


def _wait_for(server: Postgres, child: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and child.poll() is None:
        with contextlib.suppress(BenchError):
            server.ask("SELECT 1")
            return
        time.sleep(0.1)
    raise BenchError("PostgreSQL did not start")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Fast: clients are cut off; and for certain."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait(30)
    except subprocess.TimeoutExpired:
        child.kill()
