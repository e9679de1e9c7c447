"""``/api/v1/commands``: send, read, list, cancel."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from thingctl_broker.commands.execution_resource import (
    command_body_decoder,
    encode_execution,
    encode_page,
    encode_validation,
    execution_resource,
)
from thingctl_broker.commands.idempotency import KEY_MAX, is_key
from thingctl_broker.errors import NotAccepting, UnknownExecution, UnknownThing, unknown_execution
from thingctl_broker.http.api.groups import is_for_many
from thingctl_broker.http.auth import needs, require, require_command
from thingctl_broker.http.links import location
from thingctl_broker.http.long_poll import until_ended
from thingctl_broker.http.problems import INVALID_HEADER, INVALID_PARAMETER, UNKNOWN_THING, Problem
from thingctl_broker.http.query import Parameters, executions_asked
from thingctl_broker.http.request_body import checked_post_back, decode_body, read_json_body
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.tokens import Scope
from thingctl_broker.things.thing import is_tag
from thingctl_protocol.identifiers import is_id, is_uuid7
from thingctl_protocol.limits import REASON_CODE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.types import Receive
    from starlette.types import Scope as AsgiScope

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.operations import Operations
    from thingctl_broker.commands.table import PageOfExecutions
    from thingctl_broker.http.api.groups import Groups
    from thingctl_broker.security.tokens import Token

COMMANDS: Final = "/api/v1/commands"

IDEMPOTENCY_KEY: Final = b"idempotency-key"
"""The header that makes a command safe to send again."""

_COMMANDS: Final = COMMANDS.encode()
_NONE: Final[frozenset[str]] = frozenset()
_WAIT: Final = frozenset({"wait"})
_SEND: Final = frozenset({"validate", "wait"})
_TIMES: Final = ("createdAfter", "createdBefore")
_LIST: Final = frozenset(
    {"thingId", "action", "status", "commandId", "reasonCode", "tag", *_TIMES, "sort", "limit", "cursor"}
)


def _is_reason_code(text: str) -> bool:
    return 0 < len(text) <= REASON_CODE_MAX


class Commands:
    """The endpoints of commands."""

    def __init__(self, operations: Operations, groups: Groups) -> None:
        """``groups``: takes the commands to many things."""
        self._operations = operations
        self._groups = groups

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(COMMANDS, self.list, methods=["GET"]),
            Route(COMMANDS, self.send_routed, methods=["POST"]),
            Route(COMMANDS + "/{execution_id}", self.show, methods=["GET"]),
            Route(COMMANDS + "/{execution_id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def send(self, scope: AsgiScope, receive: Receive) -> ApiResponse:
        """``POST /api/v1/commands``: accept a command.

        The busiest call, so it takes the bare ASGI scope; the application comes here
        without asking the router.
        """
        token: Token = scope["token"]
        require(token, Scope.COMMANDS_SEND)
        query = scope["query_string"]
        asked = Parameters(query, _SEND) if query else None
        wait = None if asked is None else asked.wait()
        headers = dict(scope["headers"])
        key = _idempotency_key(scope["headers"]) if IDEMPOTENCY_KEY in headers else ""
        encoded = await read_json_body(headers, receive)
        if is_for_many(encoded):
            return await self._send_to_many(scope, encoded, asked, key)
        body = decode_body(command_body_decoder, encoded)
        if token.is_limited:
            require_command(token, body.thing_id, body.action)
        post_back_uri = checked_post_back(body.post_back_uri)
        try:
            if _is_dry(asked):
                checked = await self._operations.validate(
                    body.thing_id, body.action, body.params_json(), body.ttl
                )
                return ApiResponse(200, encode_validation(checked))
            execution_id, answer = await self._operations.send(
                body.thing_id,
                body.action,
                body.params_json(),
                body.ttl,
                _sent,
                requested_by=token.name,
                idempotency_key=key,
                post_back_uri=post_back_uri,
            )
        except UnknownThing as error:
            raise Problem(UNKNOWN_THING, error.text, pointer="/thingId") from None
        if wait is None:
            return _accepted(scope["raw_path"], execution_id, answer)
        try:
            return await self._ended(scope["raw_path"], execution_id, wait, receive)
        except NotAccepting:  # now; but when it was sent it was accepted, and so the answer says
            return ApiResponse(202, answer, (_location(scope["raw_path"], execution_id),))

    async def _send_to_many(
        self, scope: AsgiScope, encoded: bytes, asked: Parameters | None, key: str
    ) -> ApiResponse:
        if asked is not None and asked.wait() is not None:
            raise Problem(INVALID_PARAMETER, "a command to many things does not wait", parameter="wait")
        return await self._groups.send(
            encoded, scope["token"], scope["raw_path"], key, validate=_is_dry(asked)
        )

    @needs(Scope.COMMANDS_SEND)
    async def send_routed(self, request: Request) -> ApiResponse:
        """``POST /api/v1/commands``: send a command."""
        return await self.send(request.scope, request.receive)

    @needs(Scope.COMMANDS_READ)
    async def show(self, request: Request) -> ApiResponse:
        """``GET /api/v1/commands/{executionId}``: one execution; with ``wait`` when it has ended."""
        wait = Parameters(request.scope["query_string"], _WAIT).wait()
        execution_id = _asked_id(request)
        body = await self._operations.read(execution_id, partial(_shown, request.scope["token"]))
        if wait is None:
            return ApiResponse(200, body)
        return await self._ended(request.scope["raw_path"], execution_id, wait, request.receive)

    @needs(Scope.COMMANDS_READ)
    async def list(self, request: Request) -> ApiResponse:
        """``GET /api/v1/commands``: list executions, newest first by default."""
        asked = Parameters(request.scope["query_string"], _LIST)
        query = executions_asked(asked, request.scope["token"])._replace(
            things=self._tagged(asked.texts("tag", is_tag, "a tag")),
            since=asked.time("createdAfter"),
            until=asked.time("createdBefore"),
            oldest_first=asked.oldest_first(),
            reason_code=asked.text("reasonCode", _is_reason_code, "the code of a reason"),
        )
        return ApiResponse(
            200, await self._operations.list(query, asked.limit(), asked.cursor(is_uuid7), _page)
        )

    def _tagged(self, tags: tuple[str, ...]) -> frozenset[str] | None:
        """The names of the things that have all the tags; None: without tags, all."""
        if not tags:
            return None
        things = self._operations.things
        return frozenset(thing.name for thing in things if all(tag in thing.definition.tags for tag in tags))

    @needs(Scope.COMMANDS_CANCEL)
    async def cancel(self, request: Request) -> ApiResponse:
        """``POST /api/v1/commands/{executionId}/cancel``: cancel an execution."""
        Parameters(request.scope["query_string"], _NONE)
        admit = partial(_check_visible, request.scope["token"])
        return ApiResponse(200, await self._operations.cancel(_asked_id(request), admit, encode_execution))

    async def _ended(self, base: bytes, execution_id: str, wait: float, receive: Receive) -> ApiResponse:
        """The execution when it has ended (200), or as it stands after ``wait`` seconds (202)."""
        await until_ended(self._operations, execution_id, wait, receive)
        status, body = await self._operations.read(execution_id, _awaited)
        return ApiResponse(status, body, (_location(base, execution_id),))


def accepted(execution: Execution) -> ApiResponse:
    """The answer to a command that was accepted, asked for as ``COMMANDS``."""
    return _accepted(_COMMANDS, *_sent(execution))


def _accepted(base: bytes, execution_id: str, encoded: bytes) -> ApiResponse:
    return ApiResponse(201, encoded, (_location(base, execution_id),))


def _sent(execution: Execution) -> tuple[str, bytes]:
    return execution.execution_id, encode_execution(execution)


def _shown(token: Token, execution: Execution) -> bytes:
    _check_visible(token, execution)
    return encode_execution(execution)


def _awaited(execution: Execution) -> tuple[int, bytes]:
    return 200 if execution.is_terminal else 202, encode_execution(execution)


def _page(page: PageOfExecutions) -> bytes:
    items = ((execution.execution_id, execution_resource(execution)) for execution in page.executions)
    return encode_page("executions", items, page.cursor)


def _check_visible(token: Token, execution: Execution) -> None:
    """Raise :class:`UnknownExecution` for one that the caller may not see."""
    if not token.covers_command(execution.thing, execution.action):
        # As if it were not there: whoever guesses ids learns nothing.
        raise unknown_execution(execution.execution_id)


def _asked_id(request: Request) -> str:
    """The execution id in the path; what cannot be one is refused before anybody repeats it."""
    execution_id: str = request.path_params["execution_id"]
    if not is_id(execution_id):
        raise UnknownExecution("what the path names is no execution id")
    return execution_id


def _is_dry(asked: Parameters | None) -> bool:
    return asked is not None and asked.text("validate", _is_only, "only") is not None


def _is_only(text: str) -> bool:
    return text == "only"


def _idempotency_key(headers: Iterable[tuple[bytes, bytes]]) -> str:
    keys = [value.decode("latin-1") for name, value in headers if name == IDEMPOTENCY_KEY]
    if len(keys) > 1:
        raise Problem(INVALID_HEADER, "there are two Idempotency-Key headers", header="Idempotency-Key")
    if not is_key(keys[0]):
        fault = f"an Idempotency-Key is 1 to {KEY_MAX} visible ASCII characters"
        raise Problem(INVALID_HEADER, fault, header="Idempotency-Key")
    return keys[0]


def _location(base: bytes, execution_id: str) -> tuple[bytes, bytes]:
    return location(base, f"{COMMANDS}/{execution_id}")
