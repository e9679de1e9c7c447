"""Names that can stand in topics, and ids that sort by creation."""

import re
import string
import uuid
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import (
    IdSource,
    check_action_name,
    check_thing_name,
    is_action_name,
    is_id,
    is_thing_name,
)

ALNUM = string.ascii_letters + string.digits
THING, ACTION = set(ALNUM + ":_.-"), set(ALNUM + ":_.-/")
MILLISECONDS = st.integers(0, 2**47)
ENTROPY = st.integers(0, 2**62 - 1)


@given(st.text(max_size=140) | st.text(sorted(ACTION), max_size=140))
@example("")
@example("a" * 128)
@example("a" * 129)
@example("t\n")
@example("thermostat-001\N{ARABIC-INDIC DIGIT ONE}")
def test_a_name_is_one_to_128_of_its_characters(text):
    in_bounds = 1 <= len(text) <= 128
    assert is_thing_name(text) == (in_bounds and set(text) <= THING)
    assert is_id(text) == is_thing_name(text)
    assert is_action_name(text) == (in_bounds and set(text) <= ACTION)


@pytest.mark.parametrize("check", [check_thing_name, check_action_name])
def test_a_good_name_is_given_back(check):
    assert check("device:42_a.b-c") == "device:42_a.b-c"


@pytest.mark.parametrize(
    ("check", "word"), [(check_thing_name, "name a thing"), (check_action_name, "name an action")]
)
def test_a_bad_name_is_shown_cut_and_escaped_with_its_pointer(check, word):
    with pytest.raises(ProtocolError, match=word) as caught:
        check("é\n\ud800" + "x" * 1000, "/here")
    assert caught.value.pointer == "/here"
    assert len(caught.value.text) < 250
    assert caught.value.text.isascii()
    assert caught.value.text.isprintable()


@given(st.lists(st.tuples(MILLISECONDS, ENTROPY), min_size=2, max_size=50))
def test_ids_strictly_increase_however_the_clock_steps(calls):
    source = IdSource()
    ids = [source.make(unix_ms, entropy) for unix_ms, entropy in calls]
    assert all(earlier < later for earlier, later in pairwise(ids))
    assert all(uuid.UUID(a) < uuid.UUID(b) for a, b in pairwise(ids))


def test_ids_increase_through_a_full_sequence_and_return_to_the_clock_after():
    source = IdSource()
    ids = [source.make(1000, 0) for _ in range(3 * 4096)]
    assert all(earlier < later for earlier, later in pairwise(ids))
    assert _millisecond(ids[4095]) == 1000
    assert _millisecond(ids[-1]) == 1002
    assert _millisecond(source.make(5000, 0)) == 5000


@given(MILLISECONDS, ENTROPY)
def test_an_id_is_a_uuid7_as_rfc_9562_lays_it_out(unix_ms, entropy):
    text = IdSource().make(unix_ms, entropy)
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert _millisecond(text) == unix_ms
    assert parsed.int & (2**62 - 1) == entropy
    assert is_id(text)


def test_more_random_bits_than_needed_spoil_nothing():
    parsed = uuid.UUID(IdSource().make(1, 2**80 - 1))
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


@given(MILLISECONDS, MILLISECONDS, ENTROPY, ENTROPY)
def test_a_new_source_continues_after_the_last_id_of_an_old_one(then, now, entropy, other):
    last = IdSource().make(then, entropy)
    source = IdSource()
    source.continue_after(last)
    assert source.make(now, other) > last


@pytest.mark.parametrize("count", [1, 2, 300, 4096, 5000])
def test_it_continues_within_the_same_millisecond_too(count):
    old, source = IdSource(), IdSource()
    last = [old.make(1000, 2**62 - 1) for _ in range(count)][-1]
    source.continue_after(last)
    following = source.make(1000, 0)
    assert following > last
    assert following == old.make(1000, 0), "and leaves no gap"


def test_continuing_after_an_older_id_takes_nothing_back():
    source = IdSource()
    newest = source.make(9000, 0)
    source.continue_after(IdSource().make(1000, 0))
    assert source.make(0, 0) > newest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0193",
        "thermostat-001",
        "0193448f-5d1c-4000-9b3c-0a1b2c3d4e5f",  # version 4
        "0193448f-5d1c-7000-cb3c-0a1b2c3d4e5f",  # another variant
        "0193448F-5D1C-7000-9B3C-0A1B2C3D4E5F",  # sorts differently
        "0193448f5d1c70009b3c0a1b2c3d4e5f",
        "0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f\n",
        "0193448f-5d1c-7000-9b3c-0a1b2c3d4ezz",
        "0_93448f-5d1c-7000-9b3c-0a1b2c3d4e5f",
        "+193448f-5d1c-7000-9b3c-0a1b2c3d4e5f",
        "\N{ARABIC-INDIC DIGIT ONE}193448f-5d1c-7000-9b3c-0a1b2c3d4e5f",
    ],
)
def test_continuing_after_what_is_no_uuid7_is_refused(text):
    with pytest.raises(ProtocolError, match="not a UUIDv7"):
        IdSource().continue_after(text)


def _millisecond(text):
    return int(re.sub("-", "", text)[:12], 16)
