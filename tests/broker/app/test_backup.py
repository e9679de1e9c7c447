"""A backup of a running broker, restored as docs/operations.md says."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import stat
import subprocess
import tarfile
from contextlib import ExitStack, closing
from urllib.request import Request, urlopen

import pytest

from support.processes import BIN, ROOT, TOKEN, serving
from thingctl_broker.app.backup import BackupError, back_up

THINGS = ("a", "b", "c")


def call(broker, method, path, body=None):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{broker.http}/api/v1/{path}", data, headers, method=method)) as answer:
        return json.load(answer)


@pytest.mark.system
def test_a_backup_of_a_running_broker_restores_whole(tmp_path):
    data, file = tmp_path / "thingctl", tmp_path / "b.tar"
    with serving(data, enrolment="--closed") as broker:
        for name in THINGS:
            call(broker, "POST", "things", {"name": name})
        one = call(broker, "POST", "commands", {"thingId": "a", "action": "x", "ttl": 3600})
        rollout = {"targets": {"things": THINGS}, "action": "y", "ttl": 3600, "rollout": {"batch": 1}}
        command = call(broker, "POST", "commands", rollout)["commandId"]
        group = call(broker, "POST", f"groups/{command}/pause")
        (data / "tls").mkdir()
        (data / "tls" / "server.key").write_text("key")
        subprocess.run([BIN / "thingctl", "backup", file, "--data-dir", data], check=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    page = (ROOT / "docs" / "operations.md").read_text().partition("## Backing up")[2]
    (steps,) = re.findall(r"```sh\n(mv DATA_DIR .*?)```", page, re.DOTALL)
    for line in steps.splitlines():
        words = shlex.split(line.replace("DATA_DIR", str(data)).replace("FILE.tar", str(file)), comments=True)
        subprocess.run(words, check=True)
    assert (tmp_path / "thingctl.before").is_dir()
    assert (data / "tls" / "server.key").read_text() == "key"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in data.rglob("*") if path.name != "server.key"}
    assert not {mode for mode in modes if mode & 0o077 and mode != 0o755}
    with serving(data, enrolment="--closed") as broker:
        assert call(broker, "GET", f"commands/{one['executionId']}")["status"] == "SENT"
        restored = call(broker, "GET", f"groups/{command}")
        keys = ("state", "targeted", "pending")
        assert [restored[key] for key in keys] == [group[key] for key in keys]
        assert [thing["name"] for thing in call(broker, "GET", "things")["things"]] == list(THINGS)


def test_the_roll_outs_come_last_and_what_sqlite_leaves_is_left_out(tmp_path):
    data = tmp_path / "data"
    (data / "rollouts").mkdir(parents=True)
    for name in ("tokens.json", "webhook-secret", "zzz", "rollouts/1.json", "lock", "executions.db-wal"):
        (data / name).write_text(name)
    back_up(data, None, tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as archive:
        names = archive.getnames()
    assert names == ["data/tokens.json", "data/webhook-secret", "data/zzz", "data/rollouts/1.json"]


def test_each_database_is_copied_as_of_a_moment_with_what_its_log_holds(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "tokens.json").write_text("{}")
    names = ("executions.db", "registry.db", "mqtt.db")
    with ExitStack() as used:
        for name in names:
            connection = used.enter_context(closing(sqlite3.connect(data / name, isolation_level=None)))
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE t AS SELECT 'in the log' AS value")
        back_up(data, None, tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert archive.getnames() == [f"data/{name}" for name in (*names, "tokens.json")]
        for name in names:
            copied = archive.extractfile(f"data/{name}")
            assert copied is not None
            (tmp_path / name).write_bytes(copied.read())
    for name in names:
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert connection.execute("SELECT value FROM t").fetchall() == [("in the log",)]


def test_what_cannot_be_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(BackupError, match="no broker's data directory"):
        back_up(tmp_path, None, tmp_path / "b.tar")
    (tmp_path / "tokens.json").write_text("{}")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(BackupError, match="File exists"):
        back_up(tmp_path, None, tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    (tmp_path / "registry.db").write_text("no database at all, but long enough to be looked at" * 99)
    with pytest.raises(BackupError, match="failed and was removed"):
        back_up(tmp_path, None, tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()
