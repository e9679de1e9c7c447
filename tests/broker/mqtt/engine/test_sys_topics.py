"""The broker's figures: mosquitto's names, mosquitto's arithmetic."""

from __future__ import annotations

import math

import pytest

from agent.harness import mosquitto
from support.paho import paho
from thingctl_broker.mqtt.engine.sys_topics import COUNTS, LOADS, MINUTES, ROOT, SysTopics

FIGURES = dict.fromkeys((*COUNTS, *LOADS), 0) | {"uptime": 0}
NOT_OURS = {"heap/current", "heap/maximum"}
NOT_OF_EVERY_MOSQUITTO = {"messages/inflight"}
"""It stands in the manual of mosquitto 2; 2.0.11 publishes it not."""


def update(topics: SysTopics, now: float, **figures: float) -> dict[str, bytes]:
    return {topic.removeprefix(ROOT): payload for topic, payload in topics.update(FIGURES | figures, now)}


def test_the_names_are_mosquittos(tmp_path):
    ours, theirs = set(update(SysTopics("thingctl"), 0)), set()
    with (
        mosquitto(tmp_path, "allow_anonymous true\nsys_interval 1\n") as broker,
        paho(("127.0.0.1", broker.port)) as client,
    ):
        client.listen("$SYS/#")
        while not theirs >= ours - NOT_OF_EVERY_MOSQUITTO:
            theirs.add(client.heard().topic.removeprefix(ROOT))
    assert theirs - ours - NOT_OURS == set()
    assert len(ours) == len({topic for below in COUNTS.values() for topic in below}) + 3 * len(LOADS) + 2


def test_the_payloads_are_plain_numbers():
    said = update(
        SysTopics("thingctl version 1"),
        0,
        uptime=61.7,
        clients_connected=3,
        clients_total=5,
        stored=7,
        retained=2.0,
    )
    assert said["version"] == b"thingctl version 1"
    assert said["uptime"] == b"61 seconds"
    assert said["clients/connected"] == said["clients/active"] == b"3"
    assert said["clients/total"] == b"5"
    assert said["store/messages/count"] == said["messages/stored"] == b"7"
    assert said["retained messages/count"] == b"2"
    assert said["load/bytes/sent/15min"] == b"0.00"


def test_only_what_has_changed_is_published_again():
    topics = SysTopics("v")
    assert len(update(topics, 0)) > 50
    assert update(topics, 10) == {}
    assert update(topics, 20, uptime=20, clients_connected=1) == {
        "uptime": b"20 seconds",
        "clients/connected": b"1",
        "clients/active": b"1",
    }


def test_a_figure_that_is_missing_has_no_topic():
    topics = SysTopics("v")
    assert dict(topics.update({"retained": 1}, 0)) == {
        ROOT + "version": b"v",
        ROOT + "retained messages/count": b"1",
    }
    assert topics.update({}, 10) == []


@pytest.mark.parametrize("minutes", MINUTES)
def test_a_load_is_the_rate_a_minute_averaged_with_less_and_less_weight_of_what_was(minutes):
    topics, below = SysTopics("v"), f"load/messages/received/{minutes}min"
    assert update(topics, 0, messages_received=1000)[below] == b"0.00"
    load, weight = 0.0, math.exp(-10 / (60 * minutes))
    for i in range(1, 4):
        load = 600 + weight * (load - 600)  # 100 in 10 s: 600 a minute
        assert update(topics, i * 10, messages_received=1000 + i * 100)[below] == b"%.2f" % load
    assert float(update(topics, 40, messages_received=1300)[below]) == pytest.approx(weight * load, abs=0.01)


def test_a_load_comes_close_to_a_steady_rate():
    topics = SysTopics("v")
    said = {}
    for i in range(1000):
        said |= update(topics, i * 10, bytes_sent=i * 50)
    for minutes in MINUTES:
        assert float(said[f"load/bytes/sent/{minutes}min"]) == pytest.approx(300, abs=0.02)


def test_no_time_between_two_updates_is_no_division_by_zero():
    topics = SysTopics("v")
    update(topics, 5)
    assert "load/sockets/1min" not in update(topics, 5, sockets=3)
