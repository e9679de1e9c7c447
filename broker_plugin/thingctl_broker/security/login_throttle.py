"""Wrong passwords and tokens of clients: how many may be tried, from where and under which name.

Pure: the caller brings monotonic time.
"""

from __future__ import annotations

from typing import Final

from thingctl_broker.security.rate_limit import Rate, TokenBuckets
from thingctl_broker.system.addresses import source_of

OF_NAME: Final = Rate(per_second=0.5, burst=20)
"""Wrong tries under one user name from one address."""

OF_ADDRESS: Final = Rate(per_second=5.0, burst=100)
"""Wrong tries from one address, whatever the names."""

KNOWN_MAX: Final = 10_000
"""Tokens remembered with the addresses that they came from."""

_NAME_MAX: Final = 128
"""Characters of a user name that count: what is longer names nobody."""


class LoginThrottle:
    """Wrong tries: of each user name from an address, and of an address in all.

    A whole site may come from one address, and one device of it with a wrong password tries for
    ever: that uses up what its own name has from there, and a small part of what the address
    has, so the others still get in. Guessing many names uses up what the address has.

    Loopback has no limit of its own: a proxy there stands for a whole fleet. Each name keeps its own.
    """

    def __init__(self, of_name: Rate = OF_NAME, of_address: Rate = OF_ADDRESS) -> None:
        self._names = TokenBuckets(of_name)
        self._addresses = TokenBuckets(of_address)

    def allows(self, address: str, name: str, now: float) -> bool:
        """Whether that name may be tried from there."""
        source = source_of(address)
        if self._names.seconds_until_token(_key(source, name), now):
            return False
        return source is None or not self._addresses.seconds_until_token(source, now)

    def failed(self, address: str, name: str, now: float) -> None:
        """Count a wrong try."""
        source = source_of(address)
        self._names.take_token(_key(source, name), now)
        if source is not None:
            self._addresses.take_token(source, now)


class KnownCallers(dict[tuple[str, str], None]):
    """Names of tokens with an address that each came from: guessing from there does not lock these out."""

    def meet(self, name: str, address: str) -> None:
        """Remember one. Of too many, the one that was met first is forgotten."""
        if len(self) >= KNOWN_MAX:
            del self[next(iter(self))]
        self[name, address] = None


def _key(source: str | None, name: str) -> str:
    return f"{source} {name[:_NAME_MAX]}"
