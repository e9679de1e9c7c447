"""What a trusted proxy says of a request: who sent it, and under which address.

Of the headers ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Prefix``. A proxy appends to them, so
what the nearest one wrote stands last, and what stands before may be the client's own invention.
RFC 7239's ``Forwarded`` is not read: whichever of the two families a proxy does not write, a client
could.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from thingctl_broker.system.addresses import ip_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thingctl_broker.system.addresses import Networks

HOPS_MAX: Final = 32
"""Addresses of one request that are looked at, from the nearest on."""

_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+){1,16}")
_PREFIX_MAX: Final = 200
_SCHEMES: Final = frozenset({"http", "https"})


class Forwarded(NamedTuple):
    """What is known of a request behind a proxy; empty: it is not told."""

    client: str
    """The nearest address that is no trusted proxy's."""
    scheme: str = ""
    host: str = ""
    prefix: str = ""
    """The path under which the proxy serves the API, without a slash at its end."""


def read_forwarded(headers: Iterable[tuple[bytes, bytes]], peer: str, trusted: Networks) -> Forwarded:
    """Read the headers of a request that came from ``peer``, a trusted proxy. Names are in lower case."""
    told: dict[bytes, str] = {}
    for name, value in headers:
        if name.startswith(b"x-forwarded-"):
            before = f"{told[name]}," if name in told else ""
            told[name] = before + value.decode("latin-1")
    scheme = _last(told, b"x-forwarded-proto").lower()
    host = _last(told, b"x-forwarded-host")
    prefix = _last(told, b"x-forwarded-prefix").rstrip("/")
    return Forwarded(
        _client(told.get(b"x-forwarded-for", ""), peer, trusted),
        scheme if scheme in _SCHEMES else "",
        host if _HOST.fullmatch(host) else "",
        prefix if len(prefix) <= _PREFIX_MAX and _PREFIX.fullmatch(prefix) else "",
    )


def _client(told: str, peer: str, trusted: Networks) -> str:
    """Walk from the nearest address outwards for as long as trusted proxies vouch for the next one."""
    client = peer
    for entry in reversed(told.rsplit(",", HOPS_MAX)[-HOPS_MAX:]):
        address = ip_of(_without_port(entry.strip()))
        if address is None:
            return client
        client = str(address)
        if client not in trusted:
            return client
    return client


def _without_port(entry: str) -> str:
    """The address of ``192.0.2.7``, ``192.0.2.7:4711``, ``2001:db8::7``, ``[2001:db8::7]:4711``."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def _last(told: dict[bytes, str], name: bytes) -> str:
    return told.get(name, "").rpartition(",")[2].strip()
