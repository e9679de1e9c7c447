"""Commands to many things: sent by ``POST /api/v1/commands`` with ``targets``, followed here."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 msgspec reads it
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.routing import Route

from thingctl_broker.commands.execution_resource import encode_page
from thingctl_broker.commands.field_types import ActionName, Params, PostBackUri, Time, Ttl  # noqa: TC001 msgspec reads them
from thingctl_broker.commands.idempotency import fingerprint
from thingctl_broker.commands.outcomes import OutcomeCount, count_statuses
from thingctl_broker.commands.table import Query
from thingctl_broker.commands.targets import Targets, resolve
from thingctl_broker.errors import UnknownCommand, unknown_command
from thingctl_broker.http.api.dry_run import dry_run
from thingctl_broker.http.auth import needs, require_command
from thingctl_broker.http.links import location
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.request_body import checked_post_back, decode_body
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.rollouts.rollout import RolloutRules, State
from thingctl_broker.security.tokens import Scope
from thingctl_broker.system.timestamps import rfc3339
from thingctl_protocol.identifiers import is_id, is_uuid7
from thingctl_protocol.messages import EMPTY_OBJECT
from thingctl_protocol.statuses import TERMINAL

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.operations import Operations
    from thingctl_broker.commands.table import PageOfExecutions
    from thingctl_broker.rollouts.driver import RolloutDriver
    from thingctl_broker.rollouts.rollout import Listed, Rollout
    from thingctl_broker.security.tokens import Token

GROUPS: Final = "/api/v1/groups"

_NONE: Final[frozenset[str]] = frozenset()
_LIST: Final = frozenset({"state", "limit", "cursor"})
_NO_RULES: Final = RolloutRules()
_encode: Final = msgspec.json.Encoder().encode


class GroupBody(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What ``POST /api/v1/commands`` takes for many things. ``dryRun``: name the things, send nothing."""

    targets: Targets
    action: ActionName
    params: Params = msgspec.Raw(EMPTY_OBJECT)
    ttl: Ttl | None = None
    rollout: RolloutRules = RolloutRules()
    dry_run: bool = False
    post_back_uri: PostBackUri | None = None

    def params_json(self) -> bytes:
        """``params`` as encoded JSON; null counts as left out."""
        params = bytes(self.params)
        return EMPTY_OBJECT if params == b"null" else params


class GroupState(StrEnum):
    """The states of a rollout, and one for a group that is known only by its executions."""

    RUNNING = State.RUNNING.value
    PAUSED = State.PAUSED.value
    STOPPED = State.STOPPED.value
    CANCELED = State.CANCELED.value
    FINISHED = State.FINISHED.value
    UNKNOWN = "UNKNOWN"


