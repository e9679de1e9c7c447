"""A log that a crash has cut short is good; one that was damaged in its middle is refused."""

import random
import shutil
import sqlite3
from contextlib import closing

import pytest

from broker_support import AT, NOW, make_execution
from thingctl_broker.storage.sqlite.execution_rows import to_rows, upserts
from thingctl_broker.storage.sqlite.journal import DatabaseFileError, SqliteJournal
from thingctl_broker.storage.sqlite.wal_check import COMMITS_CUT_SHORT_MAX, check_wal

COMMITS = 60


@pytest.fixture
def crashed(tmp_path):
    """What ``kill -9`` leaves: commits that are in the log only. Their ids, one for each."""
    directory, alive = tmp_path / "crashed", tmp_path / "alive"
    SqliteJournal(alive).release()
    executions = [make_execution() for _ in range(COMMITS)]
    directory.mkdir()
    with closing(sqlite3.connect(alive / "executions.db", isolation_level=None)) as connection:
        for execution in executions:
            for statement, values in upserts(to_rows([execution])):
                connection.execute(statement, values)
        for name in ("executions.db", "executions.db-wal"):
            shutil.copy(alive / name, directory / name)
    return directory, [execution.execution_id for execution in executions]


def recover(directory):
    journal = SqliteJournal(directory)
    try:
        return [execution.execution_id for execution in journal.recover(NOW, AT)]
    finally:
        journal.release()


def test_what_a_crash_leaves_is_read(crashed):
    directory, ids = crashed
    check_wal(directory / "executions.db-wal")
    assert recover(directory) == ids


def test_no_log_and_an_empty_one_are_good(tmp_path):
    check_wal(tmp_path / "executions.db-wal")
    for content in (b"", bytes(32), bytes(8192), b"short"):
        (tmp_path / "executions.db-wal").write_bytes(content)
        check_wal(tmp_path / "executions.db-wal")


def test_a_log_may_be_cut_short_anywhere(crashed):
    """That is what a crash looks like, and what was not committed yet is not missed."""
    directory, ids = crashed
    wal = directory / "executions.db-wal"
    whole = wal.read_bytes()
    for length in random.Random(1).sample(range(len(whole)), 40):
        wal.write_bytes(whole[:length])
        found = recover(directory)
        assert found == ids[: len(found)]
        (directory / "executions.db-shm").unlink(missing_ok=True)


def test_a_log_that_was_begun_anew_over_an_old_one_is_good(crashed):
    directory, ids = crashed
    with closing(sqlite3.connect(directory / "executions.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        execution = make_execution()
        for statement, values in upserts(to_rows([execution])):
            connection.execute(statement, values)
        check_wal(directory / "executions.db-wal")
        copy = directory.with_name("copy")
        shutil.copytree(directory, copy)
    (copy / "executions.db-shm").unlink()
    assert recover(copy) == [*ids, execution.execution_id]


def test_damage_in_the_middle_is_refused_and_no_more_than_the_last_commits_can_go_unnoticed(crashed):
    directory, ids = crashed
    wal = directory / "executions.db-wal"
    whole = wal.read_bytes()
    refusals = 0
    for seed in range(60):
        randomness = random.Random(seed)
        content = bytearray(whole)
        content[randomness.randrange(len(content))] ^= 1 << randomness.randrange(8)
        wal.write_bytes(content)
        (directory / "executions.db-shm").unlink(missing_ok=True)
        try:
            found = recover(directory)
        except DatabaseFileError:
            refusals += 1
        else:
            assert found == ids[: len(found)], seed
            assert len(found) >= COMMITS - COMMITS_CUT_SHORT_MAX - 1, seed
        assert wal.read_bytes() == content, seed
    assert refusals > 45


@pytest.mark.parametrize("place", [0, 5, 9, 18, 30])
def test_a_damaged_head_is_refused(crashed, place):
    directory, _ = crashed
    wal = directory / "executions.db-wal"
    content = bytearray(wal.read_bytes())
    content[place] ^= 0x10
    wal.write_bytes(content)
    with pytest.raises(DatabaseFileError, match=r"is damaged.*the head of its log is not as it was written"):
        recover(directory)
    assert wal.read_bytes() == content
