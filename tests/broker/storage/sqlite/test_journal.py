"""The journal: one commit for all that has gathered, in order, whatever the disk does."""

import asyncio
import shutil
import sqlite3
import stat
import threading
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from broker_support import AT, NOW, make_execution, say
from support.processes import ROOT
from support.waits import eventually
from thingctl_broker.commands.service import CommandService
from thingctl_broker.commands.table import ExecutionTable
from thingctl_broker.errors import NotAccepting, UnknownExecution
from thingctl_broker.storage.sqlite import journal as journal_module
from thingctl_broker.storage.sqlite.journal import DatabaseFileError, SqliteJournal
from thingctl_broker.testing import InMemoryLink, ManualClock
from thingctl_protocol.statuses import Status

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.02)


@pytest.fixture
async def journal(tmp_path):
    journal = SqliteJournal(tmp_path)
    await journal.start()
    yield journal
    await journal.stop()


@pytest.fixture
async def small(tmp_path):
    """A journal with little room."""
    journal = SqliteJournal(tmp_path, max_bytes=MIB)
    await journal.start()
    yield journal
    await journal.stop()


def kept(directory):
    """What a new broker would find."""
    journal = SqliteJournal(directory)
    try:
        return {execution.execution_id: execution for execution in journal.recover(NOW, AT)}
    finally:
        journal.release()


async def settled(journal):
    done = asyncio.Event()
    journal.then(done.set)
    async with asyncio.timeout(10):
        await done.wait()


class Calls(list):
    """Callbacks that note their names in order."""

    def __call__(self, name):
        return lambda: self.append(name)


def big(**fields):
    return make_execution(params=b'{"text":"%b"}' % (b"x" * 120_000), **fields)


def fill(journal, calls=None):
    """Record more than a small journal holds; those that are new, so that they can be lost."""
    executions = [big() for _ in range(12)]
    for execution in executions:
        journal.record(execution)
    journal.then(lambda: None, lambda: [journal.forget(execution.execution_id) for execution in executions])
    return executions


async def test_what_was_recorded_is_there_after_a_restart(journal, tmp_path):
    executions = [make_execution() for _ in range(500)]
    for execution in executions:
        journal.record(execution)
    executions[7].respond(say(Status.SUCCEEDED, result=b"[1]"), AT)
    await journal.stop()
    found = kept(tmp_path)
    assert list(found) == [execution.execution_id for execution in executions]
    assert (found[executions[7].execution_id].status, found[executions[7].execution_id].result) == (
        Status.SUCCEEDED,
        b"[1]",
    )


async def test_what_gathers_while_the_disk_is_busy_is_one_commit(journal):
    journal.record(make_execution())
    await asyncio.sleep(0)  # the first is on its way alone
    for _ in range(1000):
        journal.record(make_execution())
    await settled(journal)
    assert journal.commits == 2


async def test_only_the_last_state_within_a_batch_is_written(journal, tmp_path):
    execution = make_execution()
    journal.record(execution)
    execution.published(AT)
    journal.record(execution)
    await settled(journal)
    assert journal.commits == 1
    await journal.stop()
    assert kept(tmp_path)[execution.execution_id].attempts == 1


async def test_nothing_to_wait_for_is_answered_at_once(journal):
    calls = Calls()
    journal.then(calls("idle"))
    assert calls == ["idle"]
    journal.record(make_execution())
    journal.then(calls("recorded"))
    assert calls == ["idle"]
    await settled(journal)
    journal.then(calls("idle again"))
    assert calls == ["idle", "recorded", "idle again"]


async def test_callbacks_come_in_the_order_in_which_they_were_asked_for(journal):
    calls = Calls()
    for i in range(5):
        journal.record(make_execution())
        journal.then(calls(i))
    await asyncio.sleep(0)
    for i in range(5, 10):  # gathered behind the batch that is under way
        journal.record(make_execution())
        journal.then(calls(i))
    await settled(journal)
    assert calls == list(range(10))


async def test_it_waits_for_the_commit_and_not_only_for_the_writer(journal, tmp_path):
    execution = make_execution()
    journal.record(execution)
    await settled(journal)
    # No stop, no courtesy: what a reader finds in the files this moment.
    assert [found.execution_id for found in journal.recover(NOW, AT)] == [execution.execution_id]


async def test_who_waits_without_having_changed_anything_waits_for_the_batch_under_way(journal):
    calls = Calls()
    journal.record(make_execution())
    await asyncio.sleep(0)
    journal.then(calls("reader"))
    assert calls == []
    await settled(journal)
    assert calls == ["reader"]
    assert journal.commits == 1


