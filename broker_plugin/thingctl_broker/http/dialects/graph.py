"""Microsoft Graph's "Project Rome" dialect: ``me/devices`` and their commands.

A LaunchUri command is the action ``launchUri``, whose params are the payload. An AppService
command is the action ``{packageFamilyName}/{appServiceName}``, whose params are
``{"payload": …}``: what ``agent.app_service`` registers on a device.

Names of fields are taken in any case. Commands are answered in camel case, as their page prints
them; devices in both spellings, since their page and its clients use the other one (``Status``).
"""

from __future__ import annotations

import heapq
import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from starlette.routing import Route

from thingctl_broker.commands.status_table import STATUS_TABLE
from thingctl_broker.errors import UnknownExecution, UnknownThing
from thingctl_broker.http.auth import needs, require_command
from thingctl_broker.http.dialects.dialect import NO_DEVICE, printed
from thingctl_broker.http.dialects.graph_resources import (
    GraphCommand,
    GraphCommandBody,
    GraphDevice,
    GraphDevices,
    GraphError,
    GraphErrorBody,
)
from thingctl_broker.http.links import absolute, location
from thingctl_broker.http.problems import INVALID_BODY, Problem, ProblemKind
from thingctl_broker.http.query import LIMIT_DEFAULT, LIMIT_MAX, Parameters
from thingctl_broker.http.request_body import checked_post_back, decode_body, read_json_body
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.tokens import Scope
from thingctl_protocol.identifiers import is_action_name, is_id, is_thing_name
from thingctl_protocol.json_pointer import escape
from thingctl_protocol.statuses import Delivery, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.operations import Operations
    from thingctl_broker.http.auth import Callers
    from thingctl_broker.security.tokens import Token
    from thingctl_broker.things.thing import Thing

VERSIONS: Final = ("/beta", "/v1.0")
"""The prefixes that Graph's clients use; both are the same here."""

DEVICES: Final = "/me/devices"

LAUNCH_URI: Final = "launchUri"
"""The action of a LaunchUri command, and Graph's name for its type."""

APP_SERVICE: Final = "appService"

WORDS: Final = {status: row.graph for status, row in STATUS_TABLE.items() if row.graph}
"""What ``status`` says where the status alone decides."""

CODES: Final = {
    "unauthorized": "unauthenticated",
    "forbidden": "accessDenied",
    "unknown-thing": "itemNotFound",
    "unknown-execution": "itemNotFound",
    "not-found": "itemNotFound",
    "no-payload": "itemNotFound",
    "method-not-allowed": "notAllowed",
    "queue-full": "activityLimitReached",
    "rate-limited": "activityLimitReached",
    "table-full": "serviceNotAvailable",
    "not-accepting": "serviceNotAvailable",
    "internal-error": "generalException",
}
"""Graph's error code for each kind of problem. Any other is an invalid request."""

_NO_PAYLOAD: Final = ProblemKind("no-payload", 404, "The device has returned nothing yet")

OPTIONS: Final = frozenset({"$count", "$expand", "$format", "$orderby", "$select"})
"""OData options that clients send by habit. ``$select`` of a list is served, the rest changes nothing."""

TOP_MAX: Final = 999_999_999
"""What ``$top`` may ask for; a page has ``LIMIT_MAX`` devices at most, and a link to the next."""

_LIST: Final = OPTIONS | {"$top", "$skiptoken", "$filter"}
_FILTER: Final = re.compile(r"\s*(id|name|status)\s+eq\s+'([^']*)'\s*", re.IGNORECASE)
_READ_ONLY: Final = frozenset({"id", "status", "error", "responsepayload", "permissionticket"})
"""Fields of an answer that typed clients send back with a POST; they say nothing there."""

_COMMAND: Final = re.compile(r"(?<=/me/devices/)([^/]+/command)(?=/|$)")
_ANY: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode: Final = msgspec.json.encode


_FIELDS: Final = {field.encode_name.lower(): field for field in msgspec.structs.fields(GraphCommandBody)}
_bodies: Final = msgspec.json.Decoder(GraphCommandBody)


