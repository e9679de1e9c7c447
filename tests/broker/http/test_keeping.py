"""Answers that wait."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from thingctl_broker.http.keeping import until_ended, until_kept
from thingctl_broker.testing import InMemoryJournal, service_with_fakes
from thingctl_broker.unkept import NoJournal
from thingctl_broker.waiting import EndWaiters


class LaterJournal(NoJournal):
    """Calls back when told to."""

    def __init__(self):
        self.callbacks = []

    def then(self, kept, lost=None):
        self.callbacks.append(kept)


async def test_what_is_kept_already_costs_no_turn_of_the_loop():
    coroutine = until_kept(NoJournal())
    with pytest.raises(StopIteration) as raised:
        coroutine.send(None)
    assert raised.value.value is True


async def test_what_is_not_kept_yet_is_waited_for():
    journal = LaterJournal()
    task = asyncio.create_task(until_kept(journal))
    await asyncio.sleep(0)
    assert not task.done()
    journal.callbacks[0]()
    assert await task is True


async def test_what_cannot_be_kept_is_told_from_what_is():
    journal = InMemoryJournal()
    service, _, _ = service_with_fakes(["lamp"], journal)
    service.send("lamp", "x")
    task = asyncio.create_task(until_kept(journal))
    await asyncio.sleep(0)
    journal.fail()
    assert await task is False


async def test_a_caller_that_has_gone_does_not_trip_the_journal():
    journal = LaterJournal()
    task = asyncio.create_task(until_kept(journal))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    journal.callbacks[0]()


@pytest.fixture
def waiting():
    service, _, _ = service_with_fakes(["lamp"])
    return service, EndWaiters(service.events), service.send("lamp", "x")


async def never():
    await asyncio.get_running_loop().create_future()


async def test_the_end_of_the_execution_ends_the_wait(waiting):
    service, waiters, execution = waiting
    task = asyncio.create_task(until_ended(waiters, execution, 60, never))
    await asyncio.sleep(0)
    service.cancel(execution.execution_id)
    await task


async def test_the_time_ends_the_wait(waiting):
    _, waiters, execution = waiting
    await until_ended(waiters, execution, 0.001, never)
    assert not execution.is_terminal


async def test_the_broker_ends_the_wait_and_later_ones(waiting):
    _, waiters, execution = waiting
    task = asyncio.create_task(until_ended(waiters, execution, 60, never))
    await asyncio.sleep(0)
    waiters.release()
    await task
    await until_ended(waiters, execution, 60, never)


async def test_the_client_ends_the_wait_and_leaves_nothing_behind(waiting):
    _, waiters, execution = waiting
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    with pytest.raises(ClientDisconnect):
        await until_ended(waiters, execution, 60, receive)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert waiters._waiters == {}


async def test_a_wait_says_whether_the_execution_has_ended(waiting):
    service, waiters, execution = waiting
    assert await waiters.wait(execution, 0.001) is False
    task = asyncio.create_task(waiters.wait(execution, 60))
    await asyncio.sleep(0)
    waiters.release()
    assert await task is False
    service.cancel(execution.execution_id)
    assert await waiters.wait(execution, 60) is True
