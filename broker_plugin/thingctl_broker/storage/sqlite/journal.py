"""Durability behind the table: SQLite, one writer thread, one commit for all that has gathered.

The table in memory is the truth while the broker runs; this is what it is rebuilt from.
Changes gather in the loop while the writer is busy with the batch before. A batch is a few
statements of many rows each, in which SQLite works without the interpreter's lock, and one
commit, flushed to the disk (``synchronous=FULL``). There is no fixed window: a lone change
is committed at once, a thousand together.

Only the last state of an execution within a batch is written.

When a commit fails (the disk is full; the file was removed or moved under us, which is looked
for before each), executions that were created in that batch are given back to whoever waits
for them (``lost``), nothing new is accepted, and the rest is tried again until it succeeds.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog

from thingctl_broker.storage.sqlite import execution_rows
from thingctl_broker.storage.sqlite.commit_writer import CommitWriter
from thingctl_broker.storage.sqlite.database import (
    DatabaseFileError,
    check_whole,
    damaged,
    lock,
    open_to_read,
    prepare,
)
from thingctl_broker.storage.sqlite.execution_rows import (
    DELETE,
    SELECT,
    Row,
    RowReader,
    encode_ids,
    to_rows,
    upserts,
)
from thingctl_broker.system.files import FileIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.system.files import FileIdentity

__all__ = ["RETRY_SECONDS", "DatabaseFileError", "SqliteJournal"]

RETRY_SECONDS: Final = 1.0
"""Between two tries after a failed commit."""

FILE: Final = "executions.db"
"""In the data directory."""

_log = structlog.get_logger("thingctl.journal")


class _Waiting(NamedTuple):
    kept: Callable[[], None]
    lost: Callable[[], None] | None


class _Batch(NamedTuple):
    rows: list[Row]
    new: list[Execution]
    """Those that have their first row in here."""
    ids: str
    """Of the rows to delete."""
    probe: bool
    """Whether to find out too that there is room."""
    waiting: list[_Waiting]
    executions: dict[str, Execution]
    forgotten: set[str]


class SqliteJournal:
    """Keeps executions in ``directory/executions.db``.

    ``max_bytes``: how large the database may grow; 0: as large as the disk allows.
    """

    def __init__(self, directory: Path, *, max_bytes: int = 0) -> None:
        """Open or make the database, and hold the directory. Raises :class:`DatabaseFileError`."""
        self._path = directory / FILE
        self._dirty: dict[str, Execution] = {}
        self._forgotten: set[str] = set()
        self._waiting: list[_Waiting] = []
        self._busy = False
        self._scheduled = False
        self._failing = False
        self._retrying: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settled: asyncio.Future[None] | None = None
        self._writer: CommitWriter[_Batch] = CommitWriter(
            self._path,
            _commit,
            committed=self._committed,
            failed=self._failed,
            max_bytes=max_bytes,
        )
        self.commits = 0
        """Batches committed since the start."""
        self._lock = lock(directory)
        try:
            prepare(self._path, execution_rows.SCHEMA)
        except BaseException:
            self.release()
            raise

    @property
    def accepting(self) -> bool:
        """Whether new executions can be kept at present."""
        return not self._failing

    def recover(self, now: float, at: float) -> Iterator[Execution]:
        """Yield every execution that is kept, oldest first.

        Deadlines go on by wall time: ``now`` is monotonic time, ``at`` wall time, this moment.
        Raises :class:`DatabaseFileError` when the database is damaged; it is only read here.
        """
        check_whole(self._path)
        reader = RowReader(now, at)
        try:
            with closing(open_to_read(self._path)) as connection:
                for row in connection.execute(SELECT):
                    yield reader.read(row)
        except (sqlite3.Error, msgspec.MsgspecError, ValueError) as error:
            raise damaged(self._path, error) from error

    async def start(self) -> None:
        """Begin to keep. Raises :class:`DatabaseFileError`."""
        self._loop = asyncio.get_running_loop()
        await self._writer.start()
        self._next()  # what was let go while the executions were recovered

    async def stop(self) -> None:
        """Keep what is still to be kept, and close."""
        if self._writer.is_running and self._loop is not None:
            if self._retrying is not None:
                self._retrying.cancel()
            if self._busy or self._dirty or self._forgotten or self._waiting:
                self._settled = self._loop.create_future()
                if not self._busy:
                    self._take()  # once more, if it failed before
                await self._settled
            unkept = len(self._dirty)
            if unkept:
                _log.error("executions could not be kept as they stand now", count=unkept)
            await self._writer.stop()
        self.release()

    def release(self) -> None:
        """Let another process have the directory."""
        handle, self._lock = self._lock, -1
        if handle >= 0:
            os.close(handle)

    # The port.

    def record(self, execution: Execution) -> None:
        """Keep the execution as it stands when the batch is taken."""
        self._dirty[execution.execution_id] = execution
        if not self._scheduled:
            self._schedule()

    def forget(self, execution_id: str) -> None:
        """Let an execution go."""
        self._dirty.pop(execution_id, None)
        self._forgotten.add(execution_id)
        if not self._scheduled:
            self._schedule()

    def then(self, kept: Callable[[], None], lost: Callable[[], None] | None = None) -> None:
        """Call ``kept`` when everything recorded so far is on the disk; at once if it is.

        ``lost`` is called instead when it could not be written; without one, ``kept`` waits
        for a later try that succeeds.
        """
        if not self._busy and not self._dirty and not self._forgotten and not self._waiting:
            kept()
            return
        self._waiting.append(_Waiting(kept, lost))
        if not self._scheduled:
            self._schedule()

    # The loop's side.

    def _schedule(self) -> None:
        if self._busy or self._failing or not self._writer.is_running:
            return
        assert self._loop is not None
        self._scheduled = True
        self._loop.call_soon(self._next)

    def _next(self) -> None:
        """Take what has gathered, if nobody has done so meanwhile."""
        self._scheduled = False
        if self._busy or self._failing:
            return
        while self._waiting and not self._dirty and not self._forgotten:
            waiting, self._waiting = self._waiting, []  # what they wait for is on the disk
            _call(entry.kept for entry in waiting)
        if self._dirty or self._forgotten:
            self._take()
        else:
            self._settle()

    def _take(self) -> None:
        """Hand everything that has gathered to the writer."""
        dirty, self._dirty = self._dirty, {}
        forgotten, self._forgotten = self._forgotten, set()
        waiting, self._waiting = self._waiting, []
        self._busy = True
        rows = to_rows(dirty.values())
        new = [execution for execution in dirty.values() if not execution.kept]
        for execution in new:
            execution.kept = True
        ids = encode_ids(forgotten) if forgotten else ""
        self._writer.commit(_Batch(rows, new, ids, self._failing, waiting, dirty, forgotten))

    def _committed(self, batch: _Batch) -> None:
        self.commits += 1
        self._busy = False
        if self._failing:
            self._failing = False
            _log.warning("executions are kept again: commands are accepted", path=str(self._path))
        _call(entry.kept for entry in batch.waiting)
        self._next()  # with what the callbacks have recorded, all together

    def _failed(self, batch: _Batch, error: Exception) -> None:
        self._busy = False
        if not self._failing:
            self._failing = True
            _log.error(
                "executions cannot be kept: no command is accepted until they can",
                fault=str(error),
                path=str(self._path),
            )
        for execution in batch.new:
            execution.kept = False
        # What was let go meanwhile must not come back, what changed meanwhile is newer.
        again = {key: found for key, found in batch.executions.items() if key not in self._forgotten}
        self._dirty = again | self._dirty
        self._forgotten |= batch.forgotten
        waiting, self._waiting = batch.waiting + self._waiting, []
        self._waiting = [entry for entry in waiting if entry.lost is None]
        _call(entry.lost for entry in waiting if entry.lost is not None)
        if self._settled is None:
            assert self._loop is not None
            self._retrying = self._loop.call_later(RETRY_SECONDS, self._retry)
        self._settle()

    def _retry(self) -> None:
        if not self._busy:
            self._take()

    def _settle(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)


def _commit(connection: sqlite3.Connection, batch: _Batch, placed: FileIdentity) -> None:
    statements = upserts(batch.rows)
    if batch.ids:  # first: what leaves makes room
        statements.insert(0, (DELETE, [batch.ids]))
    if len(statements) == 1 and not batch.probe:
        # A transaction by itself. Each call hands the interpreter's lock over and waits to get it
        # back, which a busy loop lets take milliseconds: one of them is better than three.
        placed.check()
        connection.execute(*statements[0])
        return
    connection.execute("BEGIN IMMEDIATE")
    for statement, values in statements:
        connection.execute(statement, values)
    if batch.probe:
        # Something that takes room, taken back: a batch may be so small that it would fit
        # a disk that is full for everything else, or be nothing at all.
        connection.execute("CREATE TABLE room (filler BLOB)")
        connection.execute("INSERT INTO room VALUES (zeroblob(65536))")
        connection.execute("DROP TABLE room")
    placed.check()  # here the loop is idle again, and a system call does not cost a change of threads
    connection.execute("COMMIT")


def _call(callbacks: Iterable[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            _log.exception("a callback of the journal failed")
