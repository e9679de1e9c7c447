"""The command line, and the doctor behind ``check``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.harness import ROOT, mosquitto
from thingctl_agent.runtime import options
from thingctl_agent.runtime.journal import CallJournal
from thingctl_agent.setup import cli

THERMOSTAT = str(ROOT / "examples" / "thermostat.py")


def test_a_plain_run_needs_no_argparse_and_says_the_same():
    words = ["run", "a.py", "b.py", "--thing", "t", "--url=mqtt://x", "--state-dir", "/s"]
    plain, full = cli._plain_run(words), cli._parse(words)
    assert plain is not None
    assert plain.files == full.files == ["a.py", "b.py"]
    assert options.overrides(plain) == options.overrides(full)
    assert plain.config is full.config is None


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["check"],
        ["run", "--help"],
        ["run", "--thin", "t"],
        ["run", "--thing"],
        ["run", "-x"],
        ["run", "--thing", "--url"],
    ],
)
def test_all_the_rest_is_for_argparse(words):
    assert cli._plain_run(words) is None


@pytest.mark.parametrize("command", ["run", "check", "doctor", "install"])
def test_every_setting_is_in_the_help_of_each_command_with_a_connection(capsys, command):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(f"--{name}" in out for name in options.SETTINGS)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", THERMOSTAT], "which thing is this"),
        (["run", "--thing", "t"], "nothing to serve"),
        (["run", "/no/such.py", "--thing", "t"], "there is no file"),
        (["run", str(ROOT / "pyproject.toml"), "--thing", "t"], "is no Python file"),
        (["run", str(ROOT / "tests" / "agent" / "core.py"), "--thing", "t"], "has no Agent in it"),
    ],
)
def test_what_cannot_be_run_is_said_with_exit_code_2(capsys, monkeypatch, words, text):
    monkeypatch.delenv("THINGCTL_THING", raising=False)
    assert cli.main(words) == 2
    assert text in capsys.readouterr().err


def test_a_file_that_raises_is_shown_with_its_traceback(capsys, tmp_path):
    (tmp_path / "bad.py").write_text("1/0\n")
    assert cli.main(["run", str(tmp_path / "bad.py"), "--thing", "t"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def check(capsys, *words):
    code = cli.main(["check", "--thing", "t", *words])
    return code, capsys.readouterr().out


def test_check_finds_nothing_wrong_where_nothing_is(capsys, tmp_path):
    with mosquitto(tmp_path) as broker:
        code, out = check(capsys, "--url", broker.url, "--state-dir", str(tmp_path / "s"), THERMOSTAT)
    assert (code, "all is well" in out) == (0, True), out
    assert "setTemperature" in out
    assert "the broker accepts this thing" in out


def test_check_takes_no_request_away(capsys, tmp_path):
    from agent.harness import AgentProcess, Tracker

    with mosquitto(tmp_path) as broker, Tracker(broker.port) as tracker:
        with AgentProcess(Path(THERMOSTAT), broker.url, tmp_path / "s", thing="t") as agent:
            agent.stop()
        waiting = tracker.request("t", "getTemperature", ttl=600)
        assert check(capsys, "--url", broker.url, "--state-dir", str(tmp_path / "s"))[0] == 0
        with AgentProcess(Path(THERMOSTAT), broker.url, tmp_path / "s", thing="t"):
            assert tracker.final(waiting)["status"] == "SUCCEEDED"


def test_check_leaves_a_running_agent_alone(capsys, tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1")
    with mosquitto(tmp_path) as broker:
        code, out = check(capsys, "--url", broker.url, "--state-dir", str(tmp_path))
    journal.close()
    assert code == 0
    assert "an agent is running" in out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["--url", "mqtt://127.0.0.1:1"],
            "WRONG 127.0.0.1:1 refuses the connection: does the broker run there",
        ),
        (
            ["--url", "mqtt://no-such-host.invalid"],
            "WRONG the name 'no-such-host.invalid' cannot be resolved",
        ),
        (["--state-dir", "/proc/nothing"], "WRONG state directory"),
        (["/no/such.py"], "WRONG handlers: there is no file"),
        (["--url", "nonsense"], "WRONG 'nonsense' is no broker's URL"),
    ],
)
def test_check_says_what_is_wrong(capsys, tmp_path, words, text):
    base = [] if "--state-dir" in words else ["--state-dir", str(tmp_path)]
    url = [] if "--url" in words else ["--url", "mqtt://127.0.0.1:1"]
    code, out = check(capsys, *base, *url, *words)
    assert code == 1
    assert text in out


def test_check_mentions_a_damaged_journal_and_a_disk_in_memory(capsys, tmp_path, monkeypatch):
    (tmp_path / "journal").write_bytes(b"x" * 5000)
    monkeypatch.setattr("thingctl_agent.setup.diagnostics.file_system", lambda _: "tmpfs")
    _, out = check(capsys, "--url", "mqtt://127.0.0.1:1", "--state-dir", str(tmp_path))
    assert "journal was damaged" in out
    assert "is in memory" in out


def test_check_says_where_the_url_should_be(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("THINGCTL_URL", "mqtt://127.0.0.1:1")
    code, out = check(capsys, "--state-dir", str(tmp_path))
    assert code == 1
    assert "note  the broker's URL was taken from THINGCTL_URL" in out
    assert "set THINGCTL_MQTT_URL" in out


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("connected to b:1", "ok    the service says: connected to b:1"),
        ("not connected: no password was sent", "WRONG the service says: not connected: no password"),
        ("", "an agent is running"),
    ],
)
def test_check_asks_a_running_service_for_its_connection(capsys, tmp_path, monkeypatch, status, line):
    programs, state = tmp_path / "bin", tmp_path / "state"
    for directory in (programs, state):
        directory.mkdir()
    (programs / "systemctl").write_text(f"#!/bin/sh\necho '{status}'\n")
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("thingctl_agent.setup.service.SYSTEMD_RUNS", tmp_path)
    monkeypatch.setattr("thingctl_agent.setup.systemd_unit.STATE_DIR", str(state))
    monkeypatch.setattr("thingctl_agent.setup.systemd_unit.CONFIG", str(tmp_path / "agent.toml"))
    with mosquitto(tmp_path) as broker:
        (tmp_path / "agent.toml").write_text(f'thing = "t"\nurl = "{broker.url}"\n')
        journal = CallJournal(state / "journal", "boot-1")
        code = cli.main(["check", "--config", str(tmp_path / "agent.toml")])
        journal.close()
    out = capsys.readouterr().out
    assert line in out
    assert code == (1 if "WRONG" in line else 0), out


def test_check_makes_nothing_in_the_directory_of_a_service_that_has_not_started(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr("thingctl_agent.setup.systemd_unit.STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("thingctl_agent.setup.systemd_unit.CONFIG", str(tmp_path / "agent.toml"))
    (tmp_path / "agent.toml").write_text('thing = "t"\nurl = "mqtt://127.0.0.1:1"\n')
    cli.main(["check", "--config", str(tmp_path / "agent.toml")])
    assert "it has not been started" in capsys.readouterr().out
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("words", "usage", "text"),
    [
        (["run", "--thnig", "t"], "thingctl-agent run", "no such option: --thnig; did you mean '--thing'?"),
        (["check", "--burl", "t"], "thingctl-agent check", "no such option: --burl"),
        (["install", "--bundel=x"], "thingctl-agent install", "did you mean '--bundle'?"),
        (["install", "a.py"], "thingctl-agent install", "unexpected argument: a.py"),
        (
            ["run", "--password", "s"],
            "thingctl-agent run",
            "Give THINGCTL_PASSWORD, --password-file or --bundle",
        ),
    ],
)
def test_an_unknown_option_is_refused_with_the_usage_of_its_command(capsys, words, usage, text):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert f"usage: {usage} " in err
    assert text in err


@pytest.mark.parametrize("command", [["--help"], ["run", "--help"], ["check", "--thing", "t"], ["--version"]])
@pytest.mark.parametrize("sink", ["closed", "/dev/full"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_or_a_full_disk_ends_without_a_traceback(tmp_path, command, sink, unbuffered):
    options = ["--state-dir", str(tmp_path), "--url", "mqtt://127.0.0.1:1"] if "check" in command else []
    argv = [sys.executable, "-m", "thingctl_agent.setup.cli", *command, *options]
    if sink == "closed":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open(sink, os.O_WRONLY)
    try:
        done = subprocess.run(
            argv,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    finally:
        os.close(write)
    is_lost = sink == "/dev/full" and ("check" in command or not unbuffered)  # argparse ignores help it loses
    assert done.returncode == (1 if "check" in command or is_lost else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert ("No space left on device" in done.stderr) is is_lost
