"""Standard error as a place for log lines: a write neither raises nor blocks.

A log is no dependency of the work. When its file is closed, its disk is full or the reader
of its pipe does not read, lines are dropped and counted. The next line that can be written
is preceded by the count.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing import TextIO

PIECE: Final = 4096
"""Bytes of one write. A pipe that polls as writable takes so many without blocking (pipe(7))."""

PATIENCE: Final = 0.1
"""Seconds that a line waits for a slow reader. After one line that waited in vain, none waits."""

LOCK_WITHIN: Final = 0.5
"""Seconds to wait for another thread's line. A forked child may hold a lock that is never released."""


class LogStream:
    """Writes text to a descriptor or a text stream."""

    def __init__(self, stream: TextIO | None) -> None:
        """``stream``: usually ``sys.stderr``, which is ``None`` when descriptor 2 was closed at start.

        The descriptor is duplicated: a handler that closes descriptor 2 does not send the log
        into the socket that takes its number.
        """
        self._stream = stream
        self._descriptor = _duplicate(stream)
        self._lock = threading.Lock()
        self._patient = True
        self._torn = False
        self.dropped = 0

    def write(self, text: str) -> None:
        """Write ``text``, or drop and count it."""
        if not self._lock.acquire(timeout=LOCK_WITHIN):
            self.dropped += 1
            return
        try:
            self._write(text)
        finally:
            self._lock.release()

    msg = log = debug = info = warn = warning = error = critical = exception = fatal = failure = err = write
    """A logger's methods, as structlog calls them with one rendered line."""

    def flush(self) -> None:
        """Do nothing: each line is written when it comes."""

    def close(self) -> None:
        """Give the duplicated descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = self._stream = None

    def __call__(self, *_: Any) -> LogStream:
        """Return itself: a logger factory for structlog."""
        return self

    def _write(self, text: str) -> None:
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        if self.dropped:
            line = f"{self.dropped} log lines were dropped\n".encode() + line
        if self._torn:
            line = b"\n" + line
        done = self._put(line)
        self._torn = 0 < done < len(line) or (self._torn and not done)
        self.dropped = 0 if done == len(line) else self.dropped + 1

    def _put(self, line: bytes) -> int:
        """Write as much as can be written without blocking; returns the number of bytes."""
        if self._descriptor is None:
            return self._put_to_stream(line)
        done = 0
        with contextlib.suppress(OSError):
            while done < len(line) and self._writable(self._descriptor):
                done += os.write(self._descriptor, line[done : done + PIECE])
        return done

    def _put_to_stream(self, line: bytes) -> int:
        if self._stream is None:
            return len(line)
        try:
            self._stream.write(line.decode())
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: it is closed, or its encoding has no such character
            return 0
        return len(line)

    def _writable(self, descriptor: int) -> bool:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        ready = bool(poll.poll(PATIENCE * 1000 if self._patient else 0))
        self._patient = ready
        return ready


def _duplicate(stream: TextIO | None) -> int | None:
    """A descriptor of its own above the standard ones, or ``None`` for a stream without one."""
    import fcntl  # noqa: PLC0415 - beside its only use

    try:
        return fcntl.fcntl(stream.fileno(), fcntl.F_DUPFD_CLOEXEC, 3) if stream is not None else None
    except (OSError, ValueError):
        return None


def keep_standard_descriptors() -> None:
    """Open ``/dev/null`` for each of the descriptors 0 to 2 that is closed.

    Otherwise the next socket or file takes its number, and what is printed is written into it.
    """
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)


def print_safely(text: str) -> None:
    """Print ``text`` to standard output; one that is closed, full or unread is ignored."""
    with contextlib.closing(LogStream(sys.stdout)) as lines:
        lines.write(text)
