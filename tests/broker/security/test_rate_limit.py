"""Token buckets: no more than the rate allows, and no less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.security.rate_limit import ONCE_A_MINUTE, Rate, TokenBucket, TokenBuckets

rates = st.builds(Rate, st.floats(0.01, 1000.0), st.integers(1, 50))
steps = st.lists(st.floats(0.0, 2.0) | st.just(0.0), max_size=200)


def test_a_burst_at_once_and_then_the_rate():
    buckets = TokenBuckets(Rate(2.0, 5))
    assert [buckets.take_token("a", 10.0) for _ in range(5)] == [0.0] * 5
    assert buckets.take_token("a", 10.0) == 0.5
    assert buckets.take_token("a", 10.25) == 0.25
    assert buckets.take_token("a", 10.5) == 0.0
    assert buckets.take_token("a", 10.5) == 0.5
    assert buckets.take_token("b", 10.5) == 0.0  # the others have their own
    assert [buckets.take_token("a", 1e6) for _ in range(6)] == [0.0] * 5 + [0.5]  # never more than the burst


def test_looking_takes_nothing():
    buckets = TokenBuckets(Rate(1.0, 2))
    assert [buckets.seconds_until_token("a", 0.0) for _ in range(9)] == [0.0] * 9
    assert len(buckets) == 0
    buckets.take_token("a", 0.0)
    assert buckets.seconds_until_token("a", 0.0) == 0.0
    buckets.take_token("a", 0.0)
    assert buckets.seconds_until_token("a", 0.25) == 0.75
    assert buckets.take_token("a", 0.25) == 0.75


@given(rates, steps)
def test_never_more_than_burst_and_rate_allow_in_any_span(rate, steps):
    buckets, now, taken = TokenBuckets(rate), 1000.0, []
    for step in steps:
        now += step
        if not buckets.take_token("a", now):
            taken.append(now)
    for i, since in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= rate.burst + (taken[j] - since) * rate.per_second + 1e-6


@given(rates, steps)
def test_who_is_refused_is_told_when_to_come_back_and_not_too_late(rate, steps):
    buckets, now = TokenBuckets(rate), 1000.0
    for step in steps:
        now += step
        wait = buckets.take_token("a", now)
        assert wait <= 1.0 / rate.per_second
        if wait:
            assert buckets.seconds_until_token("a", now) == pytest.approx(wait)
            assert buckets.seconds_until_token("a", now + wait * 0.9) > 0.0
            now += wait + 1e-6 / rate.per_second + 1e-9
            assert buckets.take_token("a", now) == 0.0


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0.0, 0.2)), max_size=300))
def test_memory_is_bounded_whoever_comes(visits):
    buckets, now = TokenBuckets(Rate(1.0, 3), keys_max=10), 0.0
    for key, step in visits:
        now += step
        buckets.take_token(str(key), now)
        assert len(buckets) <= 10


def test_the_quiet_are_forgotten_first_and_those_who_have_nothing_left_last():
    buckets = TokenBuckets(Rate(1.0, 3), keys_max=10)
    for _ in range(3):
        buckets.take_token("greedy", 0.0)
    for i in range(8):
        buckets.take_token(f"once-{i}", 0.0)
    buckets.take_token("late", 1.0)  # by now whoever came once has a full bucket again
    buckets.take_token("one more", 1.0)
    assert len(buckets) == 3
    for i in range(100):
        buckets.take_token(f"flood-{i}", 1.0)
    assert [buckets.take_token("greedy", 1.0) for _ in range(2)] == [0.0, 1.0]  # it was not forgotten


def test_what_was_taken_can_be_put_back_and_no_more():
    buckets = TokenBuckets(Rate(1.0, 2))
    buckets.put_back("a")  # nobody's
    assert [buckets.take_token("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    buckets.put_back("a")
    assert [buckets.take_token("a", 0.0) for _ in range(2)] == [0.0, 1.0]
    for _ in range(5):
        buckets.put_back("a")
    assert [buckets.take_token("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_a_line_passes_once_a_minute():
    limit = TokenBuckets(ONCE_A_MINUTE)
    assert limit.allows("a", 0.0)
    assert not limit.allows("a", 59.9)
    assert limit.allows("b", 59.9)
    assert limit.allows("a", 60.0)
    assert not limit.allows("a", 119.9)


def test_a_bucket_may_begin_with_less_than_the_burst():
    bucket = TokenBucket(Rate(10.0, 5.0), 0.0, left=1.0)
    assert bucket.refill(0.0) == 1.0
    assert bucket.refill(0.2) == 3.0
    bucket.add_tokens(-3)
    assert bucket.seconds_until_token(0.2) == pytest.approx(0.1)
    assert bucket.refill(100.0) == 5.0
