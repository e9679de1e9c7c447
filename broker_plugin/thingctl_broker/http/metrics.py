"""What ``/metrics`` tells: which counters there are, and how each is described.

A counter exists from the start, at 0: a rate over one that appears with its first event
misses that event.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from thingctl_broker.commands.events import Change
from thingctl_broker.commands.status_table import VERDICTS
from thingctl_broker.http.mqtt_metrics import mqtt_families
from thingctl_protocol import __version__
from thingctl_protocol.statuses import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.metrics_core import Metric

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.operations import Operations
    from thingctl_broker.things.mqtt_clients import MqttClients

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the histogram of times to a verdict, in seconds."""

COUNTED: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "executions": (
        "Executions created, withdrawn, and ended by status",
        ("created", "withdrawn", *sorted(TERMINAL)),
    ),
    "responses": ("Responses of things", ("applied", "conflicting", "late", "repeated")),
    "dropped": (
        "Messages of things that were dropped, by reason",
        (
            "badAnnouncement",
            "badPayload",
            "badPresence",
            "forbiddenFilter",
            "forbiddenTopic",
            "tooLarge",
            "tooMany",
            "unknownExecution",
            "unknownThing",
            "unknownTopic",
            "wrongThing",
        ),
    ),
    "front": (
        "Faults of MQTT clients and amqtt's plugins, and limits that they reached",
        (
            "amqttBehind",
            "amqttStuck",
            "amqttTooLarge",
            "awayLost",
            "closed",
            "connectTimeout",
            "connectionRate",
            "connections",
            "connectionsPerAddress",
            "inFlight",
            "keepAlive",
            "keptSessions",
            "malformed",
            "observerBehind",
            "observers",
            "origin",
            "pluginEventsLost",
            "pluginFailed",
            "qos2Held",
            "refused",
            "revoked",
            "subscriptions",
            "takenOver",
            "tooLarge",
            "tooManyFailures",
            "willDropped",
            "writeBuffer",
            "writeTimeout",
        ),
    ),
    "http": ("HTTP requests refused, by reason", ("addressRate", "tokenRate", "unauthorized")),
    "proxies": (
        "Connections of named proxies that were refused, by what the PROXY header was",
        ("late", "malformed", "missing", "tooMany"),
    ),
    "refused": (
        "MQTT connections refused, by the reason of the CONNACK",
        (
            "badAuthenticationMethod",
            "badUserNameOrPassword",
            "clientIdentifierNotValid",
            "notAuthorized",
            "serverUnavailable",
            "tooManyFailures",
            "unsupportedProtocolVersion",
        ),
    ),
    "things": ("What things did too often", ("hasty",)),
    "tls": (
        "TLS handshakes refused, by OpenSSL's reason",
        (
            "CERTIFICATE_VERIFY_FAILED",
            "HTTP_REQUEST",
            "NO_SHARED_CIPHER",
            "TLSV1_ALERT_UNKNOWN_CA",
            "UNSUPPORTED_PROTOCOL",
            "WRONG_VERSION_NUMBER",
        ),
    ),
    "webhooks": ("Posts to other systems", ("delivered", "failed", "givenUp", "noRoom")),
}
"""By the word before the dot of a counter's name: how the family is described, and its kinds."""

_ZEROS: Final = {f"{group}.{kind}": 0 for group, (_, kinds) in COUNTED.items() for kind in kinds}


class Measures(Collector):
    """Reads what is counted anyway, when somebody asks; only times to a verdict are noted as they come."""

    def __init__(
        self,
        operations: Operations,
        connections: Callable[[], int] | None,
        clients: MqttClients | None = None,
    ) -> None:
        self._operations = operations
        self._connections = connections
        self._clients = clients
        self.held = self.live = 0
        """Executions, and those without a verdict: to be set before ``collect``."""
        self._verdicts = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        operations.events.subscribe(self._on_change, (Change.ENDED,))

    def collect(self) -> Iterable[Metric]:
        """Every family with its samples."""
        yield from self._counted()
        yield InfoMetricFamily(
            "thingctl_build",
            "The version of thingctl and of Python",
            value={"version": __version__, "python": platform.python_version()},
        )
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
        if self._clients is not None:
            yield from mqtt_families(self._clients.figures())
        bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            "thingctl_verdict_seconds",
            "From a command's creation to the thing's verdict on it",
            buckets=list(zip(bounds, accumulate(self._verdicts), strict=True)),
            sum_value=self._seconds,
        )

    def _counted(self) -> Iterable[Metric]:
        """The service's counters, those of ``COUNTED`` from 0 on: a family by the word before the dot."""
        families = {
            group: CounterMetricFamily(f"thingctl_{group}", told, labels=["kind"])
            for group, (told, _) in COUNTED.items()
        }
        for name, count in sorted((_ZEROS | self._operations.counters).items()):
            group, _, kind = name.partition(".")
            families[group].add_metric([kind], count)
        return families.values()

    def _on_change(self, execution: Execution, change: Change) -> None:
        if change is Change.ENDED and execution.status in VERDICTS and execution.ended_at is not None:
            seconds = max(0.0, execution.ended_at - execution.created_at)
            self._verdicts[bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds
