"""The one shape of an error: RFC 9457 problem details, for every fault there is.

``KINDS`` is the whole list. A kind's ``type`` is stable: programs may compare it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from starlette.exceptions import HTTPException

from thingctl_broker.errors import (
    AlreadyEnded,
    ClientAway,
    IdempotencyConflict,
    InvalidCommand,
    InvalidThing,
    NoDeviceUrl,
    NotAccepting,
    NotKept,
    QueueFull,
    ServiceError,
    TableFull,
    ThingDisabled,
    ThingExists,
    TypeInUse,
    UnknownClient,
    UnknownCommand,
    UnknownExecution,
    UnknownThing,
    UnknownThingType,
    WrongMove,
)
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.sign_in import NoSession, TooManySessions, UnknownCode
from thingctl_broker.security.tokens import (
    CredentialsError,
    InvalidToken,
    LastAdmin,
    ManagedElsewhere,
    TokenExists,
    UnknownToken,
)

Headers = tuple[tuple[bytes, bytes], ...]


class ProblemKind(NamedTuple):
    """A kind of problem: the last part of its ``type``, its HTTP status, its title."""

    name: str
    status: int
    title: str

    @property
    def type(self) -> str:
        """The problem type, a URN."""
        return f"urn:thingctl:problem:{self.name}"


INVALID_REQUEST: Final = ProblemKind("invalid-request", 400, "The request is not well-formed HTTP")
INVALID_BODY: Final = ProblemKind("invalid-body", 400, "The body is not what this call takes")
INVALID_PARAMETER: Final = ProblemKind("invalid-parameter", 400, "A query parameter is wrong")
INVALID_HEADER: Final = ProblemKind("invalid-header", 400, "A header is not what this call takes")
UNAUTHORIZED: Final = ProblemKind("unauthorized", 401, "A valid API token is needed")
UNKNOWN_CODE: Final = ProblemKind("unknown-code", 401, "The sign-in code is not valid")
FORBIDDEN: Final = ProblemKind("forbidden", 403, "The API token is not for this")
NOT_FOUND: Final = ProblemKind("not-found", 404, "There is nothing at this path")
UNKNOWN_THING: Final = ProblemKind("unknown-thing", 404, "No thing has that name")
UNKNOWN_EXECUTION: Final = ProblemKind("unknown-execution", 404, "No execution has that id")
UNKNOWN_COMMAND: Final = ProblemKind("unknown-command", 404, "No command has that id")
UNKNOWN_THING_TYPE: Final = ProblemKind("unknown-thing-type", 404, "No thing type has that name")
UNKNOWN_CLIENT: Final = ProblemKind("unknown-client", 404, "No MQTT client has that id")
UNKNOWN_TOKEN: Final = ProblemKind("unknown-token", 404, "No API token has that name")
CLIENTS_ELSEWHERE: Final = ProblemKind("clients-elsewhere", 404, "Another broker serves the MQTT clients")
METHOD_NOT_ALLOWED: Final = ProblemKind("method-not-allowed", 405, "This path does not take that method")
REQUEST_TIMEOUT: Final = ProblemKind("request-timeout", 408, "The request did not arrive in time")
IDEMPOTENCY_CONFLICT: Final = ProblemKind("idempotency-conflict", 409, "The key was used for another command")
WRONG_MOVE: Final = ProblemKind("wrong-move", 409, "The command cannot become that now")
ALREADY_ENDED: Final = ProblemKind("already-ended", 409, "The execution has ended")
THING_DISABLED: Final = ProblemKind("thing-disabled", 409, "The thing is disabled")
ALREADY_EXISTS: Final = ProblemKind("already-exists", 409, "There is one of that name already")
CLIENT_AWAY: Final = ProblemKind("client-away", 409, "The MQTT client is not connected")
NO_DEVICE_URL: Final = ProblemKind("no-device-url", 409, "No address of the broker is known for devices")
IN_USE: Final = ProblemKind("in-use", 409, "It is still needed")
MANAGED_ELSEWHERE: Final = ProblemKind("managed-elsewhere", 409, "The API cannot change it")
BODY_TOO_LARGE: Final = ProblemKind("body-too-large", 413, "The body is too large")
UNSUPPORTED_MEDIA_TYPE: Final = ProblemKind("unsupported-media-type", 415, "The body must be plain JSON")
QUEUE_FULL: Final = ProblemKind("queue-full", 429, "Too many requests wait for this thing")
RATE_LIMITED: Final = ProblemKind("rate-limited", 429, "Too many requests came")
TOO_MANY_SESSIONS: Final = ProblemKind(
    "too-many-sessions", 429, "The API token has too many console sessions"
)
HEAD_TOO_LARGE: Final = ProblemKind("head-too-large", 431, "The request line and headers are too large")
INTERNAL_ERROR: Final = ProblemKind("internal-error", 500, "The broker failed")
TABLE_FULL: Final = ProblemKind("table-full", 503, "The broker holds as many live executions as it may")
NOT_KEPT: Final = ProblemKind("not-kept", 503, "The change could not be written to the disk")
NOT_ACCEPTING: Final = ProblemKind("not-accepting", 503, "Commands cannot be kept at present")
TOO_MANY_CONNECTIONS: Final = ProblemKind("too-many-connections", 503, "Too many HTTP connections are open")
TOO_MANY_STREAMS: Final = ProblemKind("too-many-streams", 503, "Too many event streams are open")

KINDS: Final = (
    INVALID_REQUEST,
    INVALID_BODY,
    INVALID_PARAMETER,
    INVALID_HEADER,
    UNAUTHORIZED,
    UNKNOWN_CODE,
    FORBIDDEN,
    NOT_FOUND,
    UNKNOWN_THING,
    UNKNOWN_THING_TYPE,
    UNKNOWN_CLIENT,
    UNKNOWN_TOKEN,
    UNKNOWN_EXECUTION,
    UNKNOWN_COMMAND,
    CLIENTS_ELSEWHERE,
    METHOD_NOT_ALLOWED,
    REQUEST_TIMEOUT,
    IDEMPOTENCY_CONFLICT,
    ALREADY_ENDED,
    WRONG_MOVE,
    THING_DISABLED,
    ALREADY_EXISTS,
    CLIENT_AWAY,
    NO_DEVICE_URL,
    IN_USE,
    MANAGED_ELSEWHERE,
    BODY_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    QUEUE_FULL,
    RATE_LIMITED,
    TOO_MANY_SESSIONS,
    HEAD_TOO_LARGE,
    INTERNAL_ERROR,
    TABLE_FULL,
    NOT_KEPT,
    NOT_ACCEPTING,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_STREAMS,
)


class ProblemDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every error."""

    type: str
    title: str
    status: int
    detail: str
    pointer: str | None = None
    """RFC 6901 JSON pointer to the fault in the request's body."""
    parameter: str | None = None
    """The query parameter at fault."""
    header: str | None = None
    """The header at fault."""


