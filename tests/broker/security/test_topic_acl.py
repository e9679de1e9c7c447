"""Ordinary topics: what a thing may."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.security.topic_acl import Acl, AclSettings, _covers, check_rule
from thingctl_protocol.topics import matches

OWN = Acl(AclSettings(), "lamp")


@pytest.mark.parametrize("topic", ["things/lamp", "things/lamp/a", "things/lamp/a/b", "things/lamp//"])
def test_a_thing_may_use_its_own_prefix(topic):
    assert OWN.may_publish(topic)
    assert OWN.may_subscribe(topic)
    assert OWN.may_subscribe(f"{topic}/+")
    assert OWN.may_subscribe(f"{topic}/#")
    assert OWN.may_receive(topic)


@pytest.mark.parametrize(
    "topic",
    ["things", "things/lock/a", "things/lampx", "things/lam", "x/things/lamp", "/things/lamp", "things//lamp",
     "THINGS/lamp", "things/lamp2/a", "lamp", "$SYS/broker/version", "$share/g/things/lamp/a", "$emqx/x", ""],
)  # fmt: skip
def test_a_thing_may_not_leave_it(topic):
    assert not OWN.may_publish(topic)
    assert not OWN.may_subscribe(topic)
    assert not OWN.may_receive(topic)


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+/#", "things/#", "things/+", "things/+/a", "+/lamp/#", "things/+/#", "/#", "$SYS/#", "+"],
)
def test_a_wildcard_does_not_reach_others(topic_filter):
    assert not OWN.may_subscribe(topic_filter)


def test_rules_name_the_thing_where_they_like():
    acl = Acl(AclSettings(("site/+/{thing}/up", "alive-{thing}"), ("all/#", "site/+/{thing}/down")), "lamp")
    assert acl.may_publish("site/7/lamp/up")
    assert acl.may_publish("alive-lamp")
    assert not acl.may_publish("site/7/lock/up")
    assert not acl.may_publish("all/x")
    assert acl.may_subscribe("all/+/x")
    assert acl.may_subscribe("all")
    assert acl.may_subscribe("site/+/lamp/down")
    assert not acl.may_subscribe("site/+/+/down")
    assert not acl.may_subscribe("site/#")
    assert acl.may_receive("all/x")


def test_without_rules_nothing_may():
    acl = Acl(AclSettings((), ()), "lamp")
    assert not acl.may_publish("things/lamp/a")
    assert not acl.may_subscribe("things/lamp/a")


def test_even_a_rule_for_everything_leaves_dollar_topics_out():
    acl = Acl(AclSettings(("#",), ("#",)), "lamp")
    assert acl.may_publish("a")
    assert acl.may_subscribe("#")
    assert not acl.may_publish("$SYS/x")
    assert not acl.may_subscribe("$SYS/#")
    assert not acl.may_receive("$SYS/x")


@pytest.mark.parametrize("rule", ["", "a/#/b", "a/b+", "{thing", "{name}/#", "$SYS/#", "{thing}}", "a\0"])
def test_a_rule_that_is_none_is_named(rule):
    assert repr(rule) in check_rule(rule)


@pytest.mark.parametrize("rule", ["#", "{thing}", "a/{thing}/#", "+/{thing}-x"])
def test_a_rule_that_is_one(rule):
    assert check_rule(rule) is None


LEVELS = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=4)
FILTERS = st.builds(lambda levels, tail: levels + ["#"] * tail, LEVELS, st.booleans())
TOPICS = [list(levels) for n in range(1, 6) for levels in itertools.product("abc", repeat=n)]


@given(FILTERS, FILTERS)
def test_to_cover_is_to_match_all_that_the_other_matches(rule, wanted):
    """``c`` stands for every name that neither says; five levels are more than any of them has."""
    reached = [topic for topic in TOPICS if matches(wanted, topic)]
    assert _covers(rule, wanted) == all(matches(rule, topic) for topic in reached)
