"""``/api/v1/thing-types``: actions that many things share, with their schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from starlette.routing import Route

from thingctl_broker.commands.execution_resource import encode_page
from thingctl_broker.http.api.thing_resource import type_body_decoder, type_patch_decoder, type_resource
from thingctl_broker.http.auth import needs, require_everything, visible_things
from thingctl_broker.http.links import location
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.request_body import decode_body, read_json_body
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.tokens import Scope

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.things.service import ThingService

THING_TYPES: Final = "/api/v1/thing-types"

_NONE: Final[frozenset[str]] = frozenset()
_LIST: Final = frozenset({"cursor", "limit"})


class ThingTypes:
    """The endpoints of thing types, over one directory."""

    def __init__(self, directory: ThingService) -> None:
        self._directory = directory
        self._registry = directory.registry

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(THING_TYPES, self.list, methods=["GET"]),
            Route(THING_TYPES + "/{name}", self.show, methods=["GET"]),
            Route(THING_TYPES + "/{name}", self.put, methods=["PUT"]),
            Route(THING_TYPES + "/{name}", self.patch, methods=["PATCH"]),
            Route(THING_TYPES + "/{name}", self.remove, methods=["DELETE"]),
        ]

    @needs(Scope.THINGS_READ)
    async def list(self, request: Request) -> ApiResponse:
        """``GET /api/v1/thing-types``: list thing types, by name."""
        asked = Parameters(request.scope["query_string"], _LIST)
        limit, after = asked.limit(), asked.cursor() or ""
        names = sorted(name for name in self._registry.types if name > after)
        page = [self._registry.types[name] for name in names[:limit]]
        visible = visible_things(request.scope["token"])
        items = ((found.name, type_resource(found, self._registry, visible)) for found in page)
        return ApiResponse(
            200, encode_page("thingTypes", items, names[limit - 1] if len(names) > limit else None)
        )

    @needs(Scope.THINGS_READ)
    async def show(self, request: Request) -> ApiResponse:
        """``GET /api/v1/thing-types/{name}``: one thing type."""
        Parameters(request.scope["query_string"], _NONE)
        return self._shown(request, 200)

    @needs(Scope.THINGS_WRITE)
    async def put(self, request: Request) -> ApiResponse:
        """``PUT /api/v1/thing-types/{name}``: add a thing type or replace it."""
        require_everything(request.scope["token"])  # a type is about every thing of it
        name: str = request.path_params["name"]
        body = decode_body(type_body_decoder, await _body(request))
        is_new = await self._directory.put_type(body.thing_type(name))
        if not is_new:
            return self._shown(request, 200)
        return self._shown(request, 201, location(request.scope["raw_path"], f"{THING_TYPES}/{name}"))

    @needs(Scope.THINGS_WRITE)
    async def patch(self, request: Request) -> ApiResponse:
        """``PATCH /api/v1/thing-types/{name}``: change parts of a thing type."""
        require_everything(request.scope["token"])  # a type is about every thing of it
        name: str = request.path_params["name"]
        body = decode_body(type_patch_decoder, await _body(request))
        await self._directory.patch_type(name, body.applied_to)
        return self._shown(request, 200)

    @needs(Scope.THINGS_WRITE)
    async def remove(self, request: Request) -> ApiResponse:
        """``DELETE /api/v1/thing-types/{name}``: remove a thing type that no thing has."""
        require_everything(request.scope["token"])  # a type is about every thing of it
        Parameters(request.scope["query_string"], _NONE)
        await self._directory.remove_type(request.path_params["name"])
        return ApiResponse(204, b"")

    def _shown(self, request: Request, status: int, *headers: tuple[bytes, bytes]) -> ApiResponse:
        thing_type = self._registry.need_type(request.path_params["name"])
        resource = type_resource(thing_type, self._registry, visible_things(request.scope["token"]))
        return ApiResponse(status, msgspec.json.encode(resource), headers)


async def _body(request: Request) -> bytes:
    Parameters(request.scope["query_string"], _NONE)
    return await read_json_body(dict(request.scope["headers"]), request.receive)
