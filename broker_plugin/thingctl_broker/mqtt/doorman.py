"""How many connections one address may have, and how fast it may open them.

Pure: the caller brings the monotonic time. Loopback is exempt: whatever connects from
there is on this machine, often a proxy or a tunnel that stands for a whole fleet.
"""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from thingctl_broker.mqtt.limits import FrontLimits

ADDRESSES_MAX: Final = 100_000
"""Addresses remembered for the rate; beyond that those who are long quiet are forgotten."""


class Turned(StrEnum):
    """Why a connection is turned away."""

    TOO_MANY = "connectionsPerAddress"
    TOO_FAST = "connectionRate"


class _Address:
    __slots__ = ("at", "open", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.open = 0
        self.tokens = tokens
        self.at = at


class Doorman:
    """Counts connections by address; a token bucket for each holds their rate."""

    def __init__(self, limits: FrontLimits) -> None:
        self._open_max = limits.connections_per_address
        self._rate = limits.connection_rate
        self._burst = max(1.0, limits.connection_burst)
        self._addresses: dict[str, _Address] = {}

    def turns_away(self, host: str, now: float) -> Turned | None:
        """Count a connection in; or say why it may not come in, and count nothing."""
        if _is_loopback(host):
            return None
        address = self._addresses.get(host)
        if address is None:
            if len(self._addresses) >= ADDRESSES_MAX:
                self._forget_the_quiet(now)
            address = self._addresses[host] = _Address(self._burst, now)
        if address.open >= self._open_max:
            return Turned.TOO_MANY
        address.tokens = min(self._burst, address.tokens + (now - address.at) * self._rate)
        address.at = now
        if address.tokens < 1:
            return Turned.TOO_FAST
        address.tokens -= 1
        address.open += 1
        return None

    def left(self, host: str) -> None:
        """A connection that was counted in is gone."""
        address = self._addresses.get(host)
        if address is not None:
            address.open -= 1

    def _forget_the_quiet(self, now: float) -> None:
        # Those without a connection whose bucket has filled up again: nothing is known of them.
        full_after = self._burst / self._rate
        self._addresses = {
            host: address
            for host, address in self._addresses.items()
            if address.open or now - address.at < full_after
        }


def _is_loopback(host: str) -> bool:
    if host.startswith("127.") or host == "::1":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return not host  # a client that has reset the connection already has no address
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)
