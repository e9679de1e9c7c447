"""A database file: which process has it, whether it is whole, and how it is made and migrated.

Whatever is refused here is left as it is, byte for byte.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

from thingctl_broker.storage.sqlite.wal_check import check_wal
from thingctl_broker.system.files import disk_fault, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_BYTES_MIN: Final = 1024 * 1024

_UNTOUCHED: Final = "It was left as it is."


class Schema(NamedTuple):
    """What a database of ours looks like: the statements that make it, one for each version."""

    application_id: int
    migrations: tuple[str, ...]
    was_made_in_place: bool = False
    """Whether an earlier version made the file at its place: an empty one is left from a start cut short."""


class DatabaseFileError(Exception):
    """The database cannot be used; the text says why."""


def lock(directory: Path, name: str = "lock") -> int:
    """Hold the file ``name`` in the directory for this process; it is free when the handle is closed.

    Raises :class:`DatabaseFileError` when another process has it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseFileError(f"cannot use the data directory {directory}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno == errno.EWOULDBLOCK:
            raise DatabaseFileError(f"another broker is using the data directory {directory}") from None
        raise DatabaseFileError(f"cannot lock {directory}: {error.strerror}") from None
    return handle


def prepare(path: Path, schema: Schema) -> None:
    """Make the database if there is none, and migrate one of an earlier version.

    Raises :class:`DatabaseFileError`; then the file is as it was.
    """
    try:
        if schema.was_made_in_place and _is_unfinished(path):
            path.unlink()
        if path.exists():
            version = checked_version(path, schema)
        elif _wal_size(path):
            raise DatabaseFileError(f"{path} is missing, but its log {path}-wal is there. {_UNTOUCHED}")
        else:
            _create(path, schema)
            return
    except OSError as error:
        raise DatabaseFileError(f"cannot use {path}: {error.strerror}") from None
    latest = len(schema.migrations)
    if version < latest:
        check_whole(path)
        try:
            with closing(_connect(path, "mode=rw")) as connection:
                _migrate(connection, version, schema)
        except sqlite3.Error as error:
            raise DatabaseFileError(
                f"{path} is of schema {version} and could not be brought to {latest}: "
                f"{disk_fault(path, error)}. "
                "It is of the old schema still."
            ) from error


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the database without changing a byte of it, nor making any file beside it without need."""
    return _connect(path, "mode=ro" if _wal_size(path) else "mode=ro&immutable=1")


def open_to_write(path: Path, max_bytes: int) -> sqlite3.Connection:
    """Open the database for its one writer."""
    connection = _connect(path, "mode=rw")
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")  # a copy made by SQLite itself may have lost it
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -16384")
        # After one huge batch the log shrinks again.
        connection.execute("PRAGMA journal_size_limit = 67108864")
        if max_bytes:
            page = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {max(max_bytes, MAX_BYTES_MIN) // page}")
        connection.execute(
            "BEGIN IMMEDIATE"
        )  # tells now, not at the first command, that it cannot be written
        connection.execute("ROLLBACK")
    except (sqlite3.Error, OSError):
        connection.close()
        raise
    return connection


def copy_database(source: Path, copy: Path) -> None:
    """Write a compact copy of a database that may be in use; raises OSError or sqlite3.Error."""
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # SQLite would go by the umask
    with closing(_connect(source, "mode=ro", timeout=30.0)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))


def check_whole(path: Path) -> None:
    """Raise :class:`DatabaseFileError` when there is fault with the database or its log as a whole."""
    try:
        check_wal(wal_of(path))
        with closing(open_to_read(path)) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except OSError as error:
        raise DatabaseFileError(f"cannot use {path}: {error.strerror}") from None
    except (sqlite3.Error, ValueError) as error:  # what SQLite says of damage may itself be no UTF-8
        raise damaged(path, error) from error
    if verdict != "ok":
        raise damaged(path, " ".join(str(verdict).split()))


def damaged(path: Path, why: object) -> DatabaseFileError:
    """The database is damaged."""
    return DatabaseFileError(f"{path} is damaged or no SQLite database: {why}. {_UNTOUCHED}")


def checked_version(path: Path, schema: Schema) -> int:
    """Return the version of the schema of ``path``. Raises :class:`DatabaseFileError` if it is not ours."""
    if not path.stat().st_size:
        # Cannot be our doing: the file is written under a temporary name and renamed.
        raise damaged(path, "it is empty")
    try:
        with closing(open_to_read(path)) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    except (sqlite3.Error, UnicodeError) as error:
        raise damaged(path, error) from None
    if application != schema.application_id:
        raise DatabaseFileError(f"{path} is a database, but not of thingctl. {_UNTOUCHED}")
    latest = len(schema.migrations)
    if version > latest:
        raise DatabaseFileError(
            f"{path} was written by a newer thingctl (schema {version}; this one knows {latest}). "
            f"{_UNTOUCHED}"
        )
    return version


def check_current(path: Path, schema: Schema) -> None:
    """Raise :class:`DatabaseFileError` when the database is not ours, or of an earlier version."""
    version = checked_version(path, schema)
    if version < len(schema.migrations):
        raise DatabaseFileError(
            f"{path} was written by an older thingctl (schema {version}). {_UNTOUCHED} "
            "Start this version's broker on it once, which migrates it"
        )


def _is_unfinished(path: Path) -> bool:
    """Whether the file is empty, or SQLite's without a table and an owner."""
    if not path.exists() or _wal_size(path):
        return False
    if not path.stat().st_size:
        return True
    try:
        with closing(open_to_read(path)) as connection:
            tables, owner = (
                connection.execute(of).fetchone()[0]
                for of in ("SELECT count(*) FROM sqlite_schema", "PRAGMA application_id")
            )
    except (sqlite3.Error, UnicodeError):
        return False
    return not tables and not owner


def _create(path: Path, schema: Schema) -> None:
    """Make an empty database, elsewhere first: at its place there is a whole one or none."""
    new = path.with_name(f"{path.name}.new")
    leftovers = (new, *(new.with_name(f"{new.name}{end}") for end in ("-wal", "-shm", "-journal")))
    _remove(leftovers)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        with closing(_connect(new, "mode=rw")) as connection:
            _migrate(connection, 0, schema)
            connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        fault = disk_fault(path, error)
        _remove(leftovers)
        raise DatabaseFileError(f"cannot make {path}: {fault}") from error
    new.rename(path)
    sync_directory(path.parent)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _migrate(connection: sqlite3.Connection, version: int, schema: Schema) -> None:
    """All the way or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    for migration in schema.migrations[version:]:
        connection.execute(migration)
    connection.execute(f"PRAGMA application_id = {schema.application_id}")
    connection.execute(f"PRAGMA user_version = {len(schema.migrations)}")
    connection.execute("COMMIT")


def _connect(path: Path, options: str, timeout: float = 5.0) -> sqlite3.Connection:
    """``timeout``: seconds to wait for another process that writes."""
    uri = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)


def wal_of(path: Path) -> Path:
    """The log that SQLite keeps beside the database."""
    return path.with_name(f"{path.name}-wal")


def _wal_size(path: Path) -> int:
    try:
        return wal_of(path).stat().st_size
    except FileNotFoundError:
        return 0
