"""Records by kind and key, in SQLite: what the MQTT engine keeps of sessions and messages.

Changes gather in the loop while the writer is busy with the batch before; of one key only the last
counts. When a commit fails, nothing is lost: the batch joins what has gathered since, and is tried again
each second.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from thingctl_broker.storage.sqlite.commit_writer import CommitWriter
from thingctl_broker.storage.sqlite.database import Schema, check_whole, open_to_read, prepare
from thingctl_broker.system.files import disk_fault

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from thingctl_broker.system.files import FileIdentity

FILE: Final = "mqtt.db"
"""In the data directory."""

RETRY_INTERVAL: Final = 1.0
"""Seconds between two tries after a failed commit."""

ROWS: Final = 500
"""Of one statement: the interpreter's lock changes hands once for all of them."""

_SCHEMA: Final = Schema(
    0x74686D71,  # "thmq"
    (
        """CREATE TABLE records (
            kind INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)
        ) WITHOUT ROWID""",
    ),
)

_log = structlog.get_logger("thingctl.mqtt")


class _Change(NamedTuple):
    value: bytes | None
    """None: the record goes."""
    is_new: bool
    """Whether the disk has no record with that key."""


class _RecordBatch(NamedTuple):
    changes: dict[tuple[int, bytes], _Change]
    waiting: list[Callable[[], None]]


class SqliteRecords:
    """Keeps records in ``path``. ``interval``: seconds between two commits; 0: as soon as the disk allows.

    With an interval, ``then`` does not wait for the disk.
    """

    def __init__(self, path: Path, *, interval: float = 0.0, max_bytes: int = 0) -> None:
        """Open or make it; raises :class:`~thingctl_broker.storage.sqlite.database.DatabaseFileError`."""
        self._path = path
        self._interval = interval
        prepare(path, _SCHEMA)
        check_whole(path)
        self._writer: CommitWriter[_RecordBatch] = CommitWriter(
            path, _commit, committed=self._committed, failed=self._failed, max_bytes=max_bytes
        )
        self._changes: dict[tuple[int, bytes], _Change] = {}
        self._waiting: list[Callable[[], None]] = []
        self._is_busy = False
        self._timer: asyncio.Handle | None = None
        self._settled: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self.accepting = True
        """Whether the last commit succeeded."""
        self.commits = 0
        """Batches committed since the start."""

    # The port.

    def add(self, kind: int, key: bytes, value: bytes) -> None:
        """Keep a record under a key that none has."""
        where = kind, key
        before = self._changes.get(where)
        self._changes[where] = _Change(value, before is None or before.is_new)
        if self._timer is None and not self._is_busy:
            self._schedule()

    def put(self, kind: int, key: bytes, value: bytes) -> None:
        """Keep a record, or replace it."""
        before = self._changes.get((kind, key))
        is_new = before is not None and before.is_new and before.value is not None
        self._changes[kind, key] = _Change(value, is_new=is_new)
        if self._timer is None and not self._is_busy:
            self._schedule()

    def delete(self, kind: int, key: bytes) -> None:
        """Keep a record no longer."""
        before = self._changes.get((kind, key))
        if before is not None and before.is_new:
            del self._changes[kind, key]
            return
        self._changes[kind, key] = _Change(None, is_new=False)
        if self._timer is None and not self._is_busy:
            self._schedule()

    def then(self, kept: Callable[[], None]) -> None:
        """Call ``kept`` when everything so far is on the disk; during this call if it is."""
        if self._interval or not (self._is_busy or self._changes or self._waiting):
            kept()
            return
        self._waiting.append(kept)
        if self._timer is None and not self._is_busy:
            self._schedule()

    def load(self, kind: int) -> Iterator[tuple[bytes, bytes]]:
        """All records of a kind with their keys, in the order of the keys, as the disk has them."""
        with closing(open_to_read(self._path)) as connection:
            yield from connection.execute(
                "SELECT key, value FROM records WHERE kind = ? ORDER BY key", (kind,)
            )

    @property
    def waiting(self) -> int:
        """Changes that have gathered, without those being written."""
        return len(self._changes)

    # Its life.

    async def start(self) -> None:
        """Begin to keep. Raises :class:`~thingctl_broker.storage.sqlite.database.DatabaseFileError`."""
        self._loop = asyncio.get_running_loop()
        await self._writer.start()
        self._take()

    async def stop(self) -> None:
        """Keep what is still to be kept, and close."""
        if not self._writer.is_running:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_busy or self._changes or self._waiting:
            self._settled = self._loop.create_future()
            self._take()
            await self._settled
        if self._changes:
            _log.error("sessions and messages could not be kept as they stand", count=len(self._changes))
        await self._writer.stop()

    # How it is done.

    def _schedule(self) -> None:
        if not self._writer.is_running:
            return
        delay = self._interval if self.accepting else max(self._interval, RETRY_INTERVAL)
        self._timer = self._loop.call_later(delay, self._take) if delay else self._loop.call_soon(self._take)

    def _take(self) -> None:
        """Hand everything that has gathered to the writer."""
        self._timer = None
        if self._is_busy:
            return
        changes, self._changes = self._changes, {}
        waiting, self._waiting = self._waiting, []
        if changes:
            self._is_busy = True
            self._writer.commit(_RecordBatch(changes, waiting))
            return
        _call(waiting)  # what they wait for is on the disk
        self._settle()

    def _committed(self, batch: _RecordBatch) -> None:
        self.commits += 1
        self._is_busy = False
        if not self.accepting:
            self.accepting = True
            _log.warning("sessions and messages are kept again", path=str(self._path))
        _call(batch.waiting)
        self._go_on()

    def _failed(self, batch: _RecordBatch, error: Exception) -> None:
        self._is_busy = False
        if self.accepting:
            self.accepting = False
            _log.error(
                "sessions and messages cannot be kept: QoS 1 and 2 messages for kept sessions are not "
                "acknowledged until they can; make room on the disk",
                fault=disk_fault(self._path, error),
                path=str(self._path),
            )
        self._changes = _merged(batch.changes, self._changes)
        self._waiting = batch.waiting + self._waiting
        if self._settled is not None:
            self._settle()
        else:
            self._schedule()

    def _go_on(self) -> None:
        if self._settled is not None or (not self._interval and (self._changes or self._waiting)):
            self._take()
        elif self._changes:
            self._schedule()

    def _settle(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)


