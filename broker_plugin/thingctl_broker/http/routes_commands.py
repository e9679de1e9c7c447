"""``/api/v1/commands``: send, read, list, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from thingctl_broker.credentials import Scope
from thingctl_broker.errors import AlreadyEnded, NotAccepting, UnknownExecution, UnknownThing
from thingctl_broker.http.answers import Answer
from thingctl_broker.http.auth import needs, require, require_command
from thingctl_broker.http.bodies import checked_post_back, decode_body, read_json_body
from thingctl_broker.http.errors import INVALID_HEADER, INVALID_PARAMETER, UNKNOWN_THING, Problem
from thingctl_broker.http.keeping import until_ended, until_kept
from thingctl_broker.http.queries import Parameters, executions_asked
from thingctl_broker.http.routes_groups import is_for_many
from thingctl_broker.http.schemas import (
    command_body_decoder,
    encode_execution,
    encode_page,
    encode_validation,
    execution_resource,
)
from thingctl_broker.idempotency import KEY_MAX, is_key
from thingctl_broker.things import is_tag
from thingctl_protocol.identifiers import is_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.types import Receive
    from starlette.types import Scope as AsgiScope

    from thingctl_broker.credentials import Token
    from thingctl_broker.executions import Execution
    from thingctl_broker.http.routes_groups import Groups
    from thingctl_broker.service import CommandService
    from thingctl_broker.table import Query
    from thingctl_broker.waiting import EndWaiters

COMMANDS: Final = "/api/v1/commands"

IDEMPOTENCY_KEY: Final = b"idempotency-key"
"""The header that makes a command safe to send again."""

_NONE: Final[frozenset[str]] = frozenset()
_WAIT: Final = frozenset({"wait"})
_SEND: Final = frozenset({"validate", "wait"})
_TIMES: Final = ("createdAfter", "createdBefore")
_LIST: Final = frozenset(
    {"thingId", "action", "status", "commandId", "tag", *_TIMES, "sort", "limit", "cursor"}
)


class Commands:
    """The endpoints of commands, over one service."""

    def __init__(self, service: CommandService, waiters: EndWaiters, groups: Groups) -> None:
        """``groups``: takes the commands to many things."""
        self._service = service
        self._groups = groups
        self._waiters = waiters

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(COMMANDS, self.list, methods=["GET"]),
            Route(COMMANDS, self.send_routed, methods=["POST"]),
            Route(COMMANDS + "/{execution_id}", self.show, methods=["GET"]),
            Route(COMMANDS + "/{execution_id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def send(self, scope: AsgiScope, receive: Receive) -> Answer:
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
            return await self._send_to_many(encoded, token, asked, key)
        body = decode_body(command_body_decoder, encoded)
        if token.is_limited:
            require_command(token, body.thing_id, body.action)
        try:
            if asked is not None and asked.text("validate", _is_only, "only"):
                checked = self._service.validate(body.thing_id, body.action, body.params_json(), body.ttl)
                return Answer(200, encode_validation(checked))
            execution = self._service.send(
                body.thing_id,
                body.action,
                body.params_json(),
                body.ttl,
                requested_by=token.name,
                idempotency_key=key,
                post_back_uri=checked_post_back(body.post_back_uri),
            )
        except UnknownThing as error:
            raise Problem(UNKNOWN_THING, error.text, pointer="/thingId") from None
        answer = encode_execution(execution)
        if not await until_kept(self._service.journal) and not self._is_known(execution):
            raise NotAccepting("the command could not be kept, so it was not accepted", retry_after=5)
        if wait is None:
            return Answer(201, answer, (_location(execution),))
        return await self._ended(execution, wait, receive)

    async def _send_to_many(self, encoded: bytes, token: Token, asked: Parameters | None, key: str) -> Answer:
        if asked is not None:
            raise Problem(INVALID_PARAMETER, "a command to many things takes no parameter", parameter="wait")
        if key:
            raise Problem(
                INVALID_HEADER, "an Idempotency-Key is for a command to one thing", header="Idempotency-Key"
            )
        return await self._groups.send(encoded, token)

    @needs(Scope.COMMANDS_SEND)
    async def send_routed(self, request: Request) -> Answer:
        """``POST /api/v1/commands``: send a command (``send`` as a route of the router)."""
        return await self.send(request.scope, request.receive)

    @needs(Scope.COMMANDS_READ)
    async def show(self, request: Request) -> Answer:
        """``GET /api/v1/commands/{executionId}``: one execution, on request when it has ended."""
        wait = Parameters(request.scope["query_string"], _WAIT).wait()
        execution = self._asked(request)
        now = await self._kept(execution, 200)
        return now if wait is None else await self._ended(execution, wait, request.receive)

    @needs(Scope.COMMANDS_READ)
    async def list(self, request: Request) -> Answer:
        """``GET /api/v1/commands``: executions, newest first unless asked otherwise."""
        asked = Parameters(request.scope["query_string"], _LIST)
        query = executions_asked(asked, request.scope["token"])._replace(
            things=self._tagged(asked.texts("tag", is_tag, "a tag")),
            since=asked.time("createdAfter"),
            until=asked.time("createdBefore"),
            oldest_first=asked.oldest_first(),
        )
        limit, cursor = asked.limit(), asked.cursor()
        body = self._page(query, limit, cursor)
        if not await until_kept(self._service.journal):
            body = self._page(query, limit, cursor)  # without what could not be kept
        return Answer(200, body)

    def _tagged(self, tags: tuple[str, ...]) -> frozenset[str] | None:
        """The names of the things that have all the tags; None: without tags, all."""
        if not tags:
            return None
        things = self._service.things
        return frozenset(thing.name for thing in things if all(tag in thing.definition.tags for tag in tags))

    def _page(self, query: Query, limit: int, cursor: str | None) -> bytes:
        page = self._service.list(query, limit, cursor)
        items = ((execution.execution_id, execution_resource(execution)) for execution in page.executions)
        return encode_page("executions", items, page.cursor)

    @needs(Scope.COMMANDS_CANCEL)
    async def cancel(self, request: Request) -> Answer:
        """``POST /api/v1/commands/{executionId}/cancel``: withdraw it, or ask the thing to stop."""
        Parameters(request.scope["query_string"], _NONE)
        try:
            execution = self._service.cancel(self._asked(request).execution_id)
        except AlreadyEnded:
            await until_kept(self._service.journal)  # the refusal tells how it ended
            raise
        return await self._kept(execution, 200)

    def _asked(self, request: Request) -> Execution:
        """The execution in the path, if there is one that the caller may see."""
        execution = self._service.get(_asked_id(request))
        token: Token = request.scope["token"]
        if not token.covers_command(execution.thing, execution.action):
            # As if it were not there: whoever guesses ids learns nothing.
            raise UnknownExecution(
                f"no execution has the id {execution.execution_id!r}, or it ended long ago"
            )
        return execution

    async def _ended(self, execution: Execution, wait: float, receive: Receive) -> Answer:
        """The execution when it has ended (200), or as it stands after ``wait`` seconds (202)."""
        await until_ended(self._waiters, execution, wait, receive)
        return await self._kept(execution, 200 if execution.is_terminal else 202, _location(execution))

    async def _kept(self, execution: Execution, status: int, *headers: tuple[bytes, bytes]) -> Answer:
        """The execution as it stands now, told once that is kept."""
        body = encode_execution(execution)
        if not await until_kept(self._service.journal) and not self._is_known(execution):
            raise UnknownExecution("the execution could not be kept, so it never was")
        return Answer(status, body, headers)

    def _is_known(self, execution: Execution) -> bool:
        """Whether it has not been withdrawn because it could not be kept."""
        return self._service.table.get(execution.execution_id) is execution


def _asked_id(request: Request) -> str:
    """The execution id in the path; what cannot be one is refused before anybody repeats it."""
    execution_id: str = request.path_params["execution_id"]
    if not is_id(execution_id):
        raise UnknownExecution("what the path names is no execution id")
    return execution_id


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


def _location(execution: Execution) -> tuple[bytes, bytes]:
    return b"location", f"{COMMANDS}/{execution.execution_id}".encode()
