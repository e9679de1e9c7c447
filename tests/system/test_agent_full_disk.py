"""A disk that fills up under an agent: nothing runs twice, nothing is lost, and each verdict is true.

``THINGCTL_AGENT_FULL_DISK`` is the number of rounds of the storm, ``THINGCTL_SEED`` its seed.
"""

from __future__ import annotations

import collections
import os
import random
import sys
from typing import TYPE_CHECKING

import pytest

from agent.harness import AgentProcess, Mosquitto, Tracker, mosquitto, until
from support.disks import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("THINGCTL_AGENT_FULL_DISK", "8"))

ACTIONS = """
import os, time
from thingctl_agent import Agent, Context

agent = Agent()
effects = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@agent.action(concurrency=2)
def work(ctx: Context, number: int, filler: str = "") -> int:
    os.write(effects, f"{ctx.execution_id}\\n".encode())
    ctx.save(filler[:50_000])
    time.sleep(0.01)
    return number
"""

FAULTY = """
import builtins, errno, os, sys

left = int(sys.argv.pop(1))

def limited(call, counts=lambda *_, **__: True):
    def maybe(*args, **kwargs):
        global left
        if counts(*args, **kwargs):
            left -= 1
            if left < 0 and not os.path.exists("room"):
                raise OSError(errno.ENOSPC, "No space left on device")
        return call(*args, **kwargs)
    return maybe

def makes(path, flags=0, *rest, **more):
    return flags & os.O_CREAT and path != "effects"

for name in ("pwrite", "pwritev", "fsync", "fdatasync", "replace", "link", "makedirs"):
    setattr(os, name, limited(getattr(os, name)))
os.open = limited(os.open, makes)
from thingctl_agent.setup.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""An agent that can write so many times, and then no more until there is a file ``room``."""

WRITES = (0, 1, 2, 9, *range(18, 52, 2))
"""Those of the agent's start, and those of the commands."""

NO_JOURNAL = 20
"""Writes that make no journal yet."""

