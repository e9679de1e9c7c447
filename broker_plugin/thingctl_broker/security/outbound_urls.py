"""Where a post of ours may go, and how its URL may be shown. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

URI_MAX: Final = 2048
"""Characters of a URI."""


def printable_target(uri: str) -> str:
    """A URI as it may stand in a log: what its query holds is often a secret.

    >>> printable_target("https://hooks.example/a?token=x"), printable_target("https://hooks.example/a")
    ('https://hooks.example/a?…', 'https://hooks.example/a')
    """
    path, mark, _ = uri.partition("?")
    return f"{path}?…" if mark else path


def check_uri(uri: str) -> str:
    """Return ``uri`` if a post can go there; raises ValueError in words."""
    if len(uri) > URI_MAX or not uri.isascii() or not uri.isprintable() or " " in uri:
        raise ValueError(f"not a URI of at most {URI_MAX} characters")
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not an http or https URI")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("a URI without user name, password and fragment is needed")
    if parts.port == 0:
        raise ValueError("port 0 is none")
    return uri


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, whatever it is wrapped in.

    >>> [is_public(a) for a in ("8.8.8.8", "127.0.0.1", "10.1.2.3", "::ffff:192.168.0.1", "169.254.169.254")]
    [True, False, False, False, False]
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip in _NAT64:
            ip = IPv4Address(int(ip) & 0xFFFF_FFFF)
        else:
            inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
            ip = inner if inner is not None else ip
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class _Nat64:
    """``64:ff9b::/96`` (RFC 6052), which carries an IPv4 address in its last 32 bits."""

    _PREFIX: Final = int(IPv6Address("64:ff9b::")) >> 32

    def __contains__(self, ip: IPv6Address) -> bool:
        return int(ip) >> 32 == self._PREFIX


_NAT64: Final = _Nat64()
