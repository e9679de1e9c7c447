"""Standard output and error that are full or closed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from broker.http.running import TOKEN
from thingctl_broker.cli.exits import Exit

FULL = Path("/dev/full")

COMMANDS = [
    ["--help"],
    ["--version"],
    ["list"],
    ["list", "--json"],
    ["things"],
    ["things", "list"],
    ["thing-types", "list", "--json"],
    ["tokens"],
    ["tokens", "add", "t", "things:read"],
    ["send", "lamp", "x"],
    ["send", "lamp", "x", "--json"],
    ["completion", "bash"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_is_a_sentence(api, cli, command):
    api.send()
    with FULL.open("wb") as full, cli.start(*command, stdout=full) as process:
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err.decode()) == (
        Exit.REFUSED,
        "thingctl: stdout: No space left on device\n",
    )


@pytest.mark.parametrize("command", [["tls", "init", "--dir", "tls"], ["tls", "--help"]], ids=" ".join)
def test_so_it_is_of_commands_that_need_no_broker(cli, tmp_path, command):
    with FULL.open("wb") as full, cli.start(*command, stdout=full, cwd=tmp_path) as process:
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (Exit.REFUSED, b"thingctl: stdout: No space left on device\n")


def test_a_broker_serves_although_it_cannot_say_where(cli, tmp_path):
    ports = ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    no_warnings = {"PYTHONWARNINGS": "ignore"}  # amqtt's own
    with (
        FULL.open("wb") as full,
        cli.start(
            "serve", "--data-dir", str(tmp_path / "d"), *ports, stdout=full, env=no_warnings
        ) as process,
    ):
        served = next(line for line in iter(process.stderr.readline, b"") if b'"serving"' in line)
        with closing(HTTPConnection(json.loads(served)["http"], timeout=10)) as client:
            client.request("GET", "/readyz")
            assert client.getresponse().status == 200
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, b"Traceback" in err) == (0, False)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_reader_that_is_gone_ends_the_command_silently(api, cli, command):
    api.send()
    with cli.start(*command) as process:
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=20)
    assert (process.returncode, err) == (Exit.PIPE_CLOSED, b"")


@pytest.mark.parametrize("command", [["list"], ["nonsense"], ["things", "show", "nosuch"]], ids=" ".join)
def test_errors_that_cannot_be_written_leave_the_exit_code(cli, command):
    with FULL.open("wb") as full, cli.start(*command, stderr=full) as process:
        process.communicate(timeout=20)
    assert process.returncode == cli(*command).code


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&-", ">&- 2>&-"])
def test_streams_that_are_closed_are_no_fault(api, cli, closing):
    api.send()
    shell = f'exec "$0" -m thingctl_broker.cli list --token {TOKEN} {closing}'
    ran = subprocess.run(
        ["sh", "-c", shell, sys.executable], env=cli.environ, capture_output=True, timeout=20, check=False
    )
    assert (ran.returncode, ran.stderr) == (Exit.OK, b"")
