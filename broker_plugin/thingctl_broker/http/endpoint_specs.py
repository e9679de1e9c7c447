"""The calls of the API: what each takes and answers, as ``openapi`` describes it for programs.

Paths, methods and summaries are the routes' own; bodies and answers are the very structs
that are decoded and encoded. ``OPERATIONS`` ties the two together: a route that has no entry
there cannot be described, and a test says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from thingctl_broker.commands.execution_resource import CommandBody, ExecutionResource, ValidationResource
from thingctl_broker.commands.field_types import whole
from thingctl_broker.commands.idempotency import KEY_PATTERN
from thingctl_broker.http.api.actions import ACTIONS, ActionsResource
from thingctl_broker.http.api.commands import COMMANDS
from thingctl_broker.http.api.dry_run import DryRun
from thingctl_broker.http.api.enrolment import ENROLMENT, EnrolmentResource
from thingctl_broker.http.api.events import EVENTS
from thingctl_broker.http.api.groups import GROUPS, GroupBody, GroupEntry, GroupResource
from thingctl_broker.http.api.health import HEALTH, METRICS, READY
from thingctl_broker.http.api.mqtt_authentication import (
    AUTHENTICATION,
    AuthenticationBody,
    AuthenticationResult,
)
from thingctl_broker.http.api.mqtt_clients import CLIENT, CLIENTS, ClientResource
from thingctl_broker.http.api.overview import OVERVIEW, OverviewResource
from thingctl_broker.http.api.sign_in import SIGN_IN, SIGN_IN_CODES, CodeResource, SignInBody
from thingctl_broker.http.api.thing_resource import (
    NewThingBody,
    PasswordBody,
    ThingBody,
    ThingPatch,
    ThingResource,
    TypeBody,
    TypePatch,
    TypeResource,
)
from thingctl_broker.http.api.thing_types import THING_TYPES
from thingctl_broker.http.api.things import THINGS
from thingctl_broker.http.api.tokens import ME, TOKENS, TokenBody, TokenResource
from thingctl_broker.http.dialects import graph, graph_resources, navixy
from thingctl_broker.http.problems import ProblemDetails
from thingctl_broker.http.query import HELD_MAX, LIMIT_DEFAULT, LIMIT_MAX, SORTS, WAIT_MAX
from thingctl_broker.rollouts.rollout import State
from thingctl_broker.security.tokens import NAME_PATTERN
from thingctl_broker.things.mqtt_clients import TEXT_MAX, ClientSort
from thingctl_broker.things.thing import TAG_PATTERN
from thingctl_protocol.identifiers import ACTION_PATTERN, THING_PATTERN, UUID7_PATTERN
from thingctl_protocol.limits import REASON_CODE_MAX
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


OPENAPI: Final = "/openapi.json"

Schema = dict[str, Any]
Struct = type[msgspec.Struct]


class Parameter(NamedTuple):
    """A parameter of a call. ``place``: query or header; those of the path are told by the path."""

    name: str
    description: str
    schema: Schema
    place: Literal["query", "header"] = "query"
    repeated: bool = False


class Nothing(NamedTuple):
    """An answer without a body."""

    description: str


class Text(NamedTuple):
    """An answer that is no JSON."""

    media_type: str
    description: str


class Operation(NamedTuple):
    """What a route takes and answers, beyond what the route itself tells."""

    answers: Mapping[int, Struct | tuple[Struct, ...] | Text | Nothing | None]
    """By status; several: one of them. None: any JSON."""
    body: Struct | tuple[Struct, ...] | None = None
    needs_body: bool = True
    """Whether a request without a body is refused."""
    parameters: Sequence[Parameter] = ()
    error: Struct = ProblemDetails
    """How every fault is told."""
    authorization: Literal["header", "body", "none"] = "header"
    """Where the API token is to be."""


class ExecutionPage(msgspec.Struct, frozen=True, rename="camel"):
    """Executions, newest first. ``nextCursor``: null on the last page."""

    executions: list[ExecutionResource]
    next_cursor: str | None


class ThingPage(msgspec.Struct, frozen=True, rename="camel"):
    """Things, by name. ``nextCursor``: null on the last page."""

    things: list[ThingResource]
    next_cursor: str | None


class TypePage(msgspec.Struct, frozen=True, rename="camel"):
    """Thing types, by name. ``nextCursor``: null on the last page."""

    thing_types: list[TypeResource]
    next_cursor: str | None


class GroupPage(msgspec.Struct, frozen=True, rename="camel"):
    """Commands to many things, newest first. ``nextCursor``: null on the last page."""

    groups: list[GroupEntry]
    next_cursor: str | None


class TokenPage(msgspec.Struct, frozen=True, rename="camel"):
    """Tokens, by name, without their secrets. ``nextCursor``: null on the last page."""

    tokens: list[TokenResource]
    next_cursor: str | None


class ClientPage(msgspec.Struct, frozen=True, rename="camel"):
    """MQTT clients, by client id. ``nextCursor``: null on the last page."""

    clients: list[ClientResource]
    next_cursor: str | None


class Health(msgspec.Struct, frozen=True):
    """``ok``."""

    status: str


def _matching(pattern: str) -> Schema:
    return {"type": "string", "pattern": whole(pattern)}


_NAME: Final = _matching(THING_PATTERN)
_CLIENT_ID: Final[Schema] = {"type": "string", "minLength": 1}
_ID: Final = _matching(UUID7_PATTERN)


def path_schema(name: str, path: str) -> Schema:
    """Return the schema of the parameter ``name`` (camel case) of a route's path."""
    if name == "name":
        return _matching(NAME_PATTERN) if path.startswith(TOKENS) else _NAME
    if name == "clientId":
        return _CLIENT_ID
    return _NAME if name == "deviceId" else _ID


