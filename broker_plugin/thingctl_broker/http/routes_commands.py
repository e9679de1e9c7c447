"""``/api/v1/commands``: send, read, list, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from thingctl_broker.errors import NotAccepting, UnknownExecution, UnknownThing
from thingctl_broker.http.answers import Answer
from thingctl_broker.http.bodies import decode_body, read_json_body
from thingctl_broker.http.errors import INVALID_HEADER, UNKNOWN_THING, Problem
from thingctl_broker.http.keeping import until_ended, until_kept
from thingctl_broker.http.queries import Parameters
from thingctl_broker.http.schemas import (
    command_body_decoder,
    encode_execution,
    encode_page,
    execution_resource,
)
from thingctl_broker.table import Query
from thingctl_protocol.identifiers import is_action_name, is_id, is_thing_name

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope

    from thingctl_broker.executions import Execution
    from thingctl_broker.service import CommandService
    from thingctl_broker.waiting import EndWaiters

COMMANDS: Final = "/api/v1/commands"

KEY_MAX: Final = 255
"""Characters of an ``Idempotency-Key``."""

_RETRY_AFTER: Final = 5  # seconds
_NONE: Final[frozenset[str]] = frozenset()
_WAIT: Final = frozenset({"wait"})
_LIST: Final = frozenset({"thingId", "action", "status", "limit", "cursor"})


class Commands:
    """The endpoints of commands, over one service."""

    def __init__(self, service: CommandService, waiters: EndWaiters) -> None:
        self._service = service
        self._waiters = waiters

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(COMMANDS, self.list, methods=["GET"]),
            Route(COMMANDS, self.send_routed, methods=["POST"]),
            Route(COMMANDS + "/{execution_id}", self.show, methods=["GET"]),
            Route(COMMANDS + "/{execution_id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def send(self, scope: Scope, receive: Receive) -> Answer:
        """``POST /api/v1/commands``: accept a command.

        The busiest call, so it takes the bare ASGI scope; the application comes here
        without asking the router.
        """
        query = scope["query_string"]
        wait = Parameters(query, _WAIT).wait() if query else None
        headers = dict(scope["headers"])
        key = _idempotency_key(headers)
        body = decode_body(command_body_decoder, await read_json_body(headers, receive))
        try:
            execution = self._service.send(
                body.thing_id,
                body.action,
                body.params_json(),
                body.ttl,
                requested_by=scope["token"].name,
                idempotency_key=key,
            )
        except UnknownThing as error:
            raise Problem(UNKNOWN_THING, error.text, pointer="/thingId") from None
        accepted = encode_execution(execution)
        # Before any wait for its end: an execution that cannot be kept is withdrawn, and never ends.
        if not await until_kept(self._service.journal):
            raise NotAccepting("the command could not be kept, so it was not accepted", _RETRY_AFTER)
        if wait is None:
            return Answer(201, accepted, (_location(execution),))
        return await self._ended(execution, wait, receive)

    async def send_routed(self, request: Request) -> Answer:
        """``send`` as a route of the router."""
        return await self.send(request.scope, request.receive)

    async def show(self, request: Request) -> Answer:
        """``GET /api/v1/commands/{executionId}``: one execution, on request when it has ended."""
        wait = Parameters(request.scope["query_string"], _WAIT).wait()
        execution = self._service.get(_asked_id(request))
        if wait is None:
            return await self._told(execution, 200)
        return await self._ended(execution, wait, request.receive)

    async def list(self, request: Request) -> Answer:
        """``GET /api/v1/commands``: executions, newest first."""
        asked = Parameters(request.scope["query_string"], _LIST)
        query = Query(
            thing=asked.text("thingId", is_thing_name, "the name of a thing"),
            action=asked.text("action", is_action_name, "the name of an action"),
            statuses=asked.statuses(),
        )
        page = self._service.list(query, asked.limit(), asked.cursor())
        items = ((execution.execution_id, execution_resource(execution)) for execution in page.executions)
        body = encode_page("executions", items, page.cursor)
        await until_kept(self._service.journal)
        return Answer(200, body)

    async def cancel(self, request: Request) -> Answer:
        """``POST /api/v1/commands/{executionId}/cancel``: withdraw it, or ask the thing to stop."""
        Parameters(request.scope["query_string"], _NONE)
        execution = self._service.cancel(_asked_id(request))
        body = encode_execution(execution)
        if not await until_kept(self._service.journal):
            raise NotAccepting("the cancel could not be kept; ask again", _RETRY_AFTER)
        return Answer(200, body)

    async def _ended(self, execution: Execution, wait: float, receive: Receive) -> Answer:
        """The execution when it has ended (200), or as it stands after ``wait`` seconds (202)."""
        await until_ended(self._waiters, execution, wait, receive)
        return await self._told(execution, 200 if execution.is_terminal else 202, _location(execution))

    async def _told(self, execution: Execution, status: int, *headers: tuple[bytes, bytes]) -> Answer:
        """The execution as it stands now, told once that is kept.

        While nothing can be kept it is told all the same, for whoever wants to see what goes on.
        """
        body = encode_execution(execution)
        await until_kept(self._service.journal)
        return Answer(status, body, headers)


def _idempotency_key(headers: dict[bytes, bytes]) -> str:
    """The caller's key for this command, empty without one."""
    value = headers.get(b"idempotency-key")
    if value is None:
        return ""
    key = value.decode("latin-1")
    if not (0 < len(key) <= KEY_MAX and key.isascii() and key.isprintable()):
        raise Problem(
            INVALID_HEADER,
            f"Idempotency-Key must be 1 to {KEY_MAX} ASCII characters",
            header="Idempotency-Key",
        )
    return key


def _asked_id(request: Request) -> str:
    """The execution id in the path; what cannot be one is refused before anybody repeats it."""
    execution_id: str = request.path_params["execution_id"]
    if not is_id(execution_id):
        raise UnknownExecution("what the path names is no execution id")
    return execution_id


def _location(execution: Execution) -> tuple[bytes, bytes]:
    return b"location", f"{COMMANDS}/{execution.execution_id}".encode()
