"""One address may not take the room of all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.security import connection_limits as module
from thingctl_broker.security.connection_limits import ConnectionLimiter, Rejection
from thingctl_broker.security.rate_limit import Rate
from thingctl_broker.system.addresses import Networks


def make_limiter():
    return ConnectionLimiter(3, Rate(2.0, 4))


def test_an_address_has_so_many_connections_and_no_more():
    limiter = make_limiter()
    assert [limiter.admit("192.0.2.1", 0.0) for _ in range(4)] == [None, None, None, Rejection.TOO_MANY]
    assert limiter.admit("192.0.2.2", 0.0) is None
    limiter.release("192.0.2.1")
    assert limiter.admit("192.0.2.1", 0.0) is None


def test_it_opens_them_at_a_rate_after_a_burst():
    limiter = make_limiter()

    def come_and_go(now):
        rejection = limiter.admit("2001:db8::1", now)
        if rejection is None:
            limiter.release("2001:db8::1")
        return rejection

    assert [come_and_go(0.0) for _ in range(5)] == [None] * 4 + [Rejection.TOO_FAST]
    assert come_and_go(0.49) is Rejection.TOO_FAST
    assert come_and_go(0.5) is None
    assert [come_and_go(1000.0) for _ in range(5)] == [None] * 4 + [Rejection.TOO_FAST]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", ""])
def test_loopback_is_exempt(host):
    limiter = make_limiter()
    assert {limiter.admit(host, 0.0) for _ in range(100)} == {None}


def test_named_proxies_are_exempt():
    limiter = ConnectionLimiter(3, Rate(2.0, 4), Networks(["192.0.2.0/24"]))
    assert {limiter.admit("192.0.2.1", 0.0) for _ in range(100)} == {None}
    limiter.release("192.0.2.1")
    assert [limiter.admit("198.51.100.1", 0.0) for _ in range(4)] == [None] * 3 + [Rejection.TOO_MANY]


def test_an_ipv6_network_is_one_address():
    limiter = make_limiter()
    hosts = [f"2001:db8::{i}" for i in range(1, 5)]
    assert [limiter.admit(host, 0.0) for host in hosts] == [None, None, None, Rejection.TOO_MANY]
    assert limiter.admit("2001:db8:0:1::1", 0.0) is None
    limiter.release(hosts[1])
    assert limiter.admit("2001:db8::ffff", 0.0) is None


def test_it_remembers_a_bounded_number_of_addresses(monkeypatch):
    monkeypatch.setattr(module, "ADDRESSES_MAX", 10)
    limiter = make_limiter()
    for i in range(100):
        assert limiter.admit(f"192.0.2.{i}", float(10 * i)) is None
        if i != 0:
            limiter.release(f"192.0.2.{i}")
    assert len(limiter._opened) <= 10
    assert dict(limiter._open) == {"192.0.2.0": 1}  # it is still connected


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60))
def test_no_sequence_beats_the_limits(steps):
    limiter, now, open_, let_in = make_limiter(), 0.0, 0, []
    for wait, leaves in steps:
        now += wait
        if leaves and open_:
            limiter.release("192.0.2.1")
            open_ -= 1
        elif limiter.admit("192.0.2.1", now) is None:
            open_ += 1
            let_in.append(now)
        assert 0 <= open_ <= 3
    for start in range(len(let_in)):
        for end in range(start, len(let_in)):
            assert end - start + 1 <= 4 + 2 * (let_in[end] - let_in[start]) + 1e-6