_THING: Final = Parameter("thingId", "only those of this thing", _NAME)
_ACTION: Final = Parameter("action", "only those of this action", _matching(ACTION_PATTERN))
_STATE: Final = Parameter(
    "state",
    "only these; repeated, or several with commas",
    {"type": "array", "items": {"type": "string", "enum": [state.value for state in State]}},
    repeated=True,
)
_STATUS: Final = Parameter(
    "status",
    "only these; repeated, or several with commas",
    {"type": "array", "items": {"type": "string", "enum": [status.value for status in Status]}},
    repeated=True,
)
_COMMAND: Final = Parameter("commandId", "only those of this command", _ID)
_LIMIT: Final = Parameter(
    "limit",
    "items of one page",
    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
)
_CURSOR: Final = Parameter("cursor", "the nextCursor of the page before", _NAME)
_ID_CURSOR: Final = _CURSOR._replace(schema=_ID)
_WAIT: Final = Parameter(
    "wait",
    f"seconds for which the answer may be held back until the execution has ended; {HELD_MAX:g} at most are",
    {"type": "number", "exclusiveMinimum": 0, "maximum": WAIT_MAX},
)
_KEY: Final = Parameter(
    "Idempotency-Key",
    "makes the command safe to send again: the same key is the same execution",
    _matching(KEY_PATTERN),
    place="header",
)

_ONLINE: Final = Parameter("online", "only those that are, or are not", {"type": "boolean"})
_TAG: Final = Parameter(
    "tag",
    "only those that have it; repeated: all of them",
    {"type": "array", "items": _matching(TAG_PATTERN)},
    repeated=True,
)
_THINGS: Final = Parameter(
    "thingId",
    "only those of this thing; repeated: of these things",
    {"type": "array", "items": _NAME},
    repeated=True,
)
_TYPE: Final = Parameter("type", "only those of this thing type", _NAME)
_VALIDATE: Final = Parameter(
    "validate", "check the command and send nothing", {"type": "string", "enum": ["only"]}
)
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_GONE: Final = Nothing("done; there is nothing to tell")

_EXECUTION: Final = COMMANDS + "/{execution_id}"
_TOP: Final = Parameter(
    "$top",
    f"devices of one page; {LIMIT_MAX} at most are told",
    {"type": "integer", "minimum": 1, "maximum": graph.TOP_MAX},
)
_SKIP: Final = Parameter("$skiptoken", "of an earlier @odata.nextLink", _NAME)
_FILTER: Final = Parameter(
    "$filter",
    "one comparison, such as status eq 'Online'",
    {"type": "string", "pattern": "^(id|name|status) eq '[^']*'$"},
)
_ODATA: Final = tuple(
    Parameter(
        name, "of a list: the fields to tell" if name == "$select" else "changes nothing", {"type": "string"}
    )
    for name in sorted(graph.OPTIONS)
)

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", COMMANDS): Operation(
        {200: ExecutionPage},
        parameters=(
            _THING,
            _ACTION,
            _STATUS,
            _COMMAND,
            Parameter(
                "reasonCode",
                "only those that ended for this reason",
                {"type": "string", "minLength": 1, "maxLength": REASON_CODE_MAX},
            ),
            _TAG,
            Parameter("createdAfter", "only those created then or later", _TIME),
            Parameter("createdBefore", "only those created before that", _TIME),
            Parameter("sort", "newest or oldest first", {"type": "string", "enum": list(SORTS)}),
            _LIMIT,
            _ID_CURSOR,
        ),
    ),
    ("POST", COMMANDS): Operation(
        {
            200: (ExecutionResource, DryRun, ValidationResource),
            201: ExecutionResource,
            202: (ExecutionResource, GroupResource),
        },
        body=(CommandBody, GroupBody),
        parameters=(_WAIT, _VALIDATE, _KEY),
    ),
    ("GET", _EXECUTION): Operation({200: ExecutionResource, 202: ExecutionResource}, parameters=(_WAIT,)),
    ("POST", _EXECUTION + "/cancel"): Operation({200: ExecutionResource}),
    ("GET", GROUPS): Operation({200: GroupPage}, parameters=(_STATE, _LIMIT, _ID_CURSOR)),
    ("GET", GROUPS + "/{command_id}"): Operation({200: GroupResource}),
    **{
        ("POST", f"{GROUPS}/{{command_id}}/{verb}"): Operation({200: GroupResource})
        for verb in ("pause", "resume", "cancel")
    },
    ("GET", EVENTS): Operation(
        {200: Text("text/event-stream", "every change, as Server-Sent Events")},
        parameters=(
            _THING,
            _ACTION,
            _STATUS,
            _COMMAND,
            Parameter("Last-Event-ID", "where to go on", {"type": "string"}, place="header"),
        ),
    ),
    ("POST", AUTHENTICATION): Operation({200: AuthenticationResult}, AuthenticationBody),
    ("GET", CLIENTS): Operation(
        {200: ClientPage},
        parameters=(
            _THING,
            Parameter("connected", "only those that are, or are not", {"type": "boolean"}),
            Parameter(
                "text",
                "only those with this in the client id or user name",
                {"type": "string", "minLength": 1, "maxLength": TEXT_MAX},
            ),
            Parameter(
                "sort",
                "by client id, or those first for which most waits, or which lost most messages",
                {"type": "string", "enum": [sort.value for sort in ClientSort]},
            ),
            _LIMIT,
            _CURSOR._replace(schema=_CLIENT_ID),
        ),
    ),
    ("GET", CLIENT): Operation({200: ClientResource}),
    ("DELETE", CLIENT): Operation(
        {204: _GONE},
        parameters=(Parameter("session", "end its session as well", {"type": "boolean"}),),
    ),
    ("GET", ENROLMENT): Operation({200: EnrolmentResource}),
    ("GET", OVERVIEW): Operation({200: OverviewResource}),
    ("GET", ACTIONS): Operation({200: ActionsResource}, parameters=(_THINGS, _TAG, _TYPE)),
    ("GET", THINGS): Operation({200: ThingPage}, parameters=(_ONLINE, _TAG, _TYPE, _LIMIT, _CURSOR)),
    ("POST", THINGS): Operation({201: ThingResource}, body=NewThingBody),
    ("GET", THINGS + "/{name}"): Operation({200: ThingResource}),
    ("PUT", THINGS + "/{name}"): Operation({200: ThingResource, 201: ThingResource}, body=ThingBody),
    ("PATCH", THINGS + "/{name}"): Operation({200: ThingResource}, body=ThingPatch),
    ("DELETE", THINGS + "/{name}"): Operation({204: _GONE}),
    ("POST", THINGS + "/{name}/password"): Operation(
        {200: ThingResource}, body=PasswordBody, needs_body=False
    ),
    ("DELETE", THINGS + "/{name}/password"): Operation({204: _GONE}),
    ("GET", THING_TYPES): Operation({200: TypePage}, parameters=(_LIMIT, _CURSOR)),
    ("GET", THING_TYPES + "/{name}"): Operation({200: TypeResource}),
    ("PUT", THING_TYPES + "/{name}"): Operation({200: TypeResource, 201: TypeResource}, body=TypeBody),
    ("PATCH", THING_TYPES + "/{name}"): Operation({200: TypeResource}, body=TypePatch),
    ("DELETE", THING_TYPES + "/{name}"): Operation({204: _GONE}),
    ("GET", TOKENS): Operation({200: TokenPage}, parameters=(_LIMIT, _CURSOR)),
    ("POST", TOKENS): Operation({201: TokenResource}, body=TokenBody),
    ("GET", TOKENS + "/{name}"): Operation({200: TokenResource}),
    ("DELETE", TOKENS + "/{name}"): Operation({204: _GONE}),
    ("POST", TOKENS + "/{name}/renew"): Operation({200: TokenResource}),
    ("POST", SIGN_IN_CODES): Operation({201: CodeResource}),
    ("POST", SIGN_IN): Operation({201: TokenResource}, body=SignInBody, authorization="none"),
    ("GET", ME): Operation({200: TokenResource}),
    ("GET", OPENAPI): Operation({200: None}, authorization="none"),
    ("GET", HEALTH): Operation({200: Health}, authorization="none"),
    ("GET", READY): Operation({200: Health}, authorization="none"),
    ("GET", METRICS): Operation({200: Text("text/plain", "Prometheus' text format")}),
    **{
        ("POST", path): Operation({200: answer}, body=body, error=navixy.ErrorReply, authorization="body")
        for path, body, answer in (
            (navixy.SEND, navixy.SendCommandBody, navixy.QueuedReply),
            (navixy.SEND_RAW, navixy.RawCommandBody, navixy.DoneReply),
            (navixy.STATUS, navixy.StatusBody, navixy.StatusWord),
        )
    },
    **{
        (method, version + graph.DEVICES + path): operation
        for version in graph.VERSIONS
        for method, path, operation in (
            (
                "GET",
                "",
                Operation(
                    {200: graph_resources.GraphDevices},
                    parameters=(_TOP, _SKIP, _FILTER, *_ODATA),
                    error=graph_resources.GraphError,
                ),
            ),
            (
                "POST",
                "/{device_id}/commands",
                Operation(
                    {201: graph_resources.GraphCommand},
                    body=(graph_resources.LaunchUriBody, graph_resources.AppServiceBody),
                    parameters=_ODATA,
                    error=graph_resources.GraphError,
                ),
            ),
            (
                "GET",
                "/{device_id}/commands/{command_id}",
                Operation(
                    {200: graph_resources.GraphCommand}, parameters=_ODATA, error=graph_resources.GraphError
                ),
            ),
            (
                "GET",
                "/{device_id}/commands/{command_id}/responsePayload",
                Operation({200: None}, parameters=_ODATA, error=graph_resources.GraphError),
            ),
        )
    },
}
"""By method and path."""
