"""Retained messages: what a plain matcher says, within their bounds."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.mqtt.engine.message import OVERHEAD_BYTES, Message
from thingctl_broker.mqtt.engine.retained_messages import RetainedMessages
from thingctl_protocol.topics import matches

LEVELS = st.sampled_from(["a", "b", "", "$SYS"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=3).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(LEVELS | st.just("+"), max_size=3),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@given(
    st.lists(st.tuples(TOPICS, st.integers(0, 9), st.none() | st.integers(1, 20)), max_size=20),
    FILTERS,
    st.integers(0, 20),
)
@pytest.mark.conforms("MQTT-3.3.1-6")
def test_a_filter_finds_what_it_matches_and_has_not_expired(steps, topic_filter, now):
    retained, model = RetainedMessages(100, 10**6), {}
    for topic, size, expires_at in steps:
        if size:
            assert retained.set(Message(topic, b"x" * size, retain=True, expires_at=expires_at))
            model[topic] = (b"x" * size, expires_at)
        else:
            assert retained.clear(topic) == (model.pop(topic, None) is not None)
    wanted = {
        topic: payload
        for topic, (payload, expires_at) in model.items()
        if matches(topic_filter.split("/"), topic.split("/")) and (expires_at is None or expires_at > now)
    }
    found = retained.match(topic_filter, now)
    assert {message.topic: message.payload for message in found} == wanted
    assert len(found) == len(wanted)
    assert len(retained) == len(model)
    gone = {topic for topic, (_, expires_at) in model.items() if expires_at is not None and expires_at <= now}
    assert set(retained.expire(now)) == gone
    assert retained.bytes == sum(
        len(topic.encode()) + len(payload) + OVERHEAD_BYTES
        for topic, (payload, _) in model.items()
        if topic not in gone
    )
    for topic in set(model) - gone:
        retained.clear(topic)
    assert (retained.bytes, len(retained), retained._root.children) == (0, 0, {})


def test_they_are_bounded_in_number_and_in_bytes():
    retained = RetainedMessages(2, 3 * OVERHEAD_BYTES)
    assert retained.set(Message("a", b"1"))
    assert retained.set(Message("b", b"1"))
    assert not retained.set(Message("c", b"1"))
    assert retained.set(Message("a", b"x" * 50))
    assert not retained.set(Message("b", b"x" * OVERHEAD_BYTES))
    assert {message.topic: len(message.payload) for message in retained.match("#", 0.0)} == {"a": 50, "b": 1}


def test_what_expires_is_not_piled_up_by_replacing():
    retained = RetainedMessages(10, 10**6)
    for i in range(10_000):
        retained.set(Message("a", b"%d" % i, expires_at=10.0**9))
    assert len(retained._expiring) < 5000
    assert retained.expire(10.0**9) == ["a"]


def test_the_levels_of_a_long_topic_count():
    """Each of them is an object of its own: 65,000 take 15 MB."""
    retained = RetainedMessages(1000, 64 * 1024 * 1024)
    tracemalloc.start()
    try:
        fitted = [retained.set(Message(f"{i}" + "/" * 60_000, b"x", retain=True)) for i in range(10)]
        assert tracemalloc.get_traced_memory()[0] < 80 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert fitted[0]
    assert not fitted[-1]
    for i in range(10):
        retained.clear(f"{i}" + "/" * 60_000)
    assert (retained.bytes, len(retained)) == (0, 0)


def test_the_brokers_figures_take_no_room_from_clients_and_need_none():
    retained = RetainedMessages(2, 4 * OVERHEAD_BYTES)
    figures = [Message(f"$SYS/broker/{i}", b"1", retain=True) for i in range(20)]
    assert all(retained.set(message) for message in figures)
    assert retained.bytes == 0
    assert all(retained.set(Message(topic, b"x", retain=True)) for topic in "ab")
    assert not retained.set(Message("c", b"x", retain=True))
    assert all(retained.set(message) for message in [*figures, Message("$SYS/broker/new", b"1", retain=True)])
    assert all(retained.clear(message.topic) for message in figures)
    assert not retained.set(Message("c", b"x", retain=True))
    assert retained.clear("a")
    assert retained.set(Message("c", b"x", retain=True))
