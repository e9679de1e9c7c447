"""Navixy's dialect: ``/v2/tracker/…``, where the ``hash`` is the API token.

The hash stands in the header (``Authorization: NVX <hash>``), in the body or in the query; the
first of them counts. A ``send_command`` is an action of that name. A ``raw_command`` is the
action ``rawCommand``, whose params are the command's text and its ``type``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.routing import Route

from thingctl_broker.commands.field_types import ActionName, Ttl, described
from thingctl_broker.commands.status_table import STATUS_TABLE
from thingctl_broker.commands.table import Query
from thingctl_broker.errors import UnknownThing
from thingctl_broker.http.auth import require, require_command, visible
from thingctl_broker.http.dialects.dialect import NO_DEVICE, printed
from thingctl_broker.http.problems import INVALID_BODY, UNAUTHORIZED, Problem, ProblemKind
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.request_body import decode_body, read_json_body
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.tokens import Scope
from thingctl_protocol.messages import EMPTY_OBJECT

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Scope as AsgiScope

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.operations import Operations
    from thingctl_broker.commands.table import PageOfExecutions
    from thingctl_broker.http.auth import Callers
    from thingctl_broker.security.tokens import Token
    from thingctl_broker.things.thing import Thing

SEND: Final = "/v2/tracker/send_command"
SEND_RAW: Final = "/v2/tracker/raw_command/send"
STATUS: Final = "/v2/tracker/get_command_status"

_CALLS: Final = frozenset({SEND, SEND_RAW, STATUS})

RAW_ACTION: Final = "rawCommand"
"""The action that a raw command asks for."""

WORDS: Final = {status: row.navixy for status, row in STATUS_TABLE.items()}
"""What ``get_command_status`` says for each status."""

_OFFLINE: Final = ProblemKind("device-offline", 400, "The device is offline")
_UNSUPPORTED: Final = ProblemKind("unsupported-command", 400, "The device does not support the command")
_NO_COMMAND: Final = ProblemKind("no-command", 404, "No command was sent to the device")

CODES: Final = {
    "unauthorized": (3, "Wrong hash", 400),
    "unknown-thing": (4, "Device not found", 400),
    "unsupported-media-type": (5, "Wrong request format", 400),
    "invalid-request": (5, "Wrong request format", 400),
    "internal-error": (6, "Unexpected error", 500),
    "invalid-body": (7, "Invalid parameters", 400),
    "invalid-parameter": (7, "Invalid parameters", 400),
    "not-accepting": (8, "Queue service error, try again later", 503),
    "table-full": (8, "Queue service error, try again later", 503),
    "body-too-large": (9, "Too large request", 412),
    "forbidden": (13, "Operation not permitted", 403),
    "queue-full": (15, "Too many requests (rate limit exceeded)", 429),
    "rate-limited": (15, "Too many requests (rate limit exceeded)", 429),
    "not-found": (111, "Wrong handler", 400),
    "method-not-allowed": (112, "Wrong method", 400),
    _NO_COMMAND.name: (204, "Entity not found", 404),
    "thing-disabled": (208, "Device blocked", 403),
    _OFFLINE.name: (213, "Cannot perform action: the device is offline", 400),
    _UNSUPPORTED.name: (
        214,
        "Requested operation or parameters are not supported by the device",
        400,
    ),
}
"""Code, description and HTTP status for each kind of problem. Any other is an unexpected error."""

_QUERY: Final = frozenset({"hash"})
_SCHEME: Final = b"nvx "
_FORM: Final = b"application/x-www-form-urlencoded"
_OURS: Final = {"action": "command", "thingId": "device_id"}
"""Fields of ours that a fault may lie in, and the ones that they came from."""
_Id = str | int


class _Keyed(msgspec.Struct):
    """Of any body: whose it is."""

    hash: str = ""


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``hash``: the API token, unless the header or the query has it.

    ``device_id``, or ``tracker_id``: the thing's name.
    """

    hash: str = ""
    device_id: _Id | None = None
    tracker_id: _Id | None = None

    def thing(self) -> str:
        """The name of the thing; raises :class:`Problem` when there is none, or two."""
        if (self.device_id is None) == (self.tracker_id is None):
            raise Problem(INVALID_BODY, "give device_id or tracker_id", pointer="/device_id")
        return str(self.tracker_id if self.device_id is None else self.device_id)


