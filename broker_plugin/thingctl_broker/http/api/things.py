"""``/api/v1/things``: which things there are, what they are, and whether they are connected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from thingctl_broker.commands.execution_resource import encode_page
from thingctl_broker.errors import InvalidThing, NoDeviceUrl, UnknownThing
from thingctl_broker.http.api.thing_resource import (
    Given,
    new_thing_decoder,
    password_body_decoder,
    thing_body_decoder,
    thing_patch_decoder,
    thing_resource,
    whole_thing,
)
from thingctl_broker.http.auth import needs, require_thing, visible_things
from thingctl_broker.http.links import location
from thingctl_broker.http.query import Parameters, is_boolean
from thingctl_broker.http.request_body import decode_body, read_json_body
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.tokens import Scope
from thingctl_broker.things.thing import ThingQuery, is_tag, is_type_name

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.security.tokens import Token
    from thingctl_broker.things.service import ThingService
    from thingctl_broker.things.thing import Thing

THINGS: Final = "/api/v1/things"

_NONE: Final[frozenset[str]] = frozenset()
_LIST: Final = frozenset({"cursor", "limit", "online", "tag", "type"})


class Things:
    """The endpoints of things, over one directory."""

    def __init__(self, directory: ThingService) -> None:
        self._directory = directory
        self._registry = directory.registry

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(THINGS, self.list, methods=["GET"]),
            Route(THINGS, self.add, methods=["POST"]),
            Route(THINGS + "/{name}", self.show, methods=["GET"]),
            Route(THINGS + "/{name}", self.put, methods=["PUT"]),
            Route(THINGS + "/{name}", self.patch, methods=["PATCH"]),
            Route(THINGS + "/{name}", self.remove, methods=["DELETE"]),
            Route(THINGS + "/{name}/password", self.new_password, methods=["POST"]),
            Route(THINGS + "/{name}/password", self.remove_password, methods=["DELETE"]),
        ]

    @needs(Scope.THINGS_READ)
    async def list(self, request: Request) -> ApiResponse:
        """``GET /api/v1/things``: list things, by name."""
        asked = Parameters(request.scope["query_string"], _LIST)
        token: Token = request.scope["token"]
        online = asked.text("online", is_boolean, "true or false")
        query = ThingQuery(
            tags=asked.texts("tag", is_tag, "a tag"),
            type=asked.text("type", is_type_name, "the name of a thing type"),
            online=None if online is None else online == "true",
            visible=visible_things(token),
        )
        found, cursor = self._registry.select(query, asked.limit(), asked.cursor() or "")
        now = self._directory.unix()
        items = ((thing.name, thing_resource(thing, now)) for thing in found)
        return ApiResponse(200, encode_page("things", items, cursor))

    @needs(Scope.THINGS_WRITE)
    async def add(self, request: Request) -> ApiResponse:
        """``POST /api/v1/things``: add a thing; the answer alone shows its password."""
        body = decode_body(new_thing_decoder, await _body(request))
        require_thing(request.scope["token"], body.name)
        if body.password is not None and not body.with_password:
            raise InvalidThing("a thing without a password is given none", "/password")
        self._check_bundle(required=body.require_bundle)
        thing, password = await self._directory.add(
            body.name, body.definition(), body.password, with_password=body.with_password
        )
        return ApiResponse(
            201, self._whole(thing, self._given(thing, password)), (_location(request, thing.name),)
        )

    @needs(Scope.THINGS_READ)
    async def show(self, request: Request) -> ApiResponse:
        """``GET /api/v1/things/{name}``: one thing, with its announcement."""
        Parameters(request.scope["query_string"], _NONE)
        thing = self._registry.need(_asked_name(request))
        return ApiResponse(200, self._whole(thing))

    @needs(Scope.THINGS_WRITE)
    async def put(self, request: Request) -> ApiResponse:
        """``PUT /api/v1/things/{name}``: add a thing or replace its definition."""
        name: str = request.path_params["name"]
        require_thing(request.scope["token"], name)
        body = decode_body(thing_body_decoder, await _body(request))
        thing, is_new = await self._directory.put(name, body.definition())
        return ApiResponse(
            201 if is_new else 200,
            self._whole(thing),
            (_location(request, name),) if is_new else (),
        )

    @needs(Scope.THINGS_WRITE)
    async def patch(self, request: Request) -> ApiResponse:
        """``PATCH /api/v1/things/{name}``: change parts of its definition."""
        name = _asked_name(request)
        body = decode_body(thing_patch_decoder, await _body(request))
        return ApiResponse(200, self._whole(await self._directory.patch(name, body.applied_to)))

    @needs(Scope.THINGS_WRITE)
    async def remove(self, request: Request) -> ApiResponse:
        """``DELETE /api/v1/things/{name}``: remove a thing and its waiting commands."""
        Parameters(request.scope["query_string"], _NONE)
        await self._directory.remove(_asked_name(request))
        return ApiResponse(204, b"")

    @needs(Scope.THINGS_WRITE)
    async def new_password(self, request: Request) -> ApiResponse:
        """``POST /api/v1/things/{name}/password``: give a thing a new password; the answer alone shows it."""
        name = _asked_name(request)
        raw = await _body(request)
        body = decode_body(password_body_decoder, raw or b"{}")
        self._check_bundle(required=body.require_bundle)
        thing, password = await self._directory.new_password(name, body.password, body.old_valid_for)
        return ApiResponse(200, self._whole(thing, self._given(thing, password)))

    @needs(Scope.THINGS_WRITE)
    async def remove_password(self, request: Request) -> ApiResponse:
        """``DELETE /api/v1/things/{name}/password``: remove its password; it needs a certificate then."""
        Parameters(request.scope["query_string"], _NONE)
        await self._directory.remove_password(_asked_name(request))
        return ApiResponse(204, b"")

    def _whole(self, thing: Thing, given: Given | None = None) -> bytes:
        return whole_thing(thing, self._registry, self._directory.unix(), given)

    def _check_bundle(self, *, required: bool) -> None:
        """Raise :class:`NoDeviceUrl` for a bundle that is asked for and cannot be made."""
        if required and (fault := self._directory.enrolment.fault):
            raise NoDeviceUrl(fault)

    def _given(self, thing: Thing, password: str) -> Given:
        try:
            return Given(password, self._directory.enrolment.bundle(thing.name, password), "")
        except NoDeviceUrl as error:
            return Given(password, None, error.text)


async def _body(request: Request) -> bytes:
    Parameters(request.scope["query_string"], _NONE)
    return await read_json_body(dict(request.scope["headers"]), request.receive)


def _asked_name(request: Request) -> str:
    """The thing in the path; one that the caller may not see is as if it were not there."""
    name: str = request.path_params["name"]
    token: Token = request.scope["token"]
    if not token.covers(name):
        raise UnknownThing(f"no thing is named {ascii(name)[:140]}")
    return name


def _location(request: Request, name: str) -> tuple[bytes, bytes]:
    return location(request.scope["raw_path"], f"{THINGS}/{name}")
