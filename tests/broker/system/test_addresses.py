"""``HOST:PORT``, as people write it."""

from __future__ import annotations

import socket

import pytest

from thingctl_broker.system.addresses import Address, Networks, bind_tcp, bound_to, is_loopback, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1883", Address("127.0.0.1", 1883)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65535)),
        ("broker.example:8883", Address("broker.example", 8883)),
    ],
)
def test_an_address_is_read_and_written_alike(text, address):
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "1883", ":1883", "localhost", "localhost:", "localhost:x", "localhost:-1", "localhost:65536",
        "localhost:1 ", "localhost:\u0661", "::1:1883", "[]:1883", "localhost:1:2",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="HOST:PORT, such as"):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
        ("loopback", False),
    ],
)
def test_only_this_machine_is_loopback(host, loopback):
    assert is_loopback(host) is loopback


def test_port_0_is_any_free_one_and_it_can_be_told():
    sock = bind_tcp(Address("127.0.0.1", 0))
    with sock:
        address = bound_to(sock)
        assert address.host == "127.0.0.1"
        assert address.port > 0
        assert sock.gettimeout() == 0


def test_what_is_accepted_does_not_wait_and_is_looked_after():
    with bind_tcp(Address("127.0.0.1", 0)) as sock:
        sock.listen()
        with socket.create_connection(sock.getsockname()):
            accepted, _ = sock.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_taken_port_is_refused_and_nothing_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        bind_tcp(bound_to(taken))


def test_a_name_that_does_not_exist_is_an_os_error():
    with pytest.raises(OSError):
        bind_tcp(Address("no-such-host.invalid", 1))


def test_networks_hold_the_addresses_in_them_however_they_are_written():
    named = Networks(["10.0.0.0/8", "::1"]) | Networks(["2001:db8::/32"])
    inside = ["10.255.0.1", "::ffff:10.0.0.1", "::1", "0:0::1", "2001:DB8:ffff::", "2001:db8::1%eth0"]
    assert all(host in named for host in inside)
    assert not any(host in named for host in ["11.0.0.1", "::2", "2001:db9::", "", "localhost"])
    assert not Networks()
    assert "127.0.0.1" not in Networks()


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "::1/129", "1"])
def test_what_is_no_network_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"no address or network, such as 127\.0\.0\.1 or 10\.0\.0\.0/8"):
        Networks([text])
