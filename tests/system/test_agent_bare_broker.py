"""The agent beside a bare mosquitto and a hand-written publisher that knows only Fleets' two topics."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent.harness import ROOT, AgentProcess, Mosquitto, Tracker, mosquitto, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

THERMOSTAT = ROOT / "examples" / "thermostat.py"

ACTIONS = """
import threading, time
from thingctl_agent import Agent, CommandFailed, Reject

agent = Agent()

@agent.action
def where() -> str:
    return threading.current_thread().name

@agent.action
def refuse() -> None:
    raise Reject("NOT_NOW", "come back later")

@agent.action
def fail() -> None:
    raise CommandFailed("the bolt is jammed", code="JAMMED", position=3)

@agent.action
def crash() -> None:
    raise RuntimeError("the password is hunter2")

@agent.action
def leave() -> None:
    raise SystemExit(3)

@agent.action
async def later(seconds: float) -> str:
    import asyncio
    await asyncio.sleep(seconds)
    return "async"

@agent.action
def block(seconds: float) -> None:
    time.sleep(seconds)

@agent.action
def unencodable() -> object:
    return lambda: None

@agent.action
def chatter(megabytes: int) -> None:
    for _ in range(megabytes):
        print("x" * 1024 * 1024)

@agent.action
def large(bytes: int) -> str:
    return "x" * bytes

@agent.action(timeout=0.3)
def endless() -> None:
    while True:
        time.sleep(1)
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture(scope="module")
def tracker(broker: Mosquitto) -> Iterator[Tracker]:
    with Tracker(broker.port) as running:
        yield running


