"""Clocks that are set and clocks that drift: no command gets a wrong verdict."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from agent.core import registry, responses
from agent.harness import AgentProcess
from support.operators import Operator
from support.processes import serving
from support.shifted import ShiftedClock
from support.waits import soon
from thingctl_agent.core.effects import Start
from thingctl_agent.core.history import History
from thingctl_agent.core.outcome import succeeded
from thingctl_agent.core.session import DeviceSession
from thingctl_broker.commands.broker_time import ToldTime
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.testing import ManualClock
from thingctl_protocol.messages import encode_time
from thingctl_protocol.statuses import TERMINAL, Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from thingctl_agent.core.effects import Effect

pytestmark = pytest.mark.system

HOUR = 3600.0
DAY = 24 * HOUR
COMMANDS = 200
THING = "lamp"
ROUNDING = 1.1
"""Seconds: a request's timestamp is a whole one, and a device may be told the time some seconds ago."""


class World:
    """A broker's service and an agent's session, with a clock each, and a wire that may be slow."""

    def __init__(self, *, rate: float = 1.0, steady: bool = True) -> None:
        self.clock = ManualClock()
        self.rate, self.steady = rate, steady
        self.real = 0.0
        self.delay = 0.0
        self.told = ToldTime()
        self.service = CommandService(clock=self.clock, link=self, journal=NullJournal())
        self.service.things.know(THING, 0.0)
        actions = registry(a={"concurrency": 1000})
        self.session = DeviceSession(THING, actions, History())
        self.verdict: dict[str, str] = {}

    @property
    def device_now(self) -> float:
        return 77.0 + self.real * self.rate

    def pass_time(self, seconds: float) -> None:
        self.real += seconds
        self.clock.advance(seconds)

    def come(self) -> None:
        self.do(self.session.connected(self.device_now))
        self.do(self.session.subscribed(self.device_now))
        self.told = ToldTime()
        self.tell_time()
        self.service.reachable(THING)

    def go(self) -> None:
        self.service.unreachable(THING)
        self.do(self.session.disconnected())

    def publish_request(self, thing: str, execution_id: str, payload: bytes, *, again: bool) -> bool:
        self.tell_time()
        self.deliver(self.session.topics.request(thing, execution_id), payload)
        return False

    def publish_cancel(self, thing: str, execution_id: str) -> None:
        raise NotImplementedError

    def tell_time(self) -> None:
        now, unix = self.clock.monotonic(), self.clock.unix()
        if self.told.is_due(now, unix):
            self.told.tell(now, unix)
            payload = encode_time(unix, now if self.steady else None)
            self.deliver(self.session.topics.time(THING), payload)

    def deliver(self, topic: str, payload: bytes) -> None:
        now = self.device_now + self.delay * self.rate
        self.do(self.session.message(topic, payload, now, lambda: None, retain=False))

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Start):
                done = succeeded(None)
                self.do(self.session.finished(effect.execution_id, done, self.device_now, lambda: None))
            for response in responses([effect]):
                self.verdict[effect.topic.split("/")[-2]] = response["status"]
                self.session.acknowledged(effect.receipt)


@pytest.mark.parametrize("steady", [True, False])
@pytest.mark.parametrize("step", [-HOUR, HOUR, -30 * DAY])
@pytest.mark.parametrize("rate", [1.0, 1.01, 0.99, 1.05, 0.95])
def test_no_verdict_is_wrong_when_clocks_are_set_or_drift(step, rate, steady):
    draw = random.Random(f"{step} {rate}")
    world = World(rate=rate, steady=steady)
    world.come()
    for number in range(COMMANDS):
        world.pass_time(draw.choice([0.0, 0.3, 8.0, 70.0, 900.0]))
        away = number % 5 == 4
        if away:
            world.go()
        ttl = draw.randint(3, 60)
        execution = world.service.send(THING, "a", ttl=ttl)
        if number % 20 == 7:
            world.clock.jump(step)
        if away:
            world.pass_time(draw.uniform(0, ttl - ROUNDING - 0.1 * ttl))
            if number % 10 == 4:
                world.clock.jump(step)
            world.come()
        assert world.verdict[execution.execution_id] == "SUCCEEDED", (number, ttl)