NO_VERDICT = 28
"""Writes that take one command as far as its start."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as found:
        yield found


@pytest.fixture
def tracker(broker: Mosquitto) -> Iterator[Tracker]:
    with Tracker(broker.port) as found:
        yield found


def verdicts(tracker: Tracker, execution_id: str) -> set[tuple[str, str]]:
    return {
        (said["status"], said.get("statusReason", {}).get("reasonCode", ""))
        for said in tracker.of(execution_id)
        if said["status"] != "IN_PROGRESS"
    }


def judge(agent: AgentProcess, tracker: Tracker, ids: list[str]) -> collections.Counter[str]:
    """Hold each verdict against what was done; return how often there was which."""
    effects = collections.Counter((agent.log_path.parent / "effects").read_text().split())
    count: collections.Counter[str] = collections.Counter()
    for execution_id in ids:
        said, times = verdicts(tracker, execution_id), effects[execution_id]
        assert len(said) == 1, (execution_id, said, agent.log)
        ((status, code),) = said
        count[f"{status} {code}".strip()] += 1
        assert times <= 1, f"{execution_id} ran {times} times"
        if status == "SUCCEEDED":
            assert times == 1, f"{execution_id} is SUCCEEDED and never ran"
        elif status == "REJECTED":
            assert code == "JOURNAL_UNAVAILABLE"
            assert times == 0, f"{execution_id} is REJECTED and ran"
        else:
            assert (status, code) == ("FAILED", "INTERRUPTED"), (execution_id, status, code, agent.log)
    return count


def faulty(broker: Mosquitto, state: Path, thing: str, writes: int) -> tuple[AgentProcess, list[str]]:
    """An agent whose disk takes so many writes, and the command line of one whose disk takes all."""
    agent = AgentProcess(ACTIONS, broker.url, state, thing=thing)
    whole = agent.argv
    agent.argv = [sys.executable, "-c", FAULTY, str(writes), *whole[3:]]
    return agent, whole


def repeat(tracker: Tracker, thing: str, ids: list[str]) -> None:
    """Deliver requests again, as a broker does that has not heard the verdict; wait for the answers."""
    for execution_id in ids:
        if tracker.of(execution_id)[-1]["status"] != "REJECTED":
            before = len(tracker.of(execution_id))
            tracker.request(thing, "work", {"number": 0}, execution_id=execution_id)
            until(lambda e=execution_id, b=before: len(tracker.of(e)) > b)


@pytest.mark.parametrize("writes", WRITES)
def test_a_disk_that_is_full_from_any_write_on(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path, writes: int
) -> None:
    thing = f"after-{writes}"
    agent, whole = faulty(broker, tmp_path / "s", thing, writes)
    with agent:
        ids = [tracker.request(thing, "work", {"number": n, "filler": "x" * 3000}) for n in range(3)]
        for execution_id in ids:
            tracker.final(execution_id)
        repeat(tracker, thing, ids)
        (tmp_path / "s" / "room").touch()
        until(lambda: tracker.do(thing, "work", {"number": 9})["status"] == "SUCCEEDED", 10)
        agent.kill()
        agent.argv = whole
        agent.start()
        repeat(tracker, thing, ids)
        assert tracker.do(thing, "work", {"number": 9})["status"] == "SUCCEEDED"
        assert "Traceback" not in agent.log, agent.log
    count = judge(agent, tracker, ids)
    print(f"{writes} writes: {dict(count)}")
    assert writes >= NO_JOURNAL or count == {"REJECTED JOURNAL_UNAVAILABLE": 3}


def test_a_verdict_that_could_not_be_recorded_is_recorded_when_there_is_room(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    agent, whole = faulty(broker, tmp_path / "s", "later", NO_VERDICT)
    with agent:
        ids = [tracker.request("later", "work", {"number": 1})]
        assert tracker.final(ids[0])["status"] == "SUCCEEDED"
        assert "not recorded" in agent.log
        (tmp_path / "s" / "room").touch()
        until(lambda: "the journal has all records again" in agent.log)
        agent.kill()
        agent.argv = whole
        agent.start()
        repeat(tracker, "later", ids)
    assert judge(agent, tracker, ids) == {"SUCCEEDED": 1}


def test_a_storm_on_a_small_disk(broker: Mosquitto, tracker: Tracker, tmp_path: Path) -> None:
    seed = int(os.environ.get("THINGCTL_SEED", "11"))
    chance = random.Random(seed)
    ids: list[str] = []
    with small_disk(tmp_path, "4m") as disk:
        options = ("--state-dir", str(disk.path))
        agent = AgentProcess(ACTIONS, broker.url, tmp_path / "s", *options, thing="small")
        with agent:
            for turn in range(ROUNDS):
                for number in range(30):
                    if chance.random() < 0.2:
                        disk.clear()
                        disk.fill(chance.choice([0, 0, 4096, 100_000, 1_100_000]))
                    elif chance.random() < 0.1:
                        disk.clear()
                    filler = "x" * chance.choice([0, 3000, 100_000])
                    ids.append(tracker.request("small", "work", {"number": number, "filler": filler}))
                if turn % 2:
                    until(lambda: tracker.final(ids[-1], 30), 30)
                agent.kill()
                if turn % 3 == 2:
                    disk.clear()
                agent.start()
            disk.clear()
            for execution_id in ids:
                tracker.final(execution_id, 30)
            until(lambda: tracker.do("small", "work", {"number": 9})["status"] == "SUCCEEDED", 10)
            assert "Traceback" not in agent.log, agent.log
        count = judge(agent, tracker, ids)
        modes = {path.name: path.stat().st_mode & 0o777 for path in disk.path.iterdir()}
        assert {name: mode for name, mode in modes.items() if mode != 0o600} == {}
        assert "journal.new" not in modes
    print(f"seed {seed}: {dict(count)}")
    assert count["SUCCEEDED"] > ROUNDS * 5