class SendCommandBody(_Body, frozen=True, kw_only=True):
    """What ``send_command`` takes. ``params`` and ``ttl`` (seconds) are this broker's own.

    ``command``: the action; or an object, whose ``name`` is the action and whose other fields
    are its params. ``reliable``: whether the command may wait for a device that is not connected.
    """

    command: ActionName | dict[str, msgspec.Raw]
    params: dict[str, msgspec.Raw] | None = None
    ttl: Ttl | None = None
    reliable: bool = True

    def action(self) -> tuple[str, bytes]:
        """The action and its params as JSON; raises :class:`Problem` (400)."""
        if isinstance(self.command, str):
            return self.command, EMPTY_OBJECT if self.params is None else msgspec.json.encode(self.params)
        if self.params is not None:
            raise Problem(
                INVALID_BODY, "a command that is an object brings its params along", pointer="/params"
            )
        params = dict(self.command)
        try:
            name = msgspec.json.decode(params.pop("name"), type=str)
        except (KeyError, msgspec.ValidationError):
            raise Problem(
                INVALID_BODY, "a command that is an object has a name, a string", pointer="/command"
            ) from None
        return name, msgspec.json.encode(params)


class RawCommandBody(_Body, frozen=True, kw_only=True):
    """What ``raw_command/send`` takes. ``ttl`` (seconds) is this broker's own."""

    command: Annotated[str, msgspec.Meta(min_length=1)]
    type: Literal["text", "hex"] = "text"
    ttl: Ttl | None = None
    reliable: bool = True


class StatusBody(_Body, frozen=True, kw_only=True):
    """What ``get_command_status`` takes."""


_B = TypeVar("_B", bound=_Body)
_keyed: Final = msgspec.json.Decoder(_Keyed)
_send: Final = msgspec.json.Decoder(SendCommandBody)
_raw: Final = msgspec.json.Decoder(RawCommandBody)
_status: Final = msgspec.json.Decoder(StatusBody)


class QueuedReply(msgspec.Struct, frozen=True):
    """What ``send_command`` answers."""

    success: bool = True
    queued: bool = True


class DoneReply(msgspec.Struct, frozen=True):
    """What ``raw_command/send`` answers."""

    success: bool = True


class StatusWord(msgspec.Struct, frozen=True):
    """What ``get_command_status`` answers."""

    success: bool
    status: Annotated[str, described(enum=sorted(set(WORDS.values())))]


class ParameterError(msgspec.Struct, frozen=True):
    """One parameter that is wrong."""

    parameter: str
    error: str


class ErrorStatus(msgspec.Struct, frozen=True):
    """A code and what it means."""

    code: int
    description: str


class ErrorReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """How every fault is told."""

    success: bool
    status: ErrorStatus
    errors: list[ParameterError] = []


