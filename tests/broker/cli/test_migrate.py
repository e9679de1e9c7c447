"""``thingctl migrate``, as a person runs it."""

from __future__ import annotations

import socket

import pytest

from broker.cli.running import Cli
from thingctl_broker.security.token_store import TokenStore

SECRET = "geheim"


@pytest.fixture
def command(tmp_path):
    return Cli("http://127.0.0.1:1", tmp_path)


@pytest.fixture
def data_dir(tmp_path):
    TokenStore.open(tmp_path / "data")
    return str(tmp_path / "data")


def test_it_says_what_it_has_moved(command, data_dir, postgres_url):
    with_password = postgres_url.replace("@", f":{SECRET}@")
    ran = command("migrate", "--data-dir", data_dir, "--store", with_password)
    assert (ran.code, ran.err) == (0, "")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["MOVED", "FOUND", "NEW", "THERE", "ALREADY"],
        ["things", "0", "0", "0"],
        ["tokens", "1", "1", "0"],
        ["secrets", "0", "0", "0"],
        ["rollouts", "0", "0", "0"],
        ["executions", "0", "0", "0"],
    ]
    again = command("migrate", "--data-dir", data_dir, "--json", env={"THINGCTL_STORE": postgres_url})
    assert again.json["tokens"] == {"found": 1, "added": 0}


def test_what_is_wrong_is_said_without_the_password(command, data_dir, tmp_path, postgres_url):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for url, code, fault in (
        (f"postgresql://me:{SECRET}@127.0.0.1:{port}/db", 3, "the store cannot be reached"),
        (f"postgresql://me:{SECRET}/x@127.0.0.1:{port}/db", 2, "percent-encoded"),
        (f"mysql://me:{SECRET}@127.0.0.1/db", 2, "the store is a URL such as"),
        (f"postgresql://me:{SECRET}@127.0.0.1/db?sslmode=perhaps", 2, "sslmode must be one of"),
        (postgres_url.replace("@", f":{SECRET}@") + "_none", 3, "database does not exist"),
    ):
        ran = command("migrate", "--data-dir", data_dir, "--store", url)
        assert (ran.code, ran.out) == (code, "")
        assert fault in ran.err
        assert SECRET not in ran.err
    ran = command("migrate", "--data-dir", str(tmp_path / "none"), "--store", postgres_url)
    assert ran.code == 1
    assert "there is no data directory" in ran.err
