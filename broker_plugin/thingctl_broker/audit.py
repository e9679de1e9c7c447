"""Who did what to which thing, when, from where, and how it ended: an append-only file that proves itself.

``audit.log`` holds a JSON object a line. Records gather while the writer is busy with those
before; each batch ends in a seal, the SHA-256 of the seal before and of every byte since.
Whoever changes, removes, inserts or reorders anything before the last seal breaks the chain,
and ``thingctl audit verify`` says where. What is cut off at the end is missed only if the
last seal is noted elsewhere: ``verify`` prints it.

A full file is renamed to ``audit-000001.log`` and so on, and the chain goes on in the next.
Passwords, tokens and params are never written; of params, their SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import re
import threading
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec
import structlog

from thingctl_broker.events import Change
from thingctl_broker.origin import origin
from thingctl_broker.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingctl_broker.executions import Execution
    from thingctl_broker.origin import Origin
    from thingctl_protocol.statuses import Status

AUDIT_FILE: Final = "audit.log"
FILE_MAX: Final = 256 * 1024 * 1024
"""Bytes of one file."""

START: Final = "0" * 64
"""What the first seal follows."""

BATCH_MAX: Final = 5000
"""Records of one batch."""

GATHER: Final = 0.05
"""Seconds that records may gather before they are written: what the end of the process may lose."""

SYNC: Final = 1.0
"""Seconds between two flushes to the disk: what a power cut may lose."""

QUEUED_MAX: Final = 500_000
"""Records that wait for the writer. Beyond, they are counted, and the count is recorded."""

_OLD: Final = re.compile(r"audit-(\d{6})\.log")
_SEAL: Final = re.compile(rb'\{"seal":"([0-9a-f]{64})"\}')

_encode: Final = msgspec.json.Encoder().encode

_log = structlog.get_logger("thingctl.audit")


class Event(StrEnum):
    """What is written down."""

    STARTED = "broker.started"
    STOPPED = "broker.stopped"
    COMMAND_SENT = "command.sent"
    COMMAND_CANCEL = "command.cancel"
    COMMAND_ENDED = "command.ended"
    COMMAND_LATE = "command.late"
    THING_ADDED = "thing.added"
    THING_CHANGED = "thing.changed"
    THING_REMOVED = "thing.removed"
    THING_PASSWORD = "thing.password"  # noqa: S105 the name of an event
    TYPE_PUT = "type.put"
    TYPE_REMOVED = "type.removed"
    TOKEN_MADE = "token.made"  # noqa: S105
    TOKEN_RENEWED = "token.renewed"  # noqa: S105
    TOKEN_REVOKED = "token.revoked"  # noqa: S105
    CODE_MADE = "signIn.code"
    SIGNED_IN = "signIn.begun"
    LOST = "audit.lost"


TOLD: Final = {
    Change.CREATED: Event.COMMAND_SENT.value,
    Change.CANCEL_REQUESTED: Event.COMMAND_CANCEL.value,
    Change.ENDED: Event.COMMAND_ENDED.value,
    Change.LATE: Event.COMMAND_LATE.value,
}
"""Of a command's changes only its beginning and its end are told, and a cancel."""

_SENT: Final = Event.COMMAND_SENT.value
_CANCEL: Final = Event.COMMAND_CANCEL.value


class Note(Protocol):
    """What writes down what the caller of this moment does."""

    def __call__(self, event: Event, *, thing: str = "", detail: str = "") -> None:
        """Write it down."""
        ...


def note_nothing(event: Event, *, thing: str = "", detail: str = "") -> None:
    """Write nothing down."""


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


class Broken(NamedTuple):
    """Where a chain does not hold."""

    path: Path
    line: int
    fault: str


