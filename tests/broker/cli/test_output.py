"""What people read."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thingctl_broker.cli import output

PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.text())
@example("\x1b[2J\x9b31m\x07\x7f\u202e\u2028\ud800\U000e0041")
def test_clean_text_is_printable_and_tells_different_texts_apart(text):
    cleaned = output.clean(text)
    assert cleaned.isprintable()
    assert (cleaned == text) == text.isprintable()


@given(PLAIN_JSON)
@example("\x1b\x9b\x7f\u2028\U000e0041 grün 日本")
def test_json_is_printable_and_loses_nothing(value):
    shown = output.compact_json(value)
    assert shown.isprintable()
    assert json.loads(shown) == value


@given(PLAIN_JSON)
def test_printed_json_is_one_value_over_several_lines(value):
    shown = output._json(value, 2)
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == value


@given(st.lists(st.tuples(st.text("a日é\u0301", max_size=5), st.text("b", max_size=3)), min_size=1))
def test_columns_are_aligned(rows):
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", shown.append)
        output.print_table(("A", "B"), [(left, "|" + right) for left, right in rows])
    starts = {output._width(line[: line.index("|")]) for line in shown[1:]}
    assert len(starts) == 1


def test_colours_take_no_room(monkeypatch):
    monkeypatch.setattr(output, "_wants_colour", lambda _: True)
    assert output._width(output.coloured("SUCCEEDED")) == len("SUCCEEDED")
    assert output.coloured("SUCCEEDED") != "SUCCEEDED"
    assert output.coloured("\x1b[31mFAILED") == "\\x1b[31mFAILED"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.9994, "999 ms"),
        (1, "1 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.7, "1 h 0 min"),
        (3600, "1 h 0 min"),
        (7 * 24 * 3600, "168 h 0 min"),
        (None, ""),
        ("\x1b", ""),
        (-1, ""),
        (float("nan"), ""),
        (1e300, ""),
    ],
)
def test_durations(seconds, shown):
    assert output.duration(seconds) == shown


@given(st.text() | st.integers() | st.none())
def test_times_that_are_none_are_shown_as_they_are(text):
    for shown in (output.local_time(text), output.precise_time(text)):
        assert shown == output.clean(text) or re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown)


@given(
    st.dictionaries(st.sampled_from(["progress", "result", "statusReason", "retrySafe", "late"]), PLAIN_JSON)
)
def test_an_answer_of_another_shape_is_shown_all_the_same(fields):
    for name, value in output._outcome(fields):
        assert name.isprintable()
        assert value.isprintable()


def test_a_field_of_a_newer_broker_is_shown_in_words(capsys):
    output.print_execution(
        {
            "executionId": "e1",
            "status": "SENT",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "runWindow": {"from": 3},
        }
    )
    shown = capsys.readouterr().out
    assert re.search(r'^  run window \{"from":\s?3\}$', shown, re.MULTILINE), shown
    assert "created at" not in shown  # it has its place among the events
