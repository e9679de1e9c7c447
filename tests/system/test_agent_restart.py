"""Crash, reboot, a wrong clock and a broken disk, as a device meets them."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.harness import AgentProcess, Mosquitto, Tracker, mosquitto, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

ACTIONS = """
import pathlib, time
from thingctl_agent import Agent, Context
agent = Agent()

def effect(name):
    with open("effects", "a") as file:
        file.write(name + "\\n")

@agent.action
def echo(text: str = "") -> str:
    return text

@agent.action(durable=False)
def read() -> str:
    return "read"

@agent.action
def long() -> None:
    effect("long")
    time.sleep(60)

@agent.action(on_restart="resume")
def steps(ctx: Context) -> list:
    done = ctx.saved or []
    for step in range(3):
        if step not in done:
            effect(f"step {step}")
            done.append(step)
            ctx.save(done)
            if step == 1 and ctx.attempt == 1:
                time.sleep(60)
    return [ctx.attempt, done]

@agent.action(reboots=True)
def restart_device() -> str:
    effect("reboot")
    return "see you"

@agent.action(reboots=True)
def upgrade(ctx: Context, intend: bool) -> None:
    if intend:
        ctx.rebooting({"version": 2})
    effect("upgrade")
    time.sleep(60)

@agent.action(stale="run")
def anyway() -> str:
    return "ran"
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture(scope="module")
def tracker(broker: Mosquitto) -> Iterator[Tracker]:
    with Tracker(broker.port) as running:
        yield running


def effects(agent: AgentProcess) -> list[str]:
    path = agent.log_path.parent / "effects"
    return path.read_text().splitlines() if path.exists() else []


def test_a_crash_in_a_handler_is_told_and_the_handler_not_run_again(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="crash") as agent:
        execution_id = tracker.request("crash", "long", ttl=600)
        until(lambda: effects(agent))
        agent.kill()
        agent.start()
        assert tracker.final(execution_id)["statusReason"]["reasonCode"] == "INTERRUPTED"
        tracker.request("crash", "long", execution_id=execution_id)
        until(lambda: len(tracker.of(execution_id)) == 2)
        assert effects(agent) == ["long"]


def test_a_handler_that_resumes_goes_on_where_it_was(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="resume") as agent:
        execution_id = tracker.request("resume", "steps", ttl=600)
        until(lambda: len(effects(agent)) == 2)
        tracker.do("resume", "echo")  # so that what was saved before it is taken in
        agent.kill()
        agent.start()
        assert tracker.final(execution_id)["result"] == [2, [0, 1, 2]]
        assert effects(agent) == ["step 0", "step 1", "step 2"]


def booted(agent: AgentProcess, boot_id: str, path: Path) -> AgentProcess:
    """Have the agent believe in a boot id of the test's."""
    path.write_text(boot_id)
    code = (
        "import pathlib, sys; from thingctl_agent.runtime import boot_id as boot; "
        f"boot._BOOT_ID = pathlib.Path({str(path)!r}); "
        "from thingctl_agent.setup.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    if "-m" in agent.argv:
        agent.argv = [sys.executable, "-c", code, *agent.argv[3:]]
    return agent


@pytest.mark.parametrize(("after", "verdict"), [("boot-2", "SUCCEEDED"), ("boot-1", "FAILED")])
def test_a_reboot_is_judged_by_the_boot_id_and_never_repeated(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path, after: str, verdict: str
) -> None:
    thing = f"reboot-{after}"
    agent = AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing=thing)
    with booted(agent, "boot-1", tmp_path / "boot"):
        execution_id = tracker.request(thing, "restart_device", ttl=600)
        until(lambda: effects(agent))
        until(lambda: "restart asked for" in agent.log)
        agent.kill()
        booted(agent, after, tmp_path / "boot").start()
        assert tracker.final(execution_id)["status"] == verdict
        tracker.request(thing, "restart_device", execution_id=execution_id)
        until(lambda: len(tracker.of(execution_id)) == 2)
        agent.kill()
        agent.start()
        tracker.request(thing, "restart_device", execution_id=execution_id)
        until(lambda: len(tracker.of(execution_id)) == 3)
        assert effects(agent) == ["reboot"]
        assert tracker.do(thing, "echo", {"text": "on"})["result"] == "on"


def test_a_damaged_journal_is_told_and_the_agent_starts(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="damaged") as agent:
        known = tracker.request("damaged", "echo", {"text": "1"})
        tracker.final(known)
        for text in "234567":
            tracker.do("damaged", "echo", {"text": text})
        agent.kill()
        journal = tmp_path / "s" / "journal"
        raw = bytearray(journal.read_bytes())
        used = [place for place in range(1024, len(raw)) if raw[place]]
        for place in used[50:500:100]:
            raw[place] ^= 0xFF
        journal.write_bytes(raw)
        agent.start()
        assert "journal was damaged" in agent.log
        assert (tmp_path / "s" / "journal.damaged").exists()
        assert tracker.do("damaged", "echo", {"text": "on"})["result"] == "on"
        agent.kill()
        agent.start()
        assert agent.log.count("journal was damaged") == 1


def test_two_agents_with_one_state_directory_are_refused(broker: Mosquitto, tmp_path: Path) -> None:
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="shared") as agent:
        second = AgentProcess(tmp_path / "s" / "my_actions.py", broker.url, tmp_path / "s", thing="shared")
        second.start(ready=False)
        assert second.process is not None
        assert second.process.wait(10) == 1
        assert "another agent uses" in agent.log


