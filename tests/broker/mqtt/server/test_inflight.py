"""Packet identifiers of requests in flight: none twice, none of the engine's, each free when acknowledged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.mqtt.engine.outbox import LAST_PACKET_ID
from thingctl_broker.mqtt.server.inflight import CANCEL, InFlight


def test_they_are_the_upper_half_and_begin_again():
    in_flight = InFlight()
    taken = [in_flight.add(str(i)) for i in range(3)]
    assert taken == [LAST_PACKET_ID + 1, LAST_PACKET_ID + 2, LAST_PACKET_ID + 3]
    in_flight._last = 65_534
    assert [in_flight.add("x") for _ in range(2)] == [65_535, LAST_PACKET_ID + 4]


def test_what_is_not_in_flight_is_nobodys():
    in_flight = InFlight()
    packet_id = in_flight.add(CANCEL)
    assert in_flight.acknowledged(packet_id) == CANCEL
    assert in_flight.acknowledged(packet_id) is None


@given(st.lists(st.integers(0, 40), max_size=200))
def test_it_is_a_map_of_distinct_identifiers(steps):
    in_flight, model = InFlight(), {}
    for step in steps:
        if step < 25:
            packet_id = in_flight.add(f"e{step}")
            assert LAST_PACKET_ID < packet_id <= 0xFFFF
            assert packet_id not in model
            model[packet_id] = f"e{step}"
        elif model:
            packet_id = sorted(model)[step % len(model)]
            assert in_flight.acknowledged(packet_id) == model.pop(packet_id)
        assert len(in_flight) == len(model)
        assert all(packet_id in in_flight for packet_id in model)
