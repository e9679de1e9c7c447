from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import figures


def test_percentiles_are_nearest_rank() -> None:
    values = list(range(1, 1001))
    assert figures.percentile(values, 0.50) == 500
    assert figures.percentile(values, 0.99) == 990
    assert figures.percentile(values, 0.999) == 999
    assert figures.percentile([7], 0.5) == figures.percentile([7], 0.999) == 7


@given(st.lists(st.integers(0, 10**12), min_size=1), st.floats(0.001, 1))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values: list[int], quantile: float) -> None:
    found = figures.percentile(sorted(values), quantile)
    assert found in values
    assert sum(value <= found for value in values) >= quantile * len(values) - 1e-9
    assert sum(value < found for value in values) < quantile * len(values) + 1e-9


def test_latencies_are_milliseconds_in_any_order_and_nothing_of_nothing() -> None:
    values = [n * 1_000_000 for n in range(1, 1001)]
    random.Random(1).shuffle(values)
    assert figures.latencies(values) == {"p50": 500, "p99": 990, "p99.9": 999, "max": 1000}
    assert figures.latencies([]) == {}


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    assert figures.median([4.0, 1.0, 3.0, 2.0]) == figures.Median(2.5, 1.0, 4.0, 4)


def test_nothing_has_no_median_and_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        figures.median([])
    with pytest.raises(ValueError, match="no values"):
        figures.percentile([], 0.5)


def test_a_ratio_to_what_was_not_measured_is_none() -> None:
    assert figures.ratio(3.0, 2.0) == 1.5
    assert figures.ratio(3.0, None) is None
    assert figures.ratio(None, 2.0) is None
    assert figures.ratio(1.0, 0.0) is None
