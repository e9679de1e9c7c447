"""``HOST:PORT``, and sockets bound to it."""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

SOURCES: Final = 1000
"""Hosts whose source is remembered: a host's connections open and close one after the other."""

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Address(NamedTuple):
    """Where to listen, or where somebody listens. Port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``127.0.0.1:1883``, ``localhost:1883`` or ``[::1]:1883``; raises ValueError.

    >>> parse_address("[::1]:0")
    Address(host='::1', port=0)
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:1883")
    return Address(host, int(port))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``, a name or an IP address."""
    address = ip_of(host)
    return host == "localhost" if address is None else address.is_loopback


@lru_cache(maxsize=SOURCES)
def source_of(host: str) -> str | None:
    """Return the key that limits count a peer address under: the IPv4 address or the IPv6 /64.

    None for loopback, and for a socket that has closed.

    An IPv6 host has at least a whole /64 to itself, so it counts as that.

    >>> source_of("2001:db8::1:2:3:4"), source_of("::ffff:192.0.2.1"), source_of("::1")
    ('2001:db8::/64', '192.0.2.1', None)
    """
    address = ip_of(host)
    if address is None or address.is_loopback:
        return None  # a client that has reset the connection already has no address
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def ip_of(text: str) -> IpAddress | None:
    """Read an IP address; None: it is none. An IPv4 address in an IPv6 one is that, and a zone is left out.

    >>> ip_of("::ffff:192.0.2.1"), ip_of("fe80::1%eth0"), ip_of("unknown")
    (IPv4Address('192.0.2.1'), IPv6Address('fe80::1'), None)
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address if address.version == 4 else address.ipv4_mapped or address


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is no address or network, such as 127.0.0.1 or 10.0.0.0/8") from None


class Networks:
    """IP addresses that are named, alone or as networks.

    >>> named = Networks(["127.0.0.1", "10.0.0.0/8"])
    >>> "10.2.3.4" in named, "::ffff:10.2.3.4" in named, "192.0.2.1" in named
    (True, True, False)
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Raises ValueError, which says what is no network."""
        self._networks = tuple(map(_network, texts))

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __or__(self, other: Networks) -> Networks:
        both = Networks()
        both._networks = self._networks + other._networks
        return both

    def __contains__(self, host: str) -> bool:
        if not self._networks:
            return False
        address = ip_of(host)
        return address is not None and any(address in network for network in self._networks)


NO_NETWORKS: Final = Networks()


class Proxies(NamedTuple):
    """The proxies of a listener."""

    trusted: Networks = NO_NETWORKS
    """Those whose ``X-Forwarded-`` headers count."""
    speaking: Networks = NO_NETWORKS
    """Those whose connections begin with a PROXY header."""

    @property
    def named(self) -> Networks:
        """All of them: each may stand for any number of clients."""
        return self.trusted | self.speaking


NO_PROXIES: Final = Proxies()


def bind_tcp(address: Address) -> socket.socket:
    """Return a socket bound to ``address``, not listening yet; raises OSError.

    The connections that it accepts have its options: none waits for more to send, which
    costs 40 ms a round trip, and the system finds out about peers that are gone.
    """
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def bound_to(sock: socket.socket) -> Address:
    """The address that a socket is bound to."""
    host, port = sock.getsockname()[:2]
    return Address(host, port)
