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
from thingctl_broker.commands.execution_fields import ONCE, STATE
from thingctl_protocol.messages import EMPTY_OBJECT, Progress, StatusReason
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_broker.commands.execution_fields import Field

LATE_COLUMNS: Final = {
    "late_status": "text",
    "late_at": "double precision",
    "late_delay": "double precision",
    "late_result": "text",
    "late_reason": "text",
}
"""``late``, part by part, in the order of :class:`~thingctl_broker.commands.execution.Late`."""

TYPES: Final = {
    str: "text",
    bytes: "text",
    int: "integer",
    float: "double precision",
    StatusReason: "text",
    Progress: "text",
}


def columns_of(fields: Iterable[Field]) -> dict[str, str]:
    """The columns of fields of an execution, with their types."""
    found: dict[str, str] = {}
    for field in fields:
        if field.type is Late:
            found |= LATE_COLUMNS
        elif field.name == "untold":
            found["tell_at"] = "double precision"  # from when on its end is to be told
        else:
            found[field.name] = TYPES[field.type]
    return found


COLUMN_TYPES: Final = {"execution_id": "uuid", "status": "text"} | columns_of((*ONCE, *STATE))
COLUMNS: Final = tuple(COLUMN_TYPES)
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
    at, *values = row[first:]
    fields = dict(zip(COLUMNS, values, strict=True))
    for name, from_text in _FROM_TEXT:
        text = fields[name]
        if text is not None:
            fields[name] = from_text(text)
    late = [fields.pop(name) for name in LATE_COLUMNS]
    ttl, created_at = fields["ttl"], fields["created_at"]
    canceled_at, grace = fields["cancel_requested_at"], fields["cancel_grace"]
    return Execution(
        # Nothing gets more time than it had at its creation.
        deadline=now + min(ttl, created_at + ttl - at),
        cancel_deadline=None
        if canceled_at is None or grace is None
        else now + min(grace, canceled_at + grace - at),
        late=None if late[0] is None else Late(*late),
        untold=fields.pop("tell_at") is not None,
        kept=True,
        **fields,
    )


def reason_code(reason: str | None) -> str:
    """The code in a reason as it is stored; empty without one."""
    return "" if reason is None else _reasons.decode(reason).reason_code


def to_values(execution: Execution, fields: Iterable[Field]) -> list[Any]:
    """The values of the columns of ``fields``. Raises ValueError as :func:`text_or_none` does."""
    values: list[Any] = []
    for field in fields:
        value = getattr(execution, field.name)
        if field.type is Late:
            values += [None] * len(LATE_COLUMNS) if value is None else _late_values(value)
        elif field.name == "untold":
            values.append((execution.ended_at or execution.created_at) if value else None)
        else:
            values.append(_TO_TEXT[field.type](value) if field.type in _TO_TEXT else value)
    return values


def _late_values(late: Late) -> list[Any]:
    result, reason = text_or_none(late.result), json_or_none(late.reason)
    return [late.status.value, late.at, late.delay_seconds, result, reason]


def _params(text: str) -> bytes:
    return EMPTY_OBJECT if text == "{}" else text.encode()


_TO_TEXT: Final[dict[type, Callable[[Any], str | None]]] = {
    bytes: text_or_none,
    StatusReason: json_or_none,
    Progress: json_or_none,
}
_OF_TYPE: Final[dict[type, Callable[[Any], Any]]] = {
    bytes: _params,
    StatusReason: _reasons.decode,
    Progress: _progresses.decode,
}
_FROM_TEXT: Final[list[tuple[str, Callable[[Any], Any]]]] = [
    ("execution_id", str),
    ("status", _STATUSES.__getitem__),
    *((field.name, _OF_TYPE[field.type]) for field in (*ONCE, *STATE) if field.type in _OF_TYPE),
    ("late_status", _STATUSES.__getitem__),
    ("late_result", str.encode),
    ("late_reason", _reasons.decode),
]
"""Columns that are read as something else than they are, where they have a value."""