@pytest.mark.parametrize("rate", [1.0, 1.01, 0.99])
def test_what_was_under_way_too_long_is_not_run(rate):
    draw = random.Random(str(rate))
    world = World(rate=rate)
    world.come()
    for number in range(COMMANDS):
        world.pass_time(draw.choice([1.0, 12.0, 60.0]))
        if number % 20 == 7:
            world.clock.jump(draw.choice([-HOUR, HOUR]))
        ttl = draw.randint(2, 20)
        world.delay = ttl + 10.0 if number % 2 else 0.0
        execution = world.service.send(THING, "a", ttl=ttl)
        expected = "REJECTED" if world.delay else "SUCCEEDED"
        assert world.verdict[execution.execution_id] == expected, (number, ttl)
        world.pass_time(world.delay)


def test_a_device_that_is_told_no_time_is_served():
    session = DeviceSession(THING, registry(), History())
    session.connected(5.0)
    session.subscribed(5.0)
    payload = b'{"commandId":"c","action":"a","params":{},"timestamp":1000,"ttl":30}'
    effects = session.message(session.topics.request(THING, "e"), payload, 5.0, lambda: 1010.0, retain=False)
    assert any(isinstance(effect, Start) for effect in effects)


def test_a_duration_is_the_same_whatever_the_clock_is_set_to():
    world = World()
    execution = world.service.send(THING, "a", ttl=30)
    world.clock.advance(8)
    world.clock.jump(2 * HOUR)
    world.service.respond(THING, execution.execution_id, b'{"status":"SUCCEEDED"}', lambda: None)
    assert execution.status is Status.SUCCEEDED
    assert execution.ended_at - execution.created_at == 8


ACTIONS = """
import time
from thingctl_agent import Agent
agent = Agent()

@agent.action
def nop() -> None:
    pass

@agent.action
def slow() -> None:
    time.sleep(1.5)
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> ShiftedClock:
    return ShiftedClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture
def operator(clock: ShiftedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    clock.set(0)
    with monkeypatch.context() as patch:
        for name, value in clock.environment.items():
            patch.setenv(name, value)
        broker = serving(tmp_path / "data")
        running = broker.__enter__()
    try:
        operator = Operator(running.http_address)
        operator.mqtt = running.mqtt
        yield operator
        operator.close()
    finally:
        broker.__exit__(None, None, None)


def agent(operator: Operator, tmp_path: Path) -> AgentProcess:
    return AgentProcess(ACTIONS, operator.mqtt, tmp_path / "agent", "--wall-clock", "distrust", thing=THING)


def ended(operator: Operator, execution_id: str) -> dict[str, Any]:
    soon(lambda: operator.get(execution_id)["status"] in TERMINAL)
    return operator.get(execution_id)


def test_a_broker_whose_clock_is_set_goes_on_to_be_served(operator, clock, tmp_path):
    with agent(operator, tmp_path):
        for shift in (0, -61, -3600, 3600, 0, -30 * 86400):
            clock.set(shift)
            for _ in range(3):
                execution = ended(operator, operator.send(THING, "nop", ttl=20))
                assert execution["status"] == "SUCCEEDED", (shift, execution)
                assert execution["durationSeconds"] < 5


def test_what_waited_while_the_clock_was_set_is_run(operator, clock, tmp_path):
    with agent(operator, tmp_path) as first:
        first.stop()
        execution_id = operator.send(THING, "nop", ttl=20)
        clock.set(7200)
        first.start()
        execution = ended(operator, execution_id)
        assert execution["status"] == "SUCCEEDED", execution
        assert 0 < execution["durationSeconds"] < 20


def test_the_clock_is_set_while_a_command_runs(operator, clock, tmp_path):
    with agent(operator, tmp_path):
        execution_id = operator.send(THING, "slow", ttl=20)
        clock.set(-7200)
        execution = ended(operator, execution_id)
        assert execution["status"] == "SUCCEEDED", execution
        assert 1.4 < execution["durationSeconds"] < 10
        assert [event["event"] for event in execution["events"]][-2:] == ["started", "ended"]