async def test_what_a_callback_records_is_kept_too(journal, tmp_path):
    calls, first, second = Calls(), make_execution(), make_execution()

    def follow():
        journal.record(second)
        journal.then(calls("second"))

    journal.record(first)
    journal.then(follow)
    await eventually(lambda: calls == ["second"])
    await journal.stop()
    assert list(kept(tmp_path)) == [first.execution_id, second.execution_id]


async def test_a_callback_that_fails_hurts_nobody_else(journal):
    calls = Calls()

    def fail():
        raise RuntimeError("a listener's own fault")

    journal.record(make_execution())
    journal.then(fail)
    journal.then(calls("next"))
    with capture_logs() as logs:
        await settled(journal)
    assert calls == ["next"]
    assert [line["event"] for line in logs] == ["a callback of the journal failed"]
    journal.record(make_execution())
    await settled(journal)


async def test_what_is_let_go_leaves_the_disk(journal, tmp_path):
    stays, goes, at_once = make_execution(), make_execution(), make_execution()
    journal.record(stays)
    journal.record(goes)
    await settled(journal)
    journal.forget(goes.execution_id)
    journal.record(at_once)
    journal.forget(at_once.execution_id)
    await settled(journal)
    await journal.stop()
    assert list(kept(tmp_path)) == [stays.execution_id]


async def test_eviction_deletes_rows(journal, tmp_path):
    clock = ManualClock()
    service = CommandService(
        clock=clock, link=InMemoryLink(), journal=journal, table=ExecutionTable(keep_seconds=60, capacity=3)
    )
    service.connected("lamp", "lamp")
    old = [service.send("lamp", "turnOn", ttl=1) for _ in range(3)]
    await settled(journal)
    clock.advance(1)
    service.expire()
    new = service.send("lamp", "turnOn", ttl=600)  # for which the oldest has to go
    clock.advance(60)
    service.expire()  # and the others for their age
    await settled(journal)
    await journal.stop()
    assert len(old) == 3
    assert list(kept(tmp_path)) == [new.execution_id]


async def test_stopping_keeps_what_was_recorded_last(journal, tmp_path):
    execution = make_execution()
    journal.record(execution)
    await journal.stop()
    assert list(kept(tmp_path)) == [execution.execution_id]


async def test_stopping_twice_or_before_the_start_is_no_fault(tmp_path):
    journal = SqliteJournal(tmp_path)
    await journal.stop()
    await journal.stop()
    SqliteJournal(tmp_path).release()


async def test_what_is_let_go_before_the_start_is_let_go_after_it(tmp_path):
    execution = make_execution()
    first = SqliteJournal(tmp_path)
    await first.start()
    first.record(execution)
    await first.stop()
    second = SqliteJournal(tmp_path)
    second.forget(execution.execution_id)
    await second.start()
    await eventually(lambda: second.commits == 1)
    await second.stop()
    assert kept(tmp_path) == {}


async def test_a_database_that_cannot_be_written_is_told_at_the_start(tmp_path):
    journal = SqliteJournal(tmp_path)
    (tmp_path / "executions.db").unlink()
    with pytest.raises(DatabaseFileError, match="cannot be written: unable to open"):
        await journal.start()
    journal.release()


