"""The ring of changes: order, coalescing, bounds, and gaps that are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.commands.change_feed import ChangeFeed


def ids(changed):
    return [c.execution_id for c in changed]


def noted(*execution_ids, capacity=10):
    feed = ChangeFeed(capacity)
    for execution_id in execution_ids:
        feed.note(execution_id)
    return feed


def test_a_reader_gets_what_it_has_not_seen_in_order():
    feed = noted("a", "b", "c")
    assert ids(feed.since(0, 10)) == ["a", "b", "c"]
    assert ids(feed.since(feed.since(0, 1)[-1].position, 10)) == ["b", "c"]
    assert feed.since(feed.position, 10) == []


def test_what_has_changed_twice_is_told_once_where_it_changed_last():
    feed = noted("a", "b", "a")
    assert ids(feed.since(0, 10)) == ["b", "a"]
    assert len(feed) == 2


def test_the_ring_is_bounded_and_a_reader_that_fell_behind_is_told():
    feed = noted(*"abcdef", capacity=3)
    assert len(feed) == 3
    assert feed.since(2, 10) is None
    assert ids(feed.since(3, 10)) == ["d", "e", "f"]


def test_a_position_that_was_told_can_be_resumed_from():
    feed = noted("a", "b")
    assert feed.resume(1) == 1


def test_a_position_to_come_is_a_gap():
    assert noted("a", "b").resume(3) is None


def test_what_went_unnoted_is_a_gap():
    feed = noted("a", "b")
    told = feed.position
    feed.forget()
    assert feed.resume(told) is None
    assert feed.resume(feed.position) == feed.position
    assert feed.since(feed.position, 10) == []


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans())), st.integers(1, 4), st.integers(1, 3))
def test_a_reader_at_any_pace_ends_up_knowing_every_latest_change_or_of_the_gap(steps, capacity, limit):
    feed = ChangeFeed(capacity)
    position, seen, latest = 0, {}, {}
    for number, (execution_id, reads) in enumerate(steps):
        feed.note(execution_id)
        latest[execution_id] = number
        if reads:
            changed = feed.since(position, limit)
            if changed is None:
                position, seen = feed.position, dict(latest)
            for change in changed or ():
                assert change.position > position
                position = change.position
                seen[change.execution_id] = latest[change.execution_id]
    while (changed := feed.since(position, limit)) != []:
        if changed is None:
            position, seen = feed.position, dict(latest)
            continue
        position = changed[-1].position
        seen |= {c.execution_id: latest[c.execution_id] for c in changed}
    assert seen == latest
    assert len(feed) <= capacity
