"""``/api/v1/things``: which things there are, and whether they are connected."""

from __future__ import annotations

import heapq
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from thingctl_broker.errors import UnknownThing
from thingctl_broker.http.answers import Answer
from thingctl_broker.http.queries import Parameters
from thingctl_broker.http.schemas import encode_page, encode_thing, thing_resource

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.things import ThingRegistry

THINGS: Final = "/api/v1/things"

_NONE: Final[frozenset[str]] = frozenset()
_LIST: Final = frozenset({"limit", "cursor"})


class Things:
    """The endpoints of things, over one registry."""

    def __init__(self, registry: ThingRegistry) -> None:
        self._registry = registry

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(THINGS, self.list, methods=["GET"]),
            Route(THINGS + "/{name}", self.show, methods=["GET"]),
        ]

    async def list(self, request: Request) -> Answer:
        """``GET /api/v1/things``: things, by name."""
        asked = Parameters(request.scope["query_string"], _LIST)
        limit, cursor = asked.limit(), asked.cursor() or ""
        behind = (thing for thing in self._registry if thing.name > cursor)
        found = heapq.nsmallest(limit + 1, behind, key=attrgetter("name"))
        next_cursor = found[limit - 1].name if len(found) > limit else None
        items = ((thing.name, thing_resource(thing, whole=False)) for thing in found[:limit])
        return Answer(200, encode_page("things", items, next_cursor))

    async def show(self, request: Request) -> Answer:
        """``GET /api/v1/things/{name}``: one thing, with all that it announced."""
        Parameters(request.scope["query_string"], _NONE)
        name = request.path_params["name"]
        thing = self._registry.get(name)
        if thing is None:
            raise UnknownThing(f"no thing is named {ascii(name)[:140]}")
        return Answer(200, encode_thing(thing))