class Verified(NamedTuple):
    """A chain that holds. ``last_seal``: note it elsewhere, and a cut at the end shows, too.

    ``unsealed``: records behind the last seal, which nothing protects yet.
    """

    records: int
    files: int
    last_seal: str
    unsealed: int


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
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _write(self) -> None:
        is_last = False
        while not is_last:
            batch = self._gathered()
            is_last = None in batch
            lines = [_line(fields) for fields in batch if fields is not None]
            lost, self._lost = self._lost, 0
            if lost:
                lines.append(_line((self._unix(), Event.LOST, *[""] * 7, f"{lost} records")))
            if lines:
                self._append(b"".join(lines))
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

    def _append(self, lines: bytes) -> None:
        seal = hashlib.sha256(self._seal.encode() + self._since + lines).hexdigest()
        data = lines + b'{"seal":"%b"}\n' % seal.encode()
        try:
            _write_all(self._file, data)
            self._seal, self._since, self._unsynced = seal, b"", True
            if time.monotonic() - self._synced >= SYNC:
                self._sync()
            if os.fstat(self._file).st_size > self._file_max:
                self._turn_page()
        except OSError as error:
            # What it holds now, nobody knows: the next seal covers whatever is there.
            _log.error("the audit file cannot be written", fault=error.strerror, path=str(self._path))
            with contextlib.suppress(OSError):
                self._take_up()

    def _take_up(self) -> None:
        """Go on where the files end; a line that broke off is ended, and stays."""
        self._seal, self._since = _end_of_chain(files(self._path.parent)[-2:])
        if self._since and not self._since.endswith(b"\n"):
            self._since += b"\n"
            _write_all(self._file, b"\n")

    def _turn_page(self) -> None:
        done = [int(found[1]) for path in self._path.parent.iterdir() if (found := _OLD.fullmatch(path.name))]
        os.close(self._file)
        self._path.rename(self._path.with_name(f"audit-{max(done, default=0) + 1:06d}.log"))
        self._file = self._open()


def files(directory: Path) -> list[Path]:
    """The files of the chain, in its order."""
    old = sorted(path for path in directory.iterdir() if _OLD.fullmatch(path.name))
    newest = directory / AUDIT_FILE
    return [*old, newest] if newest.exists() else old


def verify(paths: list[Path], noted: str = "") -> Verified | Broken:
    """Whether the chain over these files holds, and the seal ``noted`` (if any) is in it.

    Raises OSError when one cannot be read.
    """
    is_there = not noted
    number = 0
    seal = START
    records = unsealed = 0
    digest = hashlib.sha256(seal.encode())
    for path in paths:
        number = 0
        for number, line in enumerate(_lines(path), 1):
            found = _SEAL.fullmatch(line.rstrip(b"\n"))
            if found is None or not line.endswith(b"\n"):
                # Whatever it says: the next seal covers it, or nothing does yet. A line that
                # is no record broke off when a process or a disk failed.
                digest.update(line)
                unsealed += 1
                continue
            if digest.hexdigest().encode() != found[1]:
                return Broken(path, number, "something before this seal was changed, removed or inserted")
            seal = found[1].decode()
            is_there = is_there or seal == noted
            records += unsealed
            unsealed = 0
            digest = hashlib.sha256(seal.encode())
    if not is_there:
        return Broken(
            paths[-1] if paths else Path(AUDIT_FILE), number, "the end was cut off: the seal is not there"
        )
    return Verified(records + unsealed, len(paths), seal, unsealed)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _end_of_chain(paths: list[Path]) -> tuple[str, bytes]:
    """The last seal, and what has been written since."""
    seal, since = START, b""
    for path in paths:
        for line in _lines(path):
            found = _SEAL.fullmatch(line.rstrip(b"\n")) if line.endswith(b"\n") else None
            if found is None:
                since += line
            else:
                seal, since = found[1].decode(), b""
    return seal, since


def _line(fields: tuple[Any, ...]) -> bytes:
    """What was noted, as it is written: by ``note`` the fields of the record, or by ``on_change``."""
    record = _of_change(*fields) if len(fields) == _OF_CHANGE else Record(rfc3339(fields[0]), *fields[1:])
    return _encode(record) + b"\n"


_OF_CHANGE: Final = 5


def _of_change(at: float, event: str, caller: Origin, execution: Execution, status: Status) -> Record:
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
