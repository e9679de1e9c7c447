"""``kill -9`` of the broker under load, again and again: nothing that anybody was told is lost or untrue.

The short form takes part in every run. ``THINGCTL_KILLS=100`` kills a hundred times, in some
minutes; ``THINGCTL_SEED`` chooses other moments.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from support.storm import blow

pytestmark = pytest.mark.system

KILLS = int(os.environ.get("THINGCTL_KILLS", "8"))
SEED = int(os.environ.get("THINGCTL_SEED", "1"))


def test_kill_9_under_load_loses_nothing(tmp_path):
    storm = asyncio.run(blow(tmp_path, KILLS, SEED))
    for what, count in sorted(storm.count.items()):
        print(f"{count:8,} {what}")
    assert storm.faults == []
    assert storm.count["kills"] == KILLS
    # It has been a storm: without these, the account above would say little.
    assert storm.count["201"] > 40 * KILLS
    assert storm.count["responses acknowledged"] > 20 * KILLS
    assert storm.count["requests sent again"] > 0
    assert storm.count["keyed commands sent again after a kill"] > 0
    assert storm.count["reads"] > 40 * KILLS
    assert "Traceback" not in (tmp_path / "log").read_text()
