"""How long a broker takes to read back what it has kept, and what that costs.

``THINGCTL_EXECUTIONS=1000000`` for the figure that counts; ``-s`` shows it.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from broker_support import make_execution
from support.processes import BIN, TOKEN, output, process, until_said
from thingctl_broker.storage.sqlite.execution_rows import to_rows, upserts
from thingctl_broker.storage.sqlite.journal import SqliteJournal
from thingctl_protocol.identifiers import IdSource
from thingctl_protocol.statuses import Status

pytestmark = pytest.mark.system

EXECUTIONS = int(os.environ.get("THINGCTL_EXECUTIONS", "20000"))
LIVE = 1000


def keep(directory, count):
    """A data directory with ``count`` executions of 1,000 things; the last ``LIVE`` of them run."""
    SqliteJournal(directory).release()
    ids, at = IdSource(), time.time() - 3600
    with closing(sqlite3.connect(directory / "executions.db", isolation_level=None)) as connection:
        for first in range(0, count, 10_000):
            executions = []
            for i in range(first, min(first + 10_000, count)):
                ended = i < count - LIVE
                created = at + 3600 * i / count
                execution = make_execution(
                    execution_id=ids.make(int(created * 1000), i),
                    command_id=ids.make(int(created * 1000), i),
                    thing=f"thing-{i % 1000}",
                    ttl=60 if ended else 600_000,
                    created_at=created,
                    requested_by="admin",
                    status=Status.SUCCEEDED if ended else Status.SENT,
                    result=b'{"currentTemperature":24}' if ended else None,
                    attempts=1 if ended else 0,
                )
                if ended:
                    execution.published_at = execution.delivered_at = created + 0.001
                    execution.started_at = execution.ended_at = created + 0.01
                executions.append(execution)
            connection.execute("BEGIN")
            for statement, values in upserts(to_rows(executions)):
                connection.execute(statement, values)
            connection.execute("COMMIT")
    return executions[-1].execution_id


def test_a_broker_reads_back_what_it_has_kept(tmp_path):
    last = keep(tmp_path, EXECUTIONS)
    size = (tmp_path / "executions.db").stat().st_size
    config = tmp_path / "broker.toml"
    config.write_text(f"[commands]\ntable = {EXECUTIONS}\n")
    ports = ("--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0")
    command = (BIN / "thingctl", "serve", "--open", *ports, "--data-dir", tmp_path, "--config", config)
    began = time.monotonic()
    with process(*command, THINGCTL_ADMIN_TOKEN=TOKEN) as broker:
        said = until_said(broker, "\ndata ", 180.0)
        ready = time.monotonic() - began
        http = re.search(r"http +http://(\S+):(\d+)", said)
        with closing(HTTPConnection(http[1], int(http[2]))) as connection:
            connection.request(
                "GET", f"/api/v1/commands/{last}", headers={"Authorization": f"Bearer {TOKEN}"}
            )
            assert connection.getresponse().status == 200
        status = Path(f"/proc/{broker.pid}/status").read_text()
        ticks = Path(f"/proc/{broker.pid}/stat").read_text().rsplit(") ")[1].split()[11:13]
        cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        memory = int(status.split("VmRSS:")[1].split()[0]) * 1024
        told = next(line for line in output(broker).splitlines() if "executions recovered" in line)
        broker.terminate()
        assert broker.wait(20) == 0
    print(
        f"\n{EXECUTIONS:,} executions, {size / 1e6:.0f} MB on the disk: ready after {ready:.1f} s ({cpu:.1f} s of CPU), {memory / 1e6:.0f} MB"
    )
    print(told)
    assert f'"count": {EXECUTIONS}' in told
    assert ready < 20 + EXECUTIONS / 10_000
