"""One thread that commits batches to a database, each in a transaction that is flushed to the disk."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from thingctl_broker.storage.sqlite.database import DatabaseFileError, open_to_write, wal_of
from thingctl_broker.system.files import FileIdentity, disk_fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

B = TypeVar("B")


class CommitWriter(Generic[B]):
    """Commits what it is given, in the order in which it is given, and tells the loop how each ended."""

    def __init__(
        self,
        path: Path,
        commit: Callable[[sqlite3.Connection, B, FileIdentity], None],
        *,
        committed: Callable[[B], None],
        failed: Callable[[B, Exception], None],
        max_bytes: int = 0,
    ) -> None:
        """``commit`` makes a transaction of a batch, in the thread; the others are called in the loop.

        It calls ``FileIdentity.check`` before its COMMIT: a file that was removed can be written as before,
        and is gone.
        """
        self._path = path
        self._commit = commit
        self._on_committed = committed
        self._on_failed = failed
        self._max_bytes = max_bytes
        self._batches: queue.SimpleQueue[B | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether batches can be given to it."""
        return self._thread is not None

    async def start(self) -> None:
        """Open the database. Raises :class:`DatabaseFileError`."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        name = self._path.stem
        self._thread = threading.Thread(target=self._run, args=(loop, ready), name=name, daemon=True)
        self._thread.start()
        try:
            await ready
        except (sqlite3.Error, OSError) as error:
            self._thread = None
            raise DatabaseFileError(
                f"{self._path} cannot be written: {disk_fault(self._path, error)}"
            ) from error

    def commit(self, batch: B) -> None:
        """Commit a batch after those before it."""
        self._batches.put(batch)

    async def stop(self) -> None:
        """Commit what it was given, and close the database."""
        if self._thread is not None:
            self._batches.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    # The thread's side.

    def _run(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        try:
            connection, identity = self._open()
        except (sqlite3.Error, OSError) as error:
            _tell(loop, ready.set_exception, error)
            return
        _tell(loop, ready.set_result, None)
        with closing(connection):
            while (batch := self._batches.get()) is not None:
                try:
                    self._commit(connection, batch, identity)
                except Exception as error:  # whatever it is, it must not end the writer
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                    _tell(loop, self._on_failed, batch, error)
                else:
                    _tell(loop, self._on_committed, batch)

    def _open(self) -> tuple[sqlite3.Connection, FileIdentity]:
        connection = open_to_write(self._path, self._max_bytes)
        try:
            return connection, FileIdentity(self._path, wal_of(self._path))
        except OSError:
            connection.close()
            raise


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., Any], *arguments: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has been closed under us
        loop.call_soon_threadsafe(callback, *arguments)
