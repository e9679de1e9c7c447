"""How one execution ended, as the device will say it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from thingctl_agent.handlers import json_values
from thingctl_agent.handlers.json_values import NotJsonError
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.limits import REASON_CODE_MAX, REASON_DESCRIPTION_MAX
from thingctl_protocol.messages import StatusReason, encode_response
from thingctl_protocol.statuses import Status

HANDLER_ERROR: Final = "HANDLER_ERROR"
RESULT_NOT_JSON: Final = "RESULT_NOT_JSON"
INTERRUPTED: Final = "INTERRUPTED"
TIMEOUT: Final = "TIMEOUT"
CANCELED: Final = "CANCELED"
BUSY: Final = "BUSY"
EXPIRED: Final = "EXPIRED"
UNKNOWN_ACTION: Final = "UNKNOWN_ACTION"
INVALID_PARAMS: Final = "INVALID_PARAMS"
INVALID_REQUEST: Final = "INVALID_REQUEST"
JOURNAL_UNAVAILABLE: Final = "JOURNAL_UNAVAILABLE"
NOT_REBOOTED: Final = "NOT_REBOOTED"

_NEVER_RUN: Final = {
    "coroutine": "a coroutine",
    "generator": "a generator",
    "async_generator": "an async generator",
}
"""Types of objects whose code has not run when a handler returns them."""


class CallOutcome(msgspec.Struct, frozen=True, gc=False):
    """A terminal status with what goes with it. ``result`` is an encoded JSON value."""

    status: Status
    result: bytes | None = None
    reason: StatusReason | None = None

    def encode(self) -> bytes:
        """The response payload. A result that is too long gives way to a marker.

        The marker is ``{"truncated": true, "bytes": N, "sha256": "…"}``: the operator
        learns that it was done, how much there was to say, and what it was.
        """
        try:
            return encode_response(self.status, result=self.result, reason=self.reason)
        except ProtocolError:
            assert self.result is not None
            return encode_response(self.status, result=_marker(self.result), reason=self.reason)


def succeeded(value: Any) -> CallOutcome:
    """The handler returned ``value``; FAILED when JSON cannot express it."""
    if value is None:
        return CallOutcome(Status.SUCCEEDED)
    kind = type(value).__name__
    if kind in _NEVER_RUN:
        return failed(RESULT_NOT_JSON, f"the handler returned {_NEVER_RUN[kind]}, which has not run")
    try:
        return CallOutcome(Status.SUCCEEDED, json_values.encode(value))
    except NotJsonError as error:
        return failed(RESULT_NOT_JSON, f"the handler ended, but JSON cannot express its result: {error}")


def failed(code: str, text: str, details: dict[str, Any] | None = None) -> CallOutcome:
    """It was tried and could not be done. ``details``, if any, become the result."""
    if not details:
        return CallOutcome(Status.FAILED, None, reason(code, text))
    try:
        return CallOutcome(Status.FAILED, json_values.encode(details), reason(code, text))
    except NotJsonError as error:
        return CallOutcome(
            Status.FAILED, None, reason(code, f"{text} (JSON cannot express the details: {error})")
        )


def handler_error() -> CallOutcome:
    """The handler raised something that the operator is not shown."""
    return failed(HANDLER_ERROR, "the handler raised an exception; the log of the device has it")


def rejected(code: str, text: str) -> CallOutcome:
    """It was refused: nothing was done."""
    return CallOutcome(Status.REJECTED, None, reason(code, text))


def canceled(text: str) -> CallOutcome:
    """It was withdrawn before it was done."""
    return CallOutcome(Status.CANCELED, None, reason(CANCELED, text))


def reason(code: str, text: str) -> StatusReason:
    """A status reason within the bounds of the protocol."""
    return StatusReason(_shown(code, REASON_CODE_MAX), _shown(text, REASON_DESCRIPTION_MAX))


def _marker(result: bytes) -> bytes:
    import hashlib  # noqa: PLC0415 - 2 MB that an agent seldom needs

    return msgspec.json.encode(
        {"truncated": True, "bytes": len(result), "sha256": hashlib.sha256(result).hexdigest()}
    )


def _shown(text: str, limit: int) -> str:
    """``text`` as UTF-8 can carry it, cut to ``limit`` characters."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"
