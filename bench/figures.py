"""The statistics of the benchmarks: percentiles, medians of repeats, and what is said of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

QUANTILES: Final = {"p50": 0.50, "p99": 0.99, "p99.9": 0.999}


def percentile(ascending: Sequence[float], quantile: float) -> float:
    """The smallest value that at least ``quantile`` of all values do not exceed (nearest rank).

    >>> percentile([1, 2, 3, 4], 0.5), percentile([1, 2, 3, 4], 0.99)
    (2, 4)
    """
    if not ascending:
        raise ValueError("no values")
    return ascending[max(0, math.ceil(quantile * len(ascending)) - 1)]


def latencies(nanoseconds: Iterable[int]) -> dict[str, float]:
    """p50, p99, p99.9 and the maximum in milliseconds; empty when there are no values.

    Every value counts: with fewer than 1,000 of them, p99.9 is the maximum.
    """
    ascending = sorted(nanoseconds)
    if not ascending:
        return {}
    found = {name: percentile(ascending, quantile) / 1e6 for name, quantile in QUANTILES.items()}
    return {name: round(value, 4) for name, value in (*found.items(), ("max", ascending[-1] / 1e6))}


class Median(NamedTuple):
    """The middle of repeated runs, and how far they lay apart."""

    middle: float
    least: float
    most: float
    runs: int


def median(values: Iterable[float]) -> Median:
    """The median (of an even number: the mean of the middle two) with the range.

    >>> median([3.0, 1.0, 2.0])
    Median(middle=2.0, least=1.0, most=3.0, runs=3)
    """
    ascending = sorted(values)
    if not ascending:
        raise ValueError("no values")
    half, odd = divmod(len(ascending), 2)
    middle = ascending[half] if odd else (ascending[half - 1] + ascending[half]) / 2
    return Median(middle, ascending[0], ascending[-1], len(ascending))


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times theirs ours is; None when either is missing."""
    return None if not ours or not theirs else ours / theirs
