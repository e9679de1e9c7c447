"""Executions as rows of SQLite, and back.

A row has the id, the status (so that a person with ``sqlite3`` finds their way), and two
JSON texts: ``head``, which is written once, and ``state``, which is written again with
every change. Few wide values are what SQLite takes in fastest. Each text has a checksum,
because SQLite notices a damaged page, but not a damaged value.

Times in ``state`` are wall time; the monotonic ones are worked out anew at recovery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgspec
import structlog

from thingctl_broker.commands.execution import Execution, Late
from thingctl_broker.storage.sqlite.database import Schema
from thingctl_protocol.messages import EMPTY_OBJECT, Progress, StatusReason
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

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


class _Head(msgspec.Struct, array_like=True, gc=False):
    command_id: str
    thing: str
    action: str
    params: str
    ttl: int
    created_at: float
    requested_by: str
    idempotency_key: str
    fingerprint: str
    post_back_uri: str = ""


class _State(msgspec.Struct, omit_defaults=True, gc=False):
    attempts: int = 0
    conflicts: int = 0
    published_at: float | None = None
    delivered_at: float | None = None
    started_at: float | None = None
    cancel_requested_at: float | None = None
    cancel_grace: float | None = None
    ended_at: float | None = None
    result: str | None = None
    reason: StatusReason | None = None
    progress: Progress | None = None
    late: _LateRow | None = None
    untold: bool = False
    cancel_wanted_at: float | None = None


class _LateRow(msgspec.Struct, omit_defaults=True, gc=False):
    status: Status
    at: float
    delay_seconds: float
    result: str | None = None
    reason: StatusReason | None = None


_STATUSES: Final = {status.value: status for status in Status}
_heads: Final = msgspec.json.Decoder(_Head)
_states: Final = msgspec.json.Decoder(_State)
_encode: Final = msgspec.json.encode

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
        encoded = _encode(
            _Head(
                execution.command_id,
                execution.thing,
                execution.action,
                execution.params.decode(),
                execution.ttl,
                execution.created_at,
                execution.requested_by,
                execution.idempotency_key,
                execution.fingerprint,
                execution.post_back_uri,
            )
        )
        head, head_check = encoded.decode(), crc32(encoded, crc32(execution_id.encode()))
    late = execution.late
    state = _encode(
        _State(
            execution.attempts,
            execution.conflicts,
            execution.published_at,
            execution.delivered_at,
            execution.started_at,
            execution.cancel_requested_at,
            execution.cancel_grace,
            execution.ended_at,
            _text(execution.result),
            execution.reason,
            execution.progress,
            None
            if late is None
            else _LateRow(late.status, late.at, late.delay_seconds, _text(late.result), late.reason),
            execution.untold,
            execution.cancel_wanted_at,
        )
    )
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
        head, state = _heads.decode(head_text), _states.decode(state_text)
        deadline = self._now + min(head.ttl, head.created_at + head.ttl - self._at)
        cancel_deadline = None
        if state.cancel_requested_at is not None and state.cancel_grace is not None:
            left = min(state.cancel_grace, state.cancel_requested_at + state.cancel_grace - self._at)
            cancel_deadline = self._now + left
        late = state.late
        share = self._shared.setdefault  # a million executions have few names between them
        return Execution(
            execution_id=execution_id,
            command_id=head.command_id,
            thing=share(head.thing, head.thing),
            action=share(head.action, head.action),
            params=EMPTY_OBJECT if head.params == "{}" else head.params.encode(),
            ttl=head.ttl,
            created_at=head.created_at,
            deadline=deadline,
            requested_by=share(head.requested_by, head.requested_by),
            idempotency_key=head.idempotency_key,
            fingerprint=head.fingerprint,
            post_back_uri=head.post_back_uri,
            untold=state.untold,
            status=_STATUSES[status],
            result=_bytes(state.result),
            reason=state.reason,
            progress=state.progress,
            late=None
            if late is None
            else Late(late.status, late.at, late.delay_seconds, _bytes(late.result), late.reason),
            attempts=state.attempts,
            conflicts=state.conflicts,
            published_at=state.published_at,
            delivered_at=state.delivered_at,
            started_at=state.started_at,
            cancel_wanted_at=state.cancel_wanted_at,
            cancel_requested_at=state.cancel_requested_at,
            cancel_grace=state.cancel_grace,
            cancel_deadline=cancel_deadline,
            ended_at=state.ended_at,
            kept=True,
        )


def _text(encoded: bytes | None) -> str | None:
    return None if encoded is None else encoded.decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _upsert(size: int) -> str:
    # Without its head, a row can only be an update: the insert is never reached.
    values = ", ".join(["(?, ?, ?, ?, ?, ?)"] * size)
    return (
        f"INSERT INTO executions ({_COLUMNS}) VALUES {values} ON CONFLICT (execution_id) DO UPDATE "  # noqa: S608
        "SET status = excluded.status, state = excluded.state, state_check = excluded.state_check"
    )


_UPSERTS: Final = tuple((size, _upsert(size)) for size in _SIZES)
