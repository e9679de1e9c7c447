"""Eight handlers that never return: the device says so, still answers reads, and is restarted by its watchdog."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from agent.harness import AgentProcess, Tracker, mosquitto, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

ACTIONS = """
import time
from thingctl_agent import Agent
agent = Agent()

@agent.action(concurrency=8, timeout=1)
def hang(seconds: float) -> None:
    time.sleep(seconds)

@agent.action
def nop() -> None: ...

@agent.action(durable=False)
def ping() -> str: return "pong"
"""


def received(notify: socket.socket) -> list[bytes]:
    found = []
    try:
        while True:
            found.append(notify.recv(100))
    except BlockingIOError:
        return found


def test_a_device_whose_handlers_hang(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with (
        mosquitto(tmp_path) as broker,
        Tracker(broker.port) as tracker,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        notify.bind(address)
        notify.setblocking(False)
        env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
        with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="hung", env=env) as agent:
            assert not any(name in os.environ for name in env)
            until(lambda: b"WATCHDOG=1" in received(notify))
            ids = [tracker.request("hung", "hang", {"seconds": 4}) for _ in range(8)]
            assert [tracker.final(i)["statusReason"]["reasonCode"] for i in ids] == ["TIMEOUT"] * 8
            begun = time.monotonic()
            answer = tracker.do("hung", "nop")
            assert time.monotonic() - begun < 1
            assert answer["status"] == "REJECTED"
            assert answer["statusReason"] == {
                "reasonCode": "BUSY",
                "reasonDescription": "8 calls that timed out still run",
            }
            assert tracker.do("hung", "ping")["result"] == "pong"
            assert "every place is held by a call that timed out" in agent.log
            received(notify)
            time.sleep(1)  # five feedings
            assert b"WATCHDOG=1" not in received(notify)
            until(lambda: tracker.do("hung", "nop")["status"] == "SUCCEEDED", what="the places' return")
            until(lambda: b"WATCHDOG=1" in received(notify))
