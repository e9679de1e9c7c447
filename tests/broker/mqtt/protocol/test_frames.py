"""Framing: however the bytes are cut, the packets are the same, and nothing grows."""

from __future__ import annotations

import time
import tracemalloc
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.mqtt_samples import encoded
from support.pieces import cut
from thingctl_broker.mqtt.protocol.fields import encode_length
from thingctl_broker.mqtt.protocol.frames import FrameScanner, MalformedPacket, PacketTooLarge

LIMIT = 1024 * 1024


def scan(chunks: list[bytes], limit: int = LIMIT) -> list[tuple[int, bytes, int]]:
    scanner = FrameScanner(limit)
    return [tuple(frame) for chunk in chunks for frame in scanner.feed(chunk)]


@given(st.lists(encoded, min_size=1, max_size=8), st.lists(st.integers(0, 5000), max_size=12))
@pytest.mark.conforms("MQTT-6.0.0-2", "MQTT5-6.0.0-2")
def test_any_cut_of_any_packets_gives_the_same_packets(packets, places):
    stream = b"".join(packets)
    whole = scan([stream])
    assert [packet for _, packet, _ in whole] == packets
    assert scan(list(cut(stream, places))) == whole
    assert scan([bytes([byte]) for byte in stream]) == whole


@given(encoded)
def test_first_and_start_are_the_type_byte_and_the_end_of_the_fixed_header(packet):
    ((first, _, start),) = scan([packet])
    assert first == packet[0]
    assert start == 1 + len(encode_length(len(packet) - start))


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
def test_every_size_of_the_length_field_is_read_as_it_is_written(length):
    header = b"\x30" + encode_length(length)
    scanner = FrameScanner(len(header) + length - 1)
    with pytest.raises(PacketTooLarge) as fault:
        list(scanner.feed(header))
    assert str(len(header) + length) in fault.value.text


def test_a_length_need_not_be_written_in_the_fewest_bytes():
    assert scan([b"\xc0\x80\x80\x80\x00\xc0\x00"]) == [
        (0xC0, b"\xc0\x80\x80\x80\x00", 5),
        (0xC0, b"\xc0\x00", 2),
    ]


@pytest.mark.parametrize("apart", [False, True])
def test_a_length_of_five_bytes_is_malformed_after_the_packets_before_it(apart):
    stream = b"\xc0\x00\x30\xff\xff\xff\xff\x01"
    scanner, seen = FrameScanner(LIMIT), []

    def take_all() -> None:
        for chunk in [bytes([b]) for b in stream] if apart else [stream]:
            seen.extend(map(itemgetter(1), scanner.feed(chunk)))

    with pytest.raises(MalformedPacket) as fault:
        take_all()
    assert fault.value.rule == "section 2.2.3"
    assert seen == [b"\xc0\x00"]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("size", "passes"), [(64, True), (65, False)])
def test_the_limit_counts_the_whole_packet_and_holds_before_anything_is_buffered(size, passes, apart):
    packet = b"\x30" + encode_length(size - 2) + b"x" * (size - 2)
    scanner, whole = FrameScanner(64), 0
    try:
        for chunk in [bytes([b]) for b in packet] if apart else [packet]:
            for _ in scanner.feed(chunk):
                whole += 1
    except PacketTooLarge:
        assert not passes
        assert scanner.buffered <= 2
    assert whole == passes


def test_the_limit_may_change_between_two_packets_of_one_chunk():
    scanner = FrameScanner(4)
    frames = scanner.feed(b"\xc0\x00\x30\x03abc")
    next(frames)
    scanner.limit = 5
    assert next(frames).packet == b"\x30\x03abc"


def test_a_packet_that_comes_byte_by_byte_takes_no_more_memory_than_itself_and_linear_time():
    def drip(size: int) -> float:
        packet = b"\x30" + encode_length(size) + b"x" * size
        scanner = FrameScanner(LIMIT)
        chunks = [packet[i : i + 1] for i in range(len(packet))]
        start = time.perf_counter()
        frames = sum(len(list(scanner.feed(chunk))) for chunk in chunks)
        assert frames == 1
        return time.perf_counter() - start

    drip(1000)
    small, large = min(drip(20_000) for _ in range(3)), min(drip(160_000) for _ in range(3))
    assert large < small * 8 * 3, "8 times the bytes, and 3 for the noise; a quadratic one would take 64"

    scanner = FrameScanner(LIMIT)
    header = b"\x30" + encode_length(500_000)
    tracemalloc.start()
    try:
        list(scanner.feed(header))
        for _ in range(4000):
            list(scanner.feed(b"x" * 100))
        assert scanner.buffered == len(header) + 400_000
        assert tracemalloc.get_traced_memory()[1] < 2 * 500_000
    finally:
        tracemalloc.stop()


def test_many_packets_in_one_chunk_take_linear_time():
    def crowd(count: int) -> float:
        stream = b"\xc0\x00" * count
        start = time.perf_counter()
        assert sum(1 for _ in FrameScanner(LIMIT).feed(stream)) == count
        return time.perf_counter() - start

    crowd(1000)
    small, large = min(crowd(10_000) for _ in range(3)), min(crowd(80_000) for _ in range(3))
    assert large < small * 8 * 3


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_any_bytes_give_packets_or_a_malformed_packet_and_nothing_else(data, places):
    scanner = FrameScanner(300)
    try:
        for chunk in cut(data, places):
            for frame in scanner.feed(chunk):
                assert len(frame.packet) <= 300
                assert 2 <= frame.start <= 5
    except MalformedPacket:
        pass
    assert scanner.buffered <= 300