def test_a_disk_that_fails_refuses_what_must_be_remembered_and_serves_the_rest(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    code = (
        "import sys; from thingctl_agent.runtime import journal; "
        "journal.CallJournal.append = lambda *a, **k: (_ for _ in ()).throw(OSError(28, 'No space left on device')); "
        "from thingctl_agent.setup.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    agent = AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="full")
    agent.argv = [sys.executable, "-c", code, *agent.argv[3:]]
    with agent:
        refused = tracker.do("full", "echo")
        assert (refused["status"], refused["statusReason"]["reasonCode"]) == (
            "REJECTED",
            "JOURNAL_UNAVAILABLE",
        )
        assert tracker.do("full", "read")["result"] == "read"
        assert "No space left" in agent.log


def test_a_disk_that_is_full_at_the_start_is_used_when_it_has_room(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    code = (
        "import os, sys; sync = os.fsync\n"
        "def full(descriptor):\n"
        "    if os.path.exists('full'): raise OSError(28, 'No space left on device')\n"
        "    sync(descriptor)\n"
        "os.fsync = full; from thingctl_agent.setup.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    agent = AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="filled")
    agent.argv = [sys.executable, "-c", code, *agent.argv[3:]]
    (tmp_path / "s" / "full").touch()
    with agent:
        refused = tracker.do("filled", "echo")
        assert refused["statusReason"]["reasonCode"] == "JOURNAL_UNAVAILABLE"
        assert not (tmp_path / "s" / "journal.new").exists()
        assert tracker.do("filled", "read")["result"] == "read"
        (tmp_path / "s" / "full").unlink()
        until(lambda: tracker.do("filled", "echo", {"text": "x"})["status"] == "SUCCEEDED", 10)
        again = tracker.request("filled", "echo", {"text": "y"})
        assert tracker.final(again)["status"] == "SUCCEEDED"
        agent.kill()
        agent.start()
        assert tracker.do("filled", "echo", execution_id=again)["result"] == "y", "it is remembered"


def test_a_state_directory_that_cannot_be_used_is_told_at_once(broker: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    agent = AgentProcess(ACTIONS, broker.url, tmp_path / "s", "--state-dir", str(tmp_path / "file"))
    agent.start(ready=False)
    assert agent.process is not None
    assert agent.process.wait(10) == 2
    assert "cannot be used" in agent.log


def test_without_a_clock_the_brokers_time_decides_or_else_the_policy(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", "--wall-clock", "distrust", thing="clockless"):
        rejected = tracker.do("clockless", "echo")
        assert rejected["statusReason"]["reasonCode"] == "EXPIRED"
        assert "age cannot be told" in rejected["statusReason"]["reasonDescription"]
        assert tracker.do("clockless", "anyway")["result"] == "ran"
        tracker.time("clockless", time.time() + 3600)
        stale = tracker.do("clockless", "anyway", age=0)
        assert stale["statusReason"]["reasonCode"] == "EXPIRED", "by the broker's clock it is an hour old"
        assert tracker.do("clockless", "echo", {"text": "fresh"}, age=-3600)["result"] == "fresh"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_ends_it_with_0_and_no_traceback(tmp_path: Path, number: int) -> None:
    source = "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(30)\n"
    agent = AgentProcess(source, "mqtt://127.0.0.1:1", tmp_path / "s").start(ready=False)
    try:
        until((tmp_path / "s" / "importing").exists)
        assert agent.stop(number)[0] == 0
        assert "Traceback" not in agent.log
    finally:
        agent.kill()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(("intend", "verdict"), [(True, "SUCCEEDED"), (False, "FAILED")])
def test_a_restart_in_the_middle_is_success_only_if_the_handler_had_recorded_it(  # noqa: PLR0917 - fixtures
    broker: Mosquitto, tracker: Tracker, tmp_path: Path, end: int, intend: bool, verdict: str
) -> None:
    thing = f"upgrade-{end}-{intend}"
    agent = AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing=thing)
    with booted(agent, "boot-1", tmp_path / "boot"):
        execution_id = tracker.request(thing, "upgrade", {"intend": intend}, ttl=600)
        until(lambda: effects(agent))
        agent.stop(end)
        booted(agent, "boot-2", tmp_path / "boot").start()
        answer = tracker.final(execution_id)
        assert answer["status"] == verdict
        assert answer.get("result") == ({"version": 2} if intend else None)
        assert intend or answer["statusReason"]["reasonCode"] == "INTERRUPTED"


FLOOD = """
from thingctl_agent import Agent, Context
agent = Agent()

@agent.action(concurrency=6)
def flood(ctx: Context) -> None:
    for number in range(100_000):
        ctx.progress(number / 1000, "x" * 100)
        ctx.save(number)

@agent.action
def nop() -> None: ...
"""


def test_a_flood_of_progress_costs_no_memory_and_keeps_others_from_nothing(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    with AgentProcess(FLOOD, broker.url, tmp_path / "s", thing="flood") as agent:
        tracker.do("flood", "nop")
        before = memory(agent.pid)
        ids = [tracker.request("flood", "flood", ttl=120) for _ in range(6)]
        until(lambda: all(tracker.of(execution_id) for execution_id in ids), 20, "progress of all")
        begun = time.monotonic()
        assert tracker.do("flood", "nop")["status"] == "SUCCEEDED"
        assert time.monotonic() - begun < 3
        for execution_id in ids:
            assert tracker.final(execution_id, 60)["status"] == "SUCCEEDED"
        assert memory(agent.pid) - before < 6 * 1024


def memory(pid: int) -> int:
    """KiB of RSS."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
