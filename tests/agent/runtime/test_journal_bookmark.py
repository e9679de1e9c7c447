"""The bookmark: written and read again, and what it says of a journal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_agent.runtime.journal_bookmark import SIZE, Bookmark, decode


@given(
    st.sampled_from(["", "boot-1", "0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f"]),
    st.integers(0, 2**32),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
)
def test_what_is_written_is_read_again(boot_id, generation, end, flushed):
    mark = Bookmark(boot_id, generation, end, flushed)
    assert len(mark.encode()) == SIZE
    assert decode(mark.encode()) == mark


@given(st.binary(max_size=200))
def test_anything_else_is_no_bookmark(raw):
    assert decode(raw) is None


@pytest.mark.parametrize(
    ("boot_id", "generation", "end", "lacks"),
    [
        ("boot-1", 5, 4096, ""),
        ("boot-1", 5, 3584, "the last 512 bytes cannot be read"),
        ("boot-2", 5, 3584, ""),
        ("boot-2", 5, 1024, "the last 2560 bytes cannot be read"),
        ("", 5, 3584, ""),
        ("boot-1", 4, 9999, "its newest part cannot be read"),
        ("boot-1", 6, 1024, ""),
    ],
)
def test_what_a_journal_lacks(boot_id, generation, end, lacks):
    assert Bookmark("boot-1", 5, 4096, 3584).missing(boot_id, generation, end) == lacks
