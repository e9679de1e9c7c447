"""HAProxy, as it stands before a broker."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.needs import missing
from support.processes import ROOT, output, process
from support.waits import soon


def program() -> str:
    """Where HAProxy is; a test that needs it ends here when it is nowhere."""
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        missing("haproxy is not installed (apt-get install haproxy)")
    return found


@contextmanager
def haproxy(folder: Path, text: str, *ports: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """HAProxy with the settings ``text``, from when all ``ports`` of 127.0.0.1 are open."""
    config = folder / "haproxy.cfg"
    config.write_text(text)
    with process(program(), "-db", "-f", config, **environment) as running:

        def listens(port: int) -> bool:
            assert running.poll() is None, output(running)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        for port in ports:
            soon(lambda port=port: listens(port), 30)
        yield running


def recipe(*, web: int, mqtt: int, http_broker: str, mqtt_broker: str) -> str:
    """The settings in docs/operations.md, on ports of this machine and without TLS."""
    page = (ROOT / "docs" / "operations.md").read_text()
    text = page.partition("```haproxy\n")[2].partition("```\n")[0]
    for written, tried in (
        ("bind :443 ssl crt /etc/haproxy/fleet.pem", f"bind 127.0.0.1:{web}"),
        ("bind :8883", f"bind 127.0.0.1:{mqtt}"),
        ("127.0.0.1:8080", http_broker),
        ("127.0.0.1:1883", mqtt_broker),
    ):
        assert text.count(written) == 1, written
        text = text.replace(written, tried)
    return text
