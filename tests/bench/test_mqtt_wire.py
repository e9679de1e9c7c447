from __future__ import annotations

import pytest

import mqtt_wire


def taken_apart(data: bytes) -> list[tuple[int, bytes]]:
    return [(first, data[body:end]) for first, body, end in mqtt_wire.packets(data)]


def test_whole_packets_are_found_and_the_beginning_of_the_next_is_left() -> None:
    data = mqtt_wire.publish("a/b", b"x" * 300, 7) + mqtt_wire.puback(b"\x00\x09")
    found = taken_apart(data + b"\x32\x05\x00")
    assert [first for first, _ in found] == [0x32, 0x40]
    assert found[0][1] == b"\x00\x03a/b\x00\x07" + b"x" * 300
    assert found[1][1] == b"\x00\x09"


def test_no_prefix_of_a_packet_is_taken_for_a_packet() -> None:
    packet = mqtt_wire.publish("a/b", b"x" * 300)
    for size in range(len(packet)):
        assert taken_apart(packet[:size]) == []
    assert len(taken_apart(packet)) == 1


def test_a_remaining_length_of_five_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="four bytes"):
        taken_apart(b"\x30\xff\xff\xff\xff\x01")


@pytest.mark.parametrize(("number", "digits"), [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3)])
def test_lengths_take_the_digits_the_standard_says(number: int, digits: int) -> None:
    assert len(mqtt_wire.varint(number)) == digits
