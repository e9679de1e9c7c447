"""Durability behind the table: SQLite, one writer thread, one commit for all that has gathered.

The table in memory is the truth while the broker runs; this is what it is rebuilt from.
Changes gather in the loop while the writer is busy with the batch before. A batch is a few
statements of many rows each, in which SQLite works without the interpreter's lock, and one
commit, flushed to the disk (``synchronous=FULL``). There is no fixed window: a lone change
is committed at once, a thousand together.

Only the last state of an execution within a batch is written.

When a commit fails (the disk is full), executions that were created in that batch are
given back to whoever waits for them (``lost``), nothing new is accepted, and the rest is
tried again until it succeeds.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import structlog

from thingctl_broker.records import (
    APPLICATION_ID,
    MIGRATIONS,
    SCHEMA_VERSION,
    SELECT,
    Row,
    from_row,
    to_row,
    upserts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from thingctl_broker.executions import Execution

RETRY_SECONDS: Final = 1.0
"""Between two tries after a failed commit."""

_DELETE: Final = "DELETE FROM executions WHERE execution_id IN (SELECT value FROM json_each(?))"

_log = structlog.get_logger("thingctl.journal")


class JournalError(Exception):
    """The database cannot be used; the text says why, and that it was left as it is."""


class _Batch(NamedTuple):
    rows: list[Row]
    new: list[Execution]
    forgotten: str
    callbacks: list[tuple[Callable[[], None], Callable[[], None] | None]]
    executions: dict[str, Execution]
    gone: set[str]


class SqliteJournal:
    """Keeps executions in ``directory/executions.db``.

    ``max_bytes``: how large the database may grow; 0: as large as the disk allows.
    """

    def __init__(self, directory: Path, *, max_bytes: int = 0) -> None:
        """Open or make the database, and lock the directory. Raises :class:`JournalError`."""
        self._path = directory / "executions.db"
        self._max_bytes = max_bytes
        self._lock = _lock(directory)
        self._dirty: dict[str, Execution] = {}
        self._forgotten: set[str] = set()
        self._callbacks: list[tuple[Callable[[], None], Callable[[], None] | None]] = []
        self._busy = False
        self._scheduled = False
        self._failing = False
        self._loop: asyncio.AbstractEventLoop
        self._settled: asyncio.Future[None] | None = None
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.commits = 0
        """Batches committed since the start."""
        try:
            _check(self._path)
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def accepting(self) -> bool:
        """Whether new executions can be kept at present."""
        return not self._failing

    def recover(self, now: float, at: float) -> Iterator[Execution]:
        """Yield every execution that is kept, oldest first.

        Deadlines go on by wall time: ``now`` is monotonic time, ``at`` wall time, this moment.
        Raises :class:`JournalError` when the database is damaged; it is only read here.
        """
        if not self._path.exists():
            return
        try:
            with closing(_open(self._path, "ro")) as connection:
                for row in connection.execute(SELECT):
                    yield from_row(row, now, at)
        except (sqlite3.Error, msgspec.DecodeError, ValueError) as error:
            raise JournalError(f"{self._path} is damaged: {error}. It was left as it is.") from error

    async def start(self) -> None:
        """Begin to keep. Raises :class:`JournalError`."""
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._write, args=(ready,), name="journal", daemon=True)
        self._thread.start()
        try:
            await ready
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"{self._path} cannot be written: {error}") from error
        if self._dirty or self._forgotten:
            self._schedule()  # what recovering has changed already

    async def stop(self) -> None:
        """Keep what is still to be kept, and close."""
        if self._thread is not None:
            if not self._failing and (self._busy or self._dirty or self._callbacks or self._forgotten):
                self._settled = self._loop.create_future()
                await self._settled
            self._batches.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self.release()

    def release(self) -> None:
        """Let another process have the directory."""
        os.close(self._lock)

    # The port.

    def record(self, execution: Execution) -> None:
        """Keep the execution as it stands when the batch is taken."""
        self._dirty[execution.execution_id] = execution
        self._schedule()

    def forget(self, execution_id: str) -> None:
        """Let an execution go."""
        self._dirty.pop(execution_id, None)
        self._forgotten.add(execution_id)
        self._schedule()

    def then(self, kept: Callable[[], None], lost: Callable[[], None] | None = None) -> None:
        """Call ``kept`` when everything recorded so far is on the disk.

        ``lost`` is called instead when it could not be written; without one, ``kept`` waits
        for a later try that succeeds.
        """
        if not self._busy and not self._dirty and not self._forgotten and not self._callbacks:
            kept()
            return
        self._callbacks.append((kept, lost))
        self._schedule()

    # The loop's side.

    def _schedule(self) -> None:
        if self._thread is not None and not self._scheduled and not self._busy and not self._failing:
            self._scheduled = True
            self._loop.call_soon(self._take)

    def _take(self) -> None:
        """Hand what has gathered to the writer."""
        self._scheduled = False
        if self._busy:  # pragma: no cover - only ever scheduled when idle
            return
        dirty, self._dirty = self._dirty, {}
        forgotten, self._forgotten = self._forgotten, set()
        callbacks, self._callbacks = self._callbacks, []
        if not dirty and not forgotten:
            _call(kept for kept, _ in callbacks)
            return
        self._busy = True
        rows = [to_row(execution, new=not execution.kept) for execution in dirty.values()]
        new = [execution for execution in dirty.values() if not execution.kept]
        for execution in new:
            execution.kept = True
        gone = msgspec.json.encode(list(forgotten)).decode() if forgotten else ""
        self._batches.put(_Batch(rows, new, gone, callbacks, dirty, forgotten))

    def _committed(self, batch: _Batch) -> None:
        self.commits += 1
        self._busy = False
        if self._failing:
            self._failing = False
            _log.warning("executions are kept again; commands are accepted")
        # What the callbacks record is taken together, behind them.
        _call(kept for kept, _ in batch.callbacks)
        self._next()

    def _failed(self, batch: _Batch, error: Exception) -> None:
        self._busy = False
        if not self._failing:
            self._failing = True
            _log.error(
                "executions cannot be kept: no command is accepted", fault=str(error), path=str(self._path)
            )
        for execution in batch.new:
            execution.kept = False
        self._forgotten |= batch.gone
        self._dirty = batch.executions | self._dirty
        waiting, self._callbacks = batch.callbacks + self._callbacks, []
        self._callbacks = [entry for entry in waiting if entry[1] is None]
        _call(lost for _, lost in waiting if lost is not None)
        self._loop.call_later(RETRY_SECONDS, self._retry)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _retry(self) -> None:
        if self._busy:
            return
        if not self._dirty and not self._forgotten:
            # Nothing is left to try with: an empty commit tells whether the disk is back.
            self._busy = True
            callbacks, self._callbacks = self._callbacks, []
            self._batches.put(_Batch([], [], "", callbacks, {}, set()))
            return
        self._take()

    def _next(self) -> None:
        if self._busy:
            return
        if self._dirty or self._forgotten or self._callbacks:
            self._take()
        elif self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    # The writer's side.

    def _write(self, ready: asyncio.Future[None]) -> None:
        try:
            connection = self._open_to_write()
        except (sqlite3.Error, OSError) as error:
            self._tell(ready.set_exception, error)
            return
        self._tell(ready.set_result, None)
        with closing(connection):
            while (batch := self._batches.get()) is not None:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    for statement, values in upserts(batch.rows):
                        connection.execute(statement, values)
                    if batch.forgotten:
                        connection.execute(_DELETE, (batch.forgotten,))
                    if not batch.executions and not batch.gone:
                        _touch(connection)
                    connection.execute("COMMIT")
                except sqlite3.Error as error:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    self._tell(self._failed, batch, error)
                else:
                    self._tell(self._committed, batch)

    def _tell(self, callback: Callable[..., Any], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # pragma: no cover - the loop has been closed under us
            return

    def _open_to_write(self) -> sqlite3.Connection:
        connection = _open(self._path, "rwc")
        self._path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -16384")
        if self._max_bytes:
            page = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {self._max_bytes // page}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version < SCHEMA_VERSION:
            connection.execute("BEGIN IMMEDIATE")
            for migration in MIGRATIONS[version:]:
                connection.execute(migration)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        return connection


def _open(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)


def _lock(directory: Path) -> int:
    """Hold the directory for this process; raises :class:`JournalError` when another has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalError(f"cannot use {directory}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise JournalError(f"another broker is using {directory}") from None
    return handle


def _check(path: Path) -> None:
    """Refuse a database that is not ours or newer than we are, without writing to it."""
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with closing(_open(path, "ro")) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise JournalError(
            f"{path} is damaged or no SQLite database: {error}. It was left as it is."
        ) from None
    if application != APPLICATION_ID:
        raise JournalError(f"{path} is a database, but not of thingctl. It was left as it is.")
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path} was written by a newer thingctl (schema {version}; this one knows {SCHEMA_VERSION}). "
            "It was left as it is."
        )


def _touch(connection: sqlite3.Connection) -> None:
    """Write something that takes room, and take it back: only then the disk has to answer."""
    connection.execute("CREATE TABLE room (filler BLOB)")
    connection.execute("INSERT INTO room VALUES (zeroblob(65536))")
    connection.execute("DROP TABLE room")


def _call(callbacks: Iterator[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            _log.exception("a callback of the journal failed")
