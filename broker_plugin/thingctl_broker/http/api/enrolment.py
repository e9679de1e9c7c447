"""``/api/v1/enrolment``: how devices reach the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from starlette.routing import Route

from thingctl_broker.errors import NoDeviceUrl
from thingctl_broker.http.auth import needs
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.tokens import Scope

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.things.service import ThingService

ENROLMENT: Final = "/api/v1/enrolment"

_NONE: Final[frozenset[str]] = frozenset()


class EnrolmentResource(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How devices reach the broker. ``mqttUrl``, or ``bundleFault``: why there is none, and what to set.

    ``ca``: the authority to trust for TLS, in PEM; without it, the system's. ``open``: whether
    devices need no credentials.
    """

    topic_root: str
    open: bool
    mqtt_url: str | None = None
    ca: str | None = None
    bundle_fault: str | None = None


class Enrolments:
    """The endpoint, over one directory."""

    def __init__(self, directory: ThingService) -> None:
        self._directory = directory

    def routes(self) -> list[Route]:
        """The endpoint with its path."""
        return [Route(ENROLMENT, self.show, methods=["GET"])]

    @needs(Scope.THINGS_READ)
    async def show(self, request: Request) -> ApiResponse:
        """``GET /api/v1/enrolment``: how devices reach the broker."""
        Parameters(request.scope["query_string"], _NONE)
        enrolment = self._directory.enrolment
        url: str | None = None
        fault: str | None = None
        try:
            url = enrolment.url
        except NoDeviceUrl as error:
            fault = error.text
        resource = EnrolmentResource(
            enrolment.topic_root, enrolment.is_open, url, enrolment.ca or None, fault
        )
        return ApiResponse(200, msgspec.json.encode(resource))
