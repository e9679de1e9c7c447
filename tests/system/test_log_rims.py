"""A log that cannot be written: agent and broker go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.harness import AgentProcess, Tracker, mosquitto, until
from support.processes import BIN, TOKEN, free_address
from support.waits import soon

pytestmark = pytest.mark.system

ACTIONS = """
import os, time
from thingctl_agent import Agent, CommandFailed, Context
agent = Agent()

@agent.action
def nop() -> None: ...

@agent.action
def work(ctx: Context) -> str:
    ctx.log.info("at work", name=os.fsdecode(b"caf\\xe9"))
    time.sleep(0.3)
    return "done"

@agent.action
def fail() -> None:
    raise ValueError(os.fsdecode(b"caf\\xe9"))

@agent.action
def chatter(ctx: Context, lines: int) -> int:
    for number in range(lines):
        ctx.log.info("x" * 100, number=number)
    return lines
"""


def exercise(tracker: Tracker, thing: str) -> None:
    assert tracker.do(thing, "work") == {"status": "SUCCEEDED", "result": "done"}
    assert tracker.do(thing, "fail")["statusReason"]["reasonCode"] == "HANDLER_ERROR"
    assert tracker.do(thing, "chatter", {"lines": 3000})["status"] == "SUCCEEDED"
    assert tracker.do(thing, "nop")["status"] == "SUCCEEDED"


def stderr_of(kind: str) -> tuple[Any, int | None]:
    if kind == "full":
        return Path("/dev/full").open("wb"), None
    read, write = os.pipe()
    if kind == "gone":
        os.close(read)
        return os.fdopen(write, "wb"), None
    return os.fdopen(write, "wb"), read


@pytest.mark.parametrize("kind", ["full", "gone", "unread", "closed"])
def test_an_agent_serves_without_a_log(tmp_path: Path, kind: str) -> None:
    with mosquitto(tmp_path) as broker, Tracker(broker.port) as tracker:
        agent = AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="mute")
        argv = ["sh", "-c", 'exec "$@" 2>&-', "sh", *agent.argv] if kind == "closed" else agent.argv
        stream, read = stderr_of(kind)
        with stream:
            process = subprocess.Popen(argv, stdout=stream, stderr=stream, cwd=tmp_path)
        try:
            until(lambda: tracker.announcements or process.poll() is not None, 20, "the agent's start")
            exercise(tracker, "mute")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
            if read is not None:
                os.close(read)


@pytest.mark.parametrize("kind", ["full", "gone", "unread", "closed"])
def test_a_broker_serves_without_a_log(tmp_path: Path, kind: str) -> None:
    mqtt, http = free_address(), free_address()
    argv = [
        BIN / "thingctl",
        "serve",
        "--open",
        "--debug",
        "--mqtt",
        mqtt,
        "--http",
        http,
        "--data-dir",
        tmp_path / "d",
    ]
    argv = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *argv] if kind == "closed" else argv
    stream, read = stderr_of(kind)
    env = os.environ | {"THINGCTL_ADMIN_TOKEN": TOKEN}
    with stream:
        process = subprocess.Popen([str(part) for part in argv], stdout=stream, stderr=stream, env=env)
    try:
        environment = os.environ | {"THINGCTL_URL": f"http://{http}", "THINGCTL_TOKEN": TOKEN}

        def things() -> bool:
            asked = [sys.executable, "-c", "from thingctl_broker.cli import main; main()", "things"]
            assert process.poll() is None
            return subprocess.run(asked, env=environment, capture_output=True, check=False).returncode == 0

        soon(things, 30)
        with AgentProcess(ACTIONS, f"mqtt://{mqtt}", tmp_path / "s", thing="lamp"):
            asked = [str(BIN / "thingctl"), "send", "lamp", "work", "--wait"]
            for _ in range(3):
                assert (
                    b"SUCCEEDED"
                    in subprocess.run(asked, env=environment, capture_output=True, check=False).stdout
                )
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        if read is not None:
            os.close(read)


def test_a_wrong_setting_ends_with_2_though_it_cannot_be_told() -> None:
    with Path("/dev/full").open("wb") as full:
        argv = [str(BIN / "thingctl"), "serve", "--mqtt", "nowhere"]
        assert subprocess.run(argv, stderr=full, check=False).returncode == 2
