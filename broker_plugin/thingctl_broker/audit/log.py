"""Who did what to which thing, when, from where, and how it ended: an append-only file that proves itself.

``audit.log`` holds a JSON object a line. Records gather while the writer is busy with those
before; each batch ends in a seal, the SHA-256 of the seal before and of every byte since.
Whoever changes, removes, inserts or reorders anything before the last seal breaks the chain,
and ``thingctl audit verify`` says where. What is cut off at the end is missed only if the
last seal is noted elsewhere: ``verify`` prints it.

A full file is renamed to ``audit-000001.log`` and so on, and the chain goes on in the next. It
must not be rotated by anything else: a file that was removed or moved while the broker runs is
noticed, and a new chain begins, whose first line says so.
Passwords, tokens and params are never written; of params, their SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from thingctl_broker.audit.chain import AUDIT_FILE, OLD_FILE, START, end_of_chain, files
from thingctl_broker.commands.events import Change
from thingctl_broker.security.audit_events import Event
from thingctl_broker.security.caller import origin
from thingctl_broker.system.files import FileIdentity, FileReplaced
from thingctl_broker.system.timestamps import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.security.caller import Caller
    from thingctl_protocol.statuses import Status

FILE_MAX: Final = 256 * 1024 * 1024
"""Bytes of one file."""

BATCH_MAX: Final = 5000
"""Records of one batch."""

GATHER: Final = 0.05
"""Seconds that records may gather before they are written: what the end of the process may lose."""

SYNC: Final = 1.0
"""Seconds between two flushes to the disk: what a power cut may lose."""

QUEUED_MAX: Final = 500_000
"""Records that wait for the writer. Beyond, they are counted, and the count is recorded."""


_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC

_encode: Final = msgspec.json.Encoder().encode

_log = structlog.get_logger("thingctl.audit")


TOLD: Final = {
    Change.CREATED: Event.COMMAND_SENT.value,
    Change.CANCEL_REQUESTED: Event.COMMAND_CANCEL.value,
    Change.ENDED: Event.COMMAND_ENDED.value,
    Change.LATE: Event.COMMAND_LATE.value,
}
"""Of a command's changes only its beginning and its end are told, and a cancel."""

_SENT: Final = Event.COMMAND_SENT.value
_CANCEL: Final = Event.COMMAND_CANCEL.value


