"""Executions as rows of SQLite, and back.

A row has the id, the status (so that a person with ``sqlite3`` finds their way), and two
JSON texts: ``head``, which is written once, and ``state``, which is written again with
every change. Few wide values are what SQLite takes in fastest. Each text has a checksum,
because SQLite notices a damaged page, but not a damaged value.

Times in ``state`` are wall time; the monotonic ones are worked out anew at recovery.
"""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgspec
import structlog

from thingctl_broker.commands.execution import Execution, Late
from thingctl_broker.commands.execution_fields import JOURNAL_STATE, ONCE
from thingctl_broker.storage.sqlite.database import Schema
from thingctl_protocol.messages import EMPTY_OBJECT, StatusReason
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_broker.commands.execution_fields import Field

SCHEMA: Final = Schema(
    0x7468_6374,  # "thct"
    (
        # Version 1. Ids ascend with time, so rows are appended: the table is its own index.
        """
        CREATE TABLE executions (
            execution_id TEXT PRIMARY KEY,
            status TEXT NOT NULL,
            head TEXT NOT NULL,
            head_check INTEGER NOT NULL,
            state TEXT NOT NULL,
            state_check INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
    ),
)

_COLUMNS: Final = "execution_id, status, head, head_check, state, state_check"
SELECT: Final = f"SELECT {_COLUMNS} FROM executions ORDER BY execution_id"  # noqa: S608 names of our own
DELETE: Final = "DELETE FROM executions WHERE execution_id IN (SELECT value FROM json_each(?))"

_SIZES: Final = (128, 32, 8, 1)
"""Rows of one statement. Each size is prepared once; a batch is cut into the largest that fit.
The largest stays below the 999 values that every SQLite takes."""

_log = structlog.get_logger("thingctl.journal")


class _LateRow(msgspec.Struct, omit_defaults=True, gc=False):
    status: Status
    at: float
    delay_seconds: float
    result: str | None = None
    reason: StatusReason | None = None


def _to_bytes(text: str) -> bytes:
    return EMPTY_OBJECT if text == "{}" else text.encode()


def _to_late_row(late: Late) -> _LateRow:
    result = None if late.result is None else late.result.decode()
    return _LateRow(late.status, late.at, late.delay_seconds, result, late.reason)


def _to_late(row: _LateRow) -> Late:
    result = None if row.result is None else _to_bytes(row.result)
    return Late(row.status, row.at, row.delay_seconds, result, row.reason)


_CONVERTED: Final[dict[type, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]]] = {
    bytes: (str, bytes.decode, _to_bytes),
    Late: (_LateRow, _to_late_row, _to_late),
}
"""Types that are written as another one: that type, and what leads to it and back."""


class _Layout:
    """Some fields of an execution, written as JSON by way of a struct, and back."""

    def __init__(self, struct: Any, fields: tuple[Field, ...]) -> None:
        self._struct = struct
        self._decode = msgspec.json.Decoder(struct).decode
        self._values = attrgetter(*(field.name for field in fields))
        converters = [_CONVERTED.get(field.type) for field in fields]
        self._writing = [(field.name, one[1]) for field, one in zip(fields, converters, strict=True) if one]
        self._reading = [(at, one[2]) for at, one in enumerate(converters) if one]

    def encode_fields(self, execution: Execution) -> bytes:
        row = self._struct(*self._values(execution))
        for name, write in self._writing:
            value = getattr(row, name)
            if value is not None:
                setattr(row, name, write(value))
        return _encode(row)

    def decode_fields(self, text: str) -> list[Any]:
        """The values in the order of the fields."""
        values = list(self._values(self._decode(text)))
        for at, read in self._reading:
            if values[at] is not None:
                values[at] = read(values[at])
        return values


def _stored(field: Field) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind: Any = _CONVERTED[field.type][0] if field.type in _CONVERTED else field.type
    kind = kind | None if field.is_optional else kind
    return (field.name, kind) if field.default is msgspec.NODEFAULT else (field.name, kind, field.default)


_STATUSES: Final = {status.value: status for status in Status}
_encode: Final = msgspec.json.encode
_head: Final = _Layout(msgspec.defstruct("Head", map(_stored, ONCE), array_like=True, gc=False), ONCE)
_state: Final = _Layout(
    msgspec.defstruct("State", map(_stored, JOURNAL_STATE), omit_defaults=True, gc=False), JOURNAL_STATE
)

_ONCE_NAMES: Final = [field.name for field in ONCE]
_STATE_NAMES: Final = [field.name for field in JOURNAL_STATE]
_KNOWN: Final = ["execution_id", "status", "deadline", "cancel_deadline", "kept"]
"""Fields that a row does not have as such."""

_REPEATED: Final = [_ONCE_NAMES.index(name) for name in ("thing", "action", "requested_by")]
"""Where the fields are that have the same text in many executions."""

_life: Final = itemgetter(*map(_ONCE_NAMES.index, ("ttl", "created_at")))
_cancel: Final = itemgetter(*map(_STATE_NAMES.index, ("cancel_requested_at", "cancel_grace")))
_in_order: Final = itemgetter(*map([*_KNOWN, *_ONCE_NAMES, *_STATE_NAMES].index, Execution.__struct_fields__))

Row = tuple[str, str, str, int, str, int]
"""The columns of ``SELECT``. ``head`` is empty for an execution that has a row already."""


def to_rows(executions: Iterable[Execution]) -> list[Row]:
    """The executions as they stand now. Those that have a row already come without their head."""
    rows: list[Row] = []
    for execution in executions:
        try:
            rows.append(to_row(execution, new=not execution.kept))
        except UnicodeError:  # one that cannot be told must not keep all others from the disk
            _log.exception(
                "an execution cannot be kept", execution_id=execution.execution_id, thing=execution.thing
            )
    return rows


def encode_ids(ids: Iterable[str]) -> str:
    """Ids, as the value of ``DELETE``."""
    return _encode(list(ids)).decode()


def upserts(rows: list[Row]) -> list[tuple[str, list[Any]]]:
    """Statements with their values that write ``rows``, as few as there can be."""
    statements: list[tuple[str, list[Any]]] = []
    at = 0
    for size, statement in _UPSERTS:
        while len(rows) - at >= size:
            statements.append((statement, [value for row in rows[at : at + size] for value in row]))
            at += size
    return statements


def to_row(execution: Execution, *, new: bool) -> Row:
    """The execution as it stands now. Encoded JSON goes as text, and comes back byte for byte."""
    execution_id, status = execution.execution_id, str(execution.status)
    head, head_check = "", 0
    if new:
        encoded = _head.encode_fields(execution)
        head, head_check = encoded.decode(), crc32(encoded, crc32(execution_id.encode()))
    state = _state.encode_fields(execution)
    state_check = crc32(state, crc32(f"{execution_id} {status}".encode()))
    return execution_id, status, head, head_check, state.decode(), state_check


class RowReader:
    """Makes executions of rows. Deadlines go on by wall time.

    ``now`` is monotonic time, ``at`` wall time, this moment. Nothing gets more time than
    it had at its creation, however far the wall clock was set back meanwhile.
    """

    def __init__(self, now: float, at: float) -> None:
        self._now = now
        self._at = at
        self._shared: dict[str, str] = {}
        self._last_id = ""

    def read(self, row: Row) -> Execution:
        """Return the execution of a row of ``SELECT``.

        Raises ValueError (msgspec's errors among them) when it is not as it was written.
        """
        execution_id, status, head_text, head_check, state_text, state_check = row
        if (
            execution_id <= self._last_id
            or status not in _STATUSES
            or crc32(head_text.encode(), crc32(execution_id.encode())) != head_check
            or crc32(state_text.encode(), crc32(f"{execution_id} {status}".encode())) != state_check
        ):
            raise ValueError(f"the execution behind {self._last_id or 'the start'} is not as it was written")
        self._last_id = execution_id
        head, state = _head.decode_fields(head_text), _state.decode_fields(state_text)
        share = self._shared.setdefault  # a million executions have few names between them
        for at in _REPEATED:
            head[at] = share(head[at], head[at])
        ttl, created_at = _life(head)
        canceled_at, grace = _cancel(state)
        cancel_deadline = None
        if canceled_at is not None and grace is not None:
            cancel_deadline = self._now + min(grace, canceled_at + grace - self._at)
        deadline = self._now + min(ttl, created_at + ttl - self._at)
        known = (execution_id, _STATUSES[status], deadline, cancel_deadline, True)
        return Execution(*_in_order((*known, *head, *state)))


def _upsert(size: int) -> str:
    # Without its head, a row can only be an update: the insert is never reached.
    values = ", ".join(["(?, ?, ?, ?, ?, ?)"] * size)
    return (
        f"INSERT INTO executions ({_COLUMNS}) VALUES {values} ON CONFLICT (execution_id) DO UPDATE "  # noqa: S608
        "SET status = excluded.status, state = excluded.state, state_check = excluded.state_check"
    )


_UPSERTS: Final = tuple((size, _upsert(size)) for size in _SIZES)
