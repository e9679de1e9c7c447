from __future__ import annotations

import sys

import pytest

import mqtt_wire
from traffic_parts import PAYLOAD, Flow


def test_a_message_is_in_flight_until_all_have_it_and_it_is_acknowledged() -> None:
    flow = Flow("a/b", qos=1, copies=2)
    flow.window, flow.most = 2, 5
    assert flow.due().count(PAYLOAD) == 2
    flow.delivered, flow.acknowledged = 4, 0
    assert flow.due() == b""
    flow.acknowledged = 1
    assert flow.due().count(PAYLOAD) == 1
    flow.delivered, flow.acknowledged = 6, 3
    assert flow.due().count(PAYLOAD) == 2  # the last of five
    assert flow.due() == b""


def test_a_window_of_qos_0_is_one_write() -> None:
    flow = Flow("a/b", qos=0, copies=1)
    flow.window, flow.most = 3, sys.maxsize
    assert flow.due() == flow.packet * 3
    flow.delivered = 1
    assert flow.due() == flow.packet


def test_packet_ids_count_up_and_come_again_after_65535() -> None:
    flow = Flow("a/b", qos=1, copies=1)
    flow.window, flow.most, flow.sent, flow.delivered, flow.acknowledged = 3, sys.maxsize, 65533, 65533, 65533
    data = bytes(flow.due())
    ids = [data[at : at + 2] for at in range(flow.at, len(data), flow.size)]
    assert ids == [b"\xff\xfe", b"\xff\xff", b"\x00\x01"]


def test_messages_that_are_alike_are_taken_as_a_whole_and_acknowledged() -> None:
    flow = Flow("a/b", qos=1, copies=1)
    first, second = (mqtt_wire.publish("a/b", PAYLOAD, number) for number in (1, 770))
    assert flow.take(first + second) == b"\x40\x02\x00\x01\x40\x02\x03\x02"
    assert flow.take(b"\x40\x02\x00\x01\x40\x02\x03\x02") == b""
    assert (flow.delivered, flow.acknowledged) == (2, 2)


@pytest.mark.parametrize(
    "data",
    [b"\x40\x02\x00", b"\x40\x02\x00\x01\xd0\x00\x40\x02", mqtt_wire.publish("a/b", PAYLOAD[1:] + b"y")[:-1]],
)
def test_anything_else_is_taken_packet_by_packet(data: bytes) -> None:
    flow = Flow("a/b", qos=0, copies=1)
    assert flow.take(data) is None
    assert flow.take(mqtt_wire.publish("a/c", PAYLOAD)) is None
    assert (flow.delivered, flow.acknowledged) == (0, 0)
