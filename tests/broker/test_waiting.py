"""Callers that wait for an end: woken by it, by their own patience, or at the broker's end."""

import asyncio

import pytest

from broker_support import AT, make_execution, say
from thingctl_broker.events import Change, Events
from thingctl_broker.waiting import EndWaiters
from thingctl_protocol.statuses import Status

LONG = 30.0


async def settle():
    for _ in range(3):
        await asyncio.sleep(0)


async def test_every_waiter_wakes_when_the_execution_ends():
    events = Events()
    waiters, execution = EndWaiters(events), make_execution()
    tasks = [asyncio.create_task(waiters.wait(execution, LONG)) for _ in range(3)]
    await settle()
    events.emit(execution, Change.PROGRESSED)
    events.emit(make_execution(), Change.ENDED)
    await settle()
    assert not any(task.done() for task in tasks)
    execution.respond(say(Status.SUCCEEDED), AT)
    events.emit(execution, Change.ENDED)
    assert await asyncio.gather(*tasks) == [True, True, True]
    assert waiters._waiters == {}


async def test_what_has_ended_is_not_waited_for():
    execution = make_execution(status=Status.FAILED)
    assert await EndWaiters(Events()).wait(execution, LONG) is True


@pytest.mark.parametrize("seconds", [0.0, 0.01])
async def test_patience_ends_without_an_end(seconds):
    waiters = EndWaiters(Events())
    assert await waiters.wait(make_execution(), seconds) is False
    assert waiters._waiters == {}


async def test_let_go_a_waiter_does_not_say_that_the_execution_ended():
    waiters, execution = EndWaiters(Events()), make_execution()
    task = asyncio.create_task(waiters.wait(execution, LONG))
    await settle()
    waiters.release()
    waiters.release()
    assert await task is False
    assert waiters._waiters == {}


async def test_a_waiter_that_gives_up_leaves_the_others_waiting():
    events = Events()
    waiters, execution = EndWaiters(events), make_execution()
    leaving, staying = (asyncio.create_task(waiters.wait(execution, LONG)) for _ in range(2))
    await settle()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    execution.respond(say(Status.SUCCEEDED), AT)
    events.emit(execution, Change.ENDED)
    assert await staying is True
    assert waiters._waiters == {}


async def test_an_end_that_meets_a_waiter_already_let_go_is_harmless():
    events = Events()
    waiters, execution = EndWaiters(events), make_execution()
    task = asyncio.create_task(waiters.wait(execution, LONG))
    await settle()
    waiters.release()
    execution.respond(say(Status.SUCCEEDED), AT)
    events.emit(execution, Change.ENDED)
    assert await task is True
