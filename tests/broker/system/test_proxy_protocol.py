"""PROXY headers: read alike however they come, and nothing else taken for one."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.system.proxy_protocol import HEADER_MAX, Header, ProxyHeaderError, read_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes([192, 0, 2, 7, 192, 0, 2, 1]) + struct.pack("!HH", 40000, 1883)
V6 = ipaddress.ip_address("2001:db8::7").packed * 2 + struct.pack("!HH", 40000, 1883)


def binary(
    addresses: bytes = V4, family: int = 0x11, command: int = 0x21, length: int | None = None
) -> bytes:
    size = len(addresses) if length is None else length
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", size) + addresses


GOOD = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 1883\r\n", ("192.0.2.7", 40000)),
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 0 65535\r\n", ("192.0.2.7", 0)),
    (b"PROXY TCP6 2001:DB8::7 ::1 40000 1883\r\n", ("2001:db8::7", 40000)),
    (b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n", ("ffff:" * 7 + "ffff", 65535)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 anything at all\r\n", None),
    (binary(), ("192.0.2.7", 40000)),
    (binary(V6, 0x21), ("2001:db8::7", 40000)),
    (binary(V4 + b"\x04\x00\x03abc"), ("192.0.2.7", 40000)),
    (binary(V4 + b"x" * (HEADER_MAX - 28)), ("192.0.2.7", 40000)),
    (binary(b"", 0x00, 0x20), None),
    (binary(V4, 0x11, 0x20), None),
    (binary(b"", 0x00), None),
    (binary(b"x" * 216, 0x31), None),
]  # fmt: skip

MALFORMED = [
    b"PROXY TCP4 192.0.2.7 192.0.2.1 40000\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 1883 1\r\n",
    b"PROXY TCP4  192.0.2.7 192.0.2.1 40000 1883\r\n",
    b"PROXY TCP4 192.0.2.07 192.0.2.1 40000 1883\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.256 40000 1883\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 040000 1883\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 1883\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 1883\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 \xb2\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 40000 1883\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.1 40000 1883\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 40000 1883\r\n",
    b"PROXY TCP5 192.0.2.7 192.0.2.1 40000 1883\r\n",
    b"PROXY \r\n",
    b"PROXY unknown\r\n",
    b"PROXY UNKNOWN " + b"x" * 93,
    b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 1883\n" + b"x" * 70,
    binary(command=0x11),
    binary(command=0x22),
    binary(family=0x12),
    binary(family=0x01),
    binary(family=0x41),
    binary(V4[:-1]),
    binary(V4, 0x21),
    binary(V4, length=HEADER_MAX - 15),
]

MISSING = [
    b"\x16\x03\x01\x02\x00",
    b"\x10\x0c\x00\x04MQTT",
    b"GET / HTTP/1.1\r\n",
    b"PROXX",
    b"proxy ",
    b"\r\n\r\n\x01",
]


@pytest.mark.parametrize(("header", "peer"), GOOD)
@pytest.mark.parametrize("rest", [b"", b"\x10\x0c\x00\x04MQTT", b"PROXY UNKNOWN\r\n", b"\r\n"])
def test_a_header_ends_where_it_ends(header, peer, rest):
    assert read_header(header + rest) == Header(len(header), peer)


@pytest.mark.parametrize(("header", "peer"), GOOD)
def test_byte_by_byte_it_is_the_same(header, peer):
    assert [read_header(header[:size]) for size in range(len(header))] == [None] * len(header)
    assert read_header(header) == Header(len(header), peer)


@pytest.mark.parametrize("data", MALFORMED)
def test_what_is_wrong_is_refused(data):
    with pytest.raises(ProxyHeaderError) as fault:
        read_header(data)
    assert not fault.value.is_missing


@pytest.mark.parametrize("data", MISSING)
def test_what_does_not_begin_as_a_header_is_told_apart(data):
    with pytest.raises(ProxyHeaderError) as fault:
        read_header(data)
    assert fault.value.is_missing


def outcome(data: bytes) -> object:
    try:
        return read_header(data)
    except ProxyHeaderError as error:
        return error.is_missing


pieces = st.sampled_from([header for header, _ in GOOD] + MALFORMED + MISSING) | st.binary(max_size=40)


@given(pieces, pieces, st.data())
def test_more_bytes_change_no_outcome(first, second, data):
    """A header is found, or refused, by its first bytes alone; and no input goes on for ever."""
    whole = (first + second)[: data.draw(st.integers(0, len(first + second)))]
    outcomes = [outcome(whole[:size]) for size in range(len(whole) + 1)]
    decided = [found for found in outcomes if found is not None]
    assert len(set(decided)) <= 1
    assert outcomes[len(outcomes) - len(decided) :] == decided
    assert decided or len(whole) < HEADER_MAX


@given(
    st.ip_addresses(), st.integers(0, 65535), st.booleans(), st.binary(max_size=50),
    st.tuples(st.integers(0, 20), st.integers(0, 255)),
)  # fmt: skip
def test_what_is_written_is_read(address, port, is_binary, tlvs, damage):
    if is_binary:
        addresses = address.packed * 2 + struct.pack("!HH", port, 1)
        header = binary(addresses + tlvs, 0x11 if address.version == 4 else 0x21)
    else:
        header = f"PROXY TCP{address.version} {address} {address} {port} 1\r\n".encode()
    assert read_header(header + tlvs) == Header(len(header), (str(address), port))
    damaged = bytearray(header)
    damaged[damage[0] % len(damaged)] = damage[1]
    outcome(bytes(damaged))  # and nothing else is raised
