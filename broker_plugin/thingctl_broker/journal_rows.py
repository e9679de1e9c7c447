"""Executions as rows of SQLite and back, byte for byte.

A batch of rows travels as one JSON text and is taken apart by SQLite, outside the
interpreter's lock. Each row carries a checksum of itself, because SQLite notices a damaged
page but not a damaged value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgspec
import structlog

from thingctl_broker.executions import Execution, Late
from thingctl_protocol.messages import EMPTY_OBJECT, Progress, StatusReason
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

ROWS_MAX: Final = 128
"""Rows in one statement, so that the longest ones together stay far below SQLite's limit of 1 GB."""

CREATE: Final = """
    CREATE TABLE executions (
        execution_id TEXT PRIMARY KEY,
        command_id TEXT NOT NULL,
        thing TEXT NOT NULL,
        action TEXT NOT NULL,
        params TEXT NOT NULL,
        ttl INTEGER NOT NULL,
        created_at REAL NOT NULL,
        requested_by TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        status TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        conflicts INTEGER NOT NULL,
        published_at REAL,
        delivered_at REAL,
        started_at REAL,
        cancel_requested_at REAL,
        cancel_grace REAL,
        ended_at REAL,
        result TEXT,
        detail TEXT,
        checksum INTEGER NOT NULL
    ) WITHOUT ROWID
"""
"""Ids ascend with time, so rows are appended: the table is its own index."""

_IMMUTABLE: Final = (
    "execution_id",
    "command_id",
    "thing",
    "action",
    "params",
    "ttl",
    "created_at",
    "requested_by",
    "idempotency_key",
    "fingerprint",
)
_MUTABLE: Final = (
    "status",
    "attempts",
    "conflicts",
    "published_at",
    "delivered_at",
    "started_at",
    "cancel_requested_at",
    "cancel_grace",
    "ended_at",
    "result",
    "detail",
    "checksum",
)
_COLUMNS: Final = _IMMUTABLE + _MUTABLE
_VALUES: Final = ", ".join(f"json_extract(value, '$[{i}]')" for i in range(len(_COLUMNS)))

UPSERT: Final = (
    f"INSERT INTO executions ({', '.join(_COLUMNS)}) SELECT {_VALUES} FROM json_each(?) "  # noqa: S608 names of our own
    "WHERE true ON CONFLICT (execution_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _MUTABLE)
)
DELETE: Final = "DELETE FROM executions WHERE execution_id IN (SELECT value FROM json_each(?))"
SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM executions ORDER BY execution_id"  # noqa: S608

_log = structlog.get_logger("thingctl.journal")


class _Detail(msgspec.Struct, omit_defaults=True):
    """What few executions have, in one column of JSON."""

    reason: StatusReason | None = None
    progress: Progress | None = None
    late_status: Status | None = None
    late_at: float = 0.0
    late_delay: float = 0.0
    late_result: str | None = None
    late_reason: StatusReason | None = None


_encode: Final = msgspec.json.Encoder().encode
_decode_detail: Final = msgspec.json.Decoder(_Detail).decode


def encode_rows(executions: Iterable[Execution]) -> list[str]:
    """The executions as they stand now, as texts for ``UPSERT``."""
    rows: list[bytes] = []
    for execution in executions:
        try:
            row = _encode(_row(execution))
        except (UnicodeError, TypeError):  # one that cannot be told must not keep all others from the disk
            _log.exception("an execution cannot be kept", execution_id=execution.execution_id)
            continue
        rows.append(b"%b,%d]" % (row[:-1], crc32(row)))
    return [f"[{b','.join(rows[i : i + ROWS_MAX]).decode()}]" for i in range(0, len(rows), ROWS_MAX)]


