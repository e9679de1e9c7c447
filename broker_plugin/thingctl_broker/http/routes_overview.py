"""``/api/v1/overview``: the last hour, for the console's first page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from starlette.routing import Route

from thingctl_broker.credentials import Scope
from thingctl_broker.events import Change
from thingctl_broker.http.answers import Answer
from thingctl_broker.http.auth import needs, require_everything
from thingctl_broker.http.queries import Parameters
from thingctl_broker.overview import Latency, Minute, Overview
from thingctl_broker.times import rfc3339

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.executions import Execution
    from thingctl_broker.service import CommandService

OVERVIEW: Final = "/api/v1/overview"

_NONE: Final[frozenset[str]] = frozenset()


class MinuteResource(msgspec.Struct, frozen=True):
    """What happened from ``at`` on."""

    at: str
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
    """The last hour. ``minutes``: oldest first, the last one is still going on."""

    at: str
    things: ThingCounts
    executions: ExecutionCounts
    hour: MinuteResource
    minutes: list[MinuteResource]


class OverviewPage:
    """The endpoint of the overview, over one service."""

    def __init__(self, service: CommandService) -> None:
        self._service = service
        self._overview = Overview()
        self._overview.seed(service.table, service.unix())
        service.events.subscribe(self._on_change, (Change.CREATED, Change.ENDED))

    def routes(self) -> list[Route]:
        """The endpoint with its path."""
        return [Route(OVERVIEW, self.show, methods=["GET"])]

    @needs(Scope.COMMANDS_READ)
    async def show(self, request: Request) -> Answer:
        """``GET /api/v1/overview``: commands by minute and status, latencies, things online."""
        require_everything(request.scope["token"])
        Parameters(request.scope["query_string"], _NONE)
        service, at = self._service, self._service.unix()
        resource = OverviewResource(
            rfc3339(at),
            ThingCounts(len(service.things), sum(thing.online for thing in service.things)),
            ExecutionCounts(len(service.table), service.table.live),
            _minute_resource(self._overview.hour(at)),
            [_minute_resource(minute) for minute in self._overview.minutes(at)],
        )
        return Answer(200, msgspec.json.encode(resource))

    def _on_change(self, execution: Execution, change: Change) -> None:
        if change is Change.CREATED:
            self._overview.created(execution.created_at)
        elif change is Change.ENDED and execution.ended_at is not None:
            seconds = execution.ended_at - execution.created_at
            self._overview.ended(execution.status, execution.ended_at, seconds)


def _minute_resource(minute: Minute) -> MinuteResource:
    ended = {status.value: count for status, count in sorted(minute.ended.items())}
    return MinuteResource(rfc3339(minute.number * 60), minute.created, ended, minute.latency)
