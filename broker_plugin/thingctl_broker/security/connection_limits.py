"""How many connections one address may have, and how fast it may open them: over MQTT and over HTTP.

Pure: the caller brings the monotonic time. What counts as one address is decided in
:func:`~thingctl_broker.system.addresses.source_of`: an IPv4 address or an IPv6 /64. Loopback is
exempt: a client there is often a proxy or a tunnel that stands for a whole fleet. So are proxies
that the settings name.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from thingctl_broker.security.rate_limit import TokenBuckets
from thingctl_broker.system.addresses import NO_NETWORKS, source_of

if TYPE_CHECKING:
    from thingctl_broker.security.rate_limit import Rate
    from thingctl_broker.system.addresses import Networks

ADDRESSES_MAX: Final = 100_000
"""Addresses whose rate is remembered."""


class Rejection(StrEnum):
    """Why a connection is not accepted."""

    TOO_MANY = "connectionsPerAddress"
    TOO_FAST = "connectionRate"


class ConnectionLimiter:
    """Counts the open connections of each address, and holds the rate at which it opens them."""

    def __init__(self, per_address: int, rate: Rate, exempt: Networks = NO_NETWORKS) -> None:
        """``per_address``: connections open at once. ``rate``: of new ones. ``exempt``: proxies."""
        self._exempt = exempt
        self._per_address = per_address
        self._opened = TokenBuckets(rate, ADDRESSES_MAX)
        self._open: Counter[str] = Counter()

    def admit(self, host: str, now: float) -> Rejection | None:
        """Count a connection from ``host``; or return why it is not accepted, and count nothing."""
        source = self._source(host)
        if source is None:
            return None
        if self._open[source] >= self._per_address:
            return Rejection.TOO_MANY
        if self._opened.take_token(source, now):
            return Rejection.TOO_FAST
        self._open[source] += 1
        return None

    def release(self, host: str) -> None:
        """An admitted connection from ``host`` has closed."""
        source = self._source(host)
        if source is not None:
            self._open[source] -= 1
            if self._open[source] <= 0:
                del self._open[source]

    def _source(self, host: str) -> str | None:
        """What a connection counts under; None: it counts under nothing."""
        return None if host in self._exempt else source_of(host)
