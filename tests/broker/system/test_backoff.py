"""Waits double and are bounded, however many failures there were."""

from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.system.backoff import ExponentialBackoff

BACKOFFS = st.builds(ExponentialBackoff, st.floats(0.001, 10.0), st.floats(10.0, 1e5))


@given(BACKOFFS, st.integers(1, 10**9))
def test_the_ceiling_doubles_up_to_the_longest(backoff, failures):
    ceiling = backoff.ceiling(failures)
    assert backoff.ceiling(1) == backoff.first
    assert backoff.first <= ceiling <= backoff.longest
    assert backoff.ceiling(failures + 1) == min(backoff.longest, 2 * ceiling)


@given(BACKOFFS, st.integers(1, 10**9))
def test_a_delay_is_between_half_and_the_whole(backoff, failures):
    ceiling = backoff.ceiling(failures)
    assert backoff.delay(failures, draw=lambda low, high: low) == ceiling / 2
    assert backoff.delay(failures, draw=lambda low, high: high) == ceiling
    assert ceiling / 2 <= backoff.delay(failures) <= ceiling
