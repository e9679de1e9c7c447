"""An execution as a row, and back.

Deadlines are not stored as such: a row is read together with the store's time at that
moment, and what is left of them then is put on this process's monotonic clock.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from thingctl_broker.commands.execution import Execution, Late
from thingctl_protocol.messages import EMPTY_OBJECT, Progress, StatusReason
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS: Final = (
    "execution_id",
    "status",
    "thing",
    "action",
    "command_id",
    "params",
    "ttl",
    "created_at",
    "requested_by",
    "idempotency_key",
    "fingerprint",
    "post_back_uri",
    "result",
    "reason",
    "progress",
    "late_status",
    "late_at",
    "late_delay",
    "late_result",
    "late_reason",
    "attempts",
    "conflicts",
    "published_at",
    "delivered_at",
    "started_at",
    "cancel_requested_at",
    "cancel_grace",
    "ended_at",
    "tell_at",
)
"""What :func:`read` reads, in this order, behind the store's time."""

_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STATUSES: Final = {status.value: status for status in Status}
_reasons: Final = msgspec.json.Decoder(StatusReason)
_progresses: Final = msgspec.json.Decoder(Progress)


def columns(alias: str) -> str:
    """The columns of ``COLUMNS``, for a SELECT."""
    return ", ".join(f"{alias}.{column}" for column in COLUMNS)


def is_execution_id(text: str) -> bool:
    """Whether ``text`` can be the id of an execution here: a UUID as we write them.

    >>> is_execution_id("0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f"), is_execution_id("lamp")
    (True, False)
    """
    return _ID.fullmatch(text) is not None


def text_or_none(encoded: bytes | None) -> str | None:
    """Encoded JSON as the text that it is.

    Raises ValueError for what is none: PostgreSQL would refuse it, and with it all that goes
    in the same statement.
    """
    if encoded is None:
        return None
    text = encoded.decode()
    if "\0" in text:
        raise ValueError("a NUL character that is not escaped: that is no JSON")
    return text


def json_or_none(value: StatusReason | Progress | None) -> str | None:
    """A small struct as JSON text; the same struct always gives the same text."""
    return None if value is None else msgspec.json.encode(value).decode()


def reader(monotonic: Callable[[], float] = time.monotonic) -> Callable[[Any, int], Execution]:
    """Return what makes executions of rows, all of which were just read."""
    now = monotonic()

    def read(row: Any, first: int) -> Execution:
        """``first``: where the store's time stands, which ``COLUMNS`` follow."""
        return _read(row, first, now)

    return read


def _read(row: Any, first: int, now: float) -> Execution:
    (
        at,
        execution_id,
        status,
        thing,
        action,
        command_id,
        params,
        ttl,
        created_at,
        requested_by,
        idempotency_key,
        fingerprint,
        post_back_uri,
        result,
        reason,
        progress,
        late_status,
        late_at,
        late_delay,
        late_result,
        late_reason,
        attempts,
        conflicts,
        published_at,
        delivered_at,
        started_at,
        cancel_requested_at,
        cancel_grace,
        ended_at,
        tell_at,
    ) = row[first:] if first else row
    cancel_deadline = None
    if cancel_requested_at is not None and cancel_grace is not None:
        cancel_deadline = now + min(cancel_grace, cancel_requested_at + cancel_grace - at)
    late = None
    if late_status is not None:
        late = Late(
            _STATUSES[late_status],
            late_at,
            late_delay,
            None if late_result is None else late_result.encode(),
            None if late_reason is None else _reasons.decode(late_reason),
        )
    return Execution(
        execution_id=str(execution_id),
        command_id=command_id,
        thing=thing,
        action=action,
        params=EMPTY_OBJECT if params == "{}" else params.encode(),
        ttl=ttl,
        created_at=created_at,
        # Nothing gets more time than it had at its creation.
        deadline=now + min(ttl, created_at + ttl - at),
        requested_by=requested_by,
        idempotency_key=idempotency_key,
        fingerprint=fingerprint,
        status=_STATUSES[status],
        result=None if result is None else result.encode(),
        reason=None if reason is None else _reasons.decode(reason),
        progress=None if progress is None else _progresses.decode(progress),
        late=late,
        attempts=attempts,
        conflicts=conflicts,
        published_at=published_at,
        delivered_at=delivered_at,
        started_at=started_at,
        cancel_requested_at=cancel_requested_at,
        cancel_grace=cancel_grace,
        cancel_deadline=cancel_deadline,
        ended_at=ended_at,
        post_back_uri=post_back_uri,
        untold=tell_at is not None,
        kept=True,
    )


def reason_code(reason: str | None) -> str:
    """The code in a reason as it is stored; empty without one."""
    return "" if reason is None else _reasons.decode(reason).reason_code
