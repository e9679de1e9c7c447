"""What is not ours, not whole or not ready is refused in words, and not one byte of it changes."""

import hashlib
import os
import random
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from broker_support import AT, NOW, make_execution
from thingctl_broker.storage.sqlite import execution_rows
from thingctl_broker.storage.sqlite.execution_rows import to_rows, upserts
from thingctl_broker.storage.sqlite.journal import DatabaseFileError, SqliteJournal

FILE = "executions.db"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / FILE


def make(path, count=3, **fields):
    """A database with executions in it, closed properly."""
    SqliteJournal(path.parent).release()
    executions = [make_execution(**fields) for _ in range(count)]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement, values in upserts(to_rows(executions)):
            connection.execute(statement, values)
    return [execution.execution_id for execution in executions]


def recover(path):
    journal = SqliteJournal(path.parent)
    try:
        return [execution.execution_id for execution in journal.recover(NOW, AT)]
    finally:
        journal.release()


def digests(directory):
    return {
        found.name: hashlib.sha256(found.read_bytes()).hexdigest()
        for found in directory.iterdir()
        if found.is_file()
    }


def refused(path, match):
    """Refused in these words, and untouched."""
    before = digests(path.parent)
    with pytest.raises(DatabaseFileError, match=match):
        recover(path)
    assert {name: digest for name, digest in digests(path.parent).items() if name != "lock"} == {
        name: digest for name, digest in before.items() if name != "lock"
    }


def test_an_empty_directory_becomes_a_data_directory(path):
    assert recover(path) == []
    assert recover(path) == []
    assert sorted(digests(path.parent)) == [FILE, "lock"]


def test_only_the_owner_may_read(path):
    make(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()} == {0o600}


def test_what_a_crash_left_of_the_making_is_made_anew(path):
    path.parent.mkdir()
    for name in ("executions.db.new", "executions.db.new-wal", "executions.db.new-shm"):
        (path.parent / name).write_bytes(b"half")
    assert recover(path) == []
    assert sorted(digests(path.parent)) == [FILE, "lock"]


def test_a_directory_has_one_broker(path):
    journal = SqliteJournal(path.parent)
    with pytest.raises(DatabaseFileError, match="another broker is using"):
        SqliteJournal(path.parent)
    journal.release()
    SqliteJournal(path.parent).release()


def test_the_lock_goes_with_its_process(path):
    script = "import pathlib, sys; from thingctl_broker.storage.sqlite.journal import SqliteJournal; "
    script += "j = SqliteJournal(pathlib.Path(sys.argv[1])); print('mine', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, path.parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(DatabaseFileError, match="another broker"):
            SqliteJournal(path.parent)
        other.kill()
        other.wait()
        SqliteJournal(path.parent).release()


def test_a_newer_version_is_refused(path):
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    refused(path, r"written by a newer thingctl \(schema 99; this one knows 1\)")


def test_a_database_of_somebody_else_is_refused(path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title)")
    refused(path, "not of thingctl")


@pytest.mark.parametrize("content", [b"", b"x", b"no database at all" * 1000, bytes(8192)])
def test_what_is_no_database_is_refused(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    refused(path, "damaged or no SQLite database|not of thingctl")


def test_a_log_without_its_database_is_refused(path):
    path.parent.mkdir()
    path.with_name(f"{FILE}-wal").write_bytes(b"the last executions")
    refused(path, "is missing, but its log")


def test_a_directory_in_its_place_is_refused(path):
    path.mkdir(parents=True)
    with pytest.raises(DatabaseFileError, match=FILE):
        SqliteJournal(path.parent)


def test_a_data_directory_that_is_a_file_is_refused(path):
    path.parent.write_bytes(b"")
    with pytest.raises(DatabaseFileError, match=r"cannot use .*data"):
        SqliteJournal(path.parent)


@pytest.mark.parametrize("locked_out", ["directory", "database"])
def test_what_may_not_be_read_is_refused(path, locked_out):
    make(path)
    target = path.parent if locked_out == "directory" else path
    for directory in path.parents[:3]:  # pytest's own are for one user alone
        directory.chmod(0o755)
    if locked_out == "database":
        path.parent.chmod(0o777)
        (path.parent / "lock").chmod(0o666)
    target.chmod(0)
    try:
        with somebody_else(), pytest.raises(DatabaseFileError, match=r"cannot use|unable to open"):
            SqliteJournal(path.parent)
    finally:
        target.chmod(0o700)


@contextmanager
def somebody_else():
    """As a user whom permissions hold: root goes wherever it likes."""
    root = os.geteuid() == 0
    if root:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)