def _merged(
    before: dict[tuple[int, bytes], _Change], after: dict[tuple[int, bytes], _Change]
) -> dict[tuple[int, bytes], _Change]:
    """Changes that were not kept, and those since: of each key the later one."""
    merged = dict(before)
    for key, change in after.items():
        earlier = before.get(key)
        if earlier is None:
            merged[key] = change
        elif earlier.is_new and change.value is None:
            del merged[key]
        else:
            merged[key] = _Change(change.value, earlier.is_new)
    return merged


def _commit(connection: sqlite3.Connection, batch: _RecordBatch, placed: FileIdentity) -> None:
    connection.execute("BEGIN IMMEDIATE")
    _write(connection, batch)
    placed.check()
    connection.execute("COMMIT")


def _write(connection: sqlite3.Connection, batch: _RecordBatch) -> None:
    gone: list[object] = []
    kept: list[object] = []
    for (kind, key), (value, _) in batch.changes.items():
        if value is None:
            gone += (kind, key)
        else:
            kept += (kind, key, value)
    for values in _slices(gone, 2 * ROWS):
        places = ",".join(["(?,?)"] * (len(values) // 2))
        connection.execute(
            f"DELETE FROM records WHERE (kind, key) IN (VALUES {places})",  # noqa: S608 only places
            values,
        )
    for values in _slices(kept, 3 * ROWS):
        places = ",".join(["(?,?,?)"] * (len(values) // 3))
        connection.execute(
            f"INSERT OR REPLACE INTO records VALUES {places}",  # noqa: S608 only places
            values,
        )


def _slices(values: list[object], most: int) -> Iterator[list[object]]:
    for start in range(0, len(values), most):
        yield values[start : start + most]


def _call(callbacks: Iterable[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            _log.exception("a callback of the record store failed")
