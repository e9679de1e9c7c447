"""What /metrics tells: complete, and from the start."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import thingctl_broker
from thingctl_broker.commands.events import Change
from thingctl_broker.http.metrics import BUCKETS, COUNTED, Measures

SOURCES = list(Path(thingctl_broker.__file__).parent.rglob("*.py"))
COUNTING = (
    (r'counters\["(\w+\.\w+)"\]', ""),
    (r'\.(?:note|offended)\(\s*"(\w+)"', "front."),
    (r'(?:_drop|\.dropped)\(\s*[^,"]+,\s*"(\w+)"', "dropped."),
)


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    return either


def test_every_counter_in_the_source_is_declared():
    declared = {f"{group}.{kind}" for group, (_, kinds) in COUNTED.items() for kind in kinds}
    counted = {
        prefix + name
        for path in SOURCES
        if path.parent.name != "engine"  # which has counters of its own: test_mqtt_metrics.py
        for pattern, prefix in COUNTING
        for name in re.findall(pattern, path.read_text(encoding="utf-8"))
    }
    assert len(counted) > 20
    assert counted <= declared, counted - declared


def test_each_family_is_described_for_itself():
    assert len({told for told, _ in COUNTED.values()}) == len(COUNTED)


def test_a_time_on_a_bound_counts_below_it(api):
    measures = Measures(api.operations, lambda: 7)
    execution = api.send("lamp")
    api.clock.advance(BUCKETS[3])
    api.respond(execution, status="FAILED")
    assert [n for n in measures._verdicts if n] == [1]
    assert measures._verdicts[3] == 1
    measures._on_change(api.newest(), Change.CREATED)
    assert sum(measures._verdicts) == 1
    assert {"thingctl_connections"} <= {family.name for family in measures.collect()}


def test_a_worker_tells_nothing_of_mqtt_clients(api):
    names = {family.name for family in Measures(api.operations, None, api.clients).collect()}
    assert ("thingctl_mqtt_clients" in names) is (api.clients is not None)
