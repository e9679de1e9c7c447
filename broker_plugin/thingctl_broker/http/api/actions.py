"""``/api/v1/actions``: the actions that things have in common."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.routing import Route

from thingctl_broker.commands.execution_resource import PAGE_BYTES_MAX
from thingctl_broker.http.auth import needs, visible_things
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.tokens import Scope
from thingctl_broker.things.repertoire import Repertoire
from thingctl_broker.things.thing import ThingQuery, is_tag, is_type_name
from thingctl_protocol.identifiers import is_thing_name

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.things.registry import ThingRegistry
    from thingctl_broker.things.repertoire import SharedAction

ACTIONS: Final = "/api/v1/actions"

_ASKED: Final = frozenset({"tag", "thingId", "type"})
_TURN: Final = 500
"""Things read in one turn of the loop."""


class ActionResource(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An action and how many of the things have it.

    ``alike``: whether all of these have the same params schema, or all have none.
    ``params_schema``: that schema; left out without one.
    """

    name: str
    things: int
    alike: bool
    description: str = ""
    params_schema: dict[str, Any] | None = None


class ActionsResource(msgspec.Struct, frozen=True):
    """The actions of ``things`` things, those that most of them have first."""

    things: int
    actions: list[ActionResource]


class Actions:
    """The endpoint of actions, over one registry."""

    def __init__(self, registry: ThingRegistry) -> None:
        self._registry = registry

    def routes(self) -> list[Route]:
        """The endpoint with its path."""
        return [Route(ACTIONS, self.show, methods=["GET"])]

    @needs(Scope.THINGS_READ)
    async def show(self, request: Request) -> ApiResponse:
        """``GET /api/v1/actions``: the actions of all things, or of some, and their common schemas."""
        asked = Parameters(request.scope["query_string"], _ASKED)
        names = frozenset(asked.texts("thingId", is_thing_name, "the name of a thing"))
        query = ThingQuery(
            tags=asked.texts("tag", is_tag, "a tag"),
            type=asked.text("type", is_type_name, "the name of a thing type"),
            visible=visible_things(request.scope["token"]),
        )
        repertoire = Repertoire(self._registry)
        remaining = iter(list(self._registry))
        while turn := list(islice(remaining, _TURN)):
            repertoire.add(
                thing for thing in turn if (not names or thing.name in names) and query.admits(thing)
            )
            await asyncio.sleep(0)
        return ApiResponse(200, msgspec.json.encode(ActionsResource(repertoire.things, _told(repertoire))))


def _told(repertoire: Repertoire) -> list[ActionResource]:
    """The actions; schemas are told while they fit in one answer."""
    left = PAGE_BYTES_MAX
    told = []
    for action in repertoire.actions:
        left -= len(msgspec.json.encode(action.params_schema)) + len(action.description)
        told.append(_resource(action, with_schema=left >= 0))
    return told


def _resource(action: SharedAction, *, with_schema: bool) -> ActionResource:
    return ActionResource(
        action.name,
        action.things,
        action.alike and with_schema,
        action.description if with_schema else "",
        action.params_schema if with_schema else None,
    )
