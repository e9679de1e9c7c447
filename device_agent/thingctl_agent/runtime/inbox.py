"""What wakes the loop: calls from other threads, signals, and the connection's socket."""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Socket(Protocol):
    """A connection to wait for."""

    @property
    def wants_write(self) -> bool:
        """Whether something waits to be written."""
        ...

    def fileno(self) -> int:
        """Its descriptor; -1: it has none any more."""
        ...


BATCH: Final = 100
"""Calls that the loop makes before it looks at its connection again."""


class RequestInbox:
    """Holds what the loop is to call, and lets it wait until there is something to do."""

    def __init__(self) -> None:
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._poll = select.poll()
        self._registered = -1
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._wake_read, select.POLLIN)

    def post(self, what: Callable[[], None]) -> None:
        """Have ``what`` called by the loop, soon; from any thread."""
        self._calls.append(what)
        with contextlib.suppress(OSError):  # full: it will wake up anyway; or closed: it has ended
            os.write(self._wake_write, b"\0")

    def take(self) -> Callable[[], None] | None:
        """What is to be called next; ``None``: nothing more at present."""
        return self._calls.popleft() if self._calls else None

    def wait(self, seconds: float, connection: Socket | None) -> bool:
        """Wait for something to happen, ``seconds`` at most (``inf``: as long as it takes).

        Returns whether the connection has something to read.
        """
        self._register(connection)
        timeout = None if seconds == float("inf") else max(0, int(seconds * 1000) + 1)
        if self._calls:
            timeout = 0
        readable = False
        for descriptor, what in self._poll.poll(timeout):
            if descriptor == self._wake_read:
                if what & select.POLLNVAL:
                    raise OSError(errno.EBADF, "a handler has closed the agent's descriptors")
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            else:
                readable = True
        return readable

    def take_signals(self, calls: Mapping[signal.Signals, Callable[[], None]]) -> Callable[[], None]:
        """Have each signal's call made by the loop; returns what puts the signals back as they were.

        Does nothing in a thread that is not the main one, which signals do not reach.
        """
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        old = {number: signal.signal(number, self._on_signal(what)) for number, what in calls.items()}
        old_descriptor = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

        def restore() -> None:
            signal.set_wakeup_fd(old_descriptor)
            for number, handler in old.items():
                signal.signal(number, handler)

        return restore

    def release(self) -> None:
        """In a forked child: close the wake-up pipe, and give the signals their default effects."""
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _on_signal(self, what: Callable[[], None]) -> Callable[[int, object], None]:
        return lambda *_: self._calls.append(what)  # the interpreter writes to the wake-up descriptor

    def _register(self, connection: Socket | None) -> None:
        descriptor = -1 if connection is None else connection.fileno()
        if self._registered not in {-1, descriptor}:
            with contextlib.suppress(KeyError, OSError):
                self._poll.unregister(self._registered)
        self._registered = descriptor
        if connection is not None and descriptor != -1:
            self._poll.register(descriptor, select.POLLIN | (select.POLLOUT if connection.wants_write else 0))
