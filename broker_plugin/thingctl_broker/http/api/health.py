"""``/healthz``, ``/readyz``, ``/metrics``: for whatever watches over the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry
from starlette.routing import Route

from thingctl_broker.errors import NotAccepting
from thingctl_broker.http.auth import needs, require_everything
from thingctl_broker.http.metrics import Measures
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.tokens import Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from thingctl_broker.commands.operations import Operations
    from thingctl_broker.things.mqtt_clients import MqttClients

HEALTH: Final = "/healthz"
READY: Final = "/readyz"
METRICS: Final = "/metrics"

MEDIA_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_OK: Final = b'{"status":"ok"}'
_NONE: Final[frozenset[str]] = frozenset()


class Probes:
    """The endpoints that tell how the broker is."""

    def __init__(
        self,
        operations: Operations,
        connections: Callable[[], int] | None = None,
        clients: MqttClients | None = None,
    ) -> None:
        """``connections``: how many MQTT connections are open; ``clients``: those of the MQTT server.

        Both are None where another broker serves MQTT.
        """
        self._operations = operations
        self._stopping = False
        self._registry = CollectorRegistry(auto_describe=False)
        self._measures = Measures(operations, connections, clients)
        self._registry.register(self._measures)
        ProcessCollector(registry=self._registry)

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        return [
            Route(HEALTH, self.health, methods=["GET"]),
            Route(READY, self.ready, methods=["GET"]),
            Route(METRICS, self.metrics, methods=["GET"]),
        ]

    def stop(self) -> None:
        """From now on the broker is not ready: it is ending."""
        self._stopping = True

    async def health(self, _request: Request) -> ApiResponse:
        """``GET /healthz``: whether the broker runs."""
        return ApiResponse(200, _OK)

    async def ready(self, _request: Request) -> ApiResponse:
        """``GET /readyz``: whether the broker accepts commands."""
        if self._stopping:
            raise NotAccepting("the broker is ending", retry_after=5)
        if not self._operations.accepting:
            raise NotAccepting("commands cannot be kept at present", retry_after=5)
        return ApiResponse(200, _OK)

    @needs(Scope.COMMANDS_READ)
    async def metrics(self, request: Request) -> ApiResponse:
        """``GET /metrics``: counters and gauges for Prometheus."""
        Parameters(request.scope["query_string"], _NONE)
        require_everything(request.scope["token"])
        self._measures.held, self._measures.live = await self._operations.size()
        return ApiResponse(200, generate_latest(self._registry), media_type=MEDIA_TYPE)
