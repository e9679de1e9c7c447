"""Callers that wait for an end: woken by it, by their own patience, or at the broker's end."""

import asyncio

import pytest

from thingctl_broker.waiting import EndWaiters

LONG = 30.0


async def waiting(waiters, execution_id="one"):
    task = asyncio.create_task(waiters.wait(execution_id, LONG))
    await asyncio.sleep(0)
    return task


async def test_every_waiter_wakes_when_the_execution_ends():
    waiters = EndWaiters()
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
    waiters = EndWaiters()
    await waiters.wait("one", seconds)
    assert waiters._waiters == {}


async def test_the_end_of_the_broker_lets_everybody_go_now_and_later():
    waiters = EndWaiters()
    task = await waiting(waiters)
    waiters.release()
    waiters.release()
    await task
    await waiters.wait("one", LONG)
    assert waiters._waiters == {}


async def test_all_can_be_made_to_look_again_and_may_wait_again():
    waiters = EndWaiters()
    tasks = [await waiting(waiters, execution_id) for execution_id in ("one", "two")]
    waiters.wake_all()
    await asyncio.gather(*tasks)
    again = await waiting(waiters)
    assert not again.done()
    waiters.ended("one")
    await again


async def test_a_waiter_that_gives_up_leaves_the_others_waiting():
    waiters = EndWaiters()
    leaving, staying = [await waiting(waiters) for _ in range(2)]
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert not staying.done()
    waiters.ended("one")
    await staying
    assert waiters._waiters == {}