def encode_ids(ids: Iterable[str]) -> str:
    """Ids, as a text for ``DELETE``."""
    return _encode(list(ids)).decode()


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

    def read(self, row: tuple[Any, ...]) -> Execution:
        """Return the execution of a row of ``SELECT``; raises ValueError for a damaged one."""
        if crc32(_encode(row[:-1])) != row[-1]:
            raise ValueError(f"the execution behind {self._last_id or 'the start'} is not as it was written")
        (
            execution_id,
            command_id,
            thing,
            action,
            params,
            ttl,
            created_at,
            requested_by,
            idempotency_key,
            fingerprint,
            status,
            attempts,
            conflicts,
            published_at,
            delivered_at,
            started_at,
            cancel_requested_at,
            cancel_grace,
            ended_at,
            result,
            detail,
            _,
        ) = row
        if execution_id <= self._last_id:
            raise ValueError(f"the execution behind {self._last_id} is out of order")
        self._last_id = execution_id
        share = self._shared.setdefault  # a million executions have few names between them
        execution = Execution(
            execution_id=execution_id,
            command_id=command_id,
            thing=share(thing, thing),
            action=share(action, action),
            params=EMPTY_OBJECT if params == "{}" else params.encode(),
            ttl=ttl,
            created_at=created_at,
            deadline=self._now + min(ttl, created_at + ttl - self._at),
            requested_by=_unescaped(share(requested_by, requested_by)),
            idempotency_key=_unescaped(idempotency_key),
            fingerprint=fingerprint,
            status=Status(status),
            result=None if result is None else result.encode(),
            attempts=attempts,
            conflicts=conflicts,
            published_at=published_at,
            delivered_at=delivered_at,
            started_at=started_at,
            cancel_requested_at=cancel_requested_at,
            cancel_grace=cancel_grace,
            ended_at=ended_at,
        )
        if cancel_requested_at is not None and cancel_grace is not None:
            left = min(cancel_grace, cancel_requested_at + cancel_grace - self._at)
            execution.cancel_deadline = self._now + left
        if detail is not None:
            _add_detail(execution, _decode_detail(detail))
        return execution


def _row(execution: Execution) -> tuple[object, ...]:
    """The execution as ``_COLUMNS`` but the last. Encoded JSON goes as text, to come back byte for byte."""
    detail = None
    if execution.reason is not None or execution.progress is not None or execution.late is not None:
        detail = _encode(_detail(execution)).decode()
    return (
        execution.execution_id,
        execution.command_id,
        execution.thing,
        execution.action,
        execution.params.decode(),
        execution.ttl,
        float(execution.created_at),
        _escaped(execution.requested_by),
        _escaped(execution.idempotency_key),
        execution.fingerprint,
        execution.status,
        execution.attempts,
        execution.conflicts,
        _float(execution.published_at),
        _float(execution.delivered_at),
        _float(execution.started_at),
        _float(execution.cancel_requested_at),
        _float(execution.cancel_grace),
        _float(execution.ended_at),
        None if execution.result is None else execution.result.decode(),
        detail,
    )


def _detail(execution: Execution) -> _Detail:
    detail = _Detail(execution.reason, execution.progress)
    late = execution.late
    if late is not None:
        detail.late_status, detail.late_at, detail.late_delay = late.status, late.at, late.delay_seconds
        detail.late_result = None if late.result is None else late.result.decode()
        detail.late_reason = late.reason
    return detail


def _add_detail(execution: Execution, detail: _Detail) -> None:
    execution.reason, execution.progress = detail.reason, detail.progress
    if detail.late_status is not None:
        result = None if detail.late_result is None else detail.late_result.encode()
        execution.late = Late(
            detail.late_status, detail.late_at, detail.late_delay, result, detail.late_reason
        )


def _float(at: float | None) -> float | None:
    """A whole number too, so that it reads back as it was written."""
    return None if at is None else float(at)


def _escaped(text: str) -> str:
    """Without NUL, where ``json_extract`` would cut the text off."""
    return text.replace("\\", "\\\\").replace("\0", "\\0") if "\0" in text or "\\" in text else text


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\"))
