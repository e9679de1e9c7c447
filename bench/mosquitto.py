"""A bare mosquitto, set as fast as it goes, for as long as a ``with`` block lasts."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from processes import BenchError, Child

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIG: Final = """\
listener {port} 127.0.0.1
allow_anonymous true
{persistence}
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_type error
"""


def find() -> str | None:
    """Where mosquitto is installed, if it is (Debian puts it outside an ordinary PATH)."""
    return shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")


def free_port() -> int:
    """A port that was free a moment ago, for servers that cannot choose one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(child: Child, port: int, seconds: float = 10.0) -> None:
    """Return when something listens on the port; raise :class:`BenchError` when nothing does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and child.alive:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise BenchError(f"{child.name} does not listen on port {port}")


@contextlib.contextmanager
def running(cores: frozenset[int] | None = None, *, kept: bool = False) -> Iterator[tuple[Child, int]]:
    """Run mosquitto; yield it and its port. ``kept``: with ``persistence true``."""
    binary = find()
    if binary is None:
        raise BenchError("mosquitto is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="thingctl-bench-") as folder:
        config = Path(folder, "mosquitto.conf")
        persistence = f"persistence true\npersistence_location {folder}/" if kept else "persistence false"
        config.write_text(_CONFIG.format(port=port, persistence=persistence))
        with Child("mosquitto", [binary, "-c", str(config)], cores=cores) as child:
            wait_for_port(child, port)
            yield child, port
