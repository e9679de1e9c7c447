"""Bytes to records and back, whatever happened to the bytes."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thingctl_agent.core.history import Accepted, Answered, Cleared, Kept, Opened, Started
from thingctl_agent.runtime.journal_format import (
    HEADER_SECTORS,
    SECTOR,
    JournalIdentity,
    block,
    blocks,
    header,
    read_header,
    scan,
)

ids = st.text("abc-0123", min_size=1, max_size=20)
records = st.one_of(
    st.builds(Started, ids, st.integers(1, 3)),
    st.builds(Cleared, ids),
    st.builds(Answered, ids, st.floats(0, 2e9), st.binary(max_size=900)),
    st.builds(Kept, ids, st.binary(max_size=50)),
    st.builds(Opened, ids),
    st.builds(
        Accepted,
        ids,
        ids,
        st.binary(max_size=300),
        st.floats(0, 2e9),
        st.floats(1, 100),
        st.none() | st.floats(0, 9),
    ),
)
identities = st.builds(
    JournalIdentity, st.integers(1, 2**32 - 1), st.binary(min_size=8, max_size=8), st.integers(0, 2**32 - 1)
)
SIZE = 64 * SECTOR


def segment(identity, batches):
    return (header(identity) + b"".join(block(identity, batch) for batch in batches)).ljust(SIZE, b"\0")


@given(identities, st.lists(st.lists(records, min_size=1, max_size=3), max_size=8))
def test_what_was_written_is_read(identity, batches):
    whole = segment(identity, batches)
    result = scan(whole, read_header(whole))
    assert result.records == [r for batch in batches for r in batch]
    assert (result.damaged, result.torn) == (0, False)
    assert result.end == len(header(identity)) + sum(len(block(identity, b)) for b in batches)


@given(identities, st.lists(records, min_size=1, max_size=8), st.data())
def test_a_torn_tail_costs_only_the_last_record(identity, entries, data):
    pieces = [block(identity, [r]) for r in entries]
    cut = data.draw(st.integers(0, len(pieces[-1]) - 1))
    whole = header(identity) + b"".join(pieces[:-1]) + pieces[-1][:cut]
    result = scan(whole.ljust(SIZE, b"\0"), identity)
    assert result.damaged == 0
    assert result.records[: len(entries) - 1] == entries[:-1]
    assert result.records[len(entries) - 1 :] in ([], entries[-1:]), "all of it was there but the padding"
    assert result.torn or cut < 8 or len(result.records) == len(entries)


@settings(max_examples=300)
@given(identities, st.lists(records, min_size=1, max_size=8), st.data())
def test_one_flipped_bit_costs_at_most_one_record_and_never_makes_one_up(identity, entries, data):
    raw = header(identity) + b"".join(block(identity, [r]) for r in entries)
    used = [i for i, byte in enumerate(raw) if byte]  # flips in the padding would show nothing
    whole = bytearray(raw.ljust(SIZE, b"\0"))
    whole[data.draw(st.sampled_from(used))] ^= 1 << data.draw(st.integers(0, 7))
    assert read_header(bytes(whole)) == identity, "there are two copies"
    found = scan(bytes(whole), identity).records
    missing = list(entries)
    for record in found:
        missing.remove(record)
    assert len(missing) <= 1


@given(st.binary(max_size=4096))
@example(b"tcJ1" + bytes(60))
@example(b"tcJb" + bytes(60))
def test_any_bytes_are_read_without_an_error(raw):
    assert read_header(raw) is None
    scan(raw, JournalIdentity(1, bytes(8)))


def test_blocks_of_an_earlier_use_are_not_read():
    old, new = JournalIdentity(1, b"saltsalt"), JournalIdentity(2, b"saltsalt")
    left = segment(old, [[Cleared("x")]] * 5)
    mixed = header(new) + block(new, [Cleared("y")]) + left[(HEADER_SECTORS + 1) * SECTOR :]
    result = scan(mixed, new)
    assert result.records == [Cleared("y")]
    assert (result.damaged, result.torn) == (0, False)


def test_params_that_look_like_a_block_are_not_read_as_one():
    real, guessed = JournalIdentity(1, b"realsalt"), JournalIdentity(1, b"guessed!")
    forged = block(guessed, [Cleared("x")])

    def raw(padding):
        return block(real, [Accepted("e", "a", b"\0" * padding + forged, 1.0, 1.0, None)])

    aligned = raw(1000 + -raw(1000).index(forged) % SECTOR)
    assert aligned.index(forged) % SECTOR == 0
    whole = bytearray((header(real) + aligned).ljust(SIZE, b"\0"))
    whole[HEADER_SECTORS * SECTOR + 4] ^= 1
    assert scan(bytes(whole), real).records == []


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_snapshot_is_cut_into_blocks(count):
    entries = [Answered(f"e{i}", 1.0, b"x" * 200) for i in range(count)]
    identity = JournalIdentity(3, b"12345678")
    raw = blocks(identity, entries)
    result = scan(header(identity) + raw, identity)
    assert result.records == entries
    assert len(raw) < 260 * count + 3 * SECTOR + SECTOR
