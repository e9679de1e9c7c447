"""SIGTERM: the agent ends in its time, whatever its handlers have left behind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from agent.harness import AgentProcess, Mosquitto, Tracker, mosquitto, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

ACTIONS = """
import asyncio, atexit, concurrent.futures, importlib.util, os, threading, time
from thingctl_agent import Agent, Context
agent = Agent()
os.chdir("/")
HERE = os.path.dirname(os.path.abspath(__file__))

def note(text):
    with open(os.path.join(HERE, "notes"), "a") as file:
        file.write(text + "\\n")

def for_ever():
    while True:
        time.sleep(1)

atexit.register(note, "atexit")
LEFT = os.environ.get("LEFT", "")
if LEFT == "thread at import":
    threading.Thread(target=for_ever).start()

@agent.on_start
def up():
    note("up")

@agent.on_start
async def broken():
    await asyncio.sleep(0)
    raise OSError("no relay")

@agent.on_stop
def first():
    note("first")

@agent.on_stop
async def last():
    await asyncio.sleep(0)
    note("last")

@agent.action
def nop() -> bool:
    return all(importlib.util.find_spec(name) for name in ("ssl", "asyncio", "hashlib", "urllib.request"))

@agent.action
def thread() -> None:
    threading.Thread(target=for_ever).start()

@agent.action
def pool() -> None:
    concurrent.futures.ThreadPoolExecutor().submit(for_ever)

@agent.action(timeout=1)
async def to_thread(ctx: Context) -> None:
    ctx.progress(1)
    await asyncio.to_thread(time.sleep, 25)

@agent.action
def blocks(ctx: Context) -> None:
    ctx.progress(1)
    time.sleep(25)

@agent.action
def cleans(ctx: Context) -> None:
    ctx.progress(1)
    try:
        ctx.sleep(25)
    finally:
        time.sleep(1)
        note("cleaned")

if __name__ == "__main__":
    try:
        agent.run(wall_clock="trust")
    finally:
        note("finally")
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture(scope="module")
def tracker(broker: Mosquitto) -> Iterator[Tracker]:
    with Tracker(broker.port) as running:
        yield running


LEFT = ["nop", "thread", "pool", "to_thread", "blocks"]


@pytest.mark.parametrize(
    ("left", "way"),
    [
        *((left, "command") for left in LEFT),
        *((left, "script") for left in LEFT),
        ("thread at import", "command"),  # one that a script starts by itself is the script's
    ],
)
def test_sigterm_ends_it_in_its_time(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path, left: str, way: str
) -> None:
    thing, state = f"leave-{left}-{way}".replace(" ", "-"), tmp_path / "s"
    env = {
        "LEFT": left,
        "THINGCTL_THING": thing,
        "THINGCTL_URL": broker.url,
        "THINGCTL_STATE_DIR": str(state),
    }
    argv = [sys.executable, str(state / "my_actions.py")] if way == "script" else None
    with AgentProcess(ACTIONS, broker.url, state, thing=thing, env=env, argv=argv) as agent:
        assert tracker.do(thing, "nop")["result"] is True
        if left in {"to_thread", "blocks"}:
            execution_id = tracker.request(thing, left, ttl=60)
            until(lambda: tracker.of(execution_id))
        elif left != "thread at import":
            tracker.do(thing, left)
        code, seconds = agent.stop()
        assert code == 0
        assert seconds < 2.5
        # With a handler that did not stop, the process ends inside run().
        goes_on = [] if way == "command" or left == "blocks" else ["finally"]
        assert (state / "notes").read_text().split() == ["up", "last", "first", *goes_on, "atexit"]
        assert "no relay" in agent.log
        assert "broken" in agent.log


def test_a_grace_is_what_handlers_have_to_clean_up(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    (tmp_path / "agent.toml").write_text("stop_grace = 5.0\n")
    options = ("--config", str(tmp_path / "agent.toml"))
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", *options, thing="grace") as agent:
        execution_id = tracker.request("grace", "cleans", ttl=60)
        until(lambda: tracker.of(execution_id))
        code, seconds = agent.stop()
        assert code == 0
        assert 1 < seconds < 4
        assert "cleaned" in (tmp_path / "s" / "notes").read_text()
        assert tracker.final(execution_id)["statusReason"]["reasonCode"] == "INTERRUPTED"
