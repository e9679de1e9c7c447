"""A dictionary that may change while somebody goes through it, as amqtt's subscriptions do."""

from __future__ import annotations

from support.brokers import front_broker
from thingctl_broker.mqtt.amqtt.patches import SnapshotDict


def test_what_comes_and_goes_on_the_way_does_no_harm():
    steady = SnapshotDict(a=1, b=2)
    for key in steady:
        steady[key * 2] = 3
    for key, value in steady.items():
        assert steady.pop(key) == value
    assert steady == {}


async def test_amqtts_subscriptions_are_one():
    async with front_broker() as running:
        assert isinstance(running.broker.subscriptions, SnapshotDict)
