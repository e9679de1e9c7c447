"""The journal: a history on the disk.

One preallocated file with two segments used in turn. Records are appended to one; when
it is full, a snapshot of the history opens the other. Writes go past the page cache in
whole sectors, so a command costs what its sectors hold and the disk's life is spared;
where the file system does not offer that, they go through the cache.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from typing import Final

from thingctl_agent.core.history import Cleared, Closed, History, Opened, Record
from thingctl_agent.errors import JournalError
from thingctl_agent.runtime import journal_bookmark
from thingctl_agent.runtime.journal_bookmark import Bookmark
from thingctl_agent.runtime.journal_format import (
    HEADER_SECTORS,
    SECTOR,
    JournalIdentity,
    block,
    blocks,
    header,
    read_header,
    scan,
)

SEGMENT: Final = 512 * 1024
"""Bytes of one segment. A command takes about 1.5 KiB of it."""

_LAZY_MAX: Final = 16
"""Records of which nothing is lost if they are: they go with the next one, or so many together."""


class CallJournal:
    """Appends records to the file at ``path``; holds it alone.

    ``history``: what the file held when it was opened; the session goes on with it.
    ``trusted``: nothing that was recorded before is missing from it.
    ``damage``: a sentence about what is wrong with the file that was found, or ``""``.
    ``is_behind``: a record could not be written; the next write takes the whole history along.
    """

    def __init__(self, path: str | os.PathLike[str], boot_id: str, *, segment: int = SEGMENT) -> None:
        """Open or make the journal. Raises :class:`JournalError` and :class:`OSError`."""
        self.path = os.fspath(path)
        self.history = History()
        self.damage = ""
        self.is_behind = False
        self.flushes = 0
        self.bytes_written = 0
        self._segment = segment
        self._lazy: list[Record] = []
        self._identity = JournalIdentity(0, bytes(8))
        self._active = 0  # offset of the segment in use
        self._position = 0
        self._buffer = mmap.mmap(-1, 8 * SECTOR)
        self._flushed = 0
        self._boot_id = boot_id
        self._file = -1
        self._is_name_flushed = True
        self._lock = _lock(self.path)
        try:
            self._bookmark = journal_bookmark.decode(os.pread(self._lock, journal_bookmark.SIZE, 0))
            self._open()
            self.trusted = not self.damage and (self.history.closed or self.history.boot_id in {"", boot_id})
            if self.damage or not self._identity.generation:
                self._make(max(segment, self._needed()), set_aside=bool(self.damage))
            self._go_direct()
            self._flushed = self._position
            self._note()
        except BaseException:
            self._let_go()
            raise

    def opened(self, boot_id: str) -> None:
        """Write that an agent has started. Call when the session has recovered."""
        self.append(Opened(boot_id), flush=False)

    def append(self, record: Record, *, flush: bool) -> None:
        """Write one record that the history has applied already.

        ``flush``: return when it is on the disk. Without it the record outlives the
        process, though maybe not a power cut. Raises :class:`OSError`.
        """
        if isinstance(record, Cleared | Opened) and not flush and len(self._lazy) < _LAZY_MAX:
            # Lost, the one costs a response said twice, and the other nothing: no record followed it.
            self._lazy.append(record)
            return
        try:
            self._append(record, flush=flush)
        except OSError:
            self.is_behind = True
            raise
        self.is_behind = False
        self._note()
        self._lazy.clear()

    def _append(self, record: Record, *, flush: bool) -> None:
        raw = block(self._identity, [*self._lazy, record])
        full = self.is_behind or self._position + len(raw) > self._active + self._segment
        if full:
            self._compact()  # the snapshot has the record, as the history has
            raw = block(self._identity, [record])
        if not full or isinstance(record, Closed):
            self._write_or_take_back(raw, flush=flush)
            self._position += len(raw)
        if full or flush:
            self._flushed = self._position

    def _write_or_take_back(self, raw: bytes, *, flush: bool) -> None:
        """Append ``raw``; where that fails overwrite it: a restart must not find a refused command."""
        try:
            self._write(raw, self._position)
            if flush:
                self._flush()
        except OSError:
            with contextlib.suppress(OSError):
                self._write(bytes(len(raw)), self._position)
            raise

    def catch_up(self) -> None:
        """Write the whole history again, after a record could not be written. Raises :class:`OSError`."""
        self._compact()
        self.is_behind = False
        self._flushed = self._position
        self._note()
        self._lazy.clear()

    def close(self) -> None:
        """Write that all is well, and let go of the file."""
        with contextlib.suppress(OSError):
            self.append(Closed(), flush=True)
        self._let_go()

    def _let_go(self) -> None:
        if self._file != -1:
            os.close(self._file)
        os.close(self._lock)

    def _note(self) -> None:
        """Note beside the journal how far it has been written."""
        identity = self._identity
        at = (self._position - self._active, self._flushed - self._active)
        with contextlib.suppress(OSError):
            os.pwrite(self._lock, Bookmark(self._boot_id, identity.generation, *at).encode(), 0)

    def release(self) -> None:
        """In a forked child: close the descriptors and write nothing. The parent's lock stays."""
        self._let_go()

    # -- reading

    def _open(self) -> None:
        """Read the file, if there is one. It is not made here: a try that fails leaves nothing behind."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.path}.new")
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self.damage = "it is missing, though it was here before" if self._bookmark is not None else ""
            return
        self._read()
        identity, end = self._identity, self._position - self._active
        if self._bookmark is not None and not self.damage:
            self.damage = self._bookmark.missing(self._boot_id, identity.generation, end)

    def _read(self) -> None:
        size = os.fstat(self._file).st_size
        if not size:
            self.damage = "it is empty" if self._bookmark is not None else ""
            return
        with mmap.mmap(self._file, size, prot=mmap.PROT_READ) as file, memoryview(file) as data:
            self._read_segments(data, size)

    def _read_segments(self, data: memoryview, size: int) -> None:
        half = size // 2
        found = [
            (identity, offset)
            for offset in (0, half)
            if (identity := read_header(data[offset : offset + half])) is not None
        ]
        if not found:
            self.damage = f"none of its {size} bytes is a journal"
            return
        self._identity, self._active = max(found)
        if 2 * self._identity.size != size:
            self.damage = f"it has {size} bytes instead of {2 * self._identity.size}"
            half = size - self._active
        result = scan(data[self._active : self._active + half], self._identity)
        for record in result.records:
            self.history.apply(record)
        self._position = self._active + result.end
        self._segment = half
        if self.damage:
            return
        if result.damaged:
            self.damage = f"{result.damaged} damaged place(s); {len(result.records)} whole records kept"
        elif result.torn:
            self.damage = f"the last record is torn; {len(result.records)} whole records kept"

    def _set_aside(self) -> None:
        """Keep what was found for people to look at; it also stays in place until the new one replaces it."""
        damaged = f"{self.path}.damaged"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(damaged)
        try:
            os.link(self.path, damaged)
        except OSError:  # a file system without links
            os.replace(self.path, damaged)

    # -- writing

    def _needed(self) -> int:
        """Bytes of a segment whose snapshot leaves room for as much again."""
        snapshot = len(blocks(JournalIdentity(1, bytes(8)), self.history.snapshot()))
        return -(-(HEADER_SECTORS * SECTOR + 2 * snapshot) // SECTOR) * SECTOR

    def _make(self, segment: int, *, set_aside: bool = False) -> None:
        """Fill a new file with the history, and put it in the place of the one there is."""
        new = f"{self.path}.new"
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            zeros = bytes(64 * 1024)
            for offset in range(0, 2 * segment, len(zeros)):
                _write_all(descriptor, zeros[: 2 * segment - offset], offset)
            noted = 0 if self._bookmark is None else self._bookmark.generation
            identity = JournalIdentity(max(self._identity.generation, noted) + 1, os.urandom(8), segment)
            snapshot = blocks(identity, self.history.snapshot())
            _write_all(descriptor, header(identity) + snapshot, 0)
            os.fsync(descriptor)
            if set_aside and self._file != -1 and os.fstat(self._file).st_size:
                self._set_aside()
            os.replace(new, self.path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
        if self._file != -1:
            os.close(self._file)
        self._file, self._identity = descriptor, identity
        self._segment = segment
        self._active = 0
        self._position = HEADER_SECTORS * SECTOR + len(snapshot)
        self._is_name_flushed = False
        self._flush_name()
        self.flushes += 1

    def _flush_name(self) -> None:
        """Flush the name of a new file; where that fails, each later flush tries it again first."""
        if not self._is_name_flushed:
            _sync_directory(os.path.dirname(self.path))
            self._is_name_flushed = True

    def _compact(self) -> None:
        """Open the other segment with a snapshot of the history."""
        identity = JournalIdentity(self._identity.generation + 1, os.urandom(8), self._segment)
        snapshot = blocks(identity, self.history.snapshot())
        if HEADER_SECTORS * SECTOR + 2 * len(snapshot) > self._segment:
            self._make(max(2 * self._segment, self._needed()))
            self._go_direct()
            return
        other = self._segment if self._active == 0 else 0
        self._write(snapshot, other + HEADER_SECTORS * SECTOR)
        self._flush()
        self._write(header(identity), other)  # from here on it is the one in use
        self._flush()
        self._identity, self._active = identity, other
        self._position = other + HEADER_SECTORS * SECTOR + len(snapshot)

    def _write(self, raw: bytes, offset: int) -> None:
        # A direct write wants memory that is aligned to sectors: a map is aligned to pages.
        if len(raw) > len(self._buffer):
            with mmap.mmap(-1, len(raw)) as buffer:
                buffer[:] = raw
                with memoryview(buffer) as view:
                    _write_all(self._file, view, offset)
        else:
            self._buffer[: len(raw)] = raw
            with memoryview(self._buffer) as view, view[: len(raw)] as part:
                _write_all(self._file, part, offset)
        self.bytes_written += len(raw)

    def _flush(self) -> None:
        self._flush_name()
        os.fdatasync(self._file)
        self.flushes += 1

    def _go_direct(self) -> None:
        """Write past the page cache from now on, if the file system takes whole sectors."""
        flags = os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0)
        try:
            direct = os.open(self.path, flags)
        except OSError:
            return
        try:
            with memoryview(self._buffer) as view, view[:SECTOR] as part:
                os.preadv(direct, [part], self._active)  # refused where sectors are longer
        except OSError:
            os.close(direct)
            return
        os.close(self._file)
        self._file = direct


def _lock(path: str) -> int:
    """Hold the journal alone. A file of its own, as the journal may be replaced."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            raise JournalError(
                f"another agent uses {os.path.dirname(path)}; give each its own --state-dir"
            ) from None
        raise
    return descriptor


def _write_all(descriptor: int, raw: bytes | memoryview, offset: int) -> None:
    done = os.pwritev(descriptor, [raw], offset)
    if done != len(raw):
        raise OSError(errno.EIO, "the disk took less than it was given")


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # there are file systems that cannot
            raise
    finally:
        os.close(descriptor)
