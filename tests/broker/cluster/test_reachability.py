"""Which things are there, as far as one worker knows."""

from __future__ import annotations

import pytest

from thingctl_broker.cluster import reachability as module
from thingctl_broker.cluster.reachability import BELIEVED_SECONDS, RETRY_KNOWN_AWAY, RETRY_MAX, Reachability
from thingctl_broker.things.registry import ThingRegistry

NOW = 1000.0


@pytest.fixture
def things():
    registry = ThingRegistry()
    registry.know("lamp", 0.0)
    return registry


@pytest.fixture
def reach(things):
    return Reachability(things)


def test_whoever_nothing_is_known_of_may_be_there(reach):
    assert reach.may_be_there("lamp", NOW)
    assert reach.may_be_there("stranger", NOW)
    assert not reach.is_known_away("lamp")


def test_that_nobody_was_there_is_believed_for_a_while(reach):
    reach.nobody("lamp", NOW)
    assert not reach.may_be_there("lamp", NOW + BELIEVED_SECONDS - 0.1)
    assert reach.may_be_there("lamp", NOW + BELIEVED_SECONDS)


@pytest.mark.parametrize("later", [0.0, BELIEVED_SECONDS + 1])
@pytest.mark.parametrize("sign", ["arrived", "taken"])
def test_a_sign_of_life_says_once_that_something_may_wait(reach, sign, later):
    """However late: what has found nobody waits still."""
    reach.nobody("lamp", NOW)
    reach.may_be_there("lamp", NOW + later)
    assert getattr(reach, sign)("lamp")
    assert not getattr(reach, sign)("lamp")
    assert reach.may_be_there("lamp", NOW)


def test_who_is_said_to_have_gone_is_away_until_it_is_said_to_be_back(reach, things):
    things.connected("lamp", "c", 1.0)
    assert reach.may_be_there("lamp", NOW)
    things.disconnected("lamp", 2.0)
    assert reach.is_known_away("lamp")
    assert not reach.may_be_there("lamp", NOW)
    assert not reach.taken("lamp"), "the cluster may keep it for a session"
    assert not reach.may_be_there("lamp", NOW)
    things.connected("lamp", "c", 3.0)
    assert reach.may_be_there("lamp", NOW)


def test_who_answers_after_it_was_said_to_have_gone_is_there_until_it_is_not_found_or_said_anew(
    reach, things
):
    """The end of an earlier connection may be told late."""
    things.connected("lamp", "c", 1.0)
    things.disconnected("lamp", 2.0)
    assert reach.arrived("lamp")
    assert not reach.arrived("lamp"), "what waits has been offered"
    assert reach.may_be_there("lamp", NOW)
    reach.nobody("lamp", NOW)
    assert reach.is_known_away("lamp")
    reach.arrived("lamp")
    things.connected("lamp", "c", 3.0)
    things.disconnected("lamp", 4.0)
    assert reach.is_known_away("lamp")


def test_that_it_has_come_may_be_told_to_another_worker(reach, things):
    """The record of its presence is mirrored; nobody calls ``arrived`` here."""
    things.connected("lamp", "c", 1.0)
    reach.nobody("lamp", NOW)
    assert not reach.may_be_there("lamp", NOW), "it is said to be online, but was not found since"
    things.disconnected("lamp", 2.0)
    things.connected("lamp", "c", 3.0)
    assert reach.may_be_there("lamp", NOW)


def test_tries_become_rarer_with_age(reach, things):
    assert [reach.retry_in("lamp", age) for age in (0, 8, 40, 1000)] == [1.0, 2.0, 10.0, RETRY_MAX]
    things.connected("lamp", "c", 1.0)
    things.disconnected("lamp", 2.0)
    assert reach.retry_in("lamp", 8) == RETRY_KNOWN_AWAY


def test_what_is_remembered_is_bounded(reach, things, monkeypatch):
    monkeypatch.setattr(module, "KEYS_MAX", 10)
    for i in range(100):
        things.connected(f"t{i}", "c", 1.0)
        things.disconnected(f"t{i}", 2.0)
        reach.arrived(f"t{i}")
    assert len(reach._there_since) <= 10
    for i in range(100):
        reach.nobody(f"t{i}", NOW)
    assert len(reach._away) <= 10
    assert not reach.may_be_there("t99", NOW)
