"""kill -9 at random under load: no command is lost, none runs twice, each ends with one status.

``THINGCTL_STORM_COMMANDS`` and ``THINGCTL_STORM_KILLS`` make it longer.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent.harness import AgentProcess, Tracker, mosquitto, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

COMMANDS = int(os.environ.get("THINGCTL_STORM_COMMANDS", "400"))
KILLS = int(os.environ.get("THINGCTL_STORM_KILLS", "20"))
TOKEN = "storm-token-0123456789abcdef0123456789abcdef"

ACTIONS = """
import os, random, time
from thingctl_agent import Agent, Context

agent = Agent()
effects = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@agent.action(concurrency=4)
def work(ctx: Context, number: int) -> int:
    time.sleep(random.random() * 0.02)
    os.write(effects, f"{ctx.execution_id}\\n".encode())
    time.sleep(random.random() * 0.02)
    return number
"""


class Api:
    """The broker's HTTP API, by hand."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=30)

    def close(self) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        assert response.status in {200, 201}, answer
        return dict(answer)


@contextlib.contextmanager
def thingctl_serve(directory: Path) -> Iterator[tuple[str, str]]:
    """A thingctl broker; yields the URL for things and the address of the API."""
    argv = [sys.executable, "-c", "from thingctl_broker.cli import main; main()", "serve", "--open"]
    argv += ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", str(directory)]
    env = {**os.environ, "THINGCTL_ADMIN_TOKEN": TOKEN}
    with (directory / "broker.log").open("wb") as log:
        broker = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    assert broker.stdout is not None
    told: dict[str, str] = {}
    try:
        while not {"mqtt", "http"} <= told.keys() and (line := broker.stdout.readline()):
            word, value, *_ = [*line.split(), "", ""]
            told[word] = value
        assert "http" in told, (directory / "broker.log").read_text()
        yield told["mqtt"], told["http"].removeprefix("http://")
    finally:
        broker.terminate()
        broker.wait(10)
        broker.stdout.close()


def storm(agent: AgentProcess, send: Callable[[int], str], part: int = 1) -> list[str]:
    """Send commands (all, or one in ``part``) while the agent is killed at random; returns the execution ids."""
    ids: list[str] = []
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    def load() -> None:
        for number in range(COMMANDS // part):
            ids.append(send(number))
            time.sleep(chance.random() * 0.04)

    sender = threading.Thread(target=load)
    sender.start()
    ready = 0
    for _ in range(KILLS // part):
        if chance.random() < 0.7:  # most are killed at work, the others before they are
            with contextlib.suppress(TimeoutError):
                wait_until(lambda ready=ready: agent.log.count("ready for commands") > ready, 2.0)
        time.sleep(chance.random() * 0.25)
        agent.kill()
        ready = agent.log.count("ready for commands")
        agent.start(ready=False)
    sender.join()
    until(lambda: agent.log.count("ready for commands") > ready, 20, "the last start")
    return ids


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


def judge(ids: list[str], effects: collections.Counter[str], final: Callable[[str], tuple[str, str]]) -> None:
    """Compare what each execution's status says with what was done."""
    commands, kills = len(set(ids)), len(ids) * KILLS // COMMANDS
    assert commands == len(ids)
    count: collections.Counter[str] = collections.Counter()
    for execution_id in ids:
        status, code = final(execution_id)
        times = effects[execution_id]
        count[f"{status} {code}".strip()] += 1
        assert times <= 1, f"{execution_id} ran {times} times"
        if status == "SUCCEEDED":
            assert times == 1, f"{execution_id} is {status} and never ran"
        else:
            assert (status, code) == ("FAILED", "INTERRUPTED"), f"{execution_id} is {status} {code}"
    print(f"{commands} commands, {kills} kills: {dict(count)}")
    assert count["FAILED INTERRUPTED"] <= kills * 4, "no more than ran when the agent was killed"
    assert count["SUCCEEDED"] >= commands // 2


def patient(directory: Path) -> tuple[str, str]:
    """Options of an agent that lets all commands wait: being refused is not what is tried here."""
    (directory / "agent.toml").write_text(f"waiting = {COMMANDS}\n")
    return "--config", str(directory / "agent.toml")


def effects_of(agent: AgentProcess) -> collections.Counter[str]:
    return collections.Counter((agent.log_path.parent / "effects").read_text().split())


def test_kill_9_under_load_with_the_thingctl_broker(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with thingctl_serve(tmp_path / "data") as (url, address), contextlib.ExitStack() as stack:
        api = stack.enter_context(contextlib.closing(Api(address)))

        def send(number: int) -> str:
            body = {"thingId": "storm", "action": "work", "params": {"number": number}, "ttl": 120}
            return str(api.call("POST", "/api/v1/commands", body)["executionId"])

        def get(execution_id: str) -> dict[str, Any]:
            return api.call("GET", f"/api/v1/commands/{execution_id}")

        with AgentProcess(ACTIONS, url, tmp_path / "s", *patient(tmp_path), thing="storm") as agent:
            ids = storm(agent, send)
            for execution_id in ids:
                until(lambda e=execution_id: get(e)["status"] not in {"SENT", "IN_PROGRESS"}, 60, "an end")
            assert agent.stop()[0] == 0

        def final(execution_id: str) -> tuple[str, str]:
            found = get(execution_id)
            assert "late" not in found, found
            return found["status"], (found.get("statusReason") or {}).get("reasonCode", "")

        judge(ids, effects_of(agent), final)


def test_kill_9_under_load_with_mosquitto_and_equal_answers(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker, Tracker(broker.port) as tracker:
        with AgentProcess(ACTIONS, broker.url, tmp_path / "s", *patient(tmp_path), thing="storm") as agent:
            ids = storm(agent, lambda n: tracker.request("storm", "work", {"number": n}, ttl=120), part=4)
            for execution_id in ids:
                tracker.final(execution_id, 60)
            assert agent.stop()[0] == 0

        def final(execution_id: str) -> tuple[str, str]:
            answers = tracker.of(execution_id)
            assert all(answer == answers[0] for answer in answers), "it never says two things"
            return answers[0]["status"], answers[0].get("statusReason", {}).get("reasonCode", "")

        judge(ids, effects_of(agent), final)