class Navixy:
    """The endpoints of Navixy's dialect."""

    def __init__(self, operations: Operations, callers: Callers) -> None:
        self._operations = operations
        self._callers = callers

    def owns(self, path: str) -> bool:
        """Whether the path is Navixy's: below ``/v2/``."""
        return path.startswith("/v2/")

    async def admit(self, request: Request) -> Token | None:
        """None for its own calls, which look for the token; for any other whose request it is."""
        if request.scope["path"] in _CALLS:
            return None
        if any(name == b"authorization" and not _is_key(value) for name, value in request.scope["headers"]):
            return self._callers.admit(request.scope)
        try:
            plain = (await self._heard(request))[1]
        except Problem:
            plain = ""
        return self._verified(request.scope, plain)

    def canonical(self, path: str) -> str:
        """The path without a slash at its end."""
        return path.rstrip("/")

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(SEND, self.send_command, methods=["POST"]),
            Route(SEND_RAW, self.send_raw_command, methods=["POST"]),
            Route(STATUS, self.get_command_status, methods=["POST"]),
        ]

    async def send_command(self, request: Request) -> ApiResponse:
        """``POST /v2/tracker/send_command``: ask a device for an action (Navixy's dialect)."""
        token, body = await self._read(request, _send)
        require(token, Scope.COMMANDS_SEND)
        action, params = body.action()
        await self._sent(token, body, action, params, body.ttl, reliable=body.reliable)
        return ApiResponse(200, printed(QueuedReply()))

    async def send_raw_command(self, request: Request) -> ApiResponse:
        """``POST /v2/tracker/raw_command/send``: send a device a command in its own language."""
        token, body = await self._read(request, _raw)
        require(token, Scope.COMMANDS_SEND)
        if body.type == "hex" and not _is_hex(body.command):
            raise Problem(INVALID_BODY, "not hexadecimal digits in pairs", pointer="/command")
        params = msgspec.json.encode({"command": body.command, "type": body.type})
        await self._sent(token, body, RAW_ACTION, params, body.ttl, reliable=body.reliable)
        return ApiResponse(200, printed(DoneReply()))

    async def get_command_status(self, request: Request) -> ApiResponse:
        """``POST /v2/tracker/get_command_status``: the status of the device's latest command."""
        token, body = await self._read(request, _status)
        require(token, Scope.COMMANDS_READ)
        thing = body.thing()
        if not token.covers(thing):  # as for a thing that is not there
            raise UnknownThing(NO_DEVICE)
        await self._known(thing)
        query = Query(thing=thing, visible=visible(token))
        return ApiResponse(200, await self._operations.list(query, 1, None, _newest))

    def tell(self, problem: Problem) -> ApiResponse:
        """The fault in Navixy's envelope."""
        code, description, status = CODES.get(problem.kind.name, CODES["internal-error"])
        details = problem.details
        place = details.pointer or details.parameter
        errors = []
        if place is not None and code == CODES["invalid-body"][0]:
            name = place.removeprefix("/").partition("/")[0]
            parameter = _OURS.get(name, name)
            errors.append(ParameterError(parameter, details.detail))
        reply = ErrorReply(success=False, status=ErrorStatus(code, description), errors=errors)
        return ApiResponse(status, printed(reply), problem.headers)

    async def _read(self, request: Request, decoder: msgspec.json.Decoder[_B]) -> tuple[Token, _B]:
        """Whose request it is, and its body. The token may be in there, so the body is read first."""
        try:
            encoded, plain = await self._heard(request)
        except Problem:
            self._callers.failed(request.scope)
            raise
        return self._verified(request.scope, plain), decode_body(decoder, encoded)

    def _verified(self, scope: AsgiScope, plain: str) -> Token:
        token = self._callers.verify(scope, plain)
        if token is None:
            raise Problem(UNAUTHORIZED, "the hash is no valid API token")
        return token

    @staticmethod
    async def _heard(request: Request) -> tuple[bytes, str]:
        """The body as JSON, and the token."""
        key = _key(request.scope)
        headers = dict(request.scope["headers"])
        form = headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == _FORM
        if form:
            del headers[b"content-type"]
        encoded = await read_json_body(headers, request.receive)
        if form:
            encoded = _from_form(encoded)
        return encoded, key or decode_body(_keyed, encoded).hash

    async def _sent(
        self, token: Token, body: _Body, action: str, params: bytes, ttl: int | None, *, reliable: bool
    ) -> None:
        """Send a command, and return when it is kept."""
        thing = body.thing()
        require_command(token, thing, action)  # first: whether the thing is there is not everybody's to know
        announcement = (await self._known(thing)).announcement
        if announcement is not None and all(known.name != action for known in announcement.actions):
            raise Problem(_UNSUPPORTED, "the device has announced what it can do, and this is not in it")
        if not reliable and not self._operations.is_reachable(thing):
            raise Problem(_OFFLINE, "the device is not connected, and the command is not to wait")
        await self._operations.send(thing, action, params, ttl, _nothing, requested_by=token.name)

    async def _known(self, name: str) -> Thing:
        thing = await self._operations.thing(name)
        if thing is None:
            raise UnknownThing(NO_DEVICE)
        return thing


def _is_key(authorization: bytes) -> bool:
    return authorization[: len(_SCHEME)].lower() == _SCHEME


def _key(scope: AsgiScope) -> str:
    """The hash in the header or the query; empty when it is in neither."""
    for name, value in scope["headers"]:
        if name == b"authorization" and _is_key(value):
            return str(value[len(_SCHEME) :].strip(), "latin-1")
    return Parameters(scope["query_string"], _QUERY).text("hash", bool, "the API token") or ""


def _newest(page: PageOfExecutions) -> bytes:
    if not page.executions:
        raise Problem(_NO_COMMAND, "no command was sent to the device, or it ended long ago")
    return printed(StatusWord(success=True, status=WORDS[page.executions[0].status]))


def _nothing(_: Execution) -> None:
    """Tell nothing of it."""


def _from_form(encoded: bytes) -> bytes:
    """A form as JSON: values that are JSON for the fields that are not text, text for the others."""
    try:
        pairs = parse_qsl(encoded.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise Problem(INVALID_BODY, "the body is no form in UTF-8", pointer="") from None
    fields: dict[str, Any] = {}
    for name, text in pairs:
        if name in fields:
            raise Problem(INVALID_BODY, f"{name[:80]} may be given once", pointer=f"/{name[:80]}")
        fields[name] = _form_value(name, text)
    return msgspec.json.encode(fields)


_NOT_TEXT: Final = frozenset({"params", "reliable", "ttl"})
_YES_NO: Final = {"true": True, "1": True, "false": False, "0": False}
"""How forms say it: Python's clients send ``True``, PHP's send ``1``."""


def _form_value(name: str, text: str) -> Any:
    """A form's text as the JSON value that the field wants; as text where it is none."""
    if name == "reliable":
        return _YES_NO.get(text.lower(), text)
    if name not in _NOT_TEXT and not (name == "command" and text.startswith("{")):
        return text
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return msgspec.Raw(text.encode())


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and all(digit in "0123456789abcdefABCDEF" for digit in text)
