"""Outcomes: equal executions are counted together, and their number is bounded."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_support import make_execution
from thingctl_broker.commands.outcomes import (
    EXAMPLES_MAX,
    REASONS_MAX,
    RESULT_BYTES,
    RESULTS_MAX,
    Tally,
    combine,
    count_statuses,
    tally,
)
from thingctl_protocol.messages import StatusReason
from thingctl_protocol.statuses import Status


def many(status, count, reason="", result=None, first=1):
    return [Tally(status, reason, result, 1, (f"thing-{i:03}",)) for i in range(first, first + count)]


def seen(outcomes):
    return [
        (one.count, one.status.value, one.reason_code, bytes(one.result or b""), one.examples, one.more)
        for one in outcomes
    ]


def test_equal_ones_are_together_the_most_frequent_first():
    tallies = (
        many(Status.SUCCEEDED, 497)
        + many(Status.FAILED, 2, "VALVE", first=498)
        + many(Status.FAILED, 1, "NO_DISK", first=500)
    )
    random.Random(3).shuffle(tallies)
    assert seen(combine(tallies)) == [
        (497, "SUCCEEDED", "", b"", ["thing-001", "thing-002", "thing-003"], True),
        (2, "FAILED", "VALVE", b"", ["thing-498", "thing-499"], False),
        (1, "FAILED", "NO_DISK", b"", ["thing-500"], False),
    ]


def test_a_thing_is_named_once():
    (one,) = combine(many(Status.FAILED, 2) + many(Status.FAILED, 2))
    assert (one.count, one.examples, one.more) == (4, ["thing-001", "thing-002"], False)


@pytest.mark.parametrize("count", [EXAMPLES_MAX, EXAMPLES_MAX + 1])
def test_more_says_that_there_are_others(count):
    (one,) = combine(many(Status.FAILED, count))
    assert (len(one.examples), one.more) == (EXAMPLES_MAX, count > EXAMPLES_MAX)


def test_results_are_told_apart_while_they_are_few():
    few = [
        one for i in range(RESULTS_MAX) for one in many(Status.SUCCEEDED, 2, result=b"%d" % i, first=10 * i)
    ]
    assert [one.count for one in combine(few)] == [2] * RESULTS_MAX
    (one,) = combine(few + many(Status.SUCCEEDED, 1, result=b"99", first=999))
    assert (one.count, one.result) == (2 * RESULTS_MAX + 1, None)


@pytest.mark.parametrize(("length", "is_shown"), [(RESULT_BYTES, True), (RESULT_BYTES + 1, False)])
def test_a_long_result_is_not_shown(length, is_shown):
    (one,) = combine(many(Status.SUCCEEDED, 2, result=b"1" * length))
    assert (one.result is not None) == is_shown


def test_rare_reasons_beyond_the_bound_count_as_none():
    tallies = [
        one for i in range(REASONS_MAX + 5) for one in many(Status.FAILED, 1 + (i < 9), f"R{i:02}", first=i)
    ]
    codes = {one.reason_code: one.count for one in combine(tallies)}
    assert codes == {f"R{i:02}": 2 for i in range(9)} | {"": REASONS_MAX + 5 - 9}


def test_an_execution_is_tallied_with_its_reason():
    execution = make_execution(thing="lamp")
    assert tally(execution) == Tally(Status.SENT, "", None, 1, ("lamp",))
    execution.reason, execution.result = StatusReason("VALVE", "it is stuck"), b"1"
    assert tally(execution)[1:3] == ("VALVE", b"1")


def test_what_has_no_value_is_left_out():
    (one,) = combine(many(Status.SUCCEEDED, 1))
    assert msgspec.json.encode(one) == b'{"status":"SUCCEEDED","count":1,"examples":["thing-001"]}'


TALLIES = st.lists(
    st.builds(
        lambda status, reason, result, things: Tally(
            status, reason, result, len(things), tuple(sorted(things))
        ),
        st.sampled_from(Status),
        st.text("AB\0", max_size=2) | st.text(max_size=2),
        st.none() | st.binary(min_size=1, max_size=2) | st.just(b"1" * (RESULT_BYTES + 1)),
        st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=5),
    ),
    max_size=60,
)


@given(TALLIES, st.randoms())
def test_whatever_there_is_each_execution_counts_once(tallies, draw):
    outcomes = combine(tallies)
    expected = Counter()
    for one in tallies:
        expected[one.status] += one.number
    assert count_statuses(outcomes) == expected
    keys = [
        (one.status, one.reason_code, bytes(one.result) if one.result is not None else None)
        for one in outcomes
    ]
    assert len(set(keys)) == len(keys) <= len(Status) * REASONS_MAX * RESULTS_MAX
    for one in outcomes:
        assert 1 <= len(one.examples) <= min(EXAMPLES_MAX, one.count)
        assert one.examples == sorted(set(one.examples))
    shuffled = draw.sample(tallies, len(tallies))
    assert seen(combine(shuffled)) == seen(outcomes)


@given(TALLIES)
def test_it_makes_no_difference_who_counts_first(tallies):
    """A database counts equal rows; this process counts executions one by one."""
    singly = [Tally(*one[:3], 1, (thing,)) for one in tallies for thing in one.things]
    assert seen(combine(singly)) == seen(combine(tallies))
