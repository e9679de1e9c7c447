"""What the children of handlers inherit, and what the agent does about those that outlive it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.harness import AgentProcess, Mosquitto, Tracker, mosquitto, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

ACTIONS = """
import multiprocessing, os, signal, time
from thingctl_agent import Agent, Context
agent = Agent()

@agent.action
def environment(ctx: Context) -> str:
    return ctx.run(["env"]).output + " ".join(os.environ)

@agent.action
def descriptors(ctx: Context) -> str:
    return ctx.run(["ls", "-l", "/proc/self/fd"]).output

@agent.action
def forks() -> int:
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    return pid

@agent.action
def stubborn(ctx: Context) -> None:
    ctx.run(["sh", "-c", "trap '' TERM; echo $$ > pid; while :; do sleep 1; done"])

@agent.action
def multi() -> int:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join(5)
    return child.exitcode

@agent.action
def closes() -> None:
    os.close(0)
    os.close(0) if os.path.exists("/proc/self/fd/0") else None
    os.close(1)

@agent.action
def nop() -> None: ...
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture(scope="module")
def tracker(broker: Mosquitto) -> Iterator[Tracker]:
    with Tracker(broker.port) as running:
        yield running


def test_programs_inherit_no_secret_and_no_descriptor(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    secrets = {
        "THINGCTL_USERNAME": "u",
        "THINGCTL_PASSWORD": "s3cret",
        "NOTIFY_SOCKET": "@none",
        "WATCHDOG_USEC": "9000000",
    }
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="env", env=secrets):
        environment = tracker.do("env", "environment")["result"]
        assert "s3cret" not in environment
        assert not any(name in environment for name in ("PASSWORD", "NOTIFY_SOCKET", "WATCHDOG"))
        assert "THINGCTL_USERNAME" in environment
        listed = tracker.do("env", "descriptors")["result"]
        assert "journal" not in listed
        assert listed.count("socket:") == 0


def test_a_forked_child_holds_neither_journal_nor_connection(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    options = ("--presence", "on")
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", *options, thing="fork") as agent:
        pid = tracker.do("fork", "forks")["result"]
        try:
            held = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
            assert not any("journal" in path or "socket:" in path for path in held), held
            agent.kill()
            until(lambda: ("fork", {"online": False}) in tracker.presences, 10, "the will")
            agent.start()
            assert tracker.do("fork", "nop")["status"] == "SUCCEEDED"
        finally:
            os.kill(pid, signal.SIGKILL)


def test_a_multiprocessing_child_can_be_terminated(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="multi"):
        assert tracker.do("multi", "multi")["result"] == -signal.SIGTERM


def test_closed_standard_descriptors_cost_no_more_than_a_connection(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="close") as agent:
        for _ in range(3):
            tracker.do("close", "closes", ttl=20)
            ready = agent.log.count("ready for commands")
            os.kill(agent.pid, signal.SIGHUP)
            until(lambda ready=ready: agent.log.count("ready for commands") > ready)
            assert tracker.do("close", "nop")["status"] == "SUCCEEDED"


def test_a_program_that_ignores_sigterm_does_not_outlive_the_agent(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="stubborn") as agent:
        execution_id = tracker.request("stubborn", "stubborn", ttl=60)
        path = tmp_path / "s" / "pid"
        pid = int(until(lambda: path.exists() and path.read_text().strip()))
        code, seconds = agent.stop()
        assert code == 0
        assert seconds < 2
        assert tracker.final(execution_id)["statusReason"]["reasonCode"] == "INTERRUPTED"
        until(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