async def test_a_copy_made_by_sqlite_is_a_backup(journal, tmp_path):
    """As docs/operations.md tells operators to make it, while the broker runs."""
    execution = make_execution()
    journal.record(execution)
    await settled(journal)
    backup = tmp_path / "backup"
    backup.mkdir()
    with closing(sqlite3.connect(tmp_path / "executions.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(backup / "executions.db"),))
    assert list(kept(backup)) == [execution.execution_id]
    restored = SqliteJournal(backup)
    await restored.start()
    restored.record(other := make_execution())
    await settled(restored)
    assert (backup / "executions.db-wal").exists()
    assert stat.S_IMODE((backup / "executions.db").stat().st_mode) == 0o600
    await restored.stop()
    assert list(kept(backup)) == [execution.execution_id, other.execution_id]


# The disk is full.


async def test_what_cannot_be_kept_is_given_back(small, tmp_path):
    calls, old = Calls(), make_execution()
    small.record(old)
    await settled(small)
    executions = [big() for _ in range(12)]
    for execution in executions:
        small.record(execution)
    small.then(calls("kept"), calls("lost"))
    small.then(calls("kept in the end"))
    with capture_logs() as logs:
        await eventually(lambda: not small.accepting)
        assert calls == ["lost"]
        for execution in executions:
            small.forget(execution.execution_id)
        old.published(AT)
        small.record(old)  # what runs goes on
        await eventually(lambda: small.accepting)
    assert calls == ["lost", "kept in the end"]
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("error", "executions cannot be kept: no command is accepted until they can"),
        ("warning", "executions are kept again: commands are accepted"),
    ]
    assert "full" in logs[0]["fault"]
    page = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    assert all(f"`{line['event']}`" in page for line in logs), "operators are told what to look for"
    await small.stop()
    found = kept(tmp_path)
    assert list(found) == [old.execution_id]
    assert found[old.execution_id].attempts == 1


async def test_those_who_came_behind_the_failing_batch_are_given_back_too(small):
    calls = Calls()
    fill(small)
    await asyncio.sleep(0)
    small.record(execution := make_execution())
    small.then(calls("kept"), lambda: (calls.append("lost"), small.forget(execution.execution_id)))
    await eventually(lambda: small.accepting and calls)
    assert calls == ["lost"]
    assert [found.execution_id for found in small.recover(NOW, AT)] == []


async def test_one_line_while_the_disk_is_full_however_often_it_is_tried(small):
    for _ in range(8):
        small.record(big())
    await settled(small)
    with capture_logs() as logs:
        fill(small)
        await eventually(lambda: not small.accepting)
        # What is left to write is nothing at all, which fits. That is no reason to accept.
        tries = []
        for _ in range(20):
            await asyncio.sleep(0.01)
            tries.append(small.accepting)
    assert not any(tries)
    assert len(logs) == 1


async def test_what_was_let_go_during_the_failing_batch_does_not_come_back(small, tmp_path):
    execution = make_execution()
    small.record(execution)
    await settled(small)
    fill(small)
    small.record(execution)
    await asyncio.sleep(0)  # the batch is with the writer, the execution in it
    small.forget(execution.execution_id)
    await eventually(lambda: not small.accepting)
    await eventually(lambda: small.accepting)
    await small.stop()
    assert kept(tmp_path) == {}


async def test_what_leaves_makes_room_for_what_stays(small, tmp_path):
    first = [big() for _ in range(7)]
    for execution in first:
        small.record(execution)
    await settled(small)
    for execution in first:
        small.forget(execution.execution_id)
    second = [big() for _ in range(7)]
    for execution in second:
        small.record(execution)
    await settled(small)
    assert small.accepting
    await small.stop()
    assert list(kept(tmp_path)) == [execution.execution_id for execution in second]


async def test_a_full_disk_from_the_operators_side(small, tmp_path):
    clock, link = ManualClock(), InMemoryLink()
    service = CommandService(clock=clock, link=link, journal=small, table=ExecutionTable(keep_seconds=60))
    service.connected("lamp", "lamp")
    service.reachable("lamp")
    params = b'{"text":"%b"}' % (b"x" * 120_000)
    accepted, running = [], service.send("lamp", "turnOn", ttl=600)
    await settled(small)
    with capture_logs() as logs:
        while small.accepting:
            execution = service.send("lamp", "turnOn", params, ttl=1, idempotency_key=str(len(accepted)))
            accepted.append(execution)
            outcome = []
            small.then(lambda o=outcome: o.append("kept"), lambda o=outcome: o.append("lost"))
            await eventually(lambda o=outcome: o)
        lost = accepted.pop()
        with pytest.raises(UnknownExecution):
            service.get(lost.execution_id)
        with pytest.raises(NotAccepting, match="cannot be kept at present"):
            service.send("lamp", "turnOn")
        assert service.send("lamp", "turnOn", params, ttl=1, idempotency_key="0") is accepted[0]
        # What runs goes on: the answer counts at once, though its PUBACK waits.
        acknowledged = []
        service.respond(
            "lamp", running.execution_id, b'{"status":"SUCCEEDED"}', lambda: acknowledged.append(1)
        )
        assert running.status is Status.SUCCEEDED
        await asyncio.sleep(0.1)
        assert acknowledged == []
        clock.advance(1)
        assert service.expire() == len(accepted)
        clock.advance(60)
        service.expire()  # history leaves, and makes room
        await eventually(lambda: small.accepting)
        assert acknowledged == [1]
    assert [line["log_level"] for line in logs] == ["error", "warning"]
    after = service.send("lamp", "turnOn", params, ttl=600)
    await settled(small)
    published = [request.execution_id for request in link.published]
    assert published == [running.execution_id, *(one.execution_id for one in accepted), after.execution_id]
    assert lost.execution_id not in published
    await small.stop()
    assert list(kept(tmp_path)) == [execution.execution_id for execution in service.table]


# The files are not there any more.


def remove(directory):
    shutil.rmtree(directory)


def move_away(directory):
    directory.rename(directory.with_name("elsewhere"))


def replace(directory):
    move_away(directory)
    shutil.copytree(directory.with_name("elsewhere"), directory)


def remove_the_log(directory):
    (directory / "executions.db-wal").unlink()


@pytest.mark.parametrize("harm", [remove, move_away, replace, remove_the_log])
async def test_files_that_were_taken_away_are_missed_before_anybody_is_told_of_a_commit(tmp_path, harm):
    journal = SqliteJournal(tmp_path / "data")
    await journal.start()
    for _ in range(1 if harm is remove_the_log else 2):  # a file a commit is looked at
        journal.record(make_execution())
        await settled(journal)
    harm(tmp_path / "data")
    calls = Calls()
    with capture_logs() as logs:
        journal.record(make_execution())
        journal.then(calls("kept"), calls("lost"))
        await eventually(lambda: calls)
        assert calls == ["lost"]
        assert not journal.accepting
        await asyncio.sleep(0.1)  # some tries later
        assert not journal.accepting
    assert len(logs) == 1
    assert "while it was used" in logs[0]["fault"]
    await journal.stop()


async def test_files_that_come_back_are_taken_up_again(tmp_path):
    journal = SqliteJournal(tmp_path / "data")
    await journal.start()
    move_away(tmp_path / "data")
    calls, execution = Calls(), make_execution()
    journal.record(execution)
    journal.then(calls("kept"), lambda: (calls.append("lost"), journal.forget(execution.execution_id)))
    await eventually(lambda: not journal.accepting)
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    await eventually(lambda: journal.accepting)
    journal.record(after := make_execution())
    await settled(journal)
    await journal.stop()
    assert calls == ["lost"]
    assert list(kept(tmp_path / "data")) == [after.execution_id]


async def test_stopping_on_a_full_disk_tries_once_more_and_says_what_is_lost(small, tmp_path):
    for _ in range(12):
        small.record(big())
    await eventually(lambda: not small.accepting)
    with capture_logs() as logs:
        await small.stop()
    assert [(line["event"], line["count"]) for line in logs] == [
        ("executions could not be kept as they stand now", 12)
    ]
    assert kept(tmp_path) == {}


async def test_stopping_just_when_there_is_room_again_loses_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 60.0)
    executions = [big() for _ in range(12)]
    for execution in executions:
        small.record(execution)
    await eventually(lambda: not small.accepting)
    for execution in executions[1:]:
        small.forget(execution.execution_id)
    await small.stop()
    assert list(kept(tmp_path)) == [executions[0].execution_id]


