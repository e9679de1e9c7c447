"""The thread that commits batches, and tells the loop of each how it ended."""

import sqlite3
from contextlib import closing

import pytest

from support.waits import eventually
from thingctl_broker.storage.sqlite.commit_writer import CommitWriter
from thingctl_broker.storage.sqlite.database import DatabaseFileError, prepare
from thingctl_broker.storage.sqlite.execution_rows import SCHEMA


def written(path):
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM t ORDER BY rowid")]


def write(connection, batch, placed):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE IF NOT EXISTS t (value)")
    for value in batch:
        connection.execute("INSERT INTO t VALUES (?)", (value,))
    if "fault" in batch:
        raise RuntimeError("no statement of this batch counts")
    placed.check()
    connection.execute("COMMIT")


async def test_batches_are_committed_in_turn_and_one_that_fails_leaves_nothing(tmp_path):
    path, told = tmp_path / "x.db", []
    prepare(path, SCHEMA)
    writer = CommitWriter(path, write, committed=told.append, failed=lambda b, e: told.append((b, str(e))))
    assert not writer.is_running
    await writer.start()
    for batch in (["a", "b"], ["c", "fault"], ["d"]):
        writer.commit(batch)
    await eventually(lambda: len(told) == 3)
    assert told == [["a", "b"], (["c", "fault"], "no statement of this batch counts"), ["d"]]
    writer.commit(["e"])
    await writer.stop()
    assert not writer.is_running
    assert written(path) == ["a", "b", "d", "e"]


async def test_a_file_that_is_gone_takes_no_commit(tmp_path):
    path, told = tmp_path / "x.db", []
    prepare(path, SCHEMA)
    writer = CommitWriter(path, write, committed=told.append, failed=lambda _, e: told.append(str(e)))
    await writer.start()
    path.rename(tmp_path / "elsewhere.db")
    writer.commit(["a"])
    writer.commit(["b"])
    await eventually(lambda: len(told) == 2)
    assert any("removed or moved" in str(what) for what in told)
    await writer.stop()


async def test_a_database_that_cannot_be_opened_is_told(tmp_path):
    writer = CommitWriter(tmp_path / "none.db", write, committed=print, failed=print)
    with pytest.raises(DatabaseFileError, match="cannot be written"):
        await writer.start()
    assert not writer.is_running
