"""What ``/metrics`` tells of the MQTT server, by its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

    from thingctl_broker.things.mqtt_clients import MqttFigures

MQTT_COUNTED: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "messages": ("Ordinary messages: received from clients, and sent to clients", ("received", "sent")),
    "bytes": ("Bytes of MQTT packets: received from clients, and sent to clients", ("received", "sent")),
    "dropped": (
        "Ordinary messages that a client lost, or that were not retained, by reason",
        ("expired", "packetSize", "queueFull", "retained", "slowReader", "totalBytes"),
    ),
    "sessions": ("Sessions of clients that were away and ended, by reason", ("displaced", "expired")),
}
"""By the family of a counter: how it is described, and its kinds, which are there from the start, at 0."""


def mqtt_families(figures: MqttFigures) -> Iterable[Metric]:
    """Every family with its samples."""
    clients = GaugeMetricFamily(
        "thingctl_mqtt_clients", "Clients that are connected, by MQTT version", labels=["version"]
    )
    for version, count in figures.connected.items():
        clients.add_metric([version], count)
    yield clients
    for name, told, value in (
        ("sessions_away", "Sessions of clients that are away", figures.away),
        ("subscriptions", "Subscriptions to ordinary topics", figures.subscriptions),
        ("retained_messages", "Retained messages", figures.retained),
        ("retained_bytes", "Bytes of the retained messages", figures.retained_bytes),
        ("waiting_bytes", "Bytes of the messages that wait for clients", figures.waiting_bytes),
        (
            "store_failing",
            "1 while sessions and messages cannot be written to the disk",
            int(not figures.is_keeping),
        ),
    ):
        yield GaugeMetricFamily(f"thingctl_mqtt_{name}", told, value=value)
    yield CounterMetricFamily(
        "thingctl_mqtt_store_commits", "Commits of sessions and messages to the disk", figures.commits
    )
    for family, (told, kinds) in MQTT_COUNTED.items():
        counter = CounterMetricFamily(f"thingctl_mqtt_{family}", told, labels=["kind"])
        counts = dict.fromkeys(kinds, 0) | dict(figures.counters.get(family, {}))
        for kind, count in sorted(counts.items()):
            counter.add_metric([kind], count)
        yield counter
