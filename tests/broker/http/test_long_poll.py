"""Answers that wait until an execution has ended."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.http.long_poll import until_ended
from thingctl_broker.testing import service_with_fakes


@pytest.fixture
def waiting():
    service, _, _ = service_with_fakes(["lamp"])
    operations = EmbeddedOperations(service)
    return service, operations, service.send("lamp", "x")


async def never():
    await asyncio.get_running_loop().create_future()


async def test_the_end_of_the_execution_ends_the_wait(waiting):
    service, operations, execution = waiting
    task = asyncio.create_task(until_ended(operations, execution.execution_id, 60, never))
    await asyncio.sleep(0)
    service.cancel(execution.execution_id)
    await task


async def test_what_has_ended_is_not_waited_for(waiting):
    service, operations, execution = waiting
    service.cancel(execution.execution_id)
    await until_ended(operations, execution.execution_id, 60, never)


async def test_the_time_ends_the_wait(waiting):
    _, operations, execution = waiting
    await until_ended(operations, execution.execution_id, 0.001, never)
    assert not execution.is_terminal


async def test_the_broker_ends_the_wait_and_later_ones(waiting):
    _, operations, execution = waiting
    task = asyncio.create_task(until_ended(operations, execution.execution_id, 60, never))
    await asyncio.sleep(0)
    operations.stop()
    await task
    await until_ended(operations, execution.execution_id, 60, never)


async def test_the_client_ends_the_wait_and_leaves_nothing_behind(waiting):
    _, operations, execution = waiting
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    with pytest.raises(ClientDisconnect):
        await until_ended(operations, execution.execution_id, 60, receive)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert operations._waiters._waiters == {}
