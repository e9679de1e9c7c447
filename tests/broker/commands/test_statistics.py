"""The last hour: what falls into which minute, and percentiles within a twentieth or so."""

from __future__ import annotations

import random

import pytest

from thingctl_broker.commands.statistics import MINUTES, Histogram, HourlyStatistics, whole
from thingctl_broker.testing import service_with_fakes
from thingctl_protocol.statuses import Status

AT = 1_748_390_400.0


def test_what_happens_within_a_minute_is_counted_together():
    overview = HourlyStatistics()
    for second in (0, 30, 59.9, 60):
        overview.created(AT + second)
    overview.ended(Status.SUCCEEDED, AT + 61, 0.5)
    overview.ended(Status.TIMED_OUT, AT + 61, 60)
    *_, before, now = overview.minutes(AT + 70)
    assert (before.created, before.ended, before.latency) == (3, {}, None)
    assert (now.created, now.ended) == (1, {Status.SUCCEEDED: 1, Status.TIMED_OUT: 1})
    assert now.latency.count == 1, "a TTL says nothing about how fast a thing is"


def test_it_goes_back_one_hour():
    overview = HourlyStatistics()
    overview.created(AT)
    assert len(overview.minutes(AT)) == MINUTES
    assert whole(overview.minutes(AT + 59 * 60)).created == 1
    assert whole(overview.minutes(AT + 60 * 60)).created == 0


def test_it_stays_bounded_however_long_it_runs_and_wherever_the_clock_jumps():
    overview = HourlyStatistics()
    for minute in range(5000):
        overview.created(AT + 60 * minute)
    assert len(overview._minutes) <= 2 * MINUTES
    assert whole(overview.minutes(AT + 60 * 4999)).created == MINUTES
    for minute in range(500):
        overview.created(60.0 * minute)
    assert len(overview._minutes) <= 2 * MINUTES
    assert whole(overview.minutes(60.0 * 499)).created == MINUTES


def test_percentiles_are_right_to_a_twentieth():
    draw = random.Random(7)
    durations = sorted(draw.lognormvariate(-2, 2) for _ in range(10_000))
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    latency = histogram.latency()
    for share, found in ((0.5, latency.p50), (0.95, latency.p95), (0.99, latency.p99)):
        assert found == pytest.approx(durations[int(share * 10_000)], rel=0.06)


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 0.00005, 7 * 24 * 3600.0, 1e12])
def test_a_duration_beyond_the_slots_is_counted_in_the_outermost(seconds):
    histogram = Histogram()
    histogram.add(seconds)
    assert histogram.latency().count == 1


def test_a_restart_counts_what_it_brought_back():
    service, _link, clock = service_with_fakes(["lamp"])
    service.send("lamp", "turnOn", ttl=10)
    clock.advance(4000)
    service.expire()
    service.send("lamp", "turnOn", ttl=10)
    overview = HourlyStatistics()
    overview.seed(service.table, clock.unix())
    hour = whole(overview.minutes(clock.unix()))
    assert (hour.created, hour.ended) == (1, {Status.TIMED_OUT: 1})