class Problem(Exception):
    """A request that cannot be answered as asked. ``detail`` is one sentence for people."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        pointer: str | None = None,
        parameter: str | None = None,
        header: str | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.details = ProblemDetails(kind.type, kind.title, kind.status, detail, pointer, parameter, header)
        self.headers = headers

    def answer(self) -> ApiResponse:
        """The response that says it."""
        return ApiResponse(
            self.kind.status,
            msgspec.json.encode(self.details),
            self.headers,
            media_type=b"application/problem+json",
        )


_SIMPLE: Final[tuple[tuple[type[Exception], ProblemKind], ...]] = (
    (UnknownThing, UNKNOWN_THING),
    (UnknownThingType, UNKNOWN_THING_TYPE),
    (UnknownToken, UNKNOWN_TOKEN),
    (UnknownClient, UNKNOWN_CLIENT),
    (ClientAway, CLIENT_AWAY),
    (UnknownCode, UNKNOWN_CODE),
    (NoSession, FORBIDDEN),
    (TooManySessions, TOO_MANY_SESSIONS),
    (UnknownExecution, UNKNOWN_EXECUTION),
    (AlreadyEnded, ALREADY_ENDED),
    (UnknownCommand, UNKNOWN_COMMAND),
    (WrongMove, WRONG_MOVE),
    (IdempotencyConflict, IDEMPOTENCY_CONFLICT),
    (ThingDisabled, THING_DISABLED),
    (ThingExists, ALREADY_EXISTS),
    (TokenExists, ALREADY_EXISTS),
    (NoDeviceUrl, NO_DEVICE_URL),
    (TypeInUse, IN_USE),
    (LastAdmin, IN_USE),
    (ManagedElsewhere, MANAGED_ELSEWHERE),
    (NotKept, NOT_KEPT),
    (CredentialsError, NOT_KEPT),  # whose subclasses stand above
)
"""What needs no more than its own sentence."""


def problem_of(error: Exception) -> Problem | None:
    """Return what to tell the caller about ``error``; None when it is no fault of theirs or ours."""
    match error:
        case Problem():
            return error
        case InvalidCommand() | InvalidThing() | InvalidToken():
            return Problem(INVALID_BODY, error.text, pointer=error.pointer)
        case QueueFull() | NotAccepting():
            kind = QUEUE_FULL if isinstance(error, QueueFull) else NOT_ACCEPTING
            return Problem(kind, error.text, headers=((b"retry-after", str(error.retry_after).encode()),))
        case TableFull():
            return Problem(TABLE_FULL, error.text, headers=((b"retry-after", b"10"),))
        case HTTPException(status_code=404):
            return Problem(NOT_FOUND, "no part of the API has this path")
        case ServiceError() | CredentialsError():
            simple = next((kind for refusal, kind in _SIMPLE if isinstance(error, refusal)), None)
            if simple is None:
                return None
            headers = ((b"retry-after", b"5"),) if simple is NOT_KEPT else ()
            return Problem(simple, error.text, headers=headers)
        case _:
            return None