class Record(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """One line. ``who``: an API token's name, or the thing's. ``source``: an address."""

    at: str
    event: str
    who: str = ""
    source: str = ""
    thing: str = ""
    action: str = ""
    execution_id: str = ""
    command_id: str = ""
    status: str = ""
    detail: str = ""


class AuditError(Exception):
    """The file cannot be used; the text says why."""


class Audit:
    """Writes ``directory/audit.log`` in a thread of its own."""

    def __init__(self, directory: Path, unix: Callable[[], float], *, file_max: int = FILE_MAX) -> None:
        """Open or make the file, and find the end of its chain. Raises :class:`AuditError`."""
        self._path = directory / AUDIT_FILE
        self._unix = unix
        self._file_max = file_max
        self._lost = 0
        self._seal, self._since = START, b""
        self._stopping = threading.Event()
        self._unsynced = False
        self._synced = time.monotonic()
        self._queue: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._open()
            self._place = FileIdentity(self._path, descriptor=self._file)
            self._take_up()
        except OSError as error:
            raise AuditError(f"{self._path} cannot be written: {error.strerror}") from None
        self._writer = threading.Thread(target=self._write, name="audit", daemon=True)
        self._writer.start()

    def stop(self) -> None:
        """Write what is still to be written, seal it, and close."""
        self._stopping.set()
        self._queue.put(None)
        self._writer.join()

    # What happens.

    def note(self, event: Event, *, thing: str = "", detail: str = "") -> None:
        """Write down what the caller of this moment does."""
        caller = origin.get()
        self._put((self._unix(), event, caller.who, caller.address, thing, "", "", "", "", detail))

    def on_change(self, execution: Execution, change: Change) -> None:
        """Write down what has become of an execution; a listener of the service's events for ``TOLD``.

        Here is only noted what may be another thing in a moment; the rest is the writer's work.
        """
        late = execution.late
        status = execution.status if late is None else late.status
        self._put((self._unix(), TOLD[change], origin.get(), execution, status))

    def _put(self, fields: tuple[Any, ...]) -> None:
        if self._queue.qsize() >= QUEUED_MAX:
            self._lost += 1
            return
        self._queue.put(fields)

    # The writer's side.

    def _open(self) -> int:
        return os.open(self._path, _APPEND, 0o600)

    def _write(self) -> None:
        is_last = False
        while not is_last:
            batch = self._gathered()
            is_last = None in batch
            lines = [_line(fields) for fields in batch if fields is not None]
            lost, self._lost = self._lost, 0
            told = [_line((self._unix(), Event.LOST, *[""] * 7, f"{lost} records"))] if lost else []
            if (lines or told) and not self._append(b"".join(lines + told)):
                self._lost += lost + len(lines)
        self._sync()
        os.close(self._file)

    def _gathered(self) -> list[tuple[Any, ...] | None]:
        """What has gathered; what lies unflushed is flushed meanwhile. None among it: the end."""
        try:
            batch = [self._queue.get(timeout=SYNC if self._unsynced else None)]
        except queue.Empty:
            self._sync()
            return []
        self._stopping.wait(GATHER)
        with contextlib.suppress(queue.Empty):
            while len(batch) < BATCH_MAX:
                batch.append(self._queue.get_nowait())
        return batch

    def _sync(self) -> None:
        with contextlib.suppress(OSError):
            os.fdatasync(self._file)
        self._unsynced = False
        self._synced = time.monotonic()

    def _append(self, lines: bytes) -> bool:
        """Write lines and their seal; False: they are not there, or not all of them."""
        try:
            try:
                self._place.check()
            except FileReplaced:
                lines = self._begin_again() + lines
            seal = hashlib.sha256(self._seal.encode() + self._since + lines).hexdigest()
            _write_all(self._file, lines + b'{"seal":"%b"}\n' % seal.encode())
            self._seal, self._since, self._unsynced = seal, b"", True
            if time.monotonic() - self._synced >= SYNC:
                self._sync()
            if os.fstat(self._file).st_size > self._file_max:
                self._turn_page()
        except OSError as error:
            # What it holds now is unknown: the next seal covers whatever is there.
            _log.error("the audit file cannot be written", fault=error.strerror, path=str(self._path))
            with contextlib.suppress(OSError):
                self._take_up()
            return False
        return True

    def _begin_again(self) -> bytes:
        """Begin a new file and a new chain, and return its first line, which says why. Raises OSError."""
        fault = f"{AUDIT_FILE} was removed or moved while it was written; its last seal is {self._seal}"
        new = os.open(self._path.with_name(f"{AUDIT_FILE}.new"), _APPEND, 0o600)
        try:
            line = _line((self._unix(), Event.NEW_CHAIN, *[""] * 7, fault))
            self._put_aside()
            self._path.with_name(f"{AUDIT_FILE}.new").rename(self._path)
        except OSError:
            os.close(new)
            raise
        _log.error("the audit file was removed or moved; a new chain begins", path=str(self._path))
        os.close(self._file)
        self._file, self._seal, self._since = new, START, b""
        self._place = FileIdentity(self._path, descriptor=self._file)
        return line

    def _take_up(self) -> None:
        """Go on where the files end; a line that broke off is ended, and stays."""
        self._seal, self._since = end_of_chain(files(self._path.parent)[-2:])
        if self._since and not self._since.endswith(b"\n"):
            self._since += b"\n"
            _write_all(self._file, b"\n")

    def _turn_page(self) -> None:
        os.close(self._file)
        self._put_aside()
        self._file = self._open()
        self._place = FileIdentity(self._path, descriptor=self._file)

    def _put_aside(self) -> None:
        """Give the file that the path names, if there is one, the next number."""
        done = [
            int(found[1]) for path in self._path.parent.iterdir() if (found := OLD_FILE.fullmatch(path.name))
        ]
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(self._path.with_name(f"audit-{max(done, default=0) + 1:06d}.log"))


def _line(fields: tuple[Any, ...]) -> bytes:
    """What was noted, as it is written: by ``note`` the fields of the record, or by ``on_change``."""
    record = _of_change(*fields) if len(fields) == _OF_CHANGE else Record(rfc3339(fields[0]), *fields[1:])
    return _encode(record) + b"\n"


_OF_CHANGE: Final = 5


def _of_change(at: float, event: str, caller: Caller, execution: Execution, status: Status) -> Record:
    who, address = caller
    if event is not _CANCEL:
        # Who sent it, whoever's call this happened in: a command to many goes on by itself.
        address = address if who == execution.requested_by else ""
        who = execution.requested_by or who
    is_new = event is _SENT
    return Record(
        rfc3339(execution.created_at if is_new else at),
        event,
        who,
        address,
        execution.thing,
        execution.action,
        execution.execution_id,
        execution.command_id,
        "" if is_new or event is _CANCEL else str(status),
        f"params sha256:{hashlib.sha256(execution.params).hexdigest()}" if is_new else "",
    )


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
