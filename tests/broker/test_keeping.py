"""Callers that wait until what they are told is kept."""

import asyncio

import pytest

from thingctl_broker.keeping import until_kept
from thingctl_broker.testing import InMemoryJournal, service_with_fakes
from thingctl_broker.unkept import NoJournal


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