class Graph:
    """The endpoints of Graph's dialect."""

    def __init__(self, operations: Operations, callers: Callers, public_url: str = "") -> None:
        """``public_url``: what links to further pages begin with; empty: as the request was sent."""
        self._operations = operations
        self._public_url = public_url
        self._callers = callers

    def owns(self, path: str) -> bool:
        """Whether the path is Graph's: below one of ``VERSIONS``."""
        return path.startswith(("/beta/", "/v1.0/"))

    async def admit(self, request: Request) -> Token:
        """Whose request it is, by its bearer token. Raises :class:`Problem`: 401, or 429."""
        return await self._callers.admit_known(request.scope)

    def canonical(self, path: str) -> str:
        """The path without a slash at its end, and with ``commands`` where Graph's prose has ``command``."""
        return _COMMAND.sub(r"\1s", path.rstrip("/"))

    def routes(self) -> list[Route]:
        """The endpoints with their paths, for each version."""
        command = "/{device_id}/commands/{command_id}"
        return [
            Route(version + DEVICES + path, endpoint, methods=[method])
            for version in VERSIONS
            for path, endpoint, method in (
                ("", self.devices, "GET"),
                ("/{device_id}/commands", self.send, "POST"),
                (command, self.show, "GET"),
                (command + "/responsePayload", self.response_payload, "GET"),
            )
        ]

    @needs(Scope.THINGS_READ)
    async def devices(self, request: Request) -> ApiResponse:
        """``GET /me/devices``: things, by name (Graph's dialect)."""
        asked = Parameters(request.scope["query_string"], _LIST)
        top = asked.text("$top", _is_top, "a whole number above 0")
        limit = LIMIT_DEFAULT if top is None else min(int(top), LIMIT_MAX)
        after = asked.text("$skiptoken", is_thing_name, "of an earlier @odata.nextLink") or ""
        wanted = _filter(asked.text("$filter", _is_filter, "id, name or status, eq and a text in quotes"))
        chosen = _selected(asked.text("$select", lambda _: True, "names of fields with commas"))
        token: Token = request.scope["token"]
        behind = (
            thing
            for thing in self._operations.things
            if thing.name > after and token.covers(thing.name) and wanted(thing)
        )
        found = heapq.nsmallest(limit + 1, behind, key=attrgetter("name"))
        here = absolute(request, self._public_url)
        link = _next_link(here, request, found[limit - 1].name) if len(found) > limit else None
        page = msgspec.to_builtins(GraphDevices([GraphDevice.of(thing) for thing in found[:limit]], link))
        page["value"] = [chosen(device) for device in page["value"]]
        return ApiResponse(200, printed(page))

    @needs(Scope.COMMANDS_SEND)
    async def send(self, request: Request) -> ApiResponse:
        """``POST /me/devices/{deviceId}/commands``: launch a URI or call an app service (Graph's dialect)."""
        Parameters(request.scope["query_string"], OPTIONS)
        thing = await self._thing(request)
        encoded = await read_json_body(dict(request.scope["headers"]), request.receive)
        body = decode_body(_bodies, _in_our_case(encoded))
        action, params = _action(body)
        require_command(request.scope["token"], thing.name, action)
        post_back_uri = checked_post_back(body.post_back_uri or None)
        execution_id, answer = await self._operations.send(
            thing.name,
            action,
            params,
            None,
            _sent,
            requested_by=request.scope["token"].name,
            post_back_uri=post_back_uri,
        )
        # Where clients write "command" or a slash at the end, the path has become another on its way here.
        link = location(request.scope["raw_path"], f"{request.scope['path']}/{execution_id}")
        return ApiResponse(201, answer, (link,))

    @needs(Scope.COMMANDS_READ)
    async def show(self, request: Request) -> ApiResponse:
        """``GET /me/devices/{deviceId}/commands/{commandId}``: one command (Graph's dialect)."""
        return ApiResponse(200, await self._told(request, _shown))

    @needs(Scope.COMMANDS_READ)
    async def response_payload(self, request: Request) -> ApiResponse:
        """``GET /me/devices/{deviceId}/commands/{commandId}/responsePayload``: the result of a command."""
        return ApiResponse(200, await self._told(request, _payload))

    def tell(self, problem: Problem) -> ApiResponse:
        """The fault in Graph's envelope."""
        details = problem.details
        code = CODES.get(problem.kind.name, "invalidRequest")
        place = details.pointer or details.parameter
        message = details.detail if place is None else f"{place}: {details.detail}"
        return ApiResponse(
            problem.kind.status, printed(GraphError(GraphErrorBody(code, message))), problem.headers
        )

    async def _thing(self, request: Request) -> Thing:
        """The device in the path; one that the caller may not see is as if it were not there."""
        name: str = request.path_params["device_id"]
        token: Token = request.scope["token"]
        thing = await self._operations.thing(name) if token.covers(name) else None
        if thing is None:
            raise UnknownThing(NO_DEVICE)
        return thing

    async def _told(self, request: Request, tell: Callable[[Execution], bytes]) -> bytes:
        """What is to be told of the execution that the path names, if it is one of the device's."""
        Parameters(request.scope["query_string"], OPTIONS)
        thing = await self._thing(request)
        token: Token = request.scope["token"]

        def checked(execution: Execution) -> bytes:
            if execution.thing == thing.name and token.covers_command(thing.name, execution.action):
                return tell(execution)
            raise UnknownExecution("no command of this device has that id")

        execution_id = request.path_params["command_id"]
        if is_id(execution_id):
            return await self._operations.read(execution_id, checked)
        raise UnknownExecution("no command of this device has that id")


def _sent(execution: Execution) -> tuple[str, bytes]:
    return execution.execution_id, printed(_command(execution, "requesting"))


def _shown(execution: Execution) -> bytes:
    return printed(_command(execution, status_word(execution)))


def _payload(execution: Execution) -> bytes:
    if execution.result is None:
        raise Problem(_NO_PAYLOAD, f"the command is {status_word(execution)} and has no response payload")
    return execution.result


