"""The end of the agent's process, whatever threads handlers have left."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_WITHIN: Final = 1.0
"""Seconds that functions registered at ``atexit`` have together."""


OURS: Final = frozenset({"handler", "async handlers", "dial", "end"})
"""Names of the agent's own threads: daemons that do not keep the interpreter from ending."""


def threads_left(before: Iterable[threading.Thread] = ()) -> bool:
    """Whether a thread may keep the interpreter from ending. ``before``: threads that do not count.

    Daemons count, too: the interpreter waits for those of a ``ThreadPoolExecutor``.
    """
    harmless = {threading.main_thread(), threading.current_thread(), *before}
    return any(thread not in harmless and thread.name not in OURS for thread in threading.enumerate())


def leave() -> None:
    """Run what is registered at ``atexit``, for ``EXIT_WITHIN`` at the most, and end the process.

    The interpreter's own end would wait for threads, and aborts when a daemon thread holds a
    stream's lock.
    """
    with contextlib.suppress(RuntimeError):  # no thread: then not even atexit is safe
        threading.Thread(target=_end_later, name="end", daemon=True).start()
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()  # noqa: SLF001 - nothing public runs them without waiting for threads
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
    os._exit(0)


def leave_at_exit() -> None:
    """Call :func:`leave` when the main thread has ended, before the interpreter waits for others."""
    threading._register_atexit(leave)  # type: ignore[attr-defined]  # noqa: SLF001 - atexit comes after the wait


def _end_later() -> None:
    time.sleep(EXIT_WITHIN)
    os._exit(0)
