"""Microsoft Graph's "Project Rome" dialect: ``me/devices`` and their commands.

A LaunchUri command is the action ``launchUri``, whose params are the payload. An AppService
command is the action ``{packageFamilyName}/{appServiceName}``, whose params are
``{"payload": …}``: what ``agent.app_service`` registers on a device.

Names of fields are taken in any case, and answered in Graph's own, camel case.
"""

from __future__ import annotations

import heapq
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec
from starlette.routing import Route

from thingctl_broker.credentials import Scope
from thingctl_broker.errors import UnknownExecution, UnknownThing
from thingctl_broker.http.answers import Answer
from thingctl_broker.http.auth import needs, require_command
from thingctl_broker.http.bodies import checked_post_back, decode_body, escaped, read_json_body
from thingctl_broker.http.compat.dialect import printed
from thingctl_broker.http.errors import INVALID_BODY, Kind, Problem
from thingctl_broker.http.queries import LIMIT_DEFAULT, LIMIT_MAX, Parameters
from thingctl_protocol.identifiers import is_action_name, is_id, is_thing_name
from thingctl_protocol.messages import EMPTY_OBJECT
from thingctl_protocol.statuses import Delivery, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from thingctl_broker.credentials import Token
    from thingctl_broker.executions import Execution
    from thingctl_broker.operations import Operations
    from thingctl_broker.things import Thing

VERSIONS: Final = ("/beta", "/v1.0")
"""The prefixes that Graph's clients use; both are the same here."""

DEVICES: Final = "/me/devices"

LAUNCH_URI: Final = "launchUri"
"""The action of a LaunchUri command, and Graph's name for its type."""

APP_SERVICE: Final = "appService"

WORDS: Final = {
    Status.IN_PROGRESS: "executing",
    Status.SUCCEEDED: "completed",
    Status.FAILED: "executionFailed",
    Status.REJECTED: "commandDropped",
    Status.CANCELED: "canceled",
}
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

_NO_PAYLOAD: Final = Kind("no-payload", 404, "The device has returned nothing yet")

_NONE: Final[frozenset[str]] = frozenset()
_LIST: Final = frozenset({"$top", "$skiptoken"})
_ANY: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode: Final = msgspec.json.encode


class GraphCommandBody(msgspec.Struct, frozen=True, rename="camel"):
    """What a POST of a command takes. Names in any case; ``type``: LaunchUri or AppService."""

    type: str
    payload: msgspec.Raw = msgspec.Raw(EMPTY_OBJECT)
    package_family_name: str | None = None
    app_service_name: str | None = None
    post_back_uri: str | None = None


class GraphCommand(msgspec.Struct, frozen=True, rename="camel"):
    """A command as Graph shows it."""

    id: str
    status: str
    type: str
    app_service_name: str | None
    package_family_name: str | None
    error: str | None
    response_payload: msgspec.Raw | None
    payload: msgspec.Raw
    permission_ticket: str | None
    post_back_uri: str | None


class GraphDevice(msgspec.Struct, frozen=True):
    """A thing as Graph shows it. ``status``: Online or Offline. The rest is not known here."""

    id: str
    name: str
    status: str
    platform: str = "Unknown"
    kind: str = "Unknown"
    model: str | None = None
    manufacturer: str | None = None