async def test_no_fault_ends_the_writer(journal, tmp_path, monkeypatch):
    def fail(connection, batch, placed):
        assert threading.current_thread().name == "executions"
        raise MemoryError("whatever it is")

    with monkeypatch.context() as patched:
        patched.setattr(journal._writer, "_commit", fail)
        journal.record(execution := make_execution())
        await eventually(lambda: not journal.accepting)
    await eventually(lambda: journal.accepting)
    await journal.stop()
    assert list(kept(tmp_path)) == [execution.execution_id]


async def test_a_restart_takes_in_more_than_the_table_holds_and_lets_go_what_it_can(tmp_path):
    first = SqliteJournal(tmp_path)
    await first.start()
    live = [make_execution(thing="lamp", ttl=600) for _ in range(5)]
    ended = [make_execution(status=Status.SUCCEEDED, ended_at=AT + moment) for moment in (3, 1, 2)]
    for execution in live + ended:
        first.record(execution)
    await first.stop()

    journal = SqliteJournal(tmp_path)
    clock = ManualClock(NOW, AT)
    service = CommandService(
        clock=clock, link=InMemoryLink(), journal=journal, table=ExecutionTable(capacity=6)
    )
    assert service.restore(journal.recover(NOW, AT)) == 8
    await journal.start()
    service.expire()
    await journal.stop()
    left = [execution.execution_id for execution in live] + [ended[0].execution_id]
    assert list(kept(tmp_path)) == left
    assert [execution.execution_id for execution in service.table] == left
