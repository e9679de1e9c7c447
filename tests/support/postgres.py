"""A real PostgreSQL for tests: one server for the session, a database for each test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.needs import missing
from support.waits import soon

USER = "thingctl"


def binaries() -> Path:
    """The folder of the newest PostgreSQL that is installed; without one the test is missing something."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    if initdb is None or postgres is None:
        missing("PostgreSQL is not installed (apt-get install postgresql)")
    return Path(postgres).parent


def _as_somebody() -> tuple[list[str], int | None]:
    """What goes before a command so that root does not run it, and who runs it then."""
    if os.geteuid():
        return [], None
    import pwd

    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            ids = (f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups")
            return ["setpriv", *ids], entry.pw_uid
    return missing("PostgreSQL refuses to run as root, and there is no other user")


class PostgresServer:
    """A server on a free port of 127.0.0.1, its data in a directory of its own."""

    def __init__(self, *, fsync: bool = False, **settings: str) -> None:
        self._bin = binaries()
        self._prefix, user = _as_somebody()
        self._home = Path(tempfile.mkdtemp(prefix="thingctl-postgres-"))
        self.data = self._home / "data"
        if user is not None:
            os.chown(self._home, user, -1)
        self._settings = {"fsync": "on" if fsync else "off"} | settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        try:
            self._run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it (again, on the same port), and wait until it takes connections."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "60",
            "shared_buffers": "32MB",
            "synchronous_commit": "on",
            "log_destination": "stderr",
        } | self._settings
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        log = self._home / "log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [*self._prefix, str(self._bin / "postgres"), "-D", str(self.data), *flags],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        process = self._process

        def is_up() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"PostgreSQL ended:\n{log.read_text(errors='replace')}")
            return self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", self.port, check=False) == 0

        soon(is_up, 60.0)

    def stop(self, *, hard: bool = False) -> None:
        """End it: fast (clients are cut off), or ``hard``, as a power cut would end its processes."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            # The postmaster alone gets the signal; at SIGQUIT it ends its children without a checkpoint.
            process.send_signal(signal.SIGQUIT if hard else signal.SIGINT)
            try:
                process.wait(30.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextmanager
    def hung(self) -> Iterator[None]:
        """It is there, and does nothing: every process of it is stopped, and goes on afterwards."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)  # first, so that there are no more of them
        stopped = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        for child in stopped[1:]:
            os.kill(child, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in reversed(stopped):
                os.kill(process, signal.SIGCONT)

    def close(self) -> None:
        self.stop(hard=True)  # what a checkpoint would write goes with the directory
        shutil.rmtree(self._home, ignore_errors=True)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.psql(f"CREATE DATABASE {name}")
        yield self.url(name)  # dropping it would cost a checkpoint; it goes with the server

    def psql(self, statement: str, database: str = "postgres") -> str:
        """Run statements as a person would; return what they say, unaligned and bare."""
        return self._ask(
            [str(self._bin / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", self.url(database)], statement
        )

    def dump(self, database: str) -> str:
        """The database as statements that make it again."""
        command = [
            str(self._bin / "pg_dump"),
            "--inserts",
            "--no-owner",
            "--schema=thingctl",
            self.url(database),
        ]
        lines = self._ask(command, "").splitlines()
        return "\n".join(line for line in lines if line and not line.startswith(("--", "\\"))) + "\n"

    def _ask(self, command: list[str], statements: str) -> str:
        environ = {"PATH": os.environ["PATH"], "HOME": str(self._home)}
        ran = subprocess.run(
            command,
            input=statements,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environ,
        )
        assert not ran.returncode, ran.stderr
        return ran.stdout.strip()

    def _run(self, program: str, *arguments: object, check: bool = True) -> int:
        command = [*self._prefix, str(self._bin / program), *map(str, arguments)]
        environ = {"PATH": os.environ["PATH"], "HOME": str(self._home), "LC_ALL": "C.UTF-8"}
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env=environ, cwd="/"
        )
        assert not check or not ran.returncode, ran.stdout + ran.stderr
        return ran.returncode


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