class GroupResource(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A command and what has become of it as a whole.

    ``state``: UNKNOWN when only its executions are known, after a restore or when it was long ago.
    ``targeted``: things that it is for. ``pending``: of these, the ones that have yet to get
    it. ``refused``: the ones that could not be sent it, and for the first of them why.
    ``statuses``: its executions by status. ``outcomes``: by status, reason and equal result.
    ``ended``: how many have ended; ``percent``: of all.
    """

    command_id: str
    action: str
    state: GroupState
    created_at: Time
    targeted: int
    pending: int
    refused: int
    ended: int
    percent: float
    statuses: dict[str, int]
    outcomes: Sequence[OutcomeCount]
    rollout: RolloutRules = RolloutRules()
    refusals: dict[str, str] = {}


class GroupEntry(msgspec.Struct, frozen=True, rename="camel"):
    """A command to many things in a list of them. ``requestedBy``: the name of the API token."""

    command_id: str
    action: str
    state: State
    created_at: str
    requested_by: str
    targeted: int
    pending: int
    refused: int


group_body_decoder: Final = msgspec.json.Decoder(GroupBody)
_names: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def is_for_many(body: bytes) -> bool:
    """Whether a command names ``targets``. Costs next to nothing where it does not."""
    if b'"targets"' not in body:
        return False
    try:
        return "targets" in _names.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False  # the other decoder says what is wrong


class Groups:
    """The endpoints of commands to many things."""

    def __init__(self, operations: Operations, rollouts: RolloutDriver) -> None:
        self._operations = operations
        self._rollouts = rollouts

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(GROUPS, self.list, methods=["GET"]),
            Route(GROUPS + "/{command_id}", self.show, methods=["GET"]),
            Route(GROUPS + "/{command_id}/pause", self.pause, methods=["POST"]),
            Route(GROUPS + "/{command_id}/resume", self.resume, methods=["POST"]),
            Route(GROUPS + "/{command_id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def send(
        self, body: bytes, token: Token, base: bytes, key: str = "", *, validate: bool = False
    ) -> ApiResponse:
        """Accept a command for many things (202), or tell who would get it (200).

        ``base``: the request's path. ``validate``: a dry run, as ``dryRun`` in the body. Of things
        that are not named, those are meant that the token is for. ``key``: of the caller, which finds
        the command of the first time.
        """
        asked = decode_body(group_body_decoder, body)
        things = self._resolved(asked, token)
        params = asked.params_json()
        post_back_uri = checked_post_back(asked.post_back_uri)
        if asked.dry_run or validate:
            checked = await dry_run(self._operations, things, asked.action, params, asked.ttl)
            return ApiResponse(200, _encode(checked))
        rollout = await self._rollouts.begin(
            things,
            asked.action,
            params,
            asked.ttl,
            asked.rollout,
            requested_by=token.name,
            post_back_uri=post_back_uri,
            idempotency_key=key,
            fingerprint=_fingerprint(asked, post_back_uri) if key else "",
        )
        link = location(base, f"{GROUPS}/{rollout.record.command_id}")
        return ApiResponse(202, await self._told(rollout), (link,))

    def _resolved(self, asked: GroupBody, token: Token) -> list[str]:
        """Return the names of the targeted things; raises :class:`Problem` (403) for a name beyond the token.

        The answer does not depend on things that the token does not cover.
        """
        if not token.is_limited:
            return resolve(asked.targets, self._operations.things)
        for name in asked.targets.things or ():
            require_command(token, name, asked.action)
        covers = partial(token.covers_command, action=asked.action)
        return resolve(asked.targets, self._operations.things, covers)

    @needs(Scope.COMMANDS_READ)
    async def list(self, request: Request) -> ApiResponse:
        """``GET /api/v1/groups``: commands to many things, newest first; a limited token sees its own."""
        asked, token = Parameters(request.scope["query_string"], _LIST), request.scope["token"]
        limit = asked.limit()
        found = await self._rollouts.newest(
            limit + 1, asked.cursor(is_uuid7), asked.states(), token.name if token.is_limited else None
        )
        page = found[:limit]
        cursor = page[-1].record.command_id if len(found) > limit else None
        return ApiResponse(
            200, encode_page("groups", ((one.record.command_id, _entry(one)) for one in page), cursor)
        )

    @needs(Scope.COMMANDS_READ)
    async def show(self, request: Request) -> ApiResponse:
        """``GET /api/v1/groups/{commandId}``: a command to many things, and its executions by status."""
        command_id, token = _asked(request), request.scope["token"]
        rollout = await self._rollouts.get(command_id)
        if rollout is not None:
            return ApiResponse(200, await self._told(_for(token, rollout)))
        first = await self._operations.list(Query(command_id=command_id), 1, None, _first)
        outcomes = await self._operations.outcomes(command_id)
        count = sum(one.count for one in outcomes)
        if first is None or not _may_count(token, first, count):
            raise unknown_command()
        created_at = rfc3339(first.created_at)
        return ApiResponse(
            200, _resource(command_id, first.action, GroupState.UNKNOWN, created_at, outcomes, targeted=count)
        )

    @needs(Scope.COMMANDS_SEND)
    async def pause(self, request: Request) -> ApiResponse:
        """``POST /api/v1/groups/{commandId}/pause``: pause a command to many things."""
        return await self._move(request, State.PAUSED)

    @needs(Scope.COMMANDS_SEND)
    async def resume(self, request: Request) -> ApiResponse:
        """``POST /api/v1/groups/{commandId}/resume``: resume it after a pause or too many failures."""
        return await self._move(request, State.RUNNING)

    @needs(Scope.COMMANDS_CANCEL)
    async def cancel(self, request: Request) -> ApiResponse:
        """``POST /api/v1/groups/{commandId}/cancel``: stop it and cancel its executions."""
        return await self._move(request, State.CANCELED)

    async def _move(self, request: Request, to: State) -> ApiResponse:
        command_id = _asked(request)
        rollout = await self._rollouts.get(command_id)
        if rollout is not None:
            _for(request.scope["token"], rollout)
        return ApiResponse(200, await self._told(await self._rollouts.move(command_id, to)))

    async def _told(self, rollout: Rollout) -> bytes:
        record = rollout.record
        outcomes = await self._operations.outcomes(record.command_id)
        return _resource(
            record.command_id,
            record.action,
            GroupState(record.state),
            rfc3339(record.created_at),
            outcomes,
            targeted=record.targeted,
            pending=rollout.pending,
            refused=record.refused,
            rollout=record.rules,
            refusals=record.refusals,
        )


def _fingerprint(asked: GroupBody, post_back_uri: str) -> str:
    """What makes two calls the same call: the things as they were named, not those that there were then."""
    call = _encode((asked.targets, asked.rollout, post_back_uri)).decode()
    return fingerprint(call, asked.action, asked.params_json(), asked.ttl)


def _entry(listed: Listed) -> GroupEntry:
    record = listed.record
    return GroupEntry(
        record.command_id,
        record.action,
        record.state,
        rfc3339(record.created_at),
        record.requested_by,
        record.targeted,
        listed.pending,
        record.refused,
    )


def _resource(
    command_id: str,
    action: str,
    state: GroupState,
    created_at: str,
    outcomes: Sequence[OutcomeCount],
    *,
    targeted: int,
    pending: int = 0,
    refused: int = 0,
    rollout: RolloutRules = _NO_RULES,
    refusals: dict[str, str] | None = None,
) -> bytes:
    statuses = count_statuses(outcomes)
    ended = sum(number for status, number in statuses.items() if status in TERMINAL)
    count = targeted - refused
    return _encode(
        GroupResource(
            command_id,
            action,
            state,
            created_at,
            targeted,
            pending,
            refused,
            ended,
            round(100 * ended / count, 1) if count else 100.0,
            {status.value: number for status, number in sorted(statuses.items())},
            outcomes,
            rollout,
            refusals or {},
        )
    )


def _first(page: PageOfExecutions) -> Execution | None:
    return page.executions[0] if page.executions else None


def _for(token: Token, rollout: Rollout) -> Rollout:
    """Return the rollout; raises :class:`UnknownCommand` for a limited token that did not start it."""
    if token.is_limited and rollout.record.requested_by != token.name:
        raise unknown_command()
    return rollout


def _may_count(token: Token, first: Execution, count: int) -> bool:
    """Whether the token may see the counts of a command that is known by its executions alone.

    A limited token sees its own commands, and a command to one thing that it covers.
    """
    if not token.is_limited:
        return True
    return token.covers_command(first.thing, first.action) and (
        count == 1 or first.requested_by == token.name
    )


def _asked(request: Request) -> str:
    """The command id in the path; what cannot be one is refused before anybody repeats it."""
    Parameters(request.scope["query_string"], _NONE)
    command_id: str = request.path_params["command_id"]
    if not is_id(command_id):
        raise UnknownCommand("what the path names is no command id")
    return command_id
