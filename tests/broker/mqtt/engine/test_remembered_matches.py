"""What is remembered of topics: until a filter changes that could match them, and within bounds."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import product

from thingctl_broker.mqtt.engine import remembered_matches
from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions, SubscriptionTree


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(remembered_matches, "REMEMBERED", 50)
    tree = SubscriptionTree()
    tree.add("#", "s", SubscriptionOptions(0))
    for i in range(500):
        assert len(tree.match(f"a/{i}")) == 1
        tree.add(f"{i}/+", "s", SubscriptionOptions(0))
    assert len(tree._remembered.topics) <= 50
    assert len(tree._remembered._changed) <= 50


def test_what_is_remembered_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(remembered_matches, "REMEMBERED_BYTES", 10_000)
    tree = SubscriptionTree()
    for _ in range(30):
        tree.match("a" * 9000)
        tree.match("b" * 9000)
    assert sum(len(topic) for topic in tree._remembered.topics) <= 10_000


def bytes_kept(fill):
    """What stays allocated of what ``fill`` returns."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = fill()
        gc.collect()
        return tracemalloc.get_traced_memory()[0], kept
    finally:
        tracemalloc.stop()


def test_what_is_remembered_of_groups_and_identifiers_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(remembered_matches, "REMEMBERED_BYTES", 500_000)
    tree = SubscriptionTree()
    for i in range(500):
        tree.add("$share/g/#", f"s{i}", SubscriptionOptions(0))
    for levels in product("a+", repeat=8):
        tree.add("/".join(levels), "s", SubscriptionOptions(0, no_local=levels[0] == "+", subscription_id=7))
    tree.match("a/" * 7 + "a")

    def ask():
        for i in range(1000):
            tree.match(f"b/{i}")
            tree.match("a/" * 7 + f"{i}")
            tree.match("ü" * i)

    assert bytes_kept(ask)[0] < 1_000_000


def test_what_is_known_of_changed_filters_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(remembered_matches, "REMEMBERED_BYTES", 500_000)
    tree = SubscriptionTree()

    def come_and_go():
        for i in range(100):
            tree.add("x" * 60_000 + f"{i}/+", "s", SubscriptionOptions(0))
            tree.remove("x" * 60_000 + f"{i}/+", "s")

    assert bytes_kept(come_and_go)[0] < 1_000_000


def test_a_new_exact_filter_leaves_what_is_remembered_of_other_topics():
    tree = SubscriptionTree()
    tree.add("a", "s", SubscriptionOptions(0))
    before = tree.match("a")
    tree.add("b", "s", SubscriptionOptions(0))
    tree.add("c/+", "s", SubscriptionOptions(0))
    assert tree.match("a") is before
