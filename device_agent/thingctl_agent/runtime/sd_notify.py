"""Reports to systemd: sd_notify(3), in ten lines instead of a library."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """Sends state to the service manager; does nothing when there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_interval = _watchdog(environ)
        """Seconds between two signs of life; ``None``: systemd waits for none."""

    def ready(self) -> None:
        """Started. Said before connecting: a device without a network has started all the same."""
        self._send("READY=1")

    def alive(self) -> None:
        """Still at work."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={text}")

    def stopping(self) -> None:
        """About to end."""
        self._send("STOPPING=1")

    def stopping_takes(self, seconds: float) -> None:
        """Ask for more time than the unit's TimeoutStopSec, from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
                notify.setblocking(False)
                notify.sendto(state.encode(), self._address)
        except OSError:
            pass  # a service manager that does not listen is no reason to stop


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Half of what the unit's WatchdogSec allows, if it is meant for this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(environ["WATCHDOG_USEC"]) / 2_000_000
    except (KeyError, ValueError):
        return None
