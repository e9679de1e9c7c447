"""How one execution ended, as the device will say it."""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

import msgspec

from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.limits import REASON_CODE_MAX, REASON_DESCRIPTION_MAX
from thingctl_protocol.messages import StatusReason, check_json, encode_response
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


class Outcome(msgspec.Struct, frozen=True, gc=False):
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


def succeeded(value: Any) -> Outcome:
    """The handler returned ``value``; FAILED when it cannot be said in JSON."""
    if value is None:
        return Outcome(Status.SUCCEEDED)
    result = _encoded(value)
    if result is None:
        return failed(RESULT_NOT_JSON, "it was done, but what it returned cannot be said in JSON")
    return Outcome(Status.SUCCEEDED, result)


def failed(code: str, text: str, details: dict[str, Any] | None = None) -> Outcome:
    """It was tried and could not be done. ``details``, if any, become the result."""
    return Outcome(Status.FAILED, _encoded(details) if details else None, reason(code, text))


def rejected(code: str, text: str) -> Outcome:
    """It was refused: nothing was done."""
    return Outcome(Status.REJECTED, None, reason(code, text))


def canceled(text: str) -> Outcome:
    """It was withdrawn before it was done."""
    return Outcome(Status.CANCELED, None, reason(CANCELED, text))


def reason(code: str, text: str) -> StatusReason:
    """A status reason within the bounds of the protocol."""
    return StatusReason(_shown(code, REASON_CODE_MAX), _shown(text, REASON_DESCRIPTION_MAX))


def _encoded(value: Any) -> bytes | None:
    try:
        encoded = msgspec.json.encode(value)
        if b"null" in encoded and not _is_finite(msgspec.to_builtins(value)):
            return None  # JSON has no word for it, and null would be a lie
        if encoded.count(b"[") + encoded.count(b"{") > 32:
            check_json(encoded)  # no deeper than the other side will take
    except Exception:
        return None
    return encoded


def _is_finite(value: Any) -> bool:
    """Whether no number in ``value`` is infinite or not a number."""
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(_is_finite, value))


def _marker(result: bytes) -> bytes:
    import hashlib  # noqa: PLC0415 - 2 MB that an agent seldom needs

    return msgspec.json.encode(
        {"truncated": True, "bytes": len(result), "sha256": hashlib.sha256(result).hexdigest()}
    )


def _shown(text: str, limit: int) -> str:
    """``text`` as UTF-8 can carry it, cut to ``limit`` characters."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"
