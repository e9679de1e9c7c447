"""What keeps things and thing types beyond the process: SQLite, written behind.

The registry in memory is the truth while the broker runs. What an operator changes is on
the disk before it is made (``keep``); presence and announcements follow within a second,
many at once, so that ten thousand things that drop together cost one commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.errors import NotKept
from thingctl_broker.storage.sqlite.database import (
    DatabaseFileError,
    Schema,
    check_current,
    damaged,
    lock,
    open_to_read,
    open_to_write,
    prepare,
    wal_of,
)
from thingctl_broker.system.files import FileIdentity, FileReplaced, disk_fault
from thingctl_broker.things.records import Stored, keys_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from thingctl_broker.things.records import RegistryChange

REGISTRY_FILE: Final = "registry.db"
LOCK_FILE: Final = "registry.lock"

LAG: Final = 1.0
"""Seconds that presence may gather before it is written, and between tries that fail."""

LAG_OF_THINGS: Final = 0.1
"""The same for a thing that enrolled itself: its commands are kept without delay."""

BATCH_MAX: Final = 2000
"""Records of one commit: encoding them takes the loop's time."""

_ORDER: Final = (Stored.TYPE, Stored.THING, Stored.PRESENCE, Stored.ANNOUNCEMENT)
SCHEMA: Final = Schema(
    0x7468_6372,  # "thcr"
    (
        """
    CREATE TABLE records (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (kind, name)
    ) WITHOUT ROWID
    """,
    ),
    was_made_in_place=True,
)
_PUT: Final = "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_ROWS: Final = "SELECT name, value FROM records WHERE kind = ? ORDER BY name"
_DELETE: Final = "DELETE FROM records WHERE kind = ? AND name = ?"

_log = structlog.get_logger("thingctl.registry")

Record = tuple[str, str, bytes | None]


class RegistryStore:
    """Keeps records in ``directory/registry.db``.

    ``record`` gives a record as it is now; None: there is none to be kept.
    """

    def __init__(self, directory: Path, record: Callable[[Stored, str], bytes | None]) -> None:
        """Open or make the database. Raises :class:`DatabaseFileError`."""
        self._path = directory / REGISTRY_FILE
        self._record = record
        self._dirty: dict[tuple[Stored, str], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._started = False
        self._behind: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._failing = False
        # One thread, so that commits come one after another; the connection is its own.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._lock = lock(directory, LOCK_FILE)
        try:
            prepare(self._path, SCHEMA)
            self._connection, self._placed = self._writer.submit(_open, self._path).result()
        except DatabaseFileError:
            os.close(self._lock)
            raise

    def load(self) -> Iterator[tuple[Stored, str, bytes]]:
        """Every record, types first, then things, then what belongs to them; before anything else."""
        for kept in _ORDER:
            yield from ((kept, name, value) for name, value in self._writer.submit(self._rows, kept).result())

    def changed(self, kept: Stored, name: str) -> None:
        """The record is another one now, or gone."""
        self._dirty[kept, name] = None
        if self._started:
            self._arm(LAG_OF_THINGS if kept is Stored.THING else LAG)

    def start(self) -> None:
        """Begin to keep what changes, from within the loop."""
        self._started = True
        if self._dirty:
            self._arm(LAG)

    async def keep(
        self, decide: Callable[[], RegistryChange], made: Callable[[RegistryChange], None]
    ) -> None:
        """Keep the change that ``decide`` returns, then call ``made`` with it.

        Nothing else is kept in between. Raises :class:`NotKept`; then the disk is as it was.
        """
        async with self._writing:
            change = decide()
            keys = keys_of(change)
            await self._write_out([(kept.value, name, change.record) for kept, name in keys])
            for key in keys:
                self._dirty.pop(key, None)
            made(change)

    async def kept(self) -> None:
        """Return when everything changed so far is on the disk; raises :class:`NotKept` when it cannot be."""
        async with self._writing:
            due = list(self._dirty)  # what changes meanwhile can gather again
            for start in range(0, len(due), BATCH_MAX):
                await self._commit(due[start : start + BATCH_MAX])

    async def stop(self) -> None:
        """Keep what is still to be kept, and close."""
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(NotKept):
            while self._dirty:
                await self.kept()
        self.close()

    def close(self) -> None:
        """Close the database; what was not kept is not."""
        self._writer.submit(self._connection.close).result()
        self._writer.shutdown()
        os.close(self._lock)

    def _arm(self, seconds: float) -> None:
        """Write behind in so many seconds, or earlier if that is due already."""
        loop = asyncio.get_running_loop()
        if self._failing:
            seconds = LAG
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        self._behind = asyncio.get_running_loop().create_task(self._write_behind())

    async def _write_behind(self) -> None:
        with contextlib.suppress(NotKept):
            await self.kept()
        if self._dirty and self._timer is None:
            self._arm(LAG)

    async def _commit(self, batch: list[tuple[Stored, str]]) -> None:
        for key in batch:
            del self._dirty[key]
        try:
            await self._write_out([(kept.value, name, self._record(kept, name)) for kept, name in batch])
        except NotKept:
            self._dirty = dict.fromkeys(batch) | self._dirty
            raise

    async def _write_out(self, records: list[Record]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, partial(self._put, records))
        except (sqlite3.Error, FileReplaced) as error:
            if not self._failing:
                self._failing = True
                _log.error("things cannot be kept", fault=str(error), path=str(self._path))
            raise NotKept(f"the change could not be kept: {error}") from None
        if self._failing:
            self._failing = False
            _log.warning("things are kept again")

    def _put(self, records: list[Record]) -> None:
        self._placed.check()
        _write(self._connection, records)

    def _rows(self, kept: Stored) -> list[tuple[str, bytes]]:
        return self._connection.execute(_ROWS, (kept.value,)).fetchall()


def read_records(directory: Path) -> list[tuple[Stored, str, bytes]]:
    """Every record of a registry that no broker uses, in the order of :meth:`RegistryStore.load`.

    Nothing is written to it. Raises :class:`DatabaseFileError`.
    """
    path = directory / REGISTRY_FILE
    if not path.exists():
        return []
    handle = lock(directory, LOCK_FILE)
    try:
        check_current(path, SCHEMA)
        with closing(open_to_read(path)) as connection:
            return [
                (kept, name, value)
                for kept in _ORDER
                for name, value in connection.execute(_ROWS, (kept.value,))
            ]
    except sqlite3.Error as error:
        raise damaged(path, error) from None
    finally:
        os.close(handle)


def _open(path: Path) -> tuple[sqlite3.Connection, FileIdentity]:
    try:
        connection = open_to_write(path, max_bytes=0)
        try:
            return connection, FileIdentity(path, wal_of(path))
        except OSError:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise DatabaseFileError(f"{path} cannot be written: {disk_fault(path, error)}") from error


def _write(connection: sqlite3.Connection, records: list[Record]) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_PUT, (record for record in records if record[2] is not None))
        connection.executemany(_DELETE, (record[:2] for record in records if record[2] is None))
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
