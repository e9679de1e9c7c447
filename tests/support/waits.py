"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE = 10.0


class Deadline:
    """Passes after ``seconds`` in which this thread could run: the time it waited for a CPU is added.

    A broker in this thread gets less done in a second of a loaded machine than of a quiet one.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._waited = _waited_for_cpu()

    def has_passed(self) -> bool:
        now = time.monotonic()
        return now >= self._end and now >= self._end + _waited_for_cpu() - self._waited


def _waited_for_cpu() -> float:
    """Seconds that this thread has been ready to run and did not; 0 where the kernel does not count."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


async def eventually(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Let the loop run until ``condition()`` is true; fail after ``seconds`` in which it could run."""
    deadline = Deadline(seconds)
    while not condition():
        assert not deadline.has_passed(), "it never came to be"
        await asyncio.sleep(0.002)


def soon(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Look again and again until ``condition()`` is true; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)
