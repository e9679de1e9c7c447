"""The expiry, on a clock that its own sleep moves: no real second passes."""

import asyncio
import contextlib

import pytest
from structlog.testing import capture_logs

from thingctl_broker.commands import expiry
from thingctl_broker.testing import service_with_fakes
from thingctl_protocol.statuses import Status

REAL_SLEEP = asyncio.sleep


class Driver:
    """Runs ``sweep`` and lets each of its sleeps pass at once, on the manual clock."""

    def __init__(self, monkeypatch):
        self.service, _, self.clock = service_with_fakes(["lamp"])
        self.slept = []
        monkeypatch.setattr(expiry.asyncio, "sleep", self._sleep)

    async def _sleep(self, seconds):
        self.slept.append(seconds)
        self.clock.advance(seconds)
        await REAL_SLEEP(0)

    async def until(self, condition):
        task = asyncio.create_task(expiry.sweep(self.service))
        for _ in range(10_000):
            if condition() or task.done():
                break
            await REAL_SLEEP(0)
        assert condition()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def driver(monkeypatch):
    return Driver(monkeypatch)


async def test_an_execution_times_out_at_its_deadline_and_not_before(driver):
    execution = driver.service.send("lamp", "turnOn", ttl=3)
    await driver.until(lambda: execution.is_terminal)
    assert execution.status is Status.TIMED_OUT
    assert execution.ended_at - execution.created_at == 3.0


async def test_with_nothing_to_do_it_looks_again_before_any_new_ttl_can_run_out(driver):
    await driver.until(lambda: len(driver.slept) >= 3)
    assert set(driver.slept) == {expiry.LONGEST_SLEEP}
    execution = driver.service.send("lamp", "turnOn", ttl=1)
    await driver.until(lambda: execution.is_terminal)
    assert execution.ended_at - execution.created_at == 1.0


async def test_a_failure_is_logged_and_the_next_deadline_still_kept(driver, monkeypatch):
    expire = driver.service.expire
    failures = iter([RuntimeError("boom"), RuntimeError("again")])

    def failing():
        for error in failures:
            raise error
        return expire()

    monkeypatch.setattr(driver.service, "expire", failing)
    execution = driver.service.send("lamp", "turnOn", ttl=2)
    with capture_logs() as logs:
        await driver.until(lambda: execution.is_terminal)
    assert [entry["event"] for entry in logs] == ["expiring failed"] * 2
    assert all(entry["exc_info"] for entry in logs)


async def test_more_than_one_calls_worth_is_closed_without_a_pause(driver, monkeypatch):
    monkeypatch.setattr("thingctl_broker.commands.service.EXPIRE_MAX", 2)
    executions = [driver.service.send("lamp", "turnOn", ttl=1) for _ in range(7)]
    await driver.until(lambda: all(execution.is_terminal for execution in executions))
    assert driver.slept[:4] == [1.0, 0.0, 0.0, 0.0]
