"""``/healthz``, ``/readyz``, ``/metrics``: for whatever watches over the broker."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.routing import Route

from thingctl_broker.credentials import Scope
from thingctl_broker.errors import NotAccepting
from thingctl_broker.events import Change
from thingctl_broker.http.answers import Answer
from thingctl_broker.http.auth import needs, require_everything
from thingctl_broker.http.queries import Parameters
from thingctl_broker.overview import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.metrics_core import Metric
    from starlette.requests import Request

    from thingctl_broker.executions import Execution
    from thingctl_broker.operations import Operations

HEALTH: Final = "/healthz"
READY: Final = "/readyz"
METRICS: Final = "/metrics"

MEDIA_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the histogram of times to a verdict, in seconds."""

_OK: Final = b'{"status":"ok"}'
_NONE: Final[frozenset[str]] = frozenset()


class Probes:
    """The endpoints that tell how the broker is."""

    def __init__(self, operations: Operations, connections: Callable[[], int] | None = None) -> None:
        """``connections``: how many MQTT connections are open, where somebody knows."""
        self._operations = operations
        self._stopping = False
        self._registry = CollectorRegistry(auto_describe=False)
        self._measures = Measures(operations, connections)
        self._registry.register(self._measures)

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

    async def health(self, _request: Request) -> Answer:
        """``GET /healthz``: the loop turns."""
        return Answer(200, _OK)

    async def ready(self, _request: Request) -> Answer:
        """``GET /readyz``: the loop turns, and commands are accepted."""
        if self._stopping:
            raise NotAccepting("the broker is ending", retry_after=5)
        if not self._operations.accepting:
            raise NotAccepting("commands cannot be kept at present", retry_after=5)
        return Answer(200, _OK)

    @needs(Scope.COMMANDS_READ)
    async def metrics(self, request: Request) -> Answer:
        """``GET /metrics``: counters and gauges for Prometheus."""
        Parameters(request.scope["query_string"], _NONE)
        require_everything(request.scope["token"])
        self._measures.held, self._measures.live = await self._operations.size()
        return Answer(200, generate_latest(self._registry), media_type=MEDIA_TYPE)


class Measures(Collector):
    """Reads what is counted anyway, when somebody asks; only times to a verdict are noted as they come."""

    def __init__(self, operations: Operations, connections: Callable[[], int] | None) -> None:
        self._operations = operations
        self._connections = connections
        self.held = self.live = 0
        """Executions, and those without a verdict: to be set before ``collect``."""
        self._verdicts = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        operations.events.subscribe(self._on_change, (Change.ENDED,))

    def collect(self) -> Iterable[Metric]:
        """Every family with its samples."""
        yield from self._counted()
        operations = self._operations
        things = operations.things
        gauges: list[tuple[str, str, float]] = [
            ("executions_live", "Executions without a verdict", self.live),
            ("executions_held", "Executions in the table", self.held),
            ("things_known", "Things that the broker knows", len(things)),
            ("things_online", "Things that are connected", sum(thing.online for thing in things)),
            (
                "accepting",
                "Whether commands are accepted (1) or cannot be kept (0)",
                operations.accepting,
            ),
        ]
        if self._connections is not None:
            gauges.append(("connections", "Open MQTT connections", self._connections()))
        for name, told, value in gauges:
            yield GaugeMetricFamily(f"thingctl_{name}", told, value=value)
        bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            "thingctl_verdict_seconds",
            "From a command's creation to the thing's verdict on it",
            buckets=list(zip(bounds, accumulate(self._verdicts), strict=True)),
            sum_value=self._seconds,
        )

    def _counted(self) -> Iterable[Metric]:
        """The service's counters: a family for each word before the dot, a label for the one behind it."""
        families: dict[str, CounterMetricFamily] = {}
        for name, count in sorted(self._operations.counters.items()):
            group, _, kind = name.partition(".")
            if group not in families:
                told = f"How often each kind of thing happened to {group}"
                families[group] = CounterMetricFamily(f"thingctl_{group}", told, labels=["kind"])
            families[group].add_metric([kind], count)
        return families.values()

    def _on_change(self, execution: Execution, change: Change) -> None:
        if change is Change.ENDED and execution.status in VERDICTS and execution.ended_at is not None:
            seconds = max(0.0, execution.ended_at - execution.created_at)
            self._verdicts[bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds
