"""The subscription tree: what a plain matcher says, whatever it remembers; and what it costs."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from thingctl_broker.mqtt.engine.subscription_tree import (
    SharedMatch,
    SubscriptionOptions,
    SubscriptionTree,
    split_share,
)
from thingctl_protocol.topics import matches

LEVELS = st.sampled_from(["a", "b", "", "$SYS", "c"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
PLAIN_FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(LEVELS | st.just("+"), max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)
FILTERS = PLAIN_FILTERS | st.builds(
    lambda group, f: f"$share/{group}/{f}", st.sampled_from("gh"), PLAIN_FILTERS
)
OPTIONS = st.builds(
    SubscriptionOptions, st.integers(0, 2), no_local=st.booleans(), subscription_id=st.integers(0, 3)
)
SUBSCRIBERS = st.sampled_from(["s1", "s2", "s3"])


class Tree(RuleBasedStateMachine):
    """A tree beside a dict of all subscriptions, which it must agree with after every change."""

    def __init__(self):
        super().__init__()
        self.tree = SubscriptionTree()
        self.model = {}
        self.asked = {"a", "a/b"}

    @rule(topic_filter=FILTERS, subscriber=SUBSCRIBERS, options=OPTIONS)
    def add(self, topic_filter, subscriber, options):
        before = self.model.get((topic_filter, subscriber))
        assert self.tree.add(topic_filter, subscriber, options) == before
        self.model[topic_filter, subscriber] = options

    @rule(topic_filter=FILTERS, subscriber=SUBSCRIBERS)
    def remove(self, topic_filter, subscriber):
        was = self.model.pop((topic_filter, subscriber), None) is not None
        assert self.tree.remove(topic_filter, subscriber) == was

    @rule(topic=TOPICS)
    def ask(self, topic):
        self.asked.add(topic)

    @invariant()
    def it_is_as_the_model_says(self):
        assert sorted(self.tree) == sorted((f, s, o) for (f, s), o in self.model.items())
        assert len(self.tree) == len(self.model)
        for topic in self.asked:
            self.check(topic)

    def check(self, topic):
        each, groups = {}, {}
        for (topic_filter, subscriber), options in self.model.items():
            group, plain = split_share(topic_filter)
            if not matches(plain.split("/"), topic.split("/")):
                continue
            if group:
                groups.setdefault((group, plain), {})[subscriber] = options
            else:
                each.setdefault(subscriber, []).append(options)
        found = self.tree.match(topic)
        ordinary = [match for match in found if not isinstance(match, SharedMatch)]
        shared = [dict(match.members) for match in found if isinstance(match, SharedMatch)]
        assert sorted(shared, key=repr) == sorted(groups.values(), key=repr)
        assert {match.subscriber for match in ordinary} == set(each)
        assert len(ordinary) == len(each)
        for match in ordinary:
            options = each[match.subscriber]
            assert match.qos == max(o.qos for o in options)
            assert Counter(match.subscription_ids) == Counter(
                o.subscription_id for o in options if o.subscription_id
            )
            foreign = [o for o in options if not o.no_local]
            assert match.is_own_other == (len(foreign) < len(options))
            if match.is_own_other:
                assert (match.own is None) == (not foreign)


Tree.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTree = Tree.TestCase


def test_a_member_of_a_group_that_comes_or_goes_leaves_what_is_remembered():
    tree = SubscriptionTree()
    tree.add("$share/g/#", "s1", SubscriptionOptions(0))
    (shared,) = before = tree.match("a")
    tree.add("$share/g/#", "s2", SubscriptionOptions(1))
    assert tree.match("a") is before
    assert shared.members == (("s1", SubscriptionOptions(0)), ("s2", SubscriptionOptions(1)))
    tree.remove("$share/g/#", "s1")
    assert tree.match("a") is before
    assert shared.members == (("s2", SubscriptionOptions(1)),)


def test_a_group_whose_last_member_leaves_during_a_delivery_still_has_it():
    tree = SubscriptionTree()
    tree.add("$share/g/#", "s1", SubscriptionOptions(0))
    (shared,) = tree.match("a")
    tree.remove("$share/g/#", "s1")
    assert shared.members == (("s1", SubscriptionOptions(0)),)
    assert tree.match("a") == ()


@pytest.mark.parametrize("topic_filter", ["a/" * 30_000, "+/" * 30_000 + "#"])
def test_a_filter_of_very_many_levels_is_one_like_any_other(topic_filter):
    tree = SubscriptionTree()
    tree.add(topic_filter, "s", SubscriptionOptions(1))
    assert len(tree.match("a/" * 30_000)) == 1
    assert tree.remove(topic_filter, "s")
    assert (list(tree), tree._root.children) == ([], {})


@given(PLAIN_FILTERS)
def test_nothing_is_left_of_a_filter_that_is_removed(topic_filter):
    tree = SubscriptionTree()
    tree.add(topic_filter, "s", SubscriptionOptions(0))
    tree.remove(topic_filter, "s")
    assert (tree._exact, tree._root.children, tree._root.rest) == ({}, {}, None)
