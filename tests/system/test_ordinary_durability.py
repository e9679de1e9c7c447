"""``kill -9`` under ordinary QoS 1 and 2 messages: nothing acknowledged is lost, doubled or out of order.

The short form takes part in every run. ``THINGCTL_KILLS=100`` kills a hundred times; ``THINGCTL_SEED``
chooses other moments.
"""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest

from support.needs import missing
from support.ordinary_storm import KillableMosquitto, blow_ordinary
from support.storm import BrokerProcess

pytestmark = pytest.mark.system

KILLS = int(os.environ.get("THINGCTL_KILLS", "8"))
SEED = int(os.environ.get("THINGCTL_SEED", "1"))


def test_kill_9_under_ordinary_messages_loses_doubles_and_swaps_nothing(tmp_path):
    broker = BrokerProcess(tmp_path)
    try:
        storm = asyncio.run(blow_ordinary(broker, KILLS, SEED))
    finally:
        broker.end()
    received = sum(reader.count() for reader in storm.subscribers)
    print(f"{storm.acknowledged} acknowledged, {storm.sent_again} sent again, {received} received")
    assert storm.faults() == []
    # It has been a storm.
    assert storm.acknowledged > 20 * KILLS
    assert storm.sent_again > 0
    assert received > 40 * KILLS
    assert "Traceback" not in broker.said()


def test_the_account_sees_a_broker_that_loses(tmp_path):
    if shutil.which("mosquitto") is None:
        missing("mosquitto is not installed")
    broker = KillableMosquitto(tmp_path)
    try:
        storm = asyncio.run(blow_ordinary(broker, 2, SEED))
    finally:
        broker.kill()
    assert any("lost" in fault for fault in storm.faults())
