from __future__ import annotations

import pytest

from support.fleet import Fleet


@pytest.fixture
async def fleet():
    """Two workers, ``one`` and ``two``, that know the things ``lamp`` and ``lock``."""
    fleet = Fleet()
    await fleet.member("one")
    await fleet.member("two")
    await fleet.add_things("lamp", "lock")
    yield fleet
    await fleet.stop()


@pytest.fixture
def one(fleet):
    return fleet.members[0]


@pytest.fixture
def two(fleet):
    return fleet.members[1]
