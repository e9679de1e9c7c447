"""The use cases of operators over the table of this process: told when it is kept, and not before."""

import asyncio

import pytest

from broker_support import HeldJournal, say
from thingctl_broker.commands import embedded, table
from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.commands.outcomes import count_statuses
from thingctl_broker.commands.table import Query
from thingctl_broker.errors import AlreadyEnded, NotAccepting, UnknownExecution
from thingctl_broker.testing import InMemoryJournal, service_with_fakes
from thingctl_protocol.statuses import Status


def status(execution):
    return execution.status


def nothing(_execution):
    return None


@pytest.fixture
def held():
    journal = HeldJournal()
    service, _, _ = service_with_fakes(["lamp"], journal)
    return service, EmbeddedOperations(service), journal


async def sent(operations, thing="lamp", **fields):
    return await operations.send(thing, "x", b"{}", None, lambda execution: execution, **fields)


@pytest.fixture
def operations():
    service, _, _ = service_with_fakes(["lamp", "lock"])
    return EmbeddedOperations(service)


async def begun(coroutine):
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


async def test_what_is_told_is_what_stood_when_it_was_decided_and_waits_for_the_disk(held):
    service, operations, journal = held
    task = await begun(operations.send("lamp", "x", b"{}", None, status))
    (execution,) = service.table
    service.respond("lamp", execution.execution_id, b'{"status":"SUCCEEDED"}', lambda: None)
    assert not task.done()
    journal.commit()
    assert await task is Status.SENT


def test_nobody_has_to_await_a_command_to_be_told_when_it_is_kept(held):
    service, operations, journal = held
    told, lost = [], []
    operations.send_then("lamp", "x", b"{}", 9, status, told=told.append, lost=lost.append, requested_by="me")
    (execution,) = service.table
    assert (execution.ttl, execution.requested_by) == (9, "me")
    service.respond("lamp", execution.execution_id, b'{"status":"SUCCEEDED"}', lambda: None)
    assert told == []
    journal.commit()
    assert (told, lost) == ([Status.SENT], [])


def test_who_does_not_await_a_command_is_told_that_it_could_not_be_kept(held):
    service, operations, journal = held
    told, lost = [], []
    operations.send_then("lamp", "x", b"{}", None, status, told=told.append, lost=lost.append)
    journal.fail()
    (error,) = lost
    assert (told, type(error), error.retry_after, len(service.table)) == ([], NotAccepting, 5, 0)
    with pytest.raises(NotAccepting):  # now it is known at once
        operations.send_then("lamp", "x", b"{}", None, status, told=told.append, lost=lost.append)
    assert (len(told), len(lost)) == (0, 1)


async def test_a_command_that_could_not_be_kept_was_not_accepted(held):
    _, operations, journal = held
    task = await begun(operations.send("lamp", "x", b"{}", None, status))
    journal.fail()
    with pytest.raises(NotAccepting):
        await task
    assert not operations.accepting


async def test_an_execution_that_was_withdrawn_never_was(held):
    service, operations, journal = held
    await begun(operations.send("lamp", "x", b"{}", None, status))
    (execution,) = service.table
    reading = await begun(operations.read(execution.execution_id, status))
    listing = await begun(operations.list(Query(), 10, None, lambda page: len(page.executions)))
    journal.fail()
    with pytest.raises(UnknownExecution):
        await reading
    assert await listing == 0


async def test_of_many_only_those_are_told_that_are_there(operations):
    one = await sent(operations)
    assert await operations.read_many([one.execution_id, "none"], dict) == {one.execution_id: one}
    with pytest.raises(UnknownExecution):
        await operations.read("none", status)


async def test_nobody_cancels_what_he_may_not_see(operations):
    one = await sent(operations)

    def refuse(_execution):
        raise UnknownExecution("not yours")

    with pytest.raises(UnknownExecution):
        await operations.cancel(one.execution_id, refuse, status)
    assert one.status is Status.SENT
    assert await operations.cancel(one.execution_id, nothing, status) is Status.CANCELED
    with pytest.raises(AlreadyEnded):
        await operations.cancel(one.execution_id, nothing, status)


async def test_withdrawing_a_thing_leaves_the_others_alone(operations):
    lamp, done, lock = [await sent(operations, thing) for thing in ("lamp", "lamp", "lock")]
    done.respond(say(Status.FAILED), 0.0)
    await operations.withdraw("lamp")
    assert [one.status for one in (lamp, done, lock)] == [Status.CANCELED, Status.FAILED, Status.SENT]


async def test_withdrawing_very_many_leaves_others_their_turn(operations, monkeypatch):
    monkeypatch.setattr(embedded, "WITHDRAW_TURN", 10)
    executions = [await sent(operations) for _ in range(95)]
    lock = await sent(operations, "lock")
    withdrawing = asyncio.create_task(operations.withdraw("lamp"))
    before = 0
    for _ in range(12):
        await asyncio.sleep(0)
        ended = sum(execution.is_terminal for execution in executions)
        assert ended - before <= 10
        before = ended
        assert await operations.read(lock.execution_id, status) is Status.SENT
    await withdrawing
    assert {execution.status for execution in executions} == {Status.CANCELED}


async def test_withdrawing_a_thing_finds_what_is_live_behind_what_has_long_ended(operations, monkeypatch):
    monkeypatch.setattr(table, "SCAN_MAX", 3)
    live = await sent(operations)
    for _ in range(10):
        (await sent(operations)).respond(say(Status.FAILED), 0.0)
    await operations.withdraw("lamp")
    assert live.status is Status.CANCELED


async def test_statuses_size_and_minutes_count(operations):
    command_id = operations.make_id()
    one = await sent(operations, command_id=command_id)
    await sent(operations, "lock", command_id=command_id)
    await sent(operations)
    await operations.cancel(one.execution_id, nothing, nothing)
    assert count_statuses(await operations.outcomes(command_id)) == {Status.CANCELED: 1, Status.SENT: 1}
    assert await operations.size() == (3, 2)
    minutes = await operations.minutes()
    assert (minutes[-1].created, minutes[-1].ended) == (3, {Status.CANCELED: 1})


async def test_watching_hears_of_every_change_until_it_ends(operations):
    heard = []
    end = operations.watch(heard.append)
    one = await sent(operations)
    end()
    await operations.cancel(one.execution_id, nothing, nothing)
    assert heard == [one.execution_id]


async def test_what_is_owed_is_kept_until_it_is_settled():
    journal = InMemoryJournal()
    service, _, _ = service_with_fakes(["lamp"], journal)
    operations = EmbeddedOperations(service)
    one = await sent_kept(operations, journal)
    assert await operations.owed() == []
    operations.owe(one)
    operations.owe(one)
    again = EmbeddedOperations(service)  # as after a restart
    assert list(await again.owed()) == [one]
    assert list(await again.owed()) == []
    await again.settled(one.execution_id)
    await again.settled("none")
    assert not one.untold


async def sent_kept(operations, journal):
    task = await begun(sent(operations))
    commit = getattr(journal, "commit", None)
    if commit is not None:
        commit()
    return await task
