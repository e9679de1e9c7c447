"""Programs that handlers run: their pipes, their process group and their end."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HEAD_MAX: Final = 16 * 1024
TAIL_MAX: Final = 48 * 1024
"""Bytes of the output that are kept, from its beginning and from its end."""

KILL_AFTER: Final = 2.0
"""Seconds between SIGTERM and SIGKILL to a process group that is to stop."""

DRAIN_WITHIN: Final = 0.2
"""Seconds that output is still read after the program has ended, while another process holds the pipe."""

LOOK_EVERY: Final = 0.05
"""Seconds between two looks at what no descriptor tells."""

LINE_MAX: Final = 4096
"""Bytes of one line for ``on_line``; a longer one comes in pieces."""

_BREAK: Final = re.compile(rb"[\r\n]+")


class Output:
    """The beginning and the end of what a program writes."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, piece: bytes) -> None:
        """Take in the next bytes."""
        room = HEAD_MAX - len(self._head)
        self._head += piece[:room]
        self._tail += piece[room:]
        surplus = max(len(self._tail) - TAIL_MAX, 0)
        self._left_out += surplus
        del self._tail[:surplus]

    def text(self) -> str:
        """All of it, or both ends with the number of bytes left out between them."""
        gap = f"\n… {self._left_out} bytes left out …\n".encode() if self._left_out else b""
        return (self._head + gap + self._tail).decode("utf-8", "replace")


class Lines:
    """Gives each line of the output that is not empty to a function. A carriage return ends a line, too."""

    def __init__(self, on_line: Callable[[str], object]) -> None:
        self._on_line = on_line
        self._unfinished = b""

    def add(self, piece: bytes) -> None:
        """Take in the next bytes."""
        *lines, self._unfinished = _BREAK.split(self._unfinished + piece)
        if len(self._unfinished) > LINE_MAX:
            lines, self._unfinished = [*lines, self._unfinished], b""
        for line in lines:
            self._give(line)

    def end(self) -> None:
        """There is no more."""
        self._give(self._unfinished)
        self._unfinished = b""

    def _give(self, line: bytes) -> None:
        for start in range(0, len(line), LINE_MAX):
            self._on_line(line[start : start + LINE_MAX].decode("utf-8", "replace"))


class Program:
    """A program in a process group of its own, from its start to its end.

    All but :meth:`stop` and :meth:`kill` is for one thread.
    """

    def __init__(
        self, command: Sequence[str], stdin: bytes, env: dict[str, str] | None, cwd: str | None
    ) -> None:
        """Start it. Raises :class:`OSError` when it cannot be started."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a list and no shell
                list(command),
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=env,
                cwd=cwd,
            )
        except BaseException:
            os.close(self._wake)
            raise
        self._unwritten = memoryview(stdin)
        self._output = Output()
        self._reading = True
        self._stop_asked = False
        self._kill_at: float | None = None
        self._ended_at: float | None = None

    def stop(self) -> None:
        """Ask it to end: SIGTERM to its group, and SIGKILL ``KILL_AFTER`` later. From any thread."""
        self._stop_asked = True
        os.eventfd_write(self._wake, 1)

    def kill(self) -> None:
        """SIGKILL to its group, without waiting. From any thread."""
        self._signal(signal.SIGKILL)

    def talk(self, on_line: Callable[[str], object] | None) -> tuple[int, str]:
        """Write, read, and wait for its end; returns its return code and its output.

        An exception out of ``on_line`` stops the program, and is raised when it has ended.
        """
        lines = None if on_line is None else Lines(on_line)
        try:
            self._pump(lines)
            if lines is not None:
                lines.end()
        except BaseException:
            self.stop()
            self._pump(None)
            raise
        return self._process.wait(), self._output.text()

    def close(self) -> None:
        """Give the descriptors back. No other call may follow."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()
        os.close(self._wake)

    # -- inside

    def _pump(self, lines: Lines | None) -> None:
        process, poll = self._process, select.poll()
        poll.register(self._wake, select.POLLIN)
        assert process.stdout is not None
        handles: dict[int, Callable[[], bool]] = {}
        if self._reading:
            handles[process.stdout.fileno()] = lambda: self._read(lines)
            poll.register(process.stdout.fileno(), select.POLLIN)
        if process.stdin is not None and not process.stdin.closed:
            handles[process.stdin.fileno()] = self._write
            os.set_blocking(process.stdin.fileno(), False)
            poll.register(process.stdin.fileno(), select.POLLOUT)
        with _pidfd(process.pid) as pidfd:
            if pidfd is not None:
                poll.register(pidfd, select.POLLIN)
            while not self._is_over():
                for descriptor, _ in poll.poll(self._patience(told=pidfd is not None)):
                    is_done = descriptor == pidfd or (descriptor in handles and not handles[descriptor]())
                    if descriptor == self._wake:
                        os.eventfd_read(self._wake)
                    elif is_done:
                        poll.unregister(descriptor)

    def _patience(self, *, told: bool) -> int | None:
        """Milliseconds to wait for a descriptor. ``told``: one of them tells that the program has ended."""
        looking = self._ended_at is not None or self._kill_at is not None or not told
        return int(LOOK_EVERY * 1000) if looking else None

    def _is_over(self) -> bool:
        now = time.monotonic()
        if self._stop_asked and self._kill_at is None:
            self._kill_at = now + KILL_AFTER
            self._signal(signal.SIGTERM)
        if self._ended_at is None and self._has_ended():
            self._ended_at = now
        if self._kill_at is None:
            return self._ended_at is not None and (not self._reading or now >= self._ended_at + DRAIN_WITHIN)
        if now >= self._kill_at:
            self._signal(signal.SIGKILL)
            return self._ended_at is not None
        return self._ended_at is not None and not group_lives(self._process.pid)

    def _has_ended(self) -> bool:
        """Whether it has, without reaping it: as long as it is a zombie no other group has its number."""
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # a handler has waited for all children
            return True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended
            os.killpg(self._process.pid, number)

    def _read(self, lines: Lines | None) -> bool:
        """Read what there is; returns whether there may be more."""
        assert self._process.stdout is not None
        piece = os.read(self._process.stdout.fileno(), 65536)
        self._reading = bool(piece)
        self._output.add(piece)
        if lines is not None:
            lines.add(piece)
        return self._reading

    def _write(self) -> bool:
        """Write what the pipe takes; returns whether there is more."""
        assert self._process.stdin is not None
        try:
            done = os.write(self._process.stdin.fileno(), self._unwritten[:65536])
            self._unwritten = self._unwritten[done:]
        except BlockingIOError:
            return True
        except OSError:  # it does not want to read
            self._unwritten = self._unwritten[:0]
        if not self._unwritten:
            self._process.stdin.close()
        return bool(self._unwritten)


def group_lives(group: int) -> bool:
    """Whether a process of the group runs. Zombies do not, and stay for ever where init reaps none."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            state, _, its_group = file.read().rpartition(b")")[2].split()[:3]
            if int(its_group) == group and state not in {b"Z", b"X"}:
                return True
    return False


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    """A descriptor that becomes readable when the process ends; ``None`` where there is none."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