@pytest.fixture(scope="module")
def agent(broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with AgentProcess(ACTIONS, broker.url, tmp_path_factory.mktemp("state") / "s") as running:
        yield running


def test_the_example_answers_what_it_was_asked(broker: Mosquitto, tracker: Tracker, tmp_path: Path) -> None:
    with AgentProcess(THERMOSTAT, broker.url, tmp_path / "s", thing="thermostat-001"):
        assert tracker.do("thermostat-001", "setTemperature", {"value": 24}) == {
            "status": "SUCCEEDED",
            "result": {"currentTemperature": 24},
        }
        refused = tracker.do("thermostat-001", "setTemperature", {"value": "hot"})
        assert refused["status"] == "REJECTED"
        assert refused["statusReason"]["reasonCode"] == "INVALID_PARAMS"
        assert "/value" in refused["statusReason"]["reasonDescription"]
        canceled = tracker.request("thermostat-001", "calibrate", {"seconds": 30})
        until(lambda: tracker.of(canceled))
        assert tracker.of(canceled)[0]["status"] == "IN_PROGRESS"
        tracker.cancel("thermostat-001", canceled)
        assert tracker.final(canceled, 2)["status"] == "CANCELED"


@pytest.mark.parametrize(
    ("action", "params", "verdict"),
    [
        ("refuse", {}, "REJECTED NOT_NOW"),
        ("fail", {}, "FAILED JAMMED"),
        ("crash", {}, "FAILED HANDLER_ERROR"),
        ("leave", {}, "FAILED HANDLER_ERROR"),
        ("unknown", {}, "REJECTED UNKNOWN_ACTION"),
        ("later", {"seconds": 0, "more": 1}, "REJECTED INVALID_PARAMS"),
        ("unencodable", {}, "FAILED RESULT_NOT_JSON"),
        ("endless", {}, "FAILED TIMEOUT"),
    ],
)
def test_each_way_to_go_wrong_ends_as_a_clear_status(
    agent: AgentProcess, tracker: Tracker, action: str, params: dict[str, object], verdict: str
) -> None:
    response = tracker.do("thing-1", action, params)
    assert f"{response['status']} {response['statusReason']['reasonCode']}" == verdict
    assert tracker.do("thing-1", "where")["status"] == "SUCCEEDED", "and the agent lives on"


def test_the_reason_of_an_unexpected_exception_stays_on_the_device(
    agent: AgentProcess, tracker: Tracker
) -> None:
    response = tracker.do("thing-1", "crash")
    assert "hunter2" not in json.dumps(response)
    until(lambda: "hunter2" in agent.log, what="the log line")
    assert "Traceback" in agent.log


def test_handlers_run_off_the_network_thread(agent: AgentProcess, tracker: Tracker) -> None:
    assert tracker.do("thing-1", "where")["result"] != "MainThread"
    blocked = tracker.request("thing-1", "block", {"seconds": 1.0})
    assert tracker.do("thing-1", "later", {"seconds": 0})["result"] == "async"
    assert not tracker.of(blocked), "another command is answered while one blocks"
    assert tracker.final(blocked)["status"] == "SUCCEEDED"


def test_megabytes_on_stdout_hurt_nobody(agent: AgentProcess, tracker: Tracker) -> None:
    assert tracker.do("thing-1", "chatter", {"megabytes": 5})["status"] == "SUCCEEDED"


def test_a_result_that_is_too_long_gives_way_to_a_marker(agent: AgentProcess, tracker: Tracker) -> None:
    response = tracker.do("thing-1", "large", {"bytes": 200_000})
    assert response["status"] == "SUCCEEDED"
    assert response["result"]["truncated"] is True
    assert response["result"]["bytes"] == 200_002
    assert len(response["result"]["sha256"]) == 64


def test_a_repeated_request_is_answered_and_not_run_again(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    source = (
        "import pathlib\nfrom thingctl_agent import Agent\nagent = Agent()\n"
        "@agent.action\ndef once() -> int:\n"
        "    with open('effects', 'a') as file:\n        file.write('x')\n"
        "    return pathlib.Path('effects').stat().st_size\n"
    )
    with AgentProcess(source, broker.url, tmp_path / "s", thing="once-1"):
        first = tracker.request("once-1", "once")
        tracker.final(first)
        tracker.request("once-1", "once", execution_id=first)
        until(lambda: len(tracker.of(first)) == 2, what="the second answer")
        assert [r["result"] for r in tracker.of(first)] == [1, 1]


def test_a_retained_request_is_not_run(broker: Mosquitto, tracker: Tracker, tmp_path: Path) -> None:
    retained = tracker.request("retained-1", "where", retain=True)
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="retained-1") as agent:
        until(lambda: "message ignored" in agent.log)
        assert tracker.do("retained-1", "where")["status"] == "SUCCEEDED"
    assert not tracker.of(retained)


def test_a_request_past_its_ttl_is_not_run(agent: AgentProcess, tracker: Tracker) -> None:
    response = tracker.do("thing-1", "where", ttl=30, age=31)
    assert (response["status"], response["statusReason"]["reasonCode"]) == ("REJECTED", "EXPIRED")


def test_it_announces_its_actions_and_takes_that_back(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    tracker.announcements.clear()
    with AgentProcess(THERMOSTAT, broker.url, tmp_path / "s", thing="announcing") as agent:
        announced = json.loads(until(lambda: tracker.announcements)[0])
        names = [action["name"] for action in announced["actions"]]
        assert names == ["setTemperature", "getTemperature", "setChildLock", "calibrate"]
        assert announced["actions"][0]["description"] == "Set the temperature to keep."
        assert announced["actions"][0]["paramsSchema"]["properties"]["value"]["maximum"] == 30
        agent.stop()
        until(lambda: tracker.announcements[-1] == b"", what="the withdrawal")


def test_it_tells_of_its_coming_and_going_if_it_is_set_to(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    online, offline = ("present", {"online": True}), ("present", {"online": False})

    def told(*expected: tuple[str, dict[str, bool]]) -> bool:
        # A socket closed with something unread is reset, and the DISCONNECT may be lost with it:
        # then the will says once more that it went.
        changes = [
            one
            for one, before in zip(tracker.presences, [None, *tracker.presences], strict=False)
            if one != before
        ]
        return changes == list(expected)

    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", "--presence", "on", thing="present") as agent:
        until(lambda: told(online))
        agent.stop()
        until(lambda: told(online, offline))
        agent.start()
        until(lambda: told(online, offline, online))
        agent.kill()  # then its will says it
        until(lambda: told(online, offline, online, offline))
    count = len(tracker.presences)
    with AgentProcess(ACTIONS, broker.url, tmp_path / "t", thing="silent") as agent:
        tracker.do("silent", "where")
        agent.kill()
    assert len(tracker.presences) == count


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_0_and_no_traceback(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path, number: int
) -> None:
    with AgentProcess(ACTIONS, broker.url, tmp_path / "s", thing="stopping") as agent:
        blocked = tracker.request("stopping", "block", {"seconds": 60.0})
        until(lambda: tracker.do("stopping", "where"))
        code, seconds = agent.stop(number)
        assert code == 0
        assert seconds < 2.5, "0.4 s for handlers and 0.4 s for acknowledgements, and some for a busy machine"
        assert "Traceback" not in agent.log
        assert tracker.final(blocked)["statusReason"]["reasonCode"] == "INTERRUPTED"


def test_without_a_broker_it_keeps_trying_and_stops_when_told(tmp_path: Path) -> None:
    agent = AgentProcess(ACTIONS, "mqtt://127.0.0.1:1", tmp_path / "s").start(ready=False)
    try:
        until(lambda: agent.log.count("not connected") >= 2)
        assert agent.stop()[0] == 0
    finally:
        agent.kill()


def test_a_file_with_agent_run_takes_its_settings_from_the_environment(
    broker: Mosquitto, tracker: Tracker, tmp_path: Path
) -> None:
    env = {
        "THINGCTL_THING": "env-1",
        "THINGCTL_MQTT_URL": broker.url,
        "THINGCTL_STATE_DIR": str(tmp_path / "s"),
        "THINGCTL_CONFIG": str(tmp_path / "agent.toml"),
    }
    (tmp_path / "agent.toml").write_text('wall_clock = "trust"\nthing = "of-the-file"\n')
    agent = AgentProcess(THERMOSTAT, "", tmp_path / "s", env=env, argv=[sys.executable, str(THERMOSTAT)])
    with agent:
        assert tracker.do("env-1", "getTemperature")["result"] == {"currentTemperature": 21}
        assert agent.stop()[0] == 0


def test_a_duplicate_name_is_told_and_ends_with_2_or_1(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(
        "from thingctl_agent import Agent\nagent = Agent()\n"
        "@agent.action\ndef a() -> None: ...\n@agent.action(name='a')\ndef b() -> None: ...\n"
    )
    argv = [
        sys.executable,
        "-m",
        "thingctl_agent.setup.cli",
        "run",
        str(tmp_path / "twice.py"),
        "--thing",
        "t",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "there is an action named 'a' already" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_topic_root_works(broker: Mosquitto, tmp_path: Path) -> None:
    with (
        Tracker(broker.port, root="my/commands") as tracker,
        AgentProcess(THERMOSTAT, broker.url, tmp_path / "s", "--topic-root", "my/commands", thing="rooted"),
    ):
        assert tracker.do("rooted", "getTemperature")["status"] == "SUCCEEDED"