class GraphDevices(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of devices."""

    value: list[GraphDevice]
    next_link: str | None = msgspec.field(name="@odata.nextLink", default=None)


class GraphErrorBody(msgspec.Struct, frozen=True):
    """A code for programs and a sentence for people."""

    code: str
    message: str


class GraphError(msgspec.Struct, frozen=True):
    """How every fault is told."""

    error: GraphErrorBody


_FIELDS: Final = {field.encode_name.lower(): field for field in msgspec.structs.fields(GraphCommandBody)}
_bodies: Final = msgspec.json.Decoder(GraphCommandBody)


class Graph:
    """The endpoints of Graph's dialect."""

    open_paths: frozenset[str] = frozenset()

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def owns(self, path: str) -> bool:
        """Whether the path is Graph's: below one of ``VERSIONS``."""
        return path.startswith(("/beta/", "/v1.0/"))

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
    async def devices(self, request: Request) -> Answer:
        """``GET /me/devices``: things, by name (Graph's dialect)."""
        asked = Parameters(request.scope["query_string"], _LIST)
        top = asked.text("$top", _is_top, f"a whole number from 1 to {LIMIT_MAX}")
        limit = LIMIT_DEFAULT if top is None else int(top)
        after = asked.text("$skiptoken", is_thing_name, "of an earlier @odata.nextLink") or ""
        token: Token = request.scope["token"]
        behind = (
            thing for thing in self._operations.things if thing.name > after and token.covers(thing.name)
        )
        found = heapq.nsmallest(limit + 1, behind, key=attrgetter("name"))
        link = None
        if len(found) > limit:
            skip = quote(found[limit - 1].name, safe="")
            link = f"{request.url.replace(query='')}?$top={limit}&$skiptoken={skip}"
        return Answer(200, printed(GraphDevices([_device(thing) for thing in found[:limit]], link)))

    @needs(Scope.COMMANDS_SEND)
    async def send(self, request: Request) -> Answer:
        """``POST /me/devices/{deviceId}/commands``: launch a URI or call an app service (Graph's dialect)."""
        Parameters(request.scope["query_string"], _NONE)
        thing = await self._thing(request)
        encoded = await read_json_body(dict(request.scope["headers"]), request.receive)
        body = decode_body(_bodies, _in_our_case(encoded))
        action, params = _action(body)
        require_command(request.scope["token"], thing.name, action)
        post_back_uri = checked_post_back(body.post_back_uri)
        execution_id, answer = await self._operations.send(
            thing.name,
            action,
            params,
            None,
            _sent,
            requested_by=request.scope["token"].name,
            post_back_uri=post_back_uri,
        )
        location = f"{request.url.path}/{execution_id}".encode()
        return Answer(201, answer, ((b"location", location),))

    @needs(Scope.COMMANDS_READ)
    async def show(self, request: Request) -> Answer:
        """``GET /me/devices/{deviceId}/commands/{commandId}``: what became of a command (Graph's dialect)."""
        return Answer(200, await self._told(request, _shown))

    @needs(Scope.COMMANDS_READ)
    async def response_payload(self, request: Request) -> Answer:
        """``GET /me/devices/{deviceId}/commands/{commandId}/responsePayload``: what a device returned."""
        return Answer(200, await self._told(request, _payload))

    def tell(self, problem: Problem) -> Answer:
        """The fault in Graph's envelope."""
        details = problem.details
        code = CODES.get(problem.kind.name, "invalidRequest")
        place = details.pointer or details.parameter
        message = details.detail if place is None else f"{place}: {details.detail}"
        return Answer(
            problem.kind.status, printed(GraphError(GraphErrorBody(code, message))), problem.headers
        )

    async def _thing(self, request: Request) -> Thing:
        thing = await self._operations.thing(request.path_params["device_id"])
        if thing is None:
            raise UnknownThing("no device has that id")
        return thing

    async def _told(self, request: Request, tell: Callable[[Execution], bytes]) -> bytes:
        """What is to be told of the execution that the path names, if it is one of the device's."""
        Parameters(request.scope["query_string"], _NONE)
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
    """The body with its fields' names as ``GraphCommandBody`` has them, and no others."""
    fields: dict[str, msgspec.Raw] = {}
    for name, value in _decoded(encoded).items():
        field = _FIELDS.get(name.lower())
        if field is None:
            known = ", ".join(field.encode_name for field in _FIELDS.values())
            raise Problem(
                INVALID_BODY,
                f"there is no field {ascii(name)[:80]}; the fields are {known}",
                pointer=f"/{escaped(name)}",
            )
        if field.encode_name in fields:
            raise Problem(INVALID_BODY, "given twice, in different case", pointer=f"/{escaped(name)}")
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
            if body.app_service_name is not None or body.package_family_name is not None:
                raise Problem(INVALID_BODY, "a LaunchUri command calls no app service", pointer="/type")
            if not payload.startswith(b"{"):
                raise Problem(INVALID_BODY, "the payload is to be an object with a uri", pointer="/payload")
            return LAUNCH_URI, payload
        case "appservice":
            for name, value in (
                ("packageFamilyName", body.package_family_name),
                ("appServiceName", body.app_service_name),
            ):
                if value is None:
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


def _device(thing: Thing) -> GraphDevice:
    return GraphDevice(id=thing.name, name=thing.name, status="Online" if thing.online else "Offline")


def _is_top(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= LIMIT_MAX
