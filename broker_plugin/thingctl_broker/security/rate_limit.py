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
    burst: int


class _Bucket:
    __slots__ = ("at", "left")

    def __init__(self, left: float, at: float) -> None:
        self.left = left
        self.at = at


class TokenBuckets:
    """A bucket for each key; all of one rate."""

    def __init__(self, rate: Rate, keys_max: int = KEYS_MAX) -> None:
        self._per_second, burst = rate
        self._burst = float(burst)
        self._keys_max = keys_max
        self._buckets: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float) -> float:
        """Take one: 0.0; or the seconds until there is one, and then nothing was taken."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._keys_max:
                self._forget(now)
            bucket = self._buckets[key] = _Bucket(self._burst, now)
        left = bucket.left + (now - bucket.at) * self._per_second
        bucket.at = now
        left = min(left, self._burst)
        if left < 1.0:
            bucket.left = left
            return (1.0 - left) / self._per_second
        bucket.left = left - 1.0
        return 0.0

    def put_back(self, key: str) -> None:
        """Put back the one that was taken last."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.left = min(self._burst, bucket.left + 1.0)

    def wait(self, key: str, now: float) -> float:
        """How many seconds until there is one to take; 0.0: there is."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else max(0.0, (1.0 - self._left(bucket, now)) / self._per_second)

    def _left(self, bucket: _Bucket, now: float) -> float:
        return min(self._burst, bucket.left + (now - bucket.at) * self._per_second)

    def _forget(self, now: float) -> None:
        """Make room: drop full buckets; if there are few of them, the fuller half of all.

        Half, so that a flood of new keys does not pay for a look at all of them each time.
        """
        kept = {key: bucket for key, bucket in self._buckets.items() if self._left(bucket, now) < self._burst}
        if len(kept) > self._keys_max // 2:
            emptiest = sorted(kept.items(), key=lambda item: self._left(item[1], now))
            kept = dict(emptiest[: self._keys_max // 2])
        self._buckets = kept
