"""What is told of the MQTT server: every figure, and every kind from the start."""

from __future__ import annotations

import re
from pathlib import Path

from thingctl_broker.http.mqtt_metrics import MQTT_COUNTED, mqtt_families
from thingctl_broker.mqtt import engine
from thingctl_broker.things.mqtt_clients import MqttFigures

FIGURES = MqttFigures(
    connected={"3.1": 0, "3.1.1": 4, "5": 2},
    away=3,
    subscriptions=7,
    retained=5,
    retained_bytes=500,
    waiting_bytes=90,
    counters={"messages": {"received": 10, "sent": 20}, "dropped": {"queueFull": 6}},
)


def samples(figures):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in mqtt_families(figures)
        for sample in family.samples
    }


def test_every_figure_is_told():
    found = samples(FIGURES)
    assert found["thingctl_mqtt_clients", "3.1.1"] == 4
    assert found["thingctl_mqtt_clients", "5"] == 2
    assert found["thingctl_mqtt_sessions_away",] == 3
    assert found["thingctl_mqtt_subscriptions",] == 7
    assert found["thingctl_mqtt_retained_messages",] == 5
    assert found["thingctl_mqtt_retained_bytes",] == 500
    assert found["thingctl_mqtt_waiting_bytes",] == 90
    assert found["thingctl_mqtt_store_commits_total",] == 0
    assert found["thingctl_mqtt_store_failing",] == 0
    assert found["thingctl_mqtt_messages_total", "sent"] == 20
    assert found["thingctl_mqtt_dropped_total", "queueFull"] == 6


def test_a_disk_that_takes_no_sessions_is_told():
    found = samples(FIGURES._replace(commits=12, is_keeping=False))
    assert found["thingctl_mqtt_store_commits_total",] == 12
    assert found["thingctl_mqtt_store_failing",] == 1


def test_every_counter_is_there_before_its_first_event():
    found = samples(FIGURES)
    for family, (_, kinds) in MQTT_COUNTED.items():
        assert all((f"thingctl_mqtt_{family}_total", kind) in found for kind in kinds)
    assert found["thingctl_mqtt_dropped_total", "expired"] == 0


def test_every_reason_in_the_engines_source_is_declared():
    text = "".join(path.read_text("utf-8") for path in Path(engine.__file__).parent.glob("*.py"))
    for family, pattern in (
        ("dropped", r'drop\(\s*"(\w+)"'),
        ("sessions", r'counters\["sessions\.(\w+)"\] \+= 1'),
    ):
        reasons = set(re.findall(pattern, text))
        assert reasons
        assert reasons == set(MQTT_COUNTED[family][1])
