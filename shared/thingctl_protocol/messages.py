"""The payloads, and the only place that encodes and decodes them.

All are JSON objects in UTF-8. Unknown fields are ignored: either side may
be newer than the other. Whatever is wrong with a payload, :class:`ProtocolError`
says it, and nothing else leaves this module.

``params`` and ``result`` pass through as the bytes they arrived in: the broker has
no reason to understand them, and encoded bytes cost the garbage collector nothing.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any, Final, TypeVar

import msgspec

from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.json_pointer import pointer_of, split_fault
from thingctl_protocol.limits import (
    ANNOUNCEMENT_MAX,
    DEPTH_MAX,
    PAYLOAD_MAX,
    PROGRESS_MESSAGE_MAX,
    REASON_CODE_MAX,
    REASON_DESCRIPTION_MAX,
)
from thingctl_protocol.statuses import DEVICE_STATUSES, Status

EMPTY_OBJECT: Final = b"{}"

_NOTHING: Final = msgspec.Raw()
_CLIENT_ID_MAX: Final = 0xFFFF  # bytes, and so characters
_LATEST: Final = 253_402_300_799.0  # the year 9999, beyond which no calendar goes


class Request(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What the broker asks of a device: Fleets' five fields.

    ``timestamp``: Unix seconds of the command's creation. ``ttl``: seconds from then.
    ``params`` is always a JSON object, still encoded.
    """

    command_id: str
    action: str
    timestamp: float
    ttl: float
    params: msgspec.Raw = msgspec.Raw(EMPTY_OBJECT)


class StatusReason(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Why an execution ended as it did, in a word for programs and a sentence for people."""

    reason_code: str = ""
    reason_description: str = ""


class Progress(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How far an execution in progress has come. ``percent``: 0 to 100."""

    percent: float | None = None
    message: str | None = None


class Response(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What a device says of an execution.

    ``result`` is any JSON value, still encoded; without bytes in it: none was given.
    """

    status: Status
    result: msgspec.Raw = _NOTHING
    status_reason: StatusReason | None = None
    progress: Progress | None = None


class ActionDescription(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One action as the agent announces it. The schemas are JSON Schema 2020-12 objects."""

    name: str
    description: str = ""
    params_schema: dict[str, Any] | None = None
    result_schema: dict[str, Any] | None = None
    policy: dict[str, Any] = {}


class Announcement(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What an agent can do, published retained on ``actions``."""

    agent_version: str = ""
    actions: tuple[ActionDescription, ...] = ()


class BrokerTime(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The broker's wall clock, Unix seconds.

    ``steady``: at the same moment, seconds on a clock that is never set; its zero means nothing.
    """

    timestamp: float
    steady: float | None = None


class _WrittenRequest(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A request with its fields in the order in which Fleets writes them."""

    command_id: str
    action: str
    params: msgspec.Raw
    timestamp: int
    ttl: int


class Presence(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Whether a thing is connected. ``at``: since when, Unix seconds; None: not known."""

    online: bool
    client_id: str = ""
    at: float | None = None


_M = TypeVar("_M")
_anything: Final = msgspec.json.Decoder()
_encoder: Final = msgspec.json.Encoder()
_requests: Final = msgspec.json.Decoder(Request)
_responses: Final = msgspec.json.Decoder(Response)
_announcements: Final = msgspec.json.Decoder(Announcement)
_times: Final = msgspec.json.Decoder(BrokerTime)
_presences: Final = msgspec.json.Decoder(Presence)
# Matches from every quote on, even an unclosed one: no input is scanned twice.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS: Final = bytes(set(range(256)) - set(_STEP))


def encode_request(*, command_id: str, action: str, params: bytes, timestamp: int, ttl: int) -> bytes:
    """Encode a request, its fields in Fleets' order.

    >>> encode_request(command_id="c", action="unlock", params=b"{}", timestamp=1748390400, ttl=30)
    b'{"commandId":"c","action":"unlock","params":{},"timestamp":1748390400,"ttl":30}'

    ``params`` is an encoded JSON object; it goes onto the wire as it is.
    Raises :class:`ProtocolError` when the payload is over ``PAYLOAD_MAX`` bytes.
    """
    payload = _encode(_WrittenRequest(command_id, action, msgspec.Raw(params), timestamp, ttl))
    if len(payload) > PAYLOAD_MAX:
        raise ProtocolError(
            f"the request is {len(payload)} bytes long; at most {PAYLOAD_MAX} are allowed", "/params"
        )
    return payload


def decode_request(payload: bytes) -> Request:
    """Decode a request as a device receives it; raises :class:`ProtocolError`."""
    request = _decode(_requests, payload, PAYLOAD_MAX, "request")
    params = bytes(request.params)
    if params == b"null":
        params = EMPTY_OBJECT
    check_json_object(params, "/params")
    if not request.ttl > 0:
        raise ProtocolError("ttl is not above 0", "/ttl")
    return Request(request.command_id, request.action, request.timestamp, request.ttl, msgspec.Raw(params))


def encode_response(
    status: Status,
    *,
    result: bytes | None = None,
    reason: StatusReason | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Encode what a device says of an execution. ``result`` is an encoded JSON value.

    Raises :class:`ProtocolError` for whatever :func:`decode_response` would refuse:
    a broker would drop it, and the execution would time out.
    """
    response = Response(status, _NOTHING if result is None else msgspec.Raw(result), reason, progress)
    _check_response(response)
    if result is not None:
        _check_depth(result, "/result")
    payload = _encode(response)
    if len(payload) > PAYLOAD_MAX:
        raise ProtocolError(
            f"the response is {len(payload)} bytes long; at most {PAYLOAD_MAX} are allowed", "/result"
        )
    return payload


def decode_response(payload: bytes) -> Response:
    """Decode a device's response; raises :class:`ProtocolError`.

    The result is checked to be JSON. It is a part of ``payload`` still: copy what is kept.
    """
    response = _decode(_responses, payload, PAYLOAD_MAX, "response")
    _check_response(response)
    result = bytes(response.result)
    if result:
        check_json(result, "/result")
    return response


def _check_response(response: Response) -> None:
    if response.status not in DEVICE_STATUSES:
        raise ProtocolError(f"{response.status} is not a device's to say", "/status")
    reason, progress = response.status_reason, response.progress
    if reason is not None:
        if len(reason.reason_code) > REASON_CODE_MAX:
            raise ProtocolError(f"more than {REASON_CODE_MAX} characters", "/statusReason/reasonCode")
        if len(reason.reason_description) > REASON_DESCRIPTION_MAX:
            raise ProtocolError(
                f"more than {REASON_DESCRIPTION_MAX} characters", "/statusReason/reasonDescription"
            )
    if progress is not None:
        if progress.percent is not None and not 0 <= progress.percent <= 100:
            raise ProtocolError("not within 0 and 100", "/progress/percent")
        if progress.message is not None and len(progress.message) > PROGRESS_MESSAGE_MAX:
            raise ProtocolError(f"more than {PROGRESS_MESSAGE_MAX} characters", "/progress/message")


def encode_announcement(announcement: Announcement) -> bytes:
    """Encode what an agent announces; raises :class:`ProtocolError` when it cannot be sent."""
    payload = _encode(announcement)
    if len(payload) > ANNOUNCEMENT_MAX:
        raise ProtocolError(
            f"the announcement is {len(payload)} bytes long; at most {ANNOUNCEMENT_MAX} are allowed"
        )
    decode_announcement(payload)  # schemas hold anything: what can be written may yet be unreadable
    return payload


def decode_announcement(payload: bytes) -> Announcement:
    """Decode what an agent announces; raises :class:`ProtocolError`."""
    return _decode(_announcements, payload, ANNOUNCEMENT_MAX, "announcement")


def encode_time(timestamp: float, steady: float | None = None) -> bytes:
    """Encode the broker's time.

    >>> encode_time(1748390400.25, 5123.5)
    b'{"timestamp":1748390400.25,"steady":5123.5}'
    """
    return _encode(BrokerTime(timestamp, steady))


def decode_time(payload: bytes) -> BrokerTime:
    """Decode the broker's time; raises :class:`ProtocolError`."""
    return _decode(_times, payload, PAYLOAD_MAX, "time")


def encode_presence(presence: Presence) -> bytes:
    """Encode whether a thing is connected.

    >>> encode_presence(Presence(online=False))
    b'{"online":false}'
    """
    return _encode(presence)


def decode_presence(payload: bytes) -> Presence:
    """Decode whether a thing is connected; raises :class:`ProtocolError`."""
    presence = _decode(_presences, payload, PAYLOAD_MAX, "presence")
    if presence.at is not None and not 0 <= presence.at <= _LATEST:
        raise ProtocolError("no time in Unix seconds", "/at")
    if "\0" in presence.client_id:
        raise ProtocolError("no client id has a NUL in it [MQTT-1.5.3-2]", "/clientId")
    if len(presence.client_id) > _CLIENT_ID_MAX:
        raise ProtocolError("no client id is that long [MQTT 5.0 section 1.5.4]", "/clientId")
    return presence


_OUT_OF_RANGE: Final = "Number out of range"


def check_json(encoded: bytes, pointer: str = "") -> None:
    """Raise :class:`ProtocolError` unless ``encoded`` is one JSON value of bounded depth."""
    _check_depth(encoded, pointer)
    try:
        _anything.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text, _ = split_fault(str(error))
        if text == _OUT_OF_RANGE:  # it is JSON all the same
            raise ProtocolError("it holds a number that is out of range", pointer) from None
        raise ProtocolError(f"not JSON: {text}", pointer) from None


def check_json_object(encoded: bytes, pointer: str = "") -> None:
    """Raise :class:`ProtocolError` unless ``encoded`` is one JSON object of bounded depth."""
    if encoded == EMPTY_OBJECT:
        return
    check_json(encoded, pointer)
    if encoded[:1] != b"{" and encoded.lstrip(b" \t\r\n")[:1] != b"{":
        raise ProtocolError("not a JSON object", pointer)


def _check_depth(encoded: bytes, pointer: str) -> None:
    # What is shorter has no room for more brackets that also close. Those in strings count
    # here too, which only sends a rare payload the slow way round.
    if len(encoded) <= 2 * DEPTH_MAX or encoded.count(b"[") + encoded.count(b"{") <= DEPTH_MAX:
        return
    brackets = _STRING.sub(b"", encoded).translate(None, _NO_BRACKETS)
    if max(accumulate(_STEP[bracket] for bracket in brackets), default=0) > DEPTH_MAX:
        raise ProtocolError(f"nested more than {DEPTH_MAX} deep", pointer)


def _encode(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except (msgspec.EncodeError, UnicodeEncodeError, TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"cannot be written as JSON: {error}") from None


def _decode(decoder: msgspec.json.Decoder[_M], payload: bytes, limit: int, what: str) -> _M:
    if len(payload) > limit:
        raise ProtocolError(f"the {what} is {len(payload)} bytes long; at most {limit} are allowed")
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        text, path = split_fault(str(error))
        raise ProtocolError(text, pointer_of(path)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the {what} is not JSON: {error}") from None
    except RecursionError:
        raise ProtocolError(f"the {what} is nested too deeply") from None