# Damage.


def damage(content, randomness):
    """One of the ways in which disks, copies and people spoil a file."""
    content = bytearray(content)
    way = randomness.choice(["flip", "flips", "page", "zeros", "cut", "swap", "tail"])
    pages = len(content) // 4096
    if way == "flip":
        content[randomness.randrange(len(content))] ^= 1 << randomness.randrange(8)
    elif way == "flips":
        for _ in range(50):
            content[randomness.randrange(len(content))] ^= randomness.randrange(1, 256)
    elif way in {"page", "zeros"}:
        start = randomness.randrange(pages) * 4096
        content[start : start + 4096] = randomness.randbytes(4096) if way == "page" else bytes(4096)
    elif way == "cut":
        del content[randomness.randrange(len(content)) :]
    elif way == "swap" and pages > 2:
        one, other = (page * 4096 for page in randomness.sample(range(pages), 2))
        content[one : one + 4096], content[other : other + 4096] = (
            content[other : other + 4096],
            content[one : one + 4096],
        )
    else:
        content[-randomness.randrange(1, 8192) :] = b""
    return bytes(content)


def test_damage_is_refused_or_has_hurt_nothing(path):
    """Bytes that nothing lies in may change unseen; an execution may not."""
    kept = make(path, 200, params=b'{"text":"%b"}' % (b"x" * 300))
    whole = path.read_bytes()
    refusals = 0
    for seed in range(250):
        randomness = random.Random(seed)
        content = damage(whole, randomness)
        path.write_bytes(content)
        try:
            assert recover(path) == kept, seed
        except DatabaseFileError:
            refusals += 1
        assert path.read_bytes() == content, seed
        assert sorted(digests(path.parent)) == [FILE, "lock"], seed
    assert refusals > 150
    path.write_bytes(whole)
    assert recover(path) == kept


def test_a_flipped_bit_in_a_value_is_refused(path):
    make(path, params=b'{"value":24}')
    content = path.read_bytes()
    path.write_bytes(content.replace(rb"{\"value\":24}", rb"{\"value\":25}", 1))
    refused(path, "not as it was written")


def test_damage_that_sqlite_itself_can_tell_only_in_broken_words_is_refused(path):
    make(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"tableexecutionsexecutions", b"tableexecut\xba\xbbnsexecutions", 1))
    refused(path, "is damaged or no SQLite database")


# Versions of the schema.


@pytest.fixture
def second_version(monkeypatch):
    def set_migration(sql):
        first = execution_rows.SCHEMA
        monkeypatch.setattr(execution_rows, "SCHEMA", first._replace(migrations=(*first.migrations, sql)))

    return set_migration


def test_an_older_schema_is_brought_up_to_date_with_its_executions(path, second_version):
    kept = make(path)
    second_version("ALTER TABLE executions ADD COLUMN colour TEXT")
    assert recover(path) == kept
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT colour FROM executions").fetchall() == [(None,)] * 3


def test_a_new_database_is_made_in_the_latest_version(path, second_version):
    second_version("ALTER TABLE executions ADD COLUMN colour TEXT")
    assert recover(path) == []
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_migration_that_fails_changes_nothing(path, second_version, monkeypatch):
    kept = make(path)
    with monkeypatch.context():
        second_version("ALTER TABLE executions ADD COLUMN colour TEXT")
        second_version("ALTER TABLE songs ADD COLUMN colour TEXT")
        with pytest.raises(
            DatabaseFileError, match="of schema 1 and could not be brought to 3: no such table"
        ):
            recover(path)
        monkeypatch.undo()
    assert recover(path) == kept


def test_a_damaged_database_is_not_migrated(path, second_version):
    make(path, 200)
    content = bytearray(path.read_bytes())
    content[4096 * 4 : 4096 * 5] = bytes(4096)
    path.write_bytes(content)
    second_version("ALTER TABLE executions ADD COLUMN colour TEXT")
    refused(path, "is damaged")
