"""What goes over the wire: request bodies, and executions as resources.

``params`` and ``result`` pass through as the JSON they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_broker.commands.field_types import ActionName, JsonObject, Params, PostBackUri, Time, Ttl  # noqa: TC001 msgspec reads them
from thingctl_broker.system.timestamps import rfc3339
from thingctl_broker.things.thing import ThingName  # noqa: TC001 msgspec reads them
from thingctl_protocol.messages import EMPTY_OBJECT, Progress, StatusReason
from thingctl_protocol.statuses import Delivery, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thingctl_broker.commands.execution import Execution, Late

PAGE_BYTES_MAX: Final = 2 * 1024 * 1024
"""A page ends early, with a cursor, before its body would outgrow this."""


class CommandBody(msgspec.Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    """What ``POST /api/v1/commands`` takes. ``ttl``: whole seconds."""

    thing_id: ThingName
    action: ActionName
    params: Params = msgspec.Raw(EMPTY_OBJECT)
    ttl: Ttl | None = None
    post_back_uri: PostBackUri | None = None

    def params_json(self) -> bytes:
        """``params`` as encoded JSON; null counts as left out."""
        params = bytes(self.params)
        return EMPTY_OBJECT if params == b"null" else params


class EventResource(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened to an execution, and when."""

    at: Time
    event: str


class LateResource(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What a device said after the broker had closed the execution."""

    status: Status
    at: Time
    delay_seconds: float
    result: msgspec.Raw | None = None
    status_reason: StatusReason | None = None


class ExecutionResource(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """An execution as the API shows it. Times: RFC 3339, UTC, milliseconds.

    A field without a value is left out.
    """

    execution_id: str
    command_id: str
    thing_id: str
    action: str
    params: JsonObject
    ttl: int
    status: Status
    delivery: Delivery
    attempts: int
    created_at: Time
    expires_at: Time
    events: list[EventResource]
    result: msgspec.Raw | None = None
    status_reason: StatusReason | None = None
    progress: Progress | None = None
    retry_safe: bool | None = None
    late: LateResource | None = None
    conflicts: int = 0
    requested_by: str = ""
    published_at: Time | None = None
    delivered_at: Time | None = None
    started_at: Time | None = None
    cancel_requested_at: Time | None = None
    ended_at: Time | None = None
    duration_seconds: float | None = None


class ValidationResource(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a dry run that found no fault. ``checkedBy``: whose schemas the params met."""

    valid: bool
    checked_by: tuple[str, ...]


command_body_decoder: Final = msgspec.json.Decoder(CommandBody)
_encode: Final = msgspec.json.Encoder().encode


def encode_execution(execution: Execution) -> bytes:
    """The execution as the API shows it, encoded."""
    return _encode(execution_resource(execution))


def execution_resource(execution: Execution) -> ExecutionResource:
    """The execution as the API shows it."""
    created_at = rfc3339(execution.created_at)
    ended_at = execution.ended_at
    return ExecutionResource(
        execution.execution_id,
        execution.command_id,
        execution.thing,
        execution.action,
        msgspec.Raw(execution.params),
        execution.ttl,
        execution.status,
        execution.delivery,
        execution.attempts,
        created_at,
        rfc3339(execution.created_at + execution.ttl),
        _events(execution, created_at),
        None if execution.result is None else msgspec.Raw(execution.result),
        execution.reason,
        None if execution.is_terminal else execution.progress,
        execution.retry_safe if execution.status is Status.TIMED_OUT else None,
        None if execution.late is None else _late_resource(execution.late),
        execution.conflicts,
        execution.requested_by,
        _time(execution.published_at),
        _time(execution.delivered_at),
        _time(execution.at_work_at),
        _time(execution.cancel_requested_at),
        _time(ended_at),
        None if ended_at is None else round(max(0.0, ended_at - execution.created_at), 3),
    )


def encode_validation(checked_by: tuple[str, ...]) -> bytes:
    """The answer to a dry run that found no fault, encoded."""
    return _encode(ValidationResource(valid=True, checked_by=checked_by))


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def _events(execution: Execution, created_at: str) -> list[EventResource]:
    """What happened, in the order of time; what happened at once, in the order of an execution's life."""
    happened = [
        (at, event)
        for at, event in (
            (execution.published_at, "published"),
            (execution.delivered_at, "delivered"),
            (execution.at_work_at, "started"),
            (execution.cancel_requested_at, "cancelRequested"),
            (execution.ended_at, "ended"),
            (None if execution.late is None else execution.late.at, "late"),
        )
        if at is not None
    ]
    if len(happened) > 1:
        happened.sort(key=_moment)  # stable
    return [
        EventResource(created_at, "created"),
        *(EventResource(rfc3339(at), event) for at, event in happened),
    ]


def _moment(happened: tuple[float, str]) -> float:
    return happened[0]


def _late_resource(late: Late) -> LateResource:
    return LateResource(
        late.status,
        rfc3339(late.at),
        round(late.delay_seconds, 3),
        None if late.result is None else msgspec.Raw(late.result),
        late.reason,
    )


def encode_page(key: str, items: Iterable[tuple[str, msgspec.Struct]], next_cursor: str | None) -> bytes:
    """A page ``{key: [...], "nextCursor": ...}``; ``items`` are pairs of a cursor and a resource.

    The page ends early, behind the last item that fits, before it outgrows ``PAGE_BYTES_MAX``.
    """
    parts: list[bytes] = []
    size = 0
    last = None
    for cursor, item in items:
        encoded = _encode(item)
        size += len(encoded)
        if size > PAGE_BYTES_MAX and parts:
            next_cursor = last
            break
        parts.append(encoded)
        last = cursor
    return b'{"%b":[%b],"nextCursor":%b}' % (key.encode(), b",".join(parts), _encode(next_cursor))
