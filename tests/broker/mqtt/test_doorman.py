"""One address may not take the room of all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.mqtt import doorman as doorman_module
from thingctl_broker.mqtt.doorman import Doorman, Turned
from thingctl_broker.mqtt.limits import FrontLimits

LIMITS = FrontLimits(connections_per_address=3, connection_rate=2.0, connection_burst=4.0)


def test_an_address_has_so_many_connections_and_no_more():
    doorman = Doorman(LIMITS)
    assert [doorman.turns_away("192.0.2.1", 0.0) for _ in range(4)] == [None, None, None, Turned.TOO_MANY]
    assert doorman.turns_away("192.0.2.2", 0.0) is None
    doorman.left("192.0.2.1")
    assert doorman.turns_away("192.0.2.1", 0.0) is None


def test_it_opens_them_at_a_rate_after_a_burst():
    doorman = Doorman(LIMITS)

    def come_and_go(now):
        turned = doorman.turns_away("2001:db8::1", now)
        if turned is None:
            doorman.left("2001:db8::1")
        return turned

    assert [come_and_go(0.0) for _ in range(5)] == [None] * 4 + [Turned.TOO_FAST]
    assert come_and_go(0.49) is Turned.TOO_FAST
    assert come_and_go(0.5) is None
    assert [come_and_go(1000.0) for _ in range(5)] == [None] * 4 + [Turned.TOO_FAST]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", ""])
def test_loopback_is_exempt(host):
    doorman = Doorman(LIMITS)
    assert {doorman.turns_away(host, 0.0) for _ in range(100)} == {None}


def test_it_remembers_a_bounded_number_of_addresses(monkeypatch):
    monkeypatch.setattr(doorman_module, "ADDRESSES_MAX", 10)
    doorman = Doorman(LIMITS)
    for i in range(100):
        assert doorman.turns_away(f"192.0.2.{i}", float(10 * i)) is None
        if i != 0:
            doorman.left(f"192.0.2.{i}")
    assert len(doorman._addresses) <= 11
    assert "192.0.2.0" in doorman._addresses  # it is still connected


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60))
def test_no_sequence_beats_the_limits(steps):
    doorman, now, open_, let_in = Doorman(LIMITS), 0.0, 0, []
    for wait, leaves in steps:
        now += wait
        if leaves and open_:
            doorman.left("192.0.2.1")
            open_ -= 1
        elif doorman.turns_away("192.0.2.1", now) is None:
            open_ += 1
            let_in.append(now)
        assert 0 <= open_ <= 3
    for start in range(len(let_in)):
        for end in range(start, len(let_in)):
            assert end - start + 1 <= 4 + 2 * (let_in[end] - let_in[start]) + 1e-6
