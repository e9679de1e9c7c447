"""Tell systemd that the broker serves, lives and ends: sd_notify(3)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

READY: Final = "READY=1"
ALIVE: Final = "WATCHDOG=1"
STOPPING: Final = "STOPPING=1"


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send ``state`` to the service manager. Without one, or when it does not listen, do nothing."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux' abstract name space
        address = f"\0{address[1:]}"
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.setblocking(False)
        sender.sendto(state.encode(), address)


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two signs of life: half of the unit's ``WatchdogSec``. None: none are expected."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(environ["WATCHDOG_USEC"]) / 2_000_000
    except (KeyError, ValueError):
        return None


@contextlib.asynccontextmanager
async def served(environ: Mapping[str, str] = os.environ) -> AsyncIterator[None]:
    """Report readiness now, signs of life from the loop while the block runs, and the end after it."""
    notify(READY, environ)
    seconds = watchdog_seconds(environ)
    beating = None if seconds is None else asyncio.create_task(_beat(seconds, environ))
    try:
        yield
    finally:
        if beating is not None:
            beating.cancel()
        notify(STOPPING, environ)


async def _beat(seconds: float, environ: Mapping[str, str]) -> None:
    while True:
        notify(ALIVE, environ)
        await asyncio.sleep(seconds)
