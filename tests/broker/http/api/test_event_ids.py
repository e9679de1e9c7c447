"""Ids of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.http.api.event_ids import LENGTH, EventIds

IDS = EventIds()


@given(st.integers(0, 2**64 - 1))
def test_an_id_leads_back_to_its_position(position):
    made = IDS.encode(position).decode()
    assert len(made) == LENGTH
    assert IDS.decode(made) == position


def test_ids_tell_neither_order_nor_distance_nor_that_nothing_has_happened():
    made = {IDS.encode(7) for _ in range(100)}
    assert len(made) == 100


@given(st.integers(0, LENGTH - 1), st.sampled_from("aB3-_"))
def test_an_id_that_was_changed_is_none(place, letter):
    made = IDS.encode(7).decode()
    changed = made[:place] + letter + made[place + 1 :]
    assert changed == made or IDS.decode(changed) is None


@pytest.mark.parametrize("name", ["", "e7-12", "x" * LENGTH, "é" * LENGTH, "\x00" * LENGTH, "1" * 5000])
def test_any_other_text_is_no_id(name):
    assert IDS.decode(name) is None


def test_an_id_of_another_process_is_none():
    assert EventIds().decode(IDS.encode(7).decode()) is None
