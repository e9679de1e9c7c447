"""Callers that wait for an end: woken by it, by their own patience, or at the broker's end."""

import asyncio

import pytest

from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.waiters import CompletionWaiters, until_kept
from thingctl_broker.testing import InMemoryJournal, service_with_fakes

LONG = 30.0


async def waiting(waiters, execution_id="one"):
    task = asyncio.create_task(waiters.wait(execution_id, LONG))
    await asyncio.sleep(0)
    return task


async def test_every_waiter_wakes_when_the_execution_ends():
    waiters = CompletionWaiters()
    tasks = [await waiting(waiters) for _ in range(3)]
    waiters.ended("another")
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    waiters.ended("one")
    waiters.ended("one")  # told twice: harmless
    await asyncio.gather(*tasks)
    assert waiters._waiters == {}


@pytest.mark.parametrize("seconds", [0.0, 0.01])
async def test_patience_ends_without_an_end(seconds):
    waiters = CompletionWaiters()
    await waiters.wait("one", seconds)
    assert waiters._waiters == {}


async def test_the_end_of_the_broker_lets_everybody_go_now_and_later():
    waiters = CompletionWaiters()
    task = await waiting(waiters)
    waiters.release()
    waiters.release()
    await task
    await waiters.wait("one", LONG)
    assert waiters._waiters == {}


async def test_all_can_be_made_to_look_again_and_may_wait_again():
    waiters = CompletionWaiters()
    tasks = [await waiting(waiters, execution_id) for execution_id in ("one", "two")]
    waiters.wake_all()
    await asyncio.gather(*tasks)
    again = await waiting(waiters)
    assert not again.done()
    waiters.ended("one")
    await again


async def test_a_waiter_that_gives_up_leaves_the_others_waiting():
    waiters = CompletionWaiters()
    leaving, staying = [await waiting(waiters) for _ in range(2)]
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert not staying.done()
    waiters.ended("one")
    await staying
    assert waiters._waiters == {}


class LaterJournal(NullJournal):
    """Calls back when told to."""

    def __init__(self):
        self.callbacks = []

    def then(self, kept, lost=None):
        self.callbacks.append(kept)


async def test_what_is_kept_already_costs_no_turn_of_the_loop():
    coroutine = until_kept(NullJournal())
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
