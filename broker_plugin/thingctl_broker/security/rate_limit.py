"""Token buckets, one for each key: how often something may happen, and how much of it at once.

Pure: the caller brings monotonic time. Memory is bounded: of keys that were quiet for so
long that their bucket is full, nothing needs to be known.
"""

from __future__ import annotations

from typing import Final, NamedTuple

KEYS_MAX: Final = 10_000
"""Buckets held at once."""


class Rate(NamedTuple):
    """``per_second`` (above 0) in the long run, and ``burst`` (1 or more) after a quiet time."""

    per_second: float
    burst: float


ONCE_A_MINUTE: Final = Rate(1 / 60, 1)
"""For lines of the log that say the same."""


class TokenBucket:
    """What is left to take. Full holds the burst."""

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: Rate, now: float, left: float | None = None) -> None:
        """``left``: at the start; None: the burst."""
        self._rate = rate
        self._left = rate.burst if left is None else left
        self._at = now

    def refill(self, now: float) -> float:
        """What there is at ``now``."""
        left = self._left + (now - self._at) * self._rate.per_second
        self._left = left = min(left, self._rate.burst)
        self._at = now
        return left

    def take_token(self, now: float) -> float:
        """Take one: 0.0; or the seconds until there is one, and then nothing was taken."""
        left = self.refill(now)
        if left < 1.0:
            return (1.0 - left) / self._rate.per_second
        self._left = left - 1.0
        return 0.0

    def add_tokens(self, count: float) -> None:
        """Add tokens, up to the burst; a negative ``count`` removes them."""
        self._left = min(self._rate.burst, self._left + count)

    def seconds_until_token(self, now: float) -> float:
        """How many seconds until there is one to take; 0.0: there is."""
        return max(0.0, (1.0 - self.refill(now)) / self._rate.per_second)


class TokenBuckets:
    """A bucket for each key; all of one rate."""

    def __init__(self, rate: Rate, keys_max: int = KEYS_MAX) -> None:
        self._rate = rate
        self._keys_max = keys_max
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take_token(self, key: str, now: float) -> float:
        """Take one: 0.0; or the seconds until there is one, and then nothing was taken."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._keys_max:
                self._forget(now)
            bucket = self._buckets[key] = TokenBucket(self._rate, now)
        return bucket.take_token(now)

    def allows(self, key: str, now: float) -> bool:
        """Take one; False: there was none."""
        return not self.take_token(key, now)

    def put_back(self, key: str) -> None:
        """Put back the one that was taken last."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.add_tokens(1.0)

    def seconds_until_token(self, key: str, now: float) -> float:
        """How many seconds until there is one to take; 0.0: there is."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.seconds_until_token(now)

    def _forget(self, now: float) -> None:
        """Make room: drop full buckets; if there are few of them, the fuller half of all.

        Half, so that a flood of new keys does not pay for a look at all of them each time.
        """
        kept = {key: bucket for key, bucket in self._buckets.items() if bucket.refill(now) < self._rate.burst}
        if len(kept) > self._keys_max // 2:
            emptiest = sorted(kept.items(), key=lambda item: item[1].refill(now))
            kept = dict(emptiest[: self._keys_max // 2])
        self._buckets = kept