def status_word(execution: Execution) -> str:
    """Graph's word for where the execution stands."""
    status = execution.status
    if status is Status.TIMED_OUT:
        return "failedToSend" if execution.retry_safe else "expired"
    if execution.cancel_requested_at is not None and not execution.is_terminal:
        return "cancelling"
    if status is Status.SENT:
        return "requesting" if execution.delivery is Delivery.QUEUED else "sentToTarget"
    return WORDS[status]


def _in_our_case(encoded: bytes) -> bytes:
    """The body with its fields' names as ``GraphCommandBody`` has them, and no others.

    OData's annotations (``@odata.type``) and the fields of an answer are left out.
    """
    fields: dict[str, msgspec.Raw] = {}
    for name, value in _decoded(encoded).items():
        if "@" in name or name.lower() in _READ_ONLY:
            continue
        field = _FIELDS.get(name.lower())
        if field is None:
            known = ", ".join(field.encode_name for field in _FIELDS.values())
            raise Problem(
                INVALID_BODY,
                f"there is no field {ascii(name)[:80]}; the fields are {known}",
                pointer=f"/{escape(name)}",
            )
        if field.encode_name in fields:
            raise Problem(INVALID_BODY, "given twice, in different case", pointer=f"/{escape(name)}")
        fields[field.encode_name] = value
    return _encode(fields)


def _decoded(encoded: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _ANY.decode(encoded)
    except msgspec.ValidationError:
        raise Problem(INVALID_BODY, "the body is not a JSON object", pointer="") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(INVALID_BODY, f"the body is not JSON in UTF-8: {error}", pointer="") from None
    except RecursionError:
        raise Problem(INVALID_BODY, "the body is nested too deeply", pointer="") from None


def _action(body: GraphCommandBody) -> tuple[str, bytes]:
    """The action that a command asks for, and its params, encoded."""
    payload = bytes(body.payload)
    match body.type.lower():
        case "launchuri":
            if body.app_service_name or body.package_family_name:
                raise Problem(INVALID_BODY, "a LaunchUri command calls no app service", pointer="/type")
            if not payload.startswith(b"{"):
                raise Problem(INVALID_BODY, "the payload is to be an object with a uri", pointer="/payload")
            return LAUNCH_URI, payload
        case "appservice":
            for name, value in (
                ("packageFamilyName", body.package_family_name),
                ("appServiceName", body.app_service_name),
            ):
                if not value:
                    raise Problem(INVALID_BODY, f"the field {name!r} is missing", pointer=f"/{name}")
                if "/" in value or not is_action_name(value):
                    raise Problem(INVALID_BODY, f"{name} cannot name an app service", pointer=f"/{name}")
            action = f"{body.package_family_name}/{body.app_service_name}"
            return action, b'{"payload":%b}' % payload
        case _:
            raise Problem(INVALID_BODY, "type must be LaunchUri or AppService", pointer="/type")


class _Params(msgspec.Struct):
    payload: msgspec.Raw = msgspec.Raw(b"null")


_params: Final = msgspec.json.Decoder(_Params)


def _command(execution: Execution, status: str) -> GraphCommand:
    """The execution as Graph shows it, whichever API it came by."""
    package, _, service = execution.action.rpartition("/")
    called = bool(package)
    payload = _params.decode(execution.params).payload if called else msgspec.Raw(execution.params)
    reason = execution.reason
    failed = execution.is_terminal and execution.status is not Status.SUCCEEDED and reason is not None
    return GraphCommand(
        id=execution.execution_id,
        status=status,
        type=APP_SERVICE if called else LAUNCH_URI if execution.action == LAUNCH_URI else execution.action,
        app_service_name=service if called else None,
        package_family_name=package if called else None,
        error=_sentence(reason) if failed else None,
        response_payload=None if execution.result is None else msgspec.Raw(execution.result),
        payload=payload,
        permission_ticket=None,
        post_back_uri=execution.post_back_uri or None,
    )


def _sentence(reason: Any) -> str:
    return ": ".join(text for text in (reason.reason_code, reason.reason_description) if text)


def _is_top(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= TOP_MAX


def _is_filter(text: str) -> bool:
    return _FILTER.fullmatch(text) is not None


def _filter(text: str | None) -> Callable[[Thing], bool]:
    """What a thing must be, by one comparison such as ``status eq 'Online'``; without one, any will do."""
    match = _FILTER.fullmatch(text or "")
    if match is None:
        return lambda _: True
    field, value = match[1].lower(), match[2].lower()
    return lambda thing: str(getattr(GraphDevice.of(thing), field)).lower() == value


def _selected(text: str | None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The fields that ``$select`` names, in any case; all of them without it."""
    if text is None:
        return lambda fields: fields
    names = {name.strip().lower() for name in text.split(",")}
    return lambda fields: {name: value for name, value in fields.items() if name.lower() in names}


def _next_link(here: str, request: Request, last: str) -> str:
    """The same list behind the device named ``last``: a client follows it as it stands. ``here``: its URL."""
    kept = [
        (name, value)
        for name, value in parse_qsl(request.scope["query_string"].decode("ascii"), keep_blank_values=True)
        if name != "$skiptoken"
    ]
    query = urlencode([*kept, ("$skiptoken", last)], safe="$", quote_via=quote)
    return f"{here}?{query}"
