"""Executions as rows of SQLite, and back.

A row has the id, the status (so that a person with ``sqlite3`` finds their way), and two
JSON texts: ``head``, which is written once, and ``state``, which is written again with
every change. Few wide values are what SQLite takes in fastest.

Times in ``state`` are wall time; the monotonic ones are worked out anew at recovery.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from thingctl_broker.executions import Execution, Late
from thingctl_protocol.messages import Progress, StatusReason  # noqa: TC001 msgspec reads the annotations
from thingctl_protocol.statuses import Status

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x7468_6374
""""thct", so that ``file`` and we know the database again."""

MIGRATIONS: Final = (
    # Version 1. Ids ascend with time, so rows are appended: the table is its own index.
    """
    CREATE TABLE executions (
        execution_id TEXT PRIMARY KEY,
        status TEXT NOT NULL,
        head TEXT,
        state TEXT NOT NULL
    ) WITHOUT ROWID
    """,
)
SELECT: Final = "SELECT execution_id, status, head, state FROM executions ORDER BY execution_id"

_SIZES: Final = (256, 64, 16, 4, 1)
"""Rows of one statement. Each size is prepared once; a batch is cut into the largest that fit."""


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
    late: _Late | None = None


class _Late(msgspec.Struct, omit_defaults=True, gc=False):
    status: Status
    at: float
    delay_seconds: float
    result: str | None = None
    reason: StatusReason | None = None


_heads: Final = msgspec.json.Decoder(_Head)
_states: Final = msgspec.json.Decoder(_State)
_encode: Final = msgspec.json.encode

Row = tuple[str, str, str | None, str]
"""The columns of ``SELECT``. ``head`` is None for an execution that has a row already."""


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
    head = None
    if new:
        head = _encode(
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
            )
        ).decode()
    late = execution.late
    state = _State(
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
        else _Late(late.status, late.at, late.delay_seconds, _text(late.result), late.reason),
    )
    return execution.execution_id, execution.status.value, head, _encode(state).decode()


def from_row(row: Row, now: float, at: float) -> Execution:
    """The execution of a row. ``now``: monotonic time, ``at``: wall time, of this moment.

    Raises ValueError (msgspec's errors among them) when the row is not one of ours.
    """
    execution_id, status, head_text, state_text = row
    if head_text is None:
        raise ValueError(f"execution {execution_id} has no head")
    head, state = _heads.decode(head_text), _states.decode(state_text)
    cancel_deadline = None
    if state.cancel_requested_at is not None and state.cancel_grace is not None:
        cancel_deadline = now + state.cancel_requested_at + state.cancel_grace - at
    late = state.late
    return Execution(
        execution_id=execution_id,
        command_id=head.command_id,
        thing=head.thing,
        action=head.action,
        params=head.params.encode(),
        ttl=head.ttl,
        created_at=head.created_at,
        deadline=now + head.created_at + head.ttl - at,
        requested_by=head.requested_by,
        idempotency_key=head.idempotency_key,
        fingerprint=head.fingerprint,
        status=Status(status),
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
    values = ", ".join(["(?, ?, ?, ?)"] * size)
    return (
        f"INSERT INTO executions (execution_id, status, head, state) VALUES {values} "  # noqa: S608
        "ON CONFLICT (execution_id) DO UPDATE SET status = excluded.status, state = excluded.state"
    )


_UPSERTS: Final = tuple((size, _upsert(size)) for size in _SIZES)
