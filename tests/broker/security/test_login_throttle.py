"""Wrong tries: bounded for a name from an address, and for an address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.security.login_throttle import OF_ADDRESS, OF_NAME, LoginThrottle
from thingctl_broker.security.rate_limit import Rate


def exhausted(limit, address, name, now=0.0):
    """Try wrong ones until no more may be; return how many that were."""
    tried = 0
    while limit.allows(address, name, now):
        limit.failed(address, name, now)
        tried += 1
        assert tried < 1000
    return tried


def test_a_name_that_fails_too_often_has_to_wait_and_the_others_from_there_do_not():
    limit = LoginThrottle()
    assert exhausted(limit, "192.0.2.1", "lamp") == OF_NAME.burst
    assert limit.allows("192.0.2.1", "lock", 0.0)
    assert limit.allows("192.0.2.2", "lamp", 0.0)
    assert not limit.allows("192.0.2.1", "lamp", 1.9)
    assert limit.allows("192.0.2.1", "lamp", 2.0)


def test_who_tries_many_names_has_to_wait_whatever_the_name():
    limit = LoginThrottle()
    tried = sum(exhausted(limit, "192.0.2.1", f"t{i}") for i in range(100))
    assert tried == OF_ADDRESS.burst
    assert not limit.allows("192.0.2.1", "lamp", 0.0)
    assert limit.allows("192.0.2.2", "lamp", 0.0)
    assert limit.allows("192.0.2.1", "lamp", 0.2)


def test_one_misconfigured_device_never_uses_up_what_its_site_has():
    limit = LoginThrottle()
    for tenth in range(36_000):  # ten times a second for an hour
        now = tenth / 10
        if limit.allows("192.0.2.1", "lamp", now):
            limit.failed("192.0.2.1", "lamp", now)
        assert limit.allows("192.0.2.1", "lock", now)


def test_an_ipv6_host_has_a_whole_network():
    limit = LoginThrottle(of_name=Rate(0.5, 1))
    exhausted(limit, "2001:db8::1", "lamp")
    assert not limit.allows("2001:db8::2", "lamp", 0.0)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_proxy_on_this_machine_does_not_lock_out_those_behind_it(address):
    limit = LoginThrottle()
    for name in range(200):
        exhausted(limit, address, f"t{name}")
    assert limit.allows(address, "lamp", 0.0)
    assert not limit.allows(address, "t7", 0.0)  # guessing one name stays slow


def test_long_names_cost_no_more_memory_than_short_ones():
    limit = LoginThrottle()
    exhausted(limit, "192.0.2.1", "x" * 50_000)
    assert max(map(len, limit._names._buckets)) < 200


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("mno"), st.floats(0, 30)), max_size=300))
def test_no_more_fail_than_the_rates_let(tries):
    limit = LoginThrottle(Rate(0.5, 3), Rate(1.0, 5))
    now, began, failed = 0.0, {}, {}
    for address, name, wait in tries:
        now += wait
        for key in (address, (address, name)):
            began.setdefault(key, now)
        if limit.allows(address, name, now):
            limit.failed(address, name, now)
            for key, (rate, burst) in ((address, (1.0, 5)), ((address, name), (0.5, 3))):
                failed[key] = failed.get(key, 0) + 1
                assert failed[key] <= burst + rate * (now - began[key]) + 1e-6
