"""Child processes of a benchmark: pinned, bounded in time, spoken to in JSON lines, ended by handle."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_CPUCLOCK_SCHED: Final = 2
STOP_SECONDS: Final = 10.0


class BenchError(Exception):
    """A process did not do what it was started for."""


def allow_many_files() -> None:
    """Raise the limit of open files as far as it goes; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def on_cores(cores: frozenset[int] | None) -> Iterator[None]:
    """Run the body, and whatever it starts, on ``cores``: children inherit the affinity."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Child:
    """A process that lives within a ``with`` block, and whose stdout is read line by line."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        cores: frozenset[int] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 stop() closes it
        with on_cores(cores):
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                text=True,
                bufsize=1,
            )
        self._reader = threading.Thread(target=self._read, name=f"read {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._popen.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def line(self, seconds: float) -> str:
        """The next line of stdout; raises :class:`BenchError` when none comes in time."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise BenchError(f"{self.name} said nothing for {seconds:g} s{self._last_words()}") from None
        if line is None:
            self._lines.put(None)
            raise BenchError(f"{self.name} ended{self._last_words()}")
        return line

    def expect(self, event: str, seconds: float) -> dict[str, Any]:
        """The next JSON line whose ``event`` is this one."""
        end = time.monotonic() + seconds
        while True:
            line = self.line(max(0.01, end - time.monotonic()))
            try:
                found = json.loads(line)
            except ValueError:
                continue  # a banner or a log line
            if isinstance(found, dict) and found.get("event") == event:
                return found

    def say(self, word: str) -> None:
        """Write a line to stdin."""
        stdin = self._popen.stdin
        assert stdin is not None
        try:
            stdin.write(f"{word}\n")
            stdin.flush()
        except OSError:
            raise BenchError(f"{self.name} has ended{self._last_words()}") from None

    def ask(self, word: str, event: str | None = None, seconds: float = 30.0) -> dict[str, Any]:
        """Say a word and return the JSON line that answers it."""
        self.say(word)
        return self.expect(event or word, seconds)

    def stop(self) -> int:
        """End the process: politely, then for certain. Returns its exit code."""
        if self.alive:
            self._popen.send_signal(signal.SIGTERM)
        try:
            code = self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            code = self._popen.wait()
        self._reader.join(1)
        for stream in (self._popen.stdin, self._popen.stdout, self._errors):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        return code

    def _read(self) -> None:
        stdout = self._popen.stdout
        assert stdout is not None
        with contextlib.suppress(ValueError, OSError):  # closed under our hands: the child was stopped
            for line in stdout:
                self._lines.put(line)
        self._lines.put(None)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - 2000))
            words = self._errors.read().decode(errors="replace").strip()
            if words:
                return f"; its last words:\n{words}"
        return ""


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time of these processes so far, all their threads, user and system, to the nanosecond.

    The clock of another process is ``CPUCLOCK_SCHED`` beside its inverted id (Linux, ``posix-timers.h``);
    ``/proc`` has the same figure in ticks of 10 ms.
    """
    return sum(time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED) for pid in pids) / 1e9


def tree_cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children so far, those that have ended included.

    PostgreSQL is a process for each connection, and its checkpointer and WAL writer besides.
    """
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(stat.parent.name) == pid:
            total += sum(map(int, fields[11:15]))
        elif int(fields[1]) == pid:
            total += sum(map(int, fields[11:13]))
    return total / _TICKS


def core_seconds(cores: frozenset[int]) -> float:
    """For how long these cores have worked so far, whoever for."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in fields[:7])
            total += user + nice + system + irq + softirq
    return total / _TICKS


def rss_bytes(pids: Sequence[int]) -> int:
    """Resident memory of these processes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * _PAGE
