"""Packet identifiers of what is in flight: none twice, none that amqtt has, each free again when acknowledged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.mqtt.server.inflight import CANCEL, InFlight


def test_they_count_down_from_65535_and_begin_again():
    in_flight = InFlight()
    taken = [in_flight.add(str(i), None) for i in range(3)]
    assert taken == [65535, 65534, 65533]
    in_flight._last = 2
    assert [in_flight.add("x", None) for _ in range(2)] == [1, 65532]


def test_what_is_not_in_flight_is_nobodys():
    in_flight = InFlight()
    packet_id = in_flight.add(CANCEL, None)
    assert in_flight.acknowledged(packet_id) == CANCEL
    assert in_flight.acknowledged(packet_id) is None


@given(st.lists(st.integers(0, 40), max_size=200), st.sets(st.integers(65_400, 65_535)))
def test_it_is_a_map_of_distinct_identifiers(steps, amqtts):
    in_flight, model = InFlight(), {}
    for step in steps:
        if step < 25:
            packet_id = in_flight.add(f"e{step}", amqtts.__contains__)
            assert 1 <= packet_id <= 0xFFFF
            assert packet_id not in model
            assert packet_id not in amqtts
            model[packet_id] = f"e{step}"
        elif model:
            packet_id = sorted(model)[step % len(model)]
            assert in_flight.acknowledged(packet_id) == model.pop(packet_id)
        assert len(in_flight) == len(model)
        assert all(packet_id in in_flight for packet_id in model)
