"""``/api/v1/overview``: the last hour, for the console's first page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from starlette.routing import Route

from thingctl_broker.commands.field_types import Time  # noqa: TC001 msgspec reads them
from thingctl_broker.commands.outcomes import OutcomeCount, combine, tally
from thingctl_broker.commands.statistics import Latency, Minute, whole
from thingctl_broker.commands.table import PageOfExecutions, Query
from thingctl_broker.http.auth import needs, require_everything
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.tokens import Scope
from thingctl_broker.system.timestamps import rfc3339
from thingctl_protocol.statuses import TERMINAL, Status

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.commands.operations import Operations

OVERVIEW: Final = "/api/v1/overview"

OUTCOMES_OF: Final = 500
HOUR: Final = 3600.0
"""Seconds."""

WITHOUT_SUCCESS: Final = TERMINAL - {Status.SUCCEEDED}

_NONE: Final[frozenset[str]] = frozenset()


class MinuteResource(msgspec.Struct, frozen=True):
    """What happened from ``at`` on."""

    at: Time
    created: int
    ended: dict[str, int]
    latency: Latency | None


class ThingCounts(msgspec.Struct, frozen=True, gc=False):
    """How many things there are."""

    total: int
    online: int


class ExecutionCounts(msgspec.Struct, frozen=True, gc=False):
    """How many executions are in the table."""

    total: int
    live: int


class OverviewResource(msgspec.Struct, frozen=True):
    """The last hour. ``minutes``: oldest first, the last one is still going on.

    ``outcomes``: of the latest ``OUTCOMES_OF`` executions of that hour that ended without success.
    """

    at: Time
    things: ThingCounts
    executions: ExecutionCounts
    hour: MinuteResource
    outcomes: list[OutcomeCount]
    minutes: list[MinuteResource]


class OverviewPage:
    """The endpoint of the overview."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def routes(self) -> list[Route]:
        """The endpoint with its path."""
        return [Route(OVERVIEW, self.show, methods=["GET"])]

    @needs(Scope.COMMANDS_READ)
    async def show(self, request: Request) -> ApiResponse:
        """``GET /api/v1/overview``: commands by minute and status, latencies, things online."""
        require_everything(request.scope["token"])
        Parameters(request.scope["query_string"], _NONE)
        operations = self._operations
        things, minutes = operations.things, await operations.minutes()
        held, live = await operations.size()
        troubles = Query(statuses=WITHOUT_SUCCESS, since=operations.unix() - HOUR)
        resource = OverviewResource(
            rfc3339(operations.unix()),
            ThingCounts(len(things), sum(thing.online for thing in things)),
            ExecutionCounts(held, live),
            _minute_resource(whole(minutes)),
            await operations.list(troubles, OUTCOMES_OF, None, _outcomes),
            [_minute_resource(minute) for minute in minutes],
        )
        return ApiResponse(200, msgspec.json.encode(resource))


def _outcomes(page: PageOfExecutions) -> list[OutcomeCount]:
    return combine(map(tally, page.executions))


def _minute_resource(minute: Minute) -> MinuteResource:
    ended = {status.value: count for status, count in sorted(minute.ended.items())}
    return MinuteResource(rfc3339(minute.number * 60), minute.created, ended, minute.latency)
